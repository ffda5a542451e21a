"""What PostgreSQL does for a statement."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import psycopg

PLACEHOLDER = re.compile(r"%\((\w+)\)s")


async def explain(
    connection: psycopg.AsyncConnection[tuple[Any, ...]], statement: str, parameters: dict[str, Any], mode: str
) -> dict[str, Any]:
    """Run a statement as one that the connection has prepared, and return what was done."""
    names = list(dict.fromkeys(PLACEHOLDER.findall(statement)))
    numbered = PLACEHOLDER.sub(lambda match: f"${names.index(match[1]) + 1}", statement)
    await connection.execute(f"SET LOCAL plan_cache_mode = {mode}".encode())
    await connection.execute(f"PREPARE hot AS {numbered}".encode())
    values = psycopg.sql.SQL(", ").join(psycopg.sql.Literal(parameters[name]) for name in names)
    run = psycopg.sql.SQL("EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE hot({})").format(values)
    row = await (await connection.execute(run)).fetchone()
    assert row is not None
    await connection.execute("DEALLOCATE hot")
    report = json.loads(row[0]) if isinstance(row[0], str) else row[0]
    plan: dict[str, Any] = report[0]["Plan"]
    return plan


def nodes_of(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes_of(below)
