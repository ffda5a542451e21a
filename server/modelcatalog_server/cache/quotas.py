"""Port ``Quotas``: counted in Redis for all processes together, and by each for itself while Redis is away."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import TYPE_CHECKING, TypeVar

from modelcatalog_server.cache.redis_cache import RedisCache
from modelcatalog_server.domain.limits import RateLimit

if TYPE_CHECKING:
    from modelcatalog_server.cache.quota_storage import Windows

T = TypeVar("T")


class SharedQuotas:
    """Counts with the library ``limits``. Never raises, and waits for Redis no longer than a read does.

    Args:
        cache: Whose client, time-outs and circuit breaker are used.
        secret: The same on every replica, and of no other catalog's.
    """

    def __init__(self, cache: RedisCache, *, secret: bytes) -> None:
        self._cache = cache
        catalog = hashlib.blake2b(b"quotas", key=secret[:64], digest_size=12).hexdigest()
        self._key_prefix = f"modelcatalog:quotas:{catalog}"
        self._windows: tuple[Windows, Windows] | None = None

    async def take(self, limit: RateLimit, subject: str, count: int) -> bool:
        """Take so many of what the subject may do, or none if there are not as many left."""
        return await self._ask(lambda windows: windows.take(limit, subject, count))

    async def get_delay(self, limit: RateLimit, subject: str) -> float:
        """Return the seconds until there is one more than now."""
        return await self._ask(lambda windows: windows.get_delay(limit, subject))

    async def _ask(self, question: Callable[[Windows], Awaitable[T]]) -> T:
        shared, own = self._windows or await self._open()
        answer = await self._cache.ask(lambda: question(shared))
        return await question(own) if answer is None else answer

    async def _open(self) -> tuple[Windows, Windows]:
        storage = await asyncio.to_thread(import_module, "modelcatalog_server.cache.quota_storage")
        if self._windows is None:
            self._windows = storage.shared_windows(self._cache.commands, self._key_prefix), storage.own_windows()
        return self._windows
