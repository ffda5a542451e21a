"""The storages of the library ``limits``. Imported when somebody is limited: it takes a tenth of a second to import."""

from __future__ import annotations

from typing import Any

from limits import RateLimitItemPerSecond
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from modelcatalog_server.domain.limits import RateLimit

# Of subjects in the memory of a process. What is counted when there are more is counted anew.
_MAX_SUBJECTS = 20_000


class _OurRedis(RedisStorage):
    """Uses the client that the cache has, with its time-outs, whatever kind of Redis that is for."""

    def __init__(self, client: Any, key_prefix: str) -> None:
        self._client = client
        super().__init__("async+redis://", implementation="redispy", key_prefix=key_prefix)

    def configure_bridge(self) -> None:
        bridge: Any = self.bridge
        bridge.storage = self._client
        bridge.connection_getter = lambda _readonly: self._client


class Windows:
    """Counts in sliding windows: two numbers a subject, and no clock but that of the storage."""

    def __init__(self, storage: RedisStorage | MemoryStorage) -> None:
        self._storage = storage
        self._limiter = SlidingWindowCounterRateLimiter(storage)

    async def take(self, limit: RateLimit, subject: str, count: int) -> bool:
        """Take so many, or none if there are not as many left."""
        await self._bound()
        return bool(await self._limiter.hit(_to_item(limit), subject, cost=count))

    async def get_delay(self, limit: RateLimit, subject: str) -> float:
        """Return the seconds until there is one more than now, or 0 when there is one now."""
        item = _to_item(limit)
        previous, previous_ends_s, current, current_ends_s = await self._storage.get_sliding_window(
            item.key_for(subject), item.get_expiry()
        )
        if int(previous * previous_ends_s / limit.window_s) + current < limit.amount:
            return 0.0
        delays = []
        if previous:  # its weight falls by one each time
            delays.append(previous_ends_s % (limit.window_s / previous))
        if current:  # becomes the previous one
            delays.append(current_ends_s % limit.window_s or limit.window_s)  # all of it where it has just begun
        return min(delays, default=0.0)

    async def _bound(self) -> None:
        if isinstance(self._storage, MemoryStorage) and len(self._storage.storage) > _MAX_SUBJECTS:
            await self._storage.reset()


def shared_windows(client: Any, key_prefix: str) -> Windows:
    """Return windows that all processes share."""
    return Windows(_OurRedis(client, key_prefix))


def own_windows() -> Windows:
    """Return windows of this process."""
    return Windows(MemoryStorage())


def _to_item(limit: RateLimit) -> RateLimitItemPerSecond:
    return RateLimitItemPerSecond(limit.amount, limit.window_s)
