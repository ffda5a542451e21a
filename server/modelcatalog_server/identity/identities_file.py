"""The identities file: TOML with the tokens and certificates that a server knows, every mistake of it told at once."""

from __future__ import annotations

import math
import stat
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import structlog
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from modelcatalog_server.domain.identity import Principal, Role
from modelcatalog_server.identity.following import BadFileError, read_file
from modelcatalog_server.identity.identities import MAX_CERTIFICATE_NAME, Identities, KnownCertificate, KnownToken

_log = structlog.get_logger(__name__)

_MAX_BYTES = 8 * 1024 * 1024


def _check_name(value: str) -> str:
    if not value.isprintable() or value != value.strip():
        raise ValueError("must be printable, without space around it")
    return value


#: What a principal is called in logs and audit entries.
Name = Annotated[str, StringConstraints(min_length=1, max_length=128), AfterValidator(_check_name)]
TokenId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
RoleName = Literal["reader", "operator", "admin"]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


class TokenEntry(_Entry):
    """One of ``[[tokens]]``. ``sha256`` is of the whole token, in hexadecimal."""

    id: TokenId
    principal: Name
    role: RoleName
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    created: AwareDatetime | None = None
    expires: AwareDatetime | None = None


class CertificateEntry(_Entry):
    """One of ``[[certificates]]``."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=MAX_CERTIFICATE_NAME), AfterValidator(_check_name)]
    principal: Name | None = None
    role: RoleName


class Document(_Entry):
    """The whole file."""

    tokens: list[TokenEntry] = Field(default_factory=list)
    certificates: list[CertificateEntry] = Field(default_factory=list)


def read_identities(path: Path) -> Identities:
    """Return what a file says.

    Raises:
        BadFileError: it cannot be read, or has mistakes, all of which are named.
    """
    document = parse_document(path, read_text(path))
    if path.stat().st_mode & stat.S_IROTH:
        _log.warning("everybody on this machine can read who may call: chmod o= the file", file=str(path))
    return Identities(
        map(_to_token, document.tokens), {each.name: _to_certificate(each) for each in document.certificates}
    )


def read_text(path: Path) -> str:
    """Return a file as text.

    Raises:
        BadFileError: it cannot be read, or is far too large.
    """
    content = read_file(path, _MAX_BYTES)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise BadFileError(f"{path}: is not UTF-8") from error


def parse_document(path: Path, text: str) -> Document:
    """Return the entries of a file.

    Raises:
        BadFileError: it has mistakes.
    """
    try:
        document = Document(**tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise BadFileError(f"{path}: {error}") from error
    except ValidationError as error:
        raise BadFileError(f"{path}: " + "; ".join(map(_describe, error.errors()))) from error
    if mistakes := list(_repetitions(document)):
        raise BadFileError(f"{path}: " + "; ".join(mistakes))
    return document


def _describe(error: Any) -> str:
    table, *where = error["loc"]
    number = f"[{where[0] + 1}]" if where else ""  # as people count
    field = "".join(f".{part}" for part in where[1:])
    return f"{table}{number}{field}: {error['msg'].removeprefix('Value error, ')}"


def _repetitions(document: Document) -> Iterator[str]:
    """Yield what stands there twice, where one of the two would be the one that counts."""
    columns = {
        "id": [token.id for token in document.tokens],
        "sha256": [token.sha256 for token in document.tokens],
        "name": [certificate.name for certificate in document.certificates],
    }
    for field, values in columns.items():
        table = "certificates" if field == "name" else "tokens"
        first: dict[str, int] = {}
        for number, value in enumerate(values, start=1):
            if first.setdefault(value, number) != number:
                yield f"{table}[{number}].{field}: is that of {table}[{first[value]}] too"


def _to_token(entry: TokenEntry) -> KnownToken:
    expires_at = entry.expires.timestamp() if entry.expires else math.inf
    return KnownToken(bytes.fromhex(entry.sha256), Principal(entry.principal, Role[entry.role.upper()]), expires_at)


def _to_certificate(entry: CertificateEntry) -> KnownCertificate:
    return KnownCertificate(Role[entry.role.upper()], entry.principal)
