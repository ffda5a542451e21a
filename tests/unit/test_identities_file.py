"""The identities file: what it may say, and that every mistake is named."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from identities import TOKENS, token_entry, write_identities
from modelcatalog_server.domain.identity import Principal, Role
from modelcatalog_server.identity.following import BadFileError
from modelcatalog_server.identity.identities import name_in_certificate
from modelcatalog_server.identity.identities_file import read_identities

DIGEST = sha256(b"mcat_token").hexdigest()
TOKEN = f'[[tokens]]\nid = "one"\nprincipal = "billing"\nrole = "reader"\nsha256 = "{DIGEST}"\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "identities.toml"


def mistakes(file: Path, text: str) -> list[str]:
    """Return what is wrong with a file of that text."""
    file.write_text(text)
    with pytest.raises(BadFileError) as caught:
        read_identities(file)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{file}: ")
    return line.removeprefix(f"{file}: ").split("; ")


def test_a_token_is_found_by_itself_alone(file: Path) -> None:
    known = read_identities(write_identities(file))
    assert known.find_by_token(TOKENS["operator"], now=0) == Principal("operator-person", Role.OPERATOR)
    for stranger in ("", "operator", TOKENS["operator"] + " ", TOKENS["operator"][:-1], "\udcff"):
        assert known.find_by_token(stranger, now=0) is None


def test_no_token_is_nobodys_although_it_has_a_digest(file: Path) -> None:
    known = read_identities(write_identities(file, token_entry("nobody", "", "admin")))
    assert known.find_by_token("", now=0) is None


def test_a_principal_may_have_several_tokens(file: Path) -> None:
    more = token_entry("reader", "mcat_second", "admin").replace('id = "reader"', 'id = "second"')
    known = read_identities(write_identities(file, more))
    assert known.find_by_token(TOKENS["reader"], now=0) == Principal("reader-person", Role.READER)
    assert known.find_by_token("mcat_second", now=0) == Principal("reader-person", Role.ADMIN)


def test_a_token_expires_at_its_time(file: Path) -> None:
    file.write_text(f"{TOKEN}expires = 1970-01-01T01:00:00+00:00\n")
    known = read_identities(file)
    assert known.find_by_token("mcat_token", now=3599.9)
    assert known.find_by_token("mcat_token", now=3600) is None


def test_the_first_name_with_an_entry_decides(file: Path) -> None:
    file.write_text(
        '[[certificates]]\nname = "b.example"\nprincipal = "b"\nrole = "admin"\n'
        '[[certificates]]\nname = "a.example"\nrole = "reader"\n'
    )
    known = read_identities(file)
    assert known.find_by_certificate(["x", "a.example", "b.example"]) == Principal("a.example", Role.READER)
    assert known.find_by_certificate(["b.example"]) == Principal("b", Role.ADMIN)
    assert known.find_by_certificate(["x"]) is None
    assert known.find_by_certificate([]) is None


def test_an_entry_may_hold_for_every_certificate_that_has_a_name(file: Path) -> None:
    file.write_text('[[certificates]]\nname = "*"\nrole = "reader"\n')
    known = read_identities(file)
    assert known.find_by_certificate(["x.example"]) == Principal("x.example", Role.READER)
    assert known.find_by_certificate([]) is None


def test_an_empty_file_knows_nobody(file: Path) -> None:
    file.write_text("")
    assert read_identities(file).find_by_token("", now=0) is None


def test_every_mistake_is_named(file: Path) -> None:
    said = mistakes(
        file,
        'token = 1\n[[tokens]]\nid = "a b"\nrole = "root"\nsha256 = "A"\nexpires = 2027-01-01\n'
        '[[certificates]]\nname = ""\nrole = "reader"\ncn = "x"\n',
    )
    places = [each.partition(": ")[0] for each in said]
    assert sorted(places) == sorted(
        [
            "token",
            "tokens[1].id",
            "tokens[1].principal",
            "tokens[1].role",
            "tokens[1].sha256",
            "tokens[1].expires",
            "certificates[1].name",
            "certificates[1].cn",
        ]
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (TOKEN + TOKEN, ["tokens[2].id: is that of tokens[1] too", "tokens[2].sha256: is that of tokens[1] too"]),
        (
            '[[certificates]]\nname = "a"\nrole = "reader"\n[[certificates]]\nname = "a"\nrole = "admin"\n',
            ["certificates[2].name: is that of certificates[1] too"],
        ),
        (
            TOKEN.replace('"billing"', '"bill\\ning"'),
            ["tokens[1].principal: must be printable, without space around it"],
        ),
        (f"{TOKEN}expires = 2027-01-01T00:00:00\n", ["tokens[1].expires: Input should have timezone info"]),
        ("[[tokens]\n", ["Expected ']]' at the end of an array declaration (at line 1, column 9)"]),
    ],
)
def test_what_is_wrong_is_said_with_its_place(file: Path, text: str, said: list[str]) -> None:
    assert mistakes(file, text) == said


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(BadFileError, match="nowhere: No such file or directory"):
        read_identities(tmp_path / "nowhere")
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff")
    with pytest.raises(BadFileError, match="binary: is not UTF-8"):
        read_identities(binary)


def test_a_pipe_is_no_file_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadFileError, match="is no file"):
        read_identities(tmp_path / "pipe")


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, False), (0o604, True)])
def test_a_file_that_everybody_can_read_is_a_warning(file: Path, mode: int, warned: bool) -> None:
    write_identities(file).chmod(mode)
    with capture_logs() as lines:
        read_identities(file)
    assert [line["log_level"] for line in lines] == (["warning"] if warned else [])


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (b"spiffe://corp.example/billing", "spiffe://corp.example/billing"),
        (b"a\n\x1b[31m\0b", "a\ufffd\ufffd[31m\ufffdb"),
        (b"\xff", "\ufffd"),
        (b"x" * 600, "x" * 513),
    ],
)
def test_a_name_in_a_certificate_can_stand_in_a_log(value: bytes, name: str) -> None:
    assert name_in_certificate(value) == name
