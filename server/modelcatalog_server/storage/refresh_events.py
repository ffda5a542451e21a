"""Events of refreshes: written with the run that they are about, and read by those who watch."""

from __future__ import annotations

from uuid import UUID

from modelcatalog_server.domain.errors import CatalogError, OwnerLostError, RefreshCancelledError
from modelcatalog_server.domain.refresh import EventKind, Phase, Refresh, RefreshEvent, State
from modelcatalog_server.storage import queries
from modelcatalog_server.storage.fetching import fetch_all, fetch_one
from modelcatalog_server.storage.pools import Connection, Pools
from modelcatalog_server.storage.refresh_rows import read_event, read_refresh, to_parameters

_REFRESHES = queries.load("refreshes")

# An advisory lock: any constant of our own.
_EVENT_LOCK = 7_306_421_003


class PostgresEvents:
    """The part of ``RefreshStore`` that reads events."""

    def __init__(self, pools: Pools) -> None:
        self._pools = pools

    async def get_last_event_id(self) -> int:
        """Return the id of the newest event, 0 when there is none."""
        async with self._pools.asking() as connection:
            row = await fetch_one(connection, _REFRESHES["get_last_event_id"])
        return int(row["id"]) if row else 0

    async def get_terminal_event_id(self, refresh_id: UUID) -> int | None:
        """Return the id of the event that ended a run."""
        async with self._pools.asking() as connection:
            row = await fetch_one(connection, _REFRESHES["get_terminal_event_id"], refresh_id=refresh_id)
        return int(row["id"]) if row else None

    async def get_event_at(self, event_id: int, refresh_id: UUID | None) -> RefreshEvent | None:
        """Return the newest event at or before ``event_id``."""
        async with self._pools.asking() as connection:
            row = await fetch_one(connection, _REFRESHES["get_event_at"], at_id=event_id, refresh_id=refresh_id)
        return read_event(row) if row else None

    async def list_events(self, after_id: int, refresh_id: UUID | None, limit: int) -> list[RefreshEvent]:
        """Return events after ``after_id`` in commit order."""
        async with self._pools.asking() as connection:
            rows = await fetch_all(
                connection, _REFRESHES["list_events"], after_id=after_id, refresh_id=refresh_id, limit=limit
            )
        return [read_event(row) for row in rows]


async def lock_events(connection: Connection) -> None:
    """Take the lock of all events, which is held until commit: so ids become visible in their order."""
    await connection.execute(_REFRESHES["lock_events"], {"lock": _EVENT_LOCK})


async def record_event(
    connection: Connection,
    refresh: Refresh,
    kind: EventKind,
    *,
    done: int = 0,
    total: int | None = None,
    message: str = "",
    commit: bool = False,
) -> Refresh:
    """Write the run and an event in the transaction at hand. The event lock comes first and is held until commit.

    With ``commit`` that comes with it, so that all of it, and the BEGIN before it, is one round trip. Nothing else may
    be in that transaction: it is committed too when the run turns out to be over.
    """
    parameters = {**to_parameters(refresh), "kind": kind, "done": done, "total": total, "message": message}
    async with connection.pipeline():
        await lock_events(connection)
        cursor = await connection.execute(_REFRESHES["update_refresh"], parameters)
        if commit:
            await connection.commit()
    row = await cursor.fetchone()
    if row is None:
        raise await _why_not(connection, refresh.id)
    return read_refresh(row["refresh"])


async def append_event(
    connection: Connection,
    refresh_id: UUID,
    kind: EventKind,
    *,
    phase: Phase | None = None,
    done: int = 0,
    total: int | None = None,
    message: str = "",
    locked: bool = False,
) -> Refresh:
    """Write an event and return the run as it was written with it."""
    if not locked:
        await lock_events(connection)
    row = await fetch_one(
        connection,
        _REFRESHES["append_event"],
        refresh_id=refresh_id,
        kind=kind,
        phase=phase,
        done=done,
        total=total,
        message=message,
    )
    assert row is not None, "the run is locked, or was created, in this transaction"  # noqa: S101 - an invariant
    return read_refresh(row["refresh"])


async def _why_not(connection: Connection, refresh_id: UUID) -> CatalogError:
    """Return why a run cannot be written any more."""
    row = await fetch_one(connection, _REFRESHES["get_refresh"], refresh_id=refresh_id)
    if row is not None and read_refresh(row["refresh"]).state is State.CANCELLING:
        return RefreshCancelledError("the refresh was asked to stop")
    return OwnerLostError("the refresh is over already")
