"""Who runs a refresh: one in the cluster at a time, and what becomes of one whose process died or is stuck."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import psycopg

from modelcatalog_server.domain.refresh import EventKind, Phase, Refresh
from modelcatalog_server.storage import queries
from modelcatalog_server.storage.fetching import fetch_one
from modelcatalog_server.storage.pools import Connection, Pool, Pools, translate_errors
from modelcatalog_server.storage.refresh_events import append_event, lock_events

_REFRESHES = queries.load("refreshes")

# An advisory lock: any constant of our own.
OWNER_LOCK = 7_306_421_002


class PostgresOwnership:
    """Port ``RefreshOwnership``: a session lock, which PostgreSQL drops with the connection."""

    def __init__(self, pool: Pool, connection: Connection) -> None:
        self._pool = pool
        self._connection: Connection | None = connection

    async def release(self) -> None:
        """Unlock and give the connection back."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            await connection.execute(_REFRESHES["disown_refresh"], {"lock": OWNER_LOCK})
        except BaseException as error:
            # A connection that did not unlock has lost the lock with its session, or loses it by being closed.
            await connection.close()
            if not isinstance(error, psycopg.Error):
                raise
        finally:
            await self._pool.putconn(connection)


class PostgresOwners:
    """The part of ``RefreshStore`` that says who runs a refresh."""

    def __init__(self, pools: Pools) -> None:
        self._pools = pools

    async def try_own(self) -> PostgresOwnership | None:
        """Return the session lock of the one runner, or ``None`` while another session has it."""
        pool = self._pools.own
        with translate_errors():
            connection = await pool.getconn()
            try:
                row = await fetch_one(connection, _REFRESHES["try_own_refresh"], lock=OWNER_LOCK)
            except BaseException:
                # The lock may have been taken (a caller may go away at any moment), and would outlive a rollback.
                await connection.close()
                await pool.putconn(connection)
                raise
            if row is not None and row["owned"]:
                return PostgresOwnership(pool, connection)
            await pool.putconn(connection)
            return None

    async def beat(self, refresh_id: UUID) -> None:
        """Note a sign of life of a run under way."""
        async with self._pools.owning() as connection:
            await connection.execute(_REFRESHES["beat_refresh"], {"refresh_id": refresh_id})

    async def end_expired(self, lease: timedelta) -> Refresh | None:
        """End the run under way if its owner gave no sign of life for so long, and the owner's session with it."""
        message = f"the process that ran it gave no sign of life for {lease.total_seconds():g} s"
        async with self._pools.owning() as connection, connection.transaction():
            await lock_events(connection)
            row = await fetch_one(connection, _REFRESHES["end_expired_refresh"], lease=lease, error_message=message)
            if row is None:
                return None
            phase = Phase(row["phase"]) if row["phase"] else None
            await connection.execute(
                _REFRESHES["terminate_owner"], {"lock": OWNER_LOCK, "started_at": row["started_at"]}
            )
            return await append_event(
                connection, row["id"], EventKind.TERMINAL, phase=phase, message=message, locked=True
            )

    async def end_idle_owner(self, lease: timedelta) -> bool:
        """End the session that has owned no run for so long; return whether there was one."""
        async with self._pools.owning() as connection:
            parameters = {"lock": OWNER_LOCK, "lease": lease}
            return await fetch_one(connection, _REFRESHES["terminate_idle_owner"], **parameters) is not None
