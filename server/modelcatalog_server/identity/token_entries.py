"""Tokens made, listed and taken out of the identities file, whose other text stays as people wrote it."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from modelcatalog_server.identity.following import BadFileError
from modelcatalog_server.identity.identities import digest_of
from modelcatalog_server.identity.identities_file import Document, TokenEntry, parse_document, read_text

#: What every token begins with, so that scanners for leaked secrets can tell it.
PREFIX = "mcat_"
_SECRET_BYTES = 32

_HEADER = re.compile(r"^\s*\[\[?\s*(?P<name>[^\]]*?)\s*\]", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token that was made: the one time that it can be seen."""

    entry: TokenEntry
    token: str = field(repr=False)


def list_tokens(path: Path) -> list[TokenEntry]:
    """Return the tokens of a file, in its order.

    Raises:
        BadFileError: it cannot be read or has mistakes.
    """
    return parse_document(path, read_text(path)).tokens


def create_token(path: Path, principal: str, role: str, *, created: datetime, expires: datetime | None) -> NewToken:
    """Make a token and append its entry to a file, which is made if there is none.

    Raises:
        BadFileError: the file has mistakes, or cannot be written; or there is no such principal's name.
    """
    token = PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
    values: dict[str, str | datetime | None] = {
        "id": secrets.token_hex(4),
        "principal": principal,
        "role": role,
        "sha256": digest_of(token).hex(),
        "created": created,
        "expires": expires,
    }
    with _editing(path) as edit:
        text = f"{edit.text.rstrip()}\n\n" if edit.text.strip() else ""
        edit.text = text + _to_toml(values)
        (entry,) = (each for each in edit.parse().tokens if each.id == values["id"])
    return NewToken(entry, token)


def revoke_token(path: Path, id_: str) -> TokenEntry | None:
    """Take a token out of a file; return it, ``None`` if there is none of that id.

    Raises:
        BadFileError: the file has mistakes, cannot be written, or is written so that it takes a person to do it.
    """
    with _editing(path) as edit:
        before = edit.parse()
        number, entry = next(((at, each) for at, each in enumerate(before.tokens) if each.id == id_), (0, None))
        if entry is None:
            return None
        edit.text = _without(edit.text, number)
        left = [each for each in before.tokens if each is not entry]
        if edit.parse() != before.model_copy(update={"tokens": left}):
            raise BadFileError(f"{path}: cannot be edited safely; take the entry {id_} out by hand")
    return entry


@dataclass
class _Edit:
    path: Path
    text: str

    def parse(self) -> Document:
        return parse_document(self.path, self.text)


@contextmanager
def _editing(path: Path) -> Iterator[_Edit]:
    """Yield the text of a file, and put what becomes of it in the file's place, unless something fails."""
    target = path.resolve()  # a link stays one
    try:
        with _locked(target.parent):
            edit = _Edit(path, read_text(target) if target.exists() else "")
            before = edit.text
            edit.parse()
            yield edit
            if edit.text != before:
                _replace(target, edit.text)
    except OSError as error:
        raise BadFileError(f"{path}: {error.strerror}") from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep out others who edit files of this folder: two at once would each drop what the other wrote."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _replace(target: Path, text: str) -> None:
    """Put a text in a file's place at once. Whoever could read it still can; a new one is for its owner alone."""
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)  # 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            with suppress(FileNotFoundError):
                status = target.stat()
                os.fchmod(file.fileno(), status.st_mode & 0o777)
                if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(file.fileno(), status.st_uid, status.st_gid)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _to_toml(values: dict[str, str | datetime | None]) -> str:
    lines = (f"{name} = {_to_value(value)}\n" for name, value in values.items() if value is not None)
    return "[[tokens]]\n" + "".join(lines)


def _to_value(value: str | datetime) -> str:
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds").replace("+00:00", "Z")
    return '"' + "".join(f"\\u{ord(each):04x}" if each < " " or each in '"\\\x7f' else each for each in value) + '"'


def _without(text: str, number: int) -> str:
    """Return the text without one of its ``[[tokens]]``. Comments right above the next table are that one's."""
    headers = list(_HEADER.finditer(text))
    position = [at for at, header in enumerate(headers) if header["name"] == "tokens"][number : number + 1]
    if not position:
        return text
    start = headers[position[0]].start()
    end = headers[position[0] + 1].start() if position[0] + 1 < len(headers) else len(text)
    lines = text[start:end].splitlines(keepends=True)
    while lines and (not lines[-1].strip() or lines[-1].lstrip().startswith("#")) and end < len(text):
        end -= len(lines.pop())
    return text[:start] + text[end:].lstrip("\n")
