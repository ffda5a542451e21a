"""The schedule that processes share: which of its times were taken, and how long upstream is to be left alone."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

from modelcatalog_server.storage import queries
from modelcatalog_server.storage.fetching import fetch_all, fetch_one
from modelcatalog_server.storage.pools import Connection, Pools

_REFRESHES = queries.load("refreshes")


class PostgresSchedule:
    """The part of ``RefreshStore`` that is about when to refresh."""

    def __init__(self, pools: Pools) -> None:
        self._pools = pools

    async def get_slots(self) -> Mapping[str, datetime]:
        """Return the newest slot of each timer that was taken."""
        async with self._pools.asking() as connection:
            rows = await fetch_all(connection, _REFRESHES["get_slots"])
        return {row["timer"]: row["slot"] for row in rows}

    async def take_slots(self, slots: Mapping[str, datetime]) -> None:
        """Note slots as taken."""
        async with self._pools.writing() as connection:
            await take_slots(connection, slots)

    async def forget_future_slots(self, now: datetime) -> list[str]:
        """Forget slots that are far from being due, by PostgreSQL's clock as well; return their timers."""
        async with self._pools.writing() as connection:
            rows = await fetch_all(connection, _REFRESHES["forget_future_slots"], now=now)
        return [row["timer"] for row in rows]

    async def give_back_slots(self, slots: Mapping[str, datetime], refresh_id: UUID) -> None:
        """Have slots be due again whose run was cancelled."""
        async with self._pools.writing() as connection:
            for timer, slot in sorted(slots.items()):
                parameters = {"timer": timer, "slot": slot, "refresh_id": refresh_id}
                await connection.execute(_REFRESHES["give_back_slot"], parameters)

    async def set_upstream_not_before(self, at: datetime, source_url: str) -> None:
        """Note that the upstream with this address is to be left alone until then."""
        async with self._pools.writing() as connection:
            await connection.execute(_REFRESHES["set_upstream_not_before"], {"at": at, "source_url": source_url})


async def take_slots(connection: Connection, slots: Mapping[str, datetime]) -> bool:
    """Take slots, in one order; return whether all of them were free."""
    rows = [
        await fetch_one(connection, _REFRESHES["take_slot"], timer=timer, slot=slot)
        for timer, slot in sorted(slots.items())
    ]
    return None not in rows
