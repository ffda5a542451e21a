"""One row of an answer, or all of them."""

from __future__ import annotations

from typing import Any

from psycopg.rows import DictRow

from modelcatalog_server.storage.composition import Statement
from modelcatalog_server.storage.pools import Statements


async def require_one(connection: Statements, statement: Statement, **parameters: Any) -> DictRow:
    """Return the row of a statement that always gives one."""
    row = await (await connection.execute(statement, parameters)).fetchone()
    assert row is not None, "the statement always gives one row"  # noqa: S101 - a broken invariant, not a check
    return row


async def fetch_one(connection: Statements, statement: Statement, **parameters: Any) -> DictRow | None:
    """Return the first row, ``None`` when there is none."""
    return await (await connection.execute(statement, parameters)).fetchone()


async def fetch_all(connection: Statements, statement: Statement, **parameters: Any) -> list[DictRow]:
    """Return all rows."""
    return await (await connection.execute(statement, parameters)).fetchall()
