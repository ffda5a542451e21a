"""How much is worked on at once: what is more waits for a moment, and then comes again when there is room."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from random import uniform

from modelcatalog_server.domain.errors import OverloadedError, TooManyStreamsError

#: The contract's.
MAX_STREAMS_PER_CALLER = 20
#: Whoever has waited so long is better off at another replica.
PATIENCE_S = 1.0
# Those who are refused together do not come back together. Seconds.
_COME_BACK_S = (0.25, 0.75)


class Places:
    """Places for calls that are worked on, and a queue before them, first come first served.

    Args:
        running: Calls at once.
        waiting: Calls that may wait for a place.
        patience_s: How long each of them may.
    """

    def __init__(self, running: int, waiting: int, *, patience_s: float = PATIENCE_S) -> None:
        self._free = asyncio.Semaphore(running)
        self._max_waiting = waiting
        self._patience_s = patience_s
        self._waiting = 0

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Take a place for the block.

        Raises:
            OverloadedError: there is none, nor room to wait for one.
        """
        await self._take()
        try:
            yield
        finally:
            self._free.release()

    async def _take(self) -> None:
        if not self._free.locked():
            await self._free.acquire()  # at once
            return
        if self._waiting >= self._max_waiting:
            raise _overloaded()
        self._waiting += 1
        try:
            async with asyncio.timeout(self._patience_s):
                await self._free.acquire()
        except TimeoutError as error:
            raise _overloaded() from error
        finally:
            self._waiting -= 1


def _overloaded() -> OverloadedError:
    return OverloadedError(retry_after_s=uniform(*_COME_BACK_S))  # noqa: S311 -- no secret


class OpenStreams:
    """Counts the streams of each caller. ``each``: how many a caller may have open."""

    def __init__(self, each: int) -> None:
        self._each = each
        self._open: Counter[str] = Counter()

    @contextmanager
    def counted(self, caller: str) -> Iterator[None]:
        """Count one for the block.

        Raises:
            TooManyStreamsError: the caller has as many as it may.
        """
        if self._open[caller] >= self._each:
            raise TooManyStreamsError(f"{caller} has {self._each} streams already", subject=caller)
        self._open[caller] += 1
        try:
            yield
        finally:
            self._open[caller] -= 1
            if not self._open[caller]:
                del self._open[caller]
