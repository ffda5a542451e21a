"""Named statements out of ``sql/*.sql``, loaded once at import.

A statement begins at ``-- name: verb_object``, followed by a comment that describes it, and ends where the next begins.
"""

from __future__ import annotations

import re
from importlib import resources
from typing import LiteralString, cast

_NAME = re.compile(r"^-- name: ([a-z_]+)$", re.MULTILINE)


def load(aggregate: str) -> dict[str, LiteralString]:
    """Return the statements of ``sql/<aggregate>.sql`` by name."""
    text = (resources.files(__package__) / "sql" / f"{aggregate}.sql").read_text()
    parts = _NAME.split(text)[1:]
    # The text ships with the package and nothing is ever put into it: as literal as a string in the source.
    return {name: cast("LiteralString", body.strip()) for name, body in zip(parts[::2], parts[1::2], strict=True)}
