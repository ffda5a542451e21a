"""``modelcatalog token``: make, list and revoke tokens. They work on the file that servers follow."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelcatalog_server.commands.terminal import Column, print_table, sanitize, say

if TYPE_CHECKING:
    from modelcatalog_server.identity.identities_file import TokenEntry

_NOT_THERE = 1
_BAD_FILE = 2

_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
_MAX_LIFE = timedelta(days=3650)
_EXIT_CODES = "Ends with 0; with 1 when there is no such token; with 2 when the arguments or the file are wrong."

_file = click.option(
    "--file",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="MODELCATALOG_TOKENS_FILE",
    required=True,
    help="The tokens file. [MODELCATALOG_TOKENS_FILE]",
)


def _parse_life(_context: click.Context, _option: click.Parameter, value: str | None) -> timedelta | None:
    if value is None:
        return None
    match = re.fullmatch(r"([1-9]\d{0,8})([mhd])", value, re.ASCII)
    life = int(match[1]) * _UNITS[match[2]] if match else None
    if life is None or life > _MAX_LIFE:
        raise click.BadParameter("must be like 30m, 12h or 90d, and at most 3650d")
    return life


@click.group(epilog=_EXIT_CODES)
def token() -> None:
    """Make, list and revoke the tokens that callers of a server are known by."""


@token.command("create")
@click.option("--principal", required=True, metavar="NAME", help="Who it is for: what logs and audit entries say.")
@click.option("--role", required=True, type=click.Choice(["reader", "operator", "admin"]), help="What it may do.")
@click.option("--expires-in", "life", callback=_parse_life, metavar="TIME", help="E.g. 90d, 12h, 30m. [default: never]")
@click.option("--json", "as_json", is_flag=True, help="Print the token and its entry as one JSON document.")
@_file
def token_create(path: Path, principal: str, role: str, life: timedelta | None, *, as_json: bool) -> None:
    """Make a token and print it, the only time that it can be seen.

    Servers that use the file take it within a second or two. The file is made if there is none.
    """
    from modelcatalog_server.identity.token_entries import create_token

    now = datetime.now(UTC).replace(microsecond=0)
    with _working_on_the_file():
        made = create_token(path, principal, role, created=now, expires=now + life if life else None)
    if as_json:
        from modelcatalog_server.commands.json_output import print_document

        print_document({**_to_document(made.entry, now), "token": made.token})
        return
    expiry = f"expires {_show(made.entry.expires)}" if made.entry.expires else "does not expire"
    say(f"token {made.entry.id} of {sanitize(principal)}, {role}, {expiry}; it is not shown again")
    click.echo(made.token)


@token.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document a line.")
@_file
def token_list(path: Path, *, as_json: bool) -> None:
    """List the tokens of the file, without anything that one could call with."""
    from modelcatalog_server.identity.token_entries import list_tokens

    with _working_on_the_file():
        entries = list_tokens(path)
    now = datetime.now(UTC)
    if as_json:
        from modelcatalog_server.commands.json_output import print_lines

        print_lines(_to_document(entry, now) for entry in entries)
        return
    columns = [Column(title) for title in ("id", "principal", "role", "created", "expires", "state")]
    print_table(columns, [_to_row(entry, now) for entry in entries])


@token.command("revoke")
@click.argument("id_", metavar="ID")
@_file
def token_revoke(path: Path, id_: str) -> None:
    """Take a token out of the file; servers that use it refuse the token within a second or two."""
    from modelcatalog_server.identity.token_entries import revoke_token

    with _working_on_the_file():
        entry = revoke_token(path, id_)
    if entry is None:
        say(f"no token has the id {sanitize(id_)}; `modelcatalog token list` has them all")
        sys.exit(_NOT_THERE)
    say(f"token {entry.id} of {entry.principal} is revoked")


@contextmanager
def _working_on_the_file() -> Iterator[None]:
    """End the command when the file cannot be used, having said why."""
    from modelcatalog_server.identity.following import BadFileError

    try:
        yield
    except BadFileError as error:
        say(sanitize(str(error)))
        sys.exit(_BAD_FILE)


def _to_document(entry: TokenEntry, now: datetime) -> dict[str, Any]:
    document = {
        "id": entry.id,
        "principal": entry.principal,
        "role": entry.role,
        "created": _show(entry.created),
        "expires": _show(entry.expires),
        "state": _state(entry, now),
    }
    return {name: value for name, value in document.items() if value}  # what is unknown is left out


def _to_row(entry: TokenEntry, now: datetime) -> list[str]:
    created, expires = _show(entry.created) or "unknown", _show(entry.expires) or "never"
    return [entry.id, entry.principal, entry.role, created, expires, _state(entry, now)]


def _state(entry: TokenEntry, now: datetime) -> str:
    return "expired" if entry.expires and entry.expires <= now else "active"


def _show(time: datetime | None) -> str:
    return time.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z") if time else ""
