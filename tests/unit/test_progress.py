"""Progress that is written at most so often, and to its end."""

from __future__ import annotations

import asyncio

import pytest

from modelcatalog_server.refresh.progress import throttled


class Reports:
    """Takes reports, each for as long as it is held."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.held = asyncio.Event()
        self.written: list[tuple[int, int | None]] = []

    async def __call__(self, done: int, total: int | None) -> None:
        self.begun.set()
        await self.held.wait()
        self.written.append((done, total))


async def test_the_newest_figures_are_written_once_in_a_while() -> None:
    reports = Reports()
    reports.held.set()
    async with throttled(reports, interval_s=0.01) as progress:
        for done in range(5):
            progress(done, 9)
        await reports.begun.wait()
    assert reports.written == [(4, 9)]


async def test_a_report_that_is_being_written_is_written_to_its_end() -> None:
    reports = Reports()
    async with throttled(reports, interval_s=0.01) as progress:
        progress(1, None)
        await reports.begun.wait()
        asyncio.get_running_loop().call_later(0.05, reports.held.set)
    assert reports.written == [(1, None)]


async def test_who_fails_waits_for_no_report() -> None:
    reports = Reports()

    async def fail() -> None:
        async with throttled(reports, interval_s=0.01) as progress:
            progress(1, None)
            await reports.begun.wait()
            raise ValueError("of the block")

    with pytest.raises(ValueError, match="of the block"):
        await fail()
    assert reports.written == []


async def test_nothing_is_waited_for_between_two_reports() -> None:
    async with asyncio.timeout(30), throttled(Reports(), interval_s=3600) as progress:
        progress(1, None)


async def test_a_report_that_fails_is_raised_at_the_end() -> None:
    begun = asyncio.Event()

    async def fail(_done: int, _total: int | None) -> None:
        begun.set()
        raise ValueError("of the report")

    async def work() -> None:
        async with throttled(fail, interval_s=0.01) as progress:
            progress(1, None)
            await begun.wait()

    with pytest.raises(ValueError, match="of the report"):
        await work()
