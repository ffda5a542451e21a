"""One row of an answer, or all of them."""

from __future__ import annotations

from typing import Any

from psycopg.rows import DictRow

from modelcatalog_server.storage.composition import Statement
from modelcatalog_server.storage.pools import Connection


async def fetch_one(connection: Connection, statement: Statement, **parameters: Any) -> DictRow | None:
    """Return the first row, ``None`` when there is none."""
    return await (await connection.execute(statement, parameters)).fetchone()


async def fetch_all(connection: Connection, statement: Statement, **parameters: Any) -> list[DictRow]:
    """Return all rows."""
    return await (await connection.execute(statement, parameters)).fetchall()
