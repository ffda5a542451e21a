"""Ending background tasks for sure, and letting nothing disturb what has to come to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

_AGAIN_S = 1.0


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
