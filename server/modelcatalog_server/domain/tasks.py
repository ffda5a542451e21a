"""Background work: ended for sure, undisturbed where it has to come to its end, in slices where it is long."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from time import perf_counter
from typing import Any, TypeVar

from modelcatalog_server.domain.errors import StartupError

_AGAIN_S = 1.0
_SLICE_S = 0.0002
# Who needed longer than this in the turns between two slices is not done after them: the loop is theirs for a while.
_BUSY_S = 0.0001
_PAUSE_S = 0.001
# Of the event loop, between two slices: a call takes about so many from its arrival to its answer.
_TURNS = 8
# Of work that has a time limit, once it has gone on for ten seconds.
_LONGEST_SLICE_S = 0.002
#: Who has asked within this time is waited for: the next one comes soon.
_ATTENTIVE_S = 0.25

_T = TypeVar("_T")
_begun_at: ContextVar[float | None] = ContextVar("_begun_at", default=None)


class Callers:
    """Whether anybody is asking this process, so that work in slices takes its time.

    A call needs the processor several times, in threads of gRPC and on the event loop. While a loop goes from one slice
    to the next, it never sleeps, and a thread that was woken on its processor waits for that: a call then takes some
    slices at each of its steps.
    """

    def __init__(self) -> None:
        self._counts: list[Callable[[], int]] = []  # of each server in this process
        self._counted = 0
        self._looked_at = self._asked_at = float("-inf")

    @contextmanager
    def counted_by(self, count: Callable[[], int]) -> Iterator[None]:
        """Give way to those who ask, as long as the block lasts; ``count`` says how often they have so far."""
        self._counts.append(count)
        self._looked_at = float("-inf")
        try:
            yield
        finally:
            self._counts.remove(count)
            self._looked_at = float("-inf")

    def are_asking(self) -> bool:
        """Whether somebody has asked a moment ago. What was before the first look in a while does not count."""
        now, counted = perf_counter(), sum(count() for count in self._counts)
        if counted != self._counted and now - self._looked_at < _ATTENTIVE_S:
            self._asked_at = now
        self._looked_at, self._counted = now, counted
        return now - self._asked_at < _ATTENTIVE_S


#: Those of this process.
callers = Callers()


async def end_tasks(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait until they are done; what they raised stays theirs.

    They are cancelled again every second. Before Python 3.12 ``asyncio.wait_for`` drops a cancellation that comes
    together with what it waits for; psycopg waits for its socket with it, and a task that went on from there to its
    next wait would be waited for without end.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_AGAIN_S)


async def run_all(*work: Coroutine[Any, Any, None]) -> None:
    """Run until cancelled or until one of them fails, which ends the others."""
    tasks = [asyncio.create_task(each, name=f"serve-{number}") for number, each in enumerate(work)]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        await end_tasks(*tasks)


async def fail_after(death: Callable[[], Awaitable[str]]) -> None:
    """Wait for the end of something without which nothing works.

    Raises:
        StartupError: that end, as ``death`` describes it.
    """
    raise StartupError(await death())


async def undisturbed(work: Coroutine[Any, Any, None]) -> None:
    """Carry work, which has a bound of its own, to its end, and only then be cancelled.

    A run that finds out by itself that it is to stop, or that fails, may be cancelled while it says so.
    """
    task = asyncio.create_task(work, name="undisturbed")
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            cancelled = True
    task.result()
    if cancelled:
        raise asyncio.CancelledError


async def advance(steps: Iterator[None]) -> bool:
    """Work for a slice of time, then let others run. Returns whether anything is left to do."""
    end = _end_of_slice()
    for _ in steps:
        if perf_counter() >= end:
            await _let_others_run()
            return True
    return False


class Slices:
    """Slices of work that has to be awaited, and so cannot be an iterator."""

    def __init__(self) -> None:
        self._end = _end_of_slice()

    async def end_if_due(self) -> None:
        """Let others run if the work has gone on for as long as a slice."""
        if perf_counter() >= self._end:
            await _let_others_run()
            self._end = _end_of_slice()


@contextmanager
def within_limits() -> Iterator[None]:
    """Let work in the block, which has a time limit, take longer slices the longer it goes on."""
    token = _begun_at.set(perf_counter())
    try:
        yield
    finally:
        _begun_at.reset(token)


def _end_of_slice() -> float:
    now, begun_at = perf_counter(), _begun_at.get()
    if begun_at is None:
        return now + _SLICE_S
    return now + min(_SLICE_S * max(now - begun_at, 1.0), _LONGEST_SLICE_S)


async def rest(seconds: float | None = None) -> None:
    """Leave the event loop to callers for a moment, if there are any: between things that each hold it for a while."""
    if callers.are_asking():
        await asyncio.sleep(_PAUSE_S if seconds is None else seconds)


async def _let_others_run() -> None:
    if callers.are_asking():
        await asyncio.sleep(_PAUSE_S)
        return
    begun = perf_counter()
    for _ in range(_TURNS):
        await asyncio.sleep(0)
    if perf_counter() - begun > _BUSY_S:
        await asyncio.sleep(_PAUSE_S)


async def run_in_slices(steps: Iterator[None]) -> None:
    """Work to the end, slice by slice."""
    while await advance(steps):
        pass


async def find_in_slices(steps: Generator[None, None, _T]) -> _T:
    """Work to the end, slice by slice, and return what the steps return."""
    results: list[_T] = []

    def keep() -> Iterator[None]:
        results.append((yield from steps))

    await run_in_slices(keep())
    return results[0]


def run_to_end(steps: Generator[None, None, _T]) -> _T:
    """Work to the end in one go, and return what the steps return."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: _T = end.value
            return result
