"""``end_tasks`` ends what drops a cancellation; work in slices lets others run between them, callers above all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator, Iterator
from contextlib import suppress

import pytest

from modelcatalog_server.domain import tasks
from modelcatalog_server.domain.tasks import Callers, Slices, advance, end_tasks, find_in_slices, rest, run_to_end


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


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """What the module takes for the time."""
    clock = Clock()
    monkeypatch.setattr(tasks, "perf_counter", clock)
    return clock


class Calls:
    def __init__(self, count: int = 0) -> None:
        self.so_far = count

    def count(self) -> int:
        return self.so_far


class TestCallers:
    def test_there_are_none_where_nobody_counts_them(self) -> None:
        callers = Callers()
        assert not callers.are_asking()
        assert not callers.are_asking()

    def test_who_asked_before_the_first_look_does_not_count(self, clock: Clock) -> None:
        callers = Callers()
        with callers.counted_by(Calls(7).count):
            assert not callers.are_asking()
            assert not callers.are_asking()

    def test_who_asks_between_two_looks_is_waited_for(self, clock: Clock) -> None:
        callers, calls = Callers(), Calls()
        with callers.counted_by(calls.count):
            callers.are_asking()
            clock.now += 0.2
            calls.so_far += 1
            assert callers.are_asking()
            clock.now += 0.2
            assert callers.are_asking()

    def test_that_ends_a_quarter_of_a_second_after_the_last_call(self, clock: Clock) -> None:
        callers, calls = Callers(), Calls()
        with callers.counted_by(calls.count):
            callers.are_asking()
            for _ in range(5):
                clock.now += 0.2
                calls.so_far += 1
                assert callers.are_asking()
            clock.now += 0.24
            assert callers.are_asking()
            clock.now += 0.02
            assert not callers.are_asking()

    def test_what_came_while_nobody_looked_does_not_count(self, clock: Clock) -> None:
        callers, calls = Callers(), Calls()
        with callers.counted_by(calls.count):
            callers.are_asking()
            clock.now += 0.3
            calls.so_far += 100
            assert not callers.are_asking()
            clock.now += 0.1
            assert not callers.are_asking()
            calls.so_far += 1
            assert callers.are_asking()

    def test_they_are_counted_as_long_as_the_block_lasts(self, clock: Clock) -> None:
        callers, calls = Callers(), Calls()
        with suppress(ZeroDivisionError), callers.counted_by(calls.count):
            callers.are_asking()
            raise ZeroDivisionError
        calls.so_far += 1
        assert not callers.are_asking()

    def test_who_begins_and_ends_to_count_does_not_ask(self, clock: Clock) -> None:
        callers = Callers()
        assert not callers.are_asking()
        with callers.counted_by(Calls(7).count):
            assert not callers.are_asking()
            with callers.counted_by(Calls(20).count):
                assert not callers.are_asking()
            assert not callers.are_asking()
        assert not callers.are_asking()

    def test_all_who_ask_a_process_count_whichever_server_starts_or_ends_first(self, clock: Clock) -> None:
        callers, one, other = Callers(), Calls(3), Calls(50)
        first, second = callers.counted_by(one.count), callers.counted_by(other.count)
        first.__enter__()
        second.__enter__()
        callers.are_asking()
        one.so_far += 1
        assert callers.are_asking()
        clock.now += 1
        first.__exit__(None, None, None)
        callers.are_asking()
        other.so_far += 1
        assert callers.are_asking()
        clock.now += 1
        second.__exit__(None, None, None)
        callers.are_asking()
        one.so_far += 1
        other.so_far += 1
        assert not callers.are_asking()


def endless() -> Iterator[None]:
    while True:
        yield


class TestPauses:
    """Only lower bounds of time: a pause is as long as it is, however slow the machine."""

    PAUSE_S = 0.05

    @pytest.fixture(autouse=True)
    def long_pauses(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tasks, "_PAUSE_S", self.PAUSE_S)
        monkeypatch.setattr(tasks, "_SLICE_S", 0.0)
        monkeypatch.setattr(tasks, "_BUSY_S", float("inf"))
        monkeypatch.setattr(tasks, "_ATTENTIVE_S", 600.0)

    @pytest.fixture
    def asked(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """Have somebody ask this process."""
        callers, calls = Callers(), Calls()
        monkeypatch.setattr(tasks, "callers", callers)
        with callers.counted_by(calls.count):
            callers.are_asking()
            calls.so_far += 1
            yield

    @pytest.fixture
    def unasked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tasks, "callers", Callers())
        monkeypatch.setattr(tasks, "_PAUSE_S", 3600.0)

    async def test_advance_pauses_after_a_slice_while_somebody_asks(self, asked: None) -> None:
        begun = time.monotonic()
        assert await advance(endless())
        assert await advance(endless())
        assert time.monotonic() - begun > 1.9 * self.PAUSE_S

    async def test_awaited_work_pauses_after_a_slice_while_somebody_asks(self, asked: None) -> None:
        slices, begun = Slices(), time.monotonic()
        await slices.end_if_due()
        await slices.end_if_due()
        assert time.monotonic() - begun > 1.9 * self.PAUSE_S

    async def test_rest_is_a_pause_while_somebody_asks(self, asked: None) -> None:
        begun = time.monotonic()
        await rest()
        assert time.monotonic() - begun > 0.9 * self.PAUSE_S

    async def test_there_is_none_after_the_end(self, asked: None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tasks, "_PAUSE_S", 3600.0)
        monkeypatch.setattr(tasks, "_SLICE_S", 600.0)
        async with asyncio.timeout(60):
            assert not await advance(iter([None, None]))

    async def test_there_is_none_while_nobody_asks(self, unasked: None) -> None:
        async with asyncio.timeout(60):
            assert await advance(endless())
            await Slices().end_if_due()
            await rest()


def count_down(start: int) -> Generator[None, None, str]:
    for _ in range(start):
        yield
    if start > 100:
        raise ValueError(start)
    return f"from {start}"


class TestResults:
    @pytest.mark.parametrize("slice_s", [0.0, 600.0], ids=["step by step", "in one slice"])
    @pytest.mark.parametrize("start", [0, 1, 100])
    async def test_are_what_the_steps_return(self, monkeypatch: pytest.MonkeyPatch, slice_s: float, start: int) -> None:
        monkeypatch.setattr(tasks, "_SLICE_S", slice_s)
        assert run_to_end(count_down(start)) == await find_in_slices(count_down(start)) == f"from {start}"

    async def test_are_the_errors_of_the_steps(self) -> None:
        with pytest.raises(ValueError, match="101"):
            await find_in_slices(count_down(101))
        with pytest.raises(ValueError, match="101"):
            run_to_end(count_down(101))

    async def test_are_none_of_a_cancelled_task_whose_steps_are_closed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tasks, "_SLICE_S", 0.0)
        begun, ended = asyncio.Event(), asyncio.Event()

        def steps() -> Generator[None, None, None]:
            try:
                while True:
                    begun.set()
                    yield
            finally:
                ended.set()

        working = asyncio.create_task(find_in_slices(steps()))
        await begun.wait()
        await end_tasks(working)
        assert working.cancelled()
        del working
        await asyncio.wait_for(ended.wait(), 60)


@pytest.mark.parametrize(("after_s", "length_s"), [(0, 0.0002), (1, 0.0002), (5, 0.001), (10, 0.002), (60, 0.002)])
def test_slices_of_work_with_a_time_limit_get_longer(
    monkeypatch: pytest.MonkeyPatch, after_s: float, length_s: float
) -> None:
    monkeypatch.setattr(tasks, "perf_counter", lambda: 100.0)
    with tasks.within_limits():
        monkeypatch.setattr(tasks, "perf_counter", lambda: 100.0 + after_s)
        assert tasks._end_of_slice() == pytest.approx(100.0 + after_s + length_s)
    assert tasks._end_of_slice() == pytest.approx(100.0 + after_s + 0.0002)
