"""``end_tasks`` ends what drops a cancellation; work in slices lets others run between them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from modelcatalog_server.domain import tasks
from modelcatalog_server.domain.tasks import Slices, advance, end_tasks


async def drop_one_cancellation() -> None:
    with suppress(asyncio.CancelledError):
        await asyncio.Event().wait()
    await asyncio.Event().wait()


async def test_a_task_that_drops_a_cancellation_is_ended_all_the_same() -> None:
    ended = [asyncio.create_task(drop_one_cancellation()) for _ in range(3)]
    await asyncio.sleep(0)
    async with asyncio.timeout(30):
        await end_tasks(*ended)
    assert all(task.cancelled() for task in ended)


async def test_what_a_task_raised_stays_its_own() -> None:
    async def fail() -> None:
        raise ValueError

    task = asyncio.create_task(fail())
    await asyncio.sleep(0)
    await end_tasks(task)
    assert isinstance(task.exception(), ValueError)


async def test_no_tasks_are_ended_at_once() -> None:
    await end_tasks()


@pytest.mark.parametrize("turn_s", [0.0, 0.0002], ids=["idle", "busy"])
async def test_between_two_slices_of_work_others_get_as_many_turns_as_a_call_takes_and_a_pause_if_they_use_them(
    turn_s: float,
) -> None:
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            time.sleep(turn_s)  # noqa: ASYNC251 - it is busy
            await asyncio.sleep(0)

    def steps() -> Iterator[None]:
        while True:
            yield

    others = asyncio.create_task(take_turns())
    assert await advance(steps())
    assert turns > 8 if turn_s else turns >= 8
    await end_tasks(others)


async def test_work_that_is_done_within_a_slice_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "_SLICE_S", 60.0)  # its own is shorter than what a machine stands still for now and then
    assert not await advance(iter([None, None]))


async def test_awaited_work_lets_others_run_once_it_has_gone_on_for_a_slice() -> None:
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    slices = Slices()
    others = asyncio.create_task(take_turns())
    end = time.monotonic() + 10
    while not turns and time.monotonic() < end:
        await slices.end_if_due()
    assert turns >= 8
    await end_tasks(others)
