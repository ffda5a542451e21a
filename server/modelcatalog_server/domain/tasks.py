"""Background work: ended for sure, undisturbed where it has to come to its end, in slices where it is long."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from time import perf_counter
from typing import Any

from modelcatalog_server.domain.errors import StartupError

_AGAIN_S = 1.0
_SLICE_S = 0.0003
# Who needed longer than this in the turns between two slices is not done after them: the loop is theirs for a while.
_BUSY_S = 0.0001
_PAUSE_S = 0.001
# Of the event loop, between two slices: a call takes about so many from its arrival to its answer.
_TURNS = 8


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
    end = perf_counter() + _SLICE_S
    for _ in steps:
        if perf_counter() >= end:
            await _let_others_run()
            return True
    return False


class Slices:
    """Slices of work that has to be awaited, and so cannot be an iterator."""

    def __init__(self) -> None:
        self._end = perf_counter() + _SLICE_S

    async def end_if_due(self) -> None:
        """Let others run if the work has gone on for as long as a slice."""
        if perf_counter() >= self._end:
            await _let_others_run()
            self._end = perf_counter() + _SLICE_S


async def _let_others_run() -> None:
    begun = perf_counter()
    for _ in range(_TURNS):
        await asyncio.sleep(0)
    if perf_counter() - begun > _BUSY_S:
        await asyncio.sleep(_PAUSE_S)


async def run_in_slices(steps: Iterator[None]) -> None:
    """Work to the end, slice by slice."""
    while await advance(steps):
        pass
