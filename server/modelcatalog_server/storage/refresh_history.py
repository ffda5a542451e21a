"""The history of refreshes: runs, the requests that they answer, and what they found."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, LiteralString
from uuid import UUID

from modelcatalog_server.domain.errors import SlotTakenError
from modelcatalog_server.domain.ports.refreshes import KnownRequest
from modelcatalog_server.domain.query import Expression, Selection
from modelcatalog_server.domain.refresh import EventKind, Phase, Refresh, RefreshReport, RefreshRequest
from modelcatalog_server.storage import queries
from modelcatalog_server.storage.composition import REFRESH_COLUMNS, compose
from modelcatalog_server.storage.fetching import fetch_all, fetch_one
from modelcatalog_server.storage.pools import Connection, Pools
from modelcatalog_server.storage.refresh_events import append_event, lock_events, record_event
from modelcatalog_server.storage.refresh_rows import (
    read_known_request,
    read_refresh,
    to_arguments,
    to_request_parameters,
)
from modelcatalog_server.storage.refresh_schedule import take_slots
from modelcatalog_server.storage.report_rows import read_report, write_report

_REFRESHES = queries.load("refreshes")
_LISTINGS = queries.load("listings")

_PRUNE_LIMIT = 1000


class PostgresHistory:
    """The part of ``RefreshStore`` that keeps runs."""

    def __init__(self, pools: Pools, *, owner: str) -> None:
        """Prepare a history; ``owner`` tells people which process runs what it creates."""
        self._pools = pools
        self._owner = owner

    async def create(
        self, refresh_id: UUID, request: RefreshRequest, slots: Mapping[str, datetime] = MappingProxyType({})
    ) -> Refresh:
        """Write an accepted run and its first STATE event, and take slots of the schedule."""
        async with self._pools.writing() as connection:
            if not await take_slots(connection, slots):
                raise SlotTakenError("another process has started what is due")
            parameters = {"id": refresh_id, "owner": self._owner, **to_request_parameters(request)}
            async with connection.pipeline():  # with the BEGIN before it, one round trip
                await connection.execute(_REFRESHES["create_refresh"], parameters)
                await _remember_request(connection, request, refresh_id, joined=False)
                return await append_event(connection, refresh_id, EventKind.STATE, message="accepted")

    async def find_request(self, request_id: UUID) -> KnownRequest | None:
        """Return what a request id stands for."""
        async with self._pools.asking() as connection:
            row = await fetch_one(connection, _REFRESHES["find_request"], request_id=request_id)
        return read_known_request(row) if row else None

    async def remember_joined(self, request: RefreshRequest, refresh_id: UUID) -> None:
        """Note that a request joined a run."""
        async with self._pools.writing() as connection:
            await _remember_request(connection, request, refresh_id, joined=True)

    async def record(
        self,
        refresh: Refresh,
        kind: EventKind,
        *,
        done: int = 0,
        total: int | None = None,
        message: str = "",
    ) -> Refresh:
        """Write the run as it is now with an event."""
        async with self._pools.writing() as connection:
            return await record_event(connection, refresh, kind, done=done, total=total, message=message, commit=True)

    async def cancel(self, refresh_id: UUID) -> Refresh | None:
        """Ask a run to stop; return it as it is now."""
        async with self._pools.writing() as connection:
            await lock_events(connection)
            row = await fetch_one(connection, _REFRESHES["cancel_refresh"], refresh_id=refresh_id)
            if row is not None:
                phase = Phase(row["phase"]) if row["phase"] else None
                await append_event(
                    connection, refresh_id, EventKind.STATE, phase=phase, message="asked to stop", locked=True
                )
            found = await fetch_one(connection, _REFRESHES["get_refresh"], refresh_id=refresh_id)
            return read_refresh(found["refresh"]) if found else None

    async def get(self, refresh_id: UUID) -> Refresh | None:
        """Return one run."""
        return await self._get_one(_REFRESHES["get_refresh"], refresh_id=refresh_id)

    async def get_active(self) -> Refresh | None:
        """Return the run under way."""
        return await self._get_one(_REFRESHES["get_active_refresh"])

    async def get_last_finished(self, *, only_success: bool) -> Refresh | None:
        """Return the newest run that is over."""
        return await self._get_one(_REFRESHES["get_last_finished_refresh"], only_success=only_success)

    async def get_last_applied(self) -> Refresh | None:
        """Return the newest run that applied a whole document."""
        return await self._get_one(_REFRESHES["get_last_applied_refresh"])

    async def list_refreshes(
        self, matching: Expression | None = None, *, before: tuple[datetime, UUID] | None, limit: int
    ) -> list[Refresh]:
        """Return runs newest first."""
        started_at, refresh_id = before or (None, None)
        composition = compose(Selection(filter=matching), REFRESH_COLUMNS)
        async with self._pools.asking() as connection:
            rows = await fetch_all(
                connection,
                composition.fill(_LISTINGS["list_refreshes"]),
                **composition.parameters,
                before_started_at=started_at,
                before_id=refresh_id,
                limit=limit,
            )
        return [read_refresh(row["refresh"]) for row in rows]

    async def save_report(self, refresh_id: UUID, report: RefreshReport) -> None:
        """Write what a run found, over what was written before."""
        parameters = {"refresh_id": refresh_id, "report": await asyncio.to_thread(write_report, report)}
        async with self._pools.writing() as connection:
            await connection.execute(_REFRESHES["save_report"], parameters)

    async def get_report(self, refresh_id: UUID) -> RefreshReport | None:
        """Return what a run found, ``None`` before it has compared or when the report is gone."""
        async with self._pools.asking() as connection:
            row = await fetch_one(connection, _REFRESHES["get_report"], refresh_id=refresh_id)
        return read_report(row) if row else None

    async def prune(self, *, events_before: datetime, refreshes_before: datetime) -> int:
        """Delete what is older than its retention."""
        async with self._pools.writing() as connection:
            await connection.execute(_REFRESHES["prune_events"], {"before": events_before})
            rows = await fetch_all(
                connection, _REFRESHES["find_old_refreshes"], before=refreshes_before, limit=_PRUNE_LIMIT
            )
            old = {"refresh_ids": [row["id"] for row in rows]}
            for name in ("refresh_events", "refresh_reports", "refresh_requests", "refreshes"):
                await connection.execute(_REFRESHES[f"delete_{name}"], old)
        return len(rows)

    async def _get_one(self, statement: LiteralString, **parameters: Any) -> Refresh | None:
        async with self._pools.asking() as connection:
            row = await fetch_one(connection, statement, **parameters)
        return read_refresh(row["refresh"]) if row else None


async def _remember_request(connection: Connection, request: RefreshRequest, refresh_id: UUID, *, joined: bool) -> None:
    if request.request_id is None:
        return
    await connection.execute(
        _REFRESHES["remember_request"],
        {
            "request_id": request.request_id,
            "refresh_id": refresh_id,
            "joined": joined,
            "arguments": to_arguments(request),
        },
    )
