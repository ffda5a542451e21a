"""Tokens made in the identities file and taken out of it, which leave everything else as it is."""

from __future__ import annotations

import stat
import tomllib
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest

from modelcatalog_server.domain.identity import Principal, Role
from modelcatalog_server.identity.following import BadFileError
from modelcatalog_server.identity.identities_file import read_identities
from modelcatalog_server.identity.token_entries import NewToken, create_token, list_tokens, revoke_token

NOW = datetime(2027, 1, 4, 9, tzinfo=UTC)
OWN = """# Who may call. Ask the platform team.

[[certificates]]   # of the mesh
name = "spiffe://corp.example/billing"
role = "reader"

# Made by hand.
[[tokens]]
id = "by-hand"
principal = "batch"
role = "operator"
sha256 = "{digest}"

# The end."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "identities.toml"


def create(file: Path, principal: str = "billing", expires: datetime | None = None) -> NewToken:
    return create_token(file, principal, "reader", created=NOW, expires=expires)


def own_text() -> str:
    return OWN.format(digest="0" * 64)


def test_a_token_that_was_made_is_known(file: Path) -> None:
    made = create(file, expires=NOW + timedelta(days=1))
    identities = read_identities(file)
    assert identities.find_by_token(made.token, NOW.timestamp()) == Principal("billing", Role.READER)
    assert identities.find_by_token(made.token, NOW.timestamp() + 86_400) is None
    assert list_tokens(file) == [made.entry]


def test_a_token_is_256_random_bits_of_which_only_the_digest_is_kept(file: Path) -> None:
    made = [create(file) for _ in range(3)]
    assert len({each.token for each in made}) == 3
    assert {len(each.token) for each in made} == {len("mcat_") + 43}
    assert not any(each.token in file.read_text() for each in made)
    assert made[0].entry.sha256 == sha256(made[0].token.encode()).hexdigest()
    assert made[0].token not in repr(made[0])


def test_what_was_there_stays_as_it_was(file: Path) -> None:
    file.write_text(own_text())
    made = create(file)
    assert file.read_text().startswith(own_text())
    assert [entry.id for entry in list_tokens(file)] == ["by-hand", made.entry.id]


@pytest.mark.parametrize("name", ['o"ps', "back\\slash", "naïve ops", "x" * 128, "'", "#1", "a\u2028b"[:1] + "]"])
def test_a_name_comes_back_as_it_was_given(file: Path, name: str) -> None:
    create(file, name)
    assert [entry.principal for entry in list_tokens(file)] == [name]


@pytest.mark.parametrize("name", ["", " a", "a\nb", "a\x1bb", "x" * 129])
def test_a_name_that_logs_could_not_show_is_refused(file: Path, name: str) -> None:
    file.write_text(own_text())
    with pytest.raises(BadFileError, match="principal"):
        create(file, name)
    assert file.read_text() == own_text()


def test_a_revoked_token_is_gone_and_all_else_is_there(file: Path) -> None:
    file.write_text(own_text())
    made = [create(file, str(number)) for number in range(3)]
    revoked = revoke_token(file, made[1].entry.id)
    assert revoked == made[1].entry
    assert [entry.id for entry in list_tokens(file)] == ["by-hand", made[0].entry.id, made[2].entry.id]
    assert file.read_text().startswith(own_text())
    assert revoke_token(file, made[1].entry.id) is None


def test_comments_of_the_next_entry_stay(file: Path) -> None:
    file.write_text(own_text().replace("# The end.", '# Of the last.\n[[certificates]]\nname = "x"\nrole = "reader"\n'))
    before = tomllib.loads(file.read_text())
    assert revoke_token(file, "by-hand")
    assert "# Of the last.\n[[certificates]]" in file.read_text()
    assert "# Who may call." in file.read_text()
    assert tomllib.loads(file.read_text()) == {"certificates": before["certificates"]}


@pytest.mark.parametrize(
    "text",
    [
        f'tokens = [{{id = "one", principal = "a", role = "reader", sha256 = "{"0" * 64}"}}]\n',
        '[[tokens]]\nid = "one"\nprincipal = "a"\nrole = "reader"\nsha256 = """\\\n[[tokens]]"""\n',
    ],
)
def test_what_cannot_be_edited_safely_is_left_alone(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(BadFileError):
        revoke_token(file, "one")
    assert file.read_text() == text


def test_a_file_with_mistakes_is_left_alone(file: Path) -> None:
    file.write_text("[[tokens]]\n")
    with pytest.raises(BadFileError, match=r"tokens\[1\].id: Field required"):
        create(file)
    assert file.read_text() == "[[tokens]]\n"


def test_a_new_file_is_for_its_owner_alone_and_one_that_is_there_keeps_its_mode(file: Path) -> None:
    create(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o640)
    create(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert [path.name for path in file.parent.iterdir()] == [file.name], "nothing else is left"


def test_a_link_stays_one(file: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    file.symlink_to(tmp_path / "real" / "identities.toml")
    create(file)
    assert file.is_symlink()
    assert len(list_tokens(tmp_path / "real" / "identities.toml")) == 1


def test_of_many_at_once_none_is_lost(file: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: create(file, str(number)), range(40)))
    assert {entry.id for entry in list_tokens(file)} == {each.entry.id for each in made}
