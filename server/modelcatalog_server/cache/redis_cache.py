"""Port ``SharedCache`` over Redis or Valkey (commands of Redis 6.2 only). Down is not an error: a miss and a metric."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Self, TypeVar

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from modelcatalog_server.domain.errors import StartupError

_log = structlog.get_logger(__name__)

T = TypeVar("T")

# redis-py's defaults make a read on a dead Redis cost seconds: ten retries and no time-out.
_CONNECT_TIMEOUT_S = 0.1
_ANSWER_TIMEOUT_S = 0.05
_COOL_DOWN_S = 1.0


class RedisCache:
    """A shared cache that never raises. After a failure it is left alone for a second: being down costs nothing.

    Figures since the start of the process: ``hits``, ``misses``, ``failures``.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``.
        max_connections: More calls than this at once wait for one another.
        connect_timeout_s: How long a new connection may take.
        answer_timeout_s: How long an answer, or a connection that is in use, is waited for.
        clock: Seconds; for how long it is left alone.

    Raises:
        StartupError: The URL is none.
    """

    def __init__(
        self,
        url: str,
        *,
        max_connections: int = 16,
        connect_timeout_s: float = _CONNECT_TIMEOUT_S,
        answer_timeout_s: float = _ANSWER_TIMEOUT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        try:
            self._pool = BlockingConnectionPool.from_url(
                url,
                max_connections=max_connections,
                timeout=answer_timeout_s,
                socket_connect_timeout=connect_timeout_s,
                socket_timeout=answer_timeout_s,
                retry=Retry(NoBackoff(), 0),
                protocol=2,
                driver_info=None,  # would send CLIENT SETINFO, which Redis 6.2 does not have
            )
        except ValueError as error:
            raise StartupError(f"MODELCATALOG_REDIS_URL is no address of a Redis: {error}") from error
        self._redis = Redis(connection_pool=self._pool)
        # A connection to wait for, a new one in its place, and the answer.
        self._call_timeout_s = connect_timeout_s + 2 * answer_timeout_s
        self._clock = clock
        self._closed_until = 0.0
        self.available = True
        self.hits = 0
        self.misses = 0
        self.failures = 0

    async def __aenter__(self) -> Self:
        await self.check()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._redis.aclose()
        await self._pool.disconnect()

    async def get(self, key: str) -> bytes | None:
        """Return the value, ``None`` when there is none or nobody to ask."""
        value: Any = await self._try(lambda: self._redis.get(key))
        if value is None:
            self.misses += 1
        else:
            self.hits += 1
        return None if value is None else bytes(value)

    async def set(self, key: str, value: bytes, *, ttl_s: int) -> None:
        """Store the value for ``ttl_s`` seconds, if there is somebody to ask."""
        await self._try(lambda: self._redis.set(key, value, ex=ttl_s))

    async def check(self) -> bool:
        """Return whether it answers now."""
        await self._try(self._redis.ping)
        return self.available

    async def _try(self, call: Callable[[], Awaitable[T]]) -> T | None:
        if self._clock() < self._closed_until:
            return None
        try:
            async with asyncio.timeout(self._call_timeout_s):
                result = await call()
        except (RedisError, OSError, TimeoutError) as error:
            self._note(available=False, reason=type(error).__name__)
            return None
        self._note(available=True)
        return result

    def _note(self, *, available: bool, reason: str = "") -> None:
        """Keep count, and say so once per change of state."""
        if not available:
            self.failures += 1
            self._closed_until = self._clock() + _COOL_DOWN_S
        if available != self.available:
            self.available = available
            _log.warning("redis is back" if available else "redis is down: reads go on without it", reason=reason)
