"""The audit log: port ``AuditLog`` over PostgreSQL."""

from __future__ import annotations

from datetime import datetime

from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from modelcatalog_server.domain.audit import AuditEntry, AuditEvent
from modelcatalog_server.domain.query import Expression, Selection
from modelcatalog_server.storage import queries
from modelcatalog_server.storage.composition import AUDIT_EVENT_COLUMNS, compose
from modelcatalog_server.storage.pools import Pools

_AUDIT = queries.load("audit")
_LISTINGS = queries.load("listings")
_PRUNE_LIMIT = 10_000


class PostgresAuditLog:
    """Port ``AuditLog``."""

    def __init__(self, pools: Pools) -> None:
        self._pools = pools

    async def append(self, entry: AuditEntry) -> None:
        """Write one entry; its time is the database's."""
        async with self._pools.writing() as connection:
            await connection.execute(
                _AUDIT["append_audit_event"],
                {
                    "principal": entry.principal,
                    "method": entry.method,
                    "target": entry.target,
                    "code": entry.code,
                    "details": Jsonb(dict(entry.details)),
                },
            )

    async def list_events(
        self, matching: Expression | None = None, *, before_id: int | None, limit: int
    ) -> list[AuditEvent]:
        """Return events newest first, those older than ``before_id``."""
        composition = compose(Selection(filter=matching), AUDIT_EVENT_COLUMNS)
        statement = composition.fill(_LISTINGS["list_audit_events"])
        async with self._pools.asking() as connection:
            cursor = await connection.execute(
                statement, {**composition.parameters, "before_id": before_id, "limit": limit}
            )
            return [_read_event(row) for row in await cursor.fetchall()]

    async def prune(self, *, before: datetime) -> int:
        """Delete entries older than that; return how many."""
        async with self._pools.writing() as connection:
            cursor = await connection.execute(_AUDIT["prune_audit_events"], {"before": before, "limit": _PRUNE_LIMIT})
            return cursor.rowcount


def _read_event(row: DictRow) -> AuditEvent:
    return AuditEvent(
        id=row["id"],
        happened_at=row["happened_at"],
        entry=AuditEntry(
            principal=row["principal"],
            method=row["method"],
            target=row["target"],
            code=row["code"],
            details=row["details"],
        ),
    )
