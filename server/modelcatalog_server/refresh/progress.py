"""Progress of long steps, written at most so often however fast it is reported."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from modelcatalog_server.domain.ports.upstream import Progress
from modelcatalog_server.domain.tasks import end_tasks

Report = Callable[[int, int | None], Awaitable[None]]


@asynccontextmanager
async def throttled(report: Report, *, interval_s: float = 0.5) -> AsyncIterator[Progress]:
    """Yield a callback that is free to call; ``report`` gets the newest figures once per ``interval_s``."""
    latest: list[tuple[int, int | None]] = []

    async def flush() -> None:
        while True:
            await asyncio.sleep(interval_s)
            if latest:
                await report(*latest.pop())

    def progress(done: int, total: int | None) -> None:
        latest[:] = [(done, total)]

    task = asyncio.create_task(flush(), name="refresh-progress")
    try:
        yield progress
    finally:
        await end_tasks(task)
        if not task.cancelled():
            task.result()
