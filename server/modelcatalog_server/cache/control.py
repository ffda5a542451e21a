"""Port ``CacheControl``: the figures of both layers, and letting go of what they hold, on every replica."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from uuid import uuid4

from modelcatalog_server.cache.redis_cache import RedisCache
from modelcatalog_server.cache.responses import CachedResponses
from modelcatalog_server.domain.ports.caching import CacheLayerStats
from modelcatalog_server.domain.signal import Signal

#: What the message begins with that tells other processes to let go.
INVALIDATE = "invalidate:"


class ResponseCacheControl:
    """Port ``CacheControl``.

    Redis is emptied first, then the processes: none of them fills itself from what was to go.

    Args:
        responses: Of this process.
        redis: Of all.
        tell: Sends a message to all processes that work on the database.
        moved: Nudged when the cache is to be warmed again.
    """

    def __init__(
        self, responses: CachedResponses, redis: RedisCache, tell: Callable[[str], Awaitable[None]], moved: Signal
    ) -> None:
        self._responses = responses
        self._redis = redis
        self._tell = tell
        self._moved = moved
        self._sender = uuid4().hex
        self._measured: tuple[int, int, int] | None = None

    async def get_stats(self) -> list[CacheLayerStats]:
        """Return the figures of each layer, nearest first."""
        measured = await self._redis.measure(self._responses.shared.prefix)
        self._measured = measured or self._measured
        return self._describe(measured, available=self._redis.available)

    @property
    def known_stats(self) -> list[CacheLayerStats]:
        """The same without asking: what Redis holds is what it said when it was last asked."""
        return self._describe(self._measured, available=self._redis.available)

    def _describe(self, measured: tuple[int, int, int] | None, *, available: bool) -> list[CacheLayerStats]:
        near, shared = self._responses.near, self._responses.shared
        entries, size, evicted = measured or (0, 0, 0)
        return [
            CacheLayerStats(
                name="near",
                available=True,
                entries=len(near),
                bytes=near.bytes,
                hits=near.hits,
                misses=self._responses.near_misses,
                evictions=near.evictions,
            ),
            CacheLayerStats(
                name="redis",
                available=available,
                entries=entries,
                bytes=size,
                hits=shared.hits,
                misses=shared.misses,
                evictions=evicted,
            ),
        ]

    async def invalidate(self, naming: str = "") -> int:
        """Let every process and Redis go of what names this, of everything if empty; see the port."""
        deleted = await self._redis.delete(self._responses.shared.prefix, naming.encode())
        forgotten = self._forget(naming)
        await self._tell(INVALIDATE + json.dumps({"sender": self._sender, "naming": naming}))
        return deleted + forgotten

    def hear(self, message: str | None) -> None:
        """Take a message of another process; ``None``: some may have been missed."""
        if message is None:
            self._forget("")
        elif message.startswith(INVALIDATE):
            told = json.loads(message.removeprefix(INVALIDATE))
            if told["sender"] != self._sender:
                self._forget(told["naming"])

    def _forget(self, naming: str) -> int:
        count = self._responses.forget(naming)
        self._moved.notify()
        return count
