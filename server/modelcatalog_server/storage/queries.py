"""Named statements out of ``sql/*.sql``, loaded once at import.

A statement begins at ``-- name: verb_object``, followed by a comment that describes it, and ends where the next begins.
"""

from __future__ import annotations

import re
from importlib import resources
from typing import Any, LiteralString, cast

from psycopg import sql

_NAME = re.compile(r"^-- name: ([a-z_]+)$", re.MULTILINE)


# Names by what statements begin with, which is their description: it stays with what is composed out of them.
_names: dict[str, str] = {}


def load(aggregate: str) -> dict[str, LiteralString]:
    """Return the statements of ``sql/<aggregate>.sql`` by name."""
    text = (resources.files(__package__) / "sql" / f"{aggregate}.sql").read_text()
    parts = _NAME.split(text)[1:]
    _names.update({_first_line(body): name for name, body in zip(parts[::2], parts[1::2], strict=True)})
    # The text ships with the package and nothing is ever put into it: as literal as a string in the source.
    return {name: cast("LiteralString", body.strip()) for name, body in zip(parts[::2], parts[1::2], strict=True)}


def name_of(query: Any) -> str:
    """Return the name of a statement, also where it was composed or put behind others; ``other`` if it has none."""
    parts = query if isinstance(query, sql.Composed) else (query,)
    for part in parts:
        text = part.as_string() if isinstance(part, sql.SQL) else part
        if isinstance(text, str) and (name := _names.get(_first_line(text))):
            return name
    return "other"


def _first_line(text: str) -> str:
    return text.lstrip().partition("\n")[0]
