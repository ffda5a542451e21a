"""Port ``SharedCache`` over Redis or Valkey (commands of Redis 6.2 only). Down is not an error: a miss and a metric."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import Any, Self, TypeVar

import structlog
from redis.exceptions import ClusterDownError, RedisClusterException, RedisError, ResponseError

from modelcatalog_server.cache.redis_client import make_client
from modelcatalog_server.cache.redis_errors import describe_error
from modelcatalog_server.domain.errors import StartupError
from modelcatalog_server.domain.spans import Kind, span
from modelcatalog_server.domain.tasks import end_tasks

_GET = {"db.system.name": "redis", "db.operation.name": "GET"}

_log = structlog.get_logger(__name__)

T = TypeVar("T")

_CONNECT_TIMEOUT_S = 0.1
_ANSWER_TIMEOUT_S = 0.05
# A reader waits no longer than this: SQL is about as fast.
_READ_BUDGET_S = 0.005
_COOL_DOWN_S = 1.0
# One answer that is late may be our own event loop's doing.
_LATE_IN_A_ROW = 3
# Where a dead Sentinel or node is asked before one that lives. No reader waits for that.
_SEARCH_TIMEOUT_S = 1.0
# For an operator who asks for figures or has everything deleted.
_SWEEP_TIMEOUT_S = 10.0
# Names; when more are to be deleted, everything is.
_MAX_OWED = 16
_UNDELETED = "redis refuses to delete what was invalidated: it stays until its time is over"
# Error replies that are about no single command: the cluster has lost nodes, or a replica its master. That it is still
# loading, or knows no such password, is a ConnectionError in redis-py.
_DOWN = (ClusterDownError,)
# RuntimeError: what uvloop raises where something is sent on a connection that has been reset just now.
_FAILURES = (RedisError, RedisClusterException, OSError, TimeoutError, RuntimeError)


class RedisCache:
    """A shared cache that never raises.

    A reader waits a few milliseconds for it; an answer that takes longer, or a connection that has to be made first, is
    no use to that reader but to the next one. After a failure, or when it was late three times in a row, it is left
    alone, and one caller a second tries again: being down costs nothing. Redis that answers a write with an error, for
    want of memory, replicas or permissions, is not down: it is read on.

    Figures since the start of the process: ``hits``, ``misses``, ``failures``, ``late`` and ``refused`` writes.

    Args:
        url: See :mod:`modelcatalog_server.cache.redis_address`.
        max_connections: More calls than this at once wait for one another.
        connect_timeout_s: How long a new connection may take; by default 0.1 s, or as long as a reader waits.
        answer_timeout_s: How long an answer, or a connection that is in use, is waited for; by default 0.05 s, or as
            long as a reader waits.
        read_budget_s: How long a reader waits.
        clock: Seconds; for how long it is left alone.

    Raises:
        StartupError: The URL is none.
    """

    def __init__(
        self,
        url: str,
        *,
        max_connections: int = 16,
        connect_timeout_s: float | None = None,
        answer_timeout_s: float | None = None,
        read_budget_s: float = _READ_BUDGET_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        # Else who wants readers to wait longer, for a Redis that is far away, would have it counted as down instead.
        if connect_timeout_s is None:
            connect_timeout_s = max(_CONNECT_TIMEOUT_S, read_budget_s)
        if answer_timeout_s is None:
            answer_timeout_s = max(_ANSWER_TIMEOUT_S, read_budget_s)
        try:
            self._client = make_client(
                url,
                max_connections=max_connections,
                connect_timeout_s=connect_timeout_s,
                answer_timeout_s=answer_timeout_s,
            )
        except ValueError as error:
            raise StartupError(f"MODELCATALOG_REDIS_URL is no address of a Redis: {error}") from error
        self._redis = self._client.commands
        self._places = asyncio.Semaphore(max_connections)
        # A place to wait for, a connection, and the answer.
        self._call_timeout_s = connect_timeout_s + 2 * answer_timeout_s
        if self._client.has_to_search:
            self._call_timeout_s += _SEARCH_TIMEOUT_S
        self._read_budget_s = read_budget_s
        self._clock = clock
        self._closed_until = 0.0
        self._late_in_a_row = 0
        # What is to be deleted before it is used again. While there is any, it is not available.
        self._owed: dict[str, set[bytes]] = {}
        self._paying = asyncio.Lock()
        self._reading: set[asyncio.Task[Any]] = set()
        self.available = True
        self.hits = 0
        self.misses = 0
        self.failures = 0
        self.late = 0
        self.refused = 0

    async def __aenter__(self) -> Self:
        await self.check()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await end_tasks(*self._reading)
        await self._client.close()

    @property
    def commands(self) -> Any:
        """The client of redis-py, for :meth:`ask`."""
        return self._redis

    async def get(self, key: str) -> bytes | None:
        """Return the value, ``None`` when there is none or nobody who says so within the budget."""
        with span("GET", Kind.CLIENT, _GET):
            value = await self._ask(lambda: self._redis.get(key)) if self._may_ask() else None
        if value is None:
            self.misses += 1
        else:
            self.hits += 1
        return None if value is None else bytes(value)

    async def set(self, key: str, value: bytes, *, ttl_s: int) -> None:
        """Store the value for ``ttl_s`` seconds, if there is somebody to ask."""
        if self._may_ask():
            await self._try(lambda: self._redis.set(key, value, ex=ttl_s), refusable=True)

    async def measure(self, prefix: str) -> tuple[int, int, int] | None:
        """Return entries and bytes of the keys that begin so, and what the whole Redis has evicted since its start.

        ``None``: it is down, or does not let us count. What it has evicted is 0 where it does not tell.
        """
        return await self._try(partial(self._measure, prefix), timeout_s=_SWEEP_TIMEOUT_S) if self._may_ask() else None

    async def delete(self, prefix: str, needle: bytes = b"") -> int:
        """Delete the keys that begin so, those whose value holds ``needle``; return how many.

        What cannot be deleted because it is down is, before this process uses it again.
        """
        deleted = None
        if self._may_ask():
            sweep = partial(self._delete, prefix, {needle})
            deleted = await self._try(sweep, timeout_s=_SWEEP_TIMEOUT_S, refusable=True)
        if deleted is None and not self.available:
            self._owe(prefix, needle)
            _log.warning("redis is down: what was invalidated is deleted there before it is used again")
        elif deleted is None:
            _log.warning(_UNDELETED)
        return deleted or 0

    def _owe(self, prefix: str, needle: bytes) -> None:
        needles = self._owed.setdefault(prefix, set())
        needles.add(needle)
        if b"" in needles or len(needles) > _MAX_OWED:
            self._owed[prefix] = {b""}

    @property
    def _in_debt(self) -> bool:
        return bool(self._owed) or self._paying.locked()

    async def _pay(self) -> None:
        """Delete what could not be deleted when it was asked for."""
        async with self._paying:
            while self._owed:
                prefix, needles = self._owed.popitem()
                try:
                    deleted = await self._call(partial(self._delete, prefix, needles), refusable=True)
                except BaseException:
                    for needle in needles:
                        self._owe(prefix, needle)
                    raise
                if deleted is None:
                    _log.warning(_UNDELETED)

    async def _measure(self, prefix: str) -> tuple[int, int, int] | None:
        counted = await self._figure(partial(self._count, prefix))
        return None if counted is None else (*counted, await self._figure(self._client.count_evicted) or 0)

    async def _figure(self, call: Callable[[], Awaitable[T]]) -> T | None:
        """Return what a call answers, ``None`` where we may not ask for that: it says nothing about reads."""
        try:
            return await call()
        except ResponseError as error:
            if isinstance(error, _DOWN):
                raise
            _log.warning("redis does not give its figures", reason=describe_error(error))
            return None

    async def _count(self, prefix: str) -> tuple[int, int]:
        entries = size = 0
        async for keys in self._client.scan(prefix):
            sizes = await self._of_each(keys, "STRLEN")
            entries += len(sizes)
            size += sum(sizes)
        return entries, size

    async def _delete(self, prefix: str, needles: Collection[bytes]) -> int:
        deleted = 0
        async for keys in self._client.scan(prefix):
            if b"" not in needles:
                values = [value or b"" for value in await self._of_each(keys, "GET")]
                keys = [key for key, value in zip(keys, values, strict=True) if any(map(value.__contains__, needles))]
            deleted += sum(await self._of_each(keys, "UNLINK"))
        return deleted

    async def _of_each(self, keys: Sequence[Any], command: str) -> list[Any]:
        """Run a command for each key: in a cluster they are in many places, and one command takes keys of one."""
        if not keys:
            return []
        async with self._redis.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.execute_command(command, key)
            return list(await pipeline.execute())

    async def ask(self, call: Callable[[], Awaitable[T]]) -> T | None:
        """Return what a call of :attr:`commands` answers, which may write.

        ``None``: nobody did so within the budget, or Redis refused.
        """
        return await self._ask(call, refusable=True) if self._may_ask() else None

    async def _ask(self, call: Callable[[], Awaitable[T]], *, refusable: bool = False) -> T | None:
        reading = asyncio.create_task(self._try(call, refusable=refusable), name="redis-ask")
        self._reading.add(reading)
        reading.add_done_callback(self._reading.discard)
        await asyncio.wait({reading}, timeout=self._read_budget_s)
        if reading.done():
            self._late_in_a_row = 0
            return reading.result()
        self.late += 1
        self._late_in_a_row += 1
        if self._late_in_a_row >= _LATE_IN_A_ROW:
            self._note(available=False, reason="slow")
        return None

    def _may_ask(self) -> bool:
        """Whether to ask it; while it is down, one caller in a second finds out whether it still is."""
        if self.available:
            return True
        now = self._clock()
        if now < self._closed_until:
            return False
        self._closed_until = now + (_SWEEP_TIMEOUT_S if self._in_debt else _COOL_DOWN_S)
        return True

    async def check(self) -> bool:
        """Return whether it answers now."""
        if self._may_ask():
            await self._try(self._client.probe)
        return self.available

    async def _try(
        self, call: Callable[[], Awaitable[T]], *, timeout_s: float = 0, refusable: bool = False
    ) -> T | None:
        """Return what a call answers, ``None`` when it fails.

        It may take ``timeout_s``, or as long as one command. An error reply to a ``refusable`` one is no failure.
        """
        begun, result = self._clock(), None
        timeout_s = max(timeout_s or self._call_timeout_s, _SWEEP_TIMEOUT_S if self._in_debt else 0)
        try:
            async with asyncio.timeout(timeout_s), self._places:
                if not self.available:
                    await self._client.probe()
                    if self._in_debt:
                        await self._pay()
                        begun = self._clock()
                        self._closed_until = begun + _COOL_DOWN_S
                result = await self._call(call, refusable=refusable)
        except _FAILURES as error:
            self._note(available=False, reason=describe_error(error))
            return None
        in_time = self._clock() - begun <= self._read_budget_s or not self._late_in_a_row
        if in_time and not self._in_debt:
            self._note(available=True)
        return result

    async def _call(self, call: Callable[[], Awaitable[T]], *, refusable: bool) -> T | None:
        try:
            return await call()
        except ResponseError as error:
            if not refusable or isinstance(error, _DOWN):
                raise
            self.refused += 1
            return None

    def _note(self, *, available: bool, reason: str = "") -> None:
        """Keep count, and say so once per change of state."""
        if not available:
            self.failures += 1
            self._closed_until = self._clock() + _COOL_DOWN_S
        if available != self.available:
            self.available = available
            if available:
                _log.warning("redis is back")
            else:
                _log.warning("redis is down: reads go on without it", reason=reason)
