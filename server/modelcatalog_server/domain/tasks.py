"""Background work: ended for sure, undisturbed where it has to come to its end, in slices where it is long."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from time import perf_counter
from typing import Any

_AGAIN_S = 1.0
_SLICE_S = 0.001


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
            await asyncio.sleep(0)
            return True
    return False


async def run_in_slices(steps: Iterator[None]) -> None:
    """Work to the end, slice by slice."""
    while await advance(steps):
        pass
