"""Progress of long steps, written at most so often however fast it is reported."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from modelcatalog_server.domain.ports.upstream import Progress
from modelcatalog_server.domain.tasks import end_tasks

Report = Callable[[int, int | None], Awaitable[None]]


@asynccontextmanager
async def throttled(report: Report, *, interval_s: float = 0.5) -> AsyncIterator[Progress]:
    """Yield a callback that is free to call; ``report`` gets the newest figures once per ``interval_s``.

    A report that is being written when the block ends well is written to its end: one that is cancelled costs its
    connection.
    """
    latest: list[tuple[int, int | None]] = []
    over = asyncio.Event()

    async def flush() -> None:
        while not over.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(interval_s):
                    await over.wait()
                    return
            if latest:
                await report(*latest.pop())

    def progress(done: int, total: int | None) -> None:
        latest[:] = [(done, total)]

    task = asyncio.create_task(flush(), name="refresh-progress")
    try:
        yield progress
        over.set()
        await asyncio.wait({task})
    finally:
        await end_tasks(task)
        if not task.cancelled():
            task.result()
