"""Answers ahead of being asked: after a start and after each new revision, without slowing those who ask."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, Self

import structlog

from modelcatalog_server.cache.responses import CachedResponses
from modelcatalog_server.domain.errors import CatalogError
from modelcatalog_server.domain.ports.caching import EncodedResponse, RequestKey
from modelcatalog_server.domain.signal import Signal
from modelcatalog_server.domain.tasks import end_tasks, run_in_slices

_log = structlog.get_logger(__name__)

#: Before the entries of a revision that lasts are too old to be given out, they are made anew.
AGAIN_S = 12 * 3600.0
# After a turn to another revision: what callers are waiting for just then is made first.
_PATIENCE_S = 0.05
#: How often other processes are told what is asked for most here.
SHARE_S = 60.0


#: Makes the responses behind a position, and says from where to go on; ``None``: that was all. It is short work, for it
#: stops the event loop.
Prepare = Callable[[str], Awaitable[tuple[Sequence[tuple[RequestKey, EncodedResponse]], str | None]]]
#: Answers one request through the cache, as for a caller.
Rebuild = Callable[[RequestKey], Coroutine[Any, Any, None]]


class CacheWarmer:
    """Fills the near layer for each revision: with what ``prepare`` makes, then with what was asked for most.

    An async context manager. After each piece of work it pauses as long as that took, so that readers have at least
    half of the time.

    Args:
        responses: What is filled.
        moved: Nudged when the process has moved to another revision.
        prepare: Makes many responses at little cost.
        rebuild: Makes one.
        clock: Seconds.
    """

    def __init__(
        self,
        responses: CachedResponses,
        moved: Signal,
        prepare: Prepare,
        rebuild: Rebuild,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._responses = responses
        self._moved = moved
        self._prepare = prepare
        self._rebuild = rebuild
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        #: The version of the catalog that is wholly prepared.
        self.warmed = ""

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="cache-warmer")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._task is not None:
            await end_tasks(self._task)

    async def _run(self) -> None:
        again_at, forgotten = self._clock() + AGAIN_S, self._responses.forgotten
        while True:
            ticket = self._moved.ticket()
            try:
                if (self._responses.version, self._responses.forgotten) != (
                    self.warmed,
                    forgotten,
                ) or self._clock() >= again_at:
                    forgotten = self._responses.forgotten
                    await self._warm()
                    again_at = self._clock() + AGAIN_S
                await self._responses.share_hot_requests()
            except CatalogError as error:
                _log.debug("the cache is not warm", reason=str(error))
            except Exception:
                _log.exception("cannot warm the cache")
            with suppress(TimeoutError):
                async with asyncio.timeout(SHARE_S):
                    await ticket.wait()

    async def _warm(self) -> None:
        if self.warmed:
            await asyncio.sleep(_PATIENCE_S)
        await run_in_slices(self._responses.near.settle())
        version = self._responses.version
        if await self._fill(version) and await self._rebuild_hot(version):
            self.warmed = version

    async def _fill(self, version: str) -> bool:
        """Take over what can be prepared; return whether the catalog stayed the same meanwhile."""
        evictions = self._responses.near.evictions
        after: str | None = ""
        while after is not None and self._responses.near.evictions == evictions:  # else there is no room for more
            begun = self._clock()
            prepared, after = await self._prepare(after)
            for key, response in prepared:
                self._responses.take(key, response)
            if self._responses.version != version:
                return False
            await asyncio.sleep(self._clock() - begun)
        return True

    async def _rebuild_hot(self, version: str) -> bool:
        """Make what was asked for most, hottest first, one by one; return whether the catalog stayed the same."""
        for key in await self._responses.hot_requests():
            if self._responses.version != version:
                return False
            begun = self._clock()
            with suppress(CatalogError):  # what was there before may be gone now
                await self._rebuild(key)
            await asyncio.sleep(self._clock() - begun)
        return True
