import os
import pwd
from pathlib import Path

import pytest

from modelcatalog_server.domain.errors import StartupError
from modelcatalog_server.embedded import default_data_dir
from modelcatalog_server.embedded.account import Account
from modelcatalog_server.embedded.directory import _fits


@pytest.fixture
def ordinary_user(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/ada")
    return monkeypatch


def test_root_keeps_its_data_in_var_lib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_data_dir() == Path("/var/lib/modelcatalog")


def test_a_user_keeps_data_in_the_xdg_data_directory(ordinary_user: pytest.MonkeyPatch) -> None:
    ordinary_user.setenv("XDG_DATA_HOME", "/data/ada")
    assert default_data_dir() == Path("/data/ada/modelcatalog")


@pytest.mark.parametrize("value", ["", "relative/path"])
def test_an_xdg_data_directory_that_is_not_absolute_is_ignored(ordinary_user: pytest.MonkeyPatch, value: str) -> None:
    ordinary_user.setenv("XDG_DATA_HOME", value)
    assert default_data_dir() == Path("/home/ada/.local/share/modelcatalog")


@pytest.mark.parametrize("home", [None, ""])
def test_without_home_the_user_database_is_asked(ordinary_user: pytest.MonkeyPatch, home: str | None) -> None:
    if home is None:
        ordinary_user.delenv("HOME")
    else:
        ordinary_user.setenv("HOME", home)
    expected = Path(pwd.getpwuid(65534).pw_dir) / ".local/share/modelcatalog"
    assert default_data_dir() == expected


def test_a_user_without_any_home_is_told_what_to_set(ordinary_user: pytest.MonkeyPatch) -> None:
    ordinary_user.setenv("HOME", "")
    ordinary_user.setattr(os, "geteuid", lambda: 4_000_000)
    with pytest.raises(StartupError, match=r"user 4000000 has no home directory .* set MODELCATALOG_DATA_DIR"):
        default_data_dir()


@pytest.mark.parametrize(
    ("path", "fits"),
    [
        ("/var/lib/modelcatalog/run", True),
        ("/" + "a" * 92, True),  # 93 + len("/.s.PGSQL.5432") == 107
        ("/" + "a" * 93, False),
        ("/home/ada/my data/run", False),  # would need quoting in the URLs
        ("/home/ada/a,b/run", False),  # libpq would see two hosts
        ("/home/adä/run", False),
    ],
)
def test_sockets_live_where_every_client_can_address_them(path: str, fits: bool) -> None:
    assert _fits(Path(path)) is fits


@pytest.mark.parametrize(
    ("uid_off", "gid_off", "mode", "allowed"),
    [
        (0, 0, 0o100, True),
        (0, 0, 0o011, False),  # the owner's bits decide for the owner, even when others may
        (1, 0, 0o010, True),
        (1, 0, 0o101, False),
        (1, 1, 0o001, True),
        (1, 1, 0o110, False),
    ],
)
def test_permission_is_decided_by_the_first_class_that_matches(
    tmp_path: Path, uid_off: int, gid_off: int, mode: int, allowed: bool
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(mode)
    owner = folder.stat()
    account = Account(owner.st_uid + uid_off, owner.st_gid + gid_off, "ada", dropped=True)
    assert account.allows(folder, 1) is allowed
