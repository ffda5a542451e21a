"""``end_tasks`` ends what drops a cancellation."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from modelcatalog_server.domain.tasks import end_tasks


async def drop_one_cancellation() -> None:
    with suppress(asyncio.CancelledError):
        await asyncio.Event().wait()
    await asyncio.Event().wait()


async def test_a_task_that_drops_a_cancellation_is_ended_all_the_same() -> None:
    tasks = [asyncio.create_task(drop_one_cancellation()) for _ in range(3)]
    await asyncio.sleep(0)
    async with asyncio.timeout(30):
        await end_tasks(*tasks)
    assert all(task.cancelled() for task in tasks)


async def test_what_a_task_raised_stays_its_own() -> None:
    async def fail() -> None:
        raise ValueError

    task = asyncio.create_task(fail())
    await asyncio.sleep(0)
    await end_tasks(task)
    assert isinstance(task.exception(), ValueError)


async def test_no_tasks_are_ended_at_once() -> None:
    await end_tasks()
