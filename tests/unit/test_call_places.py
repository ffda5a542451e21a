"""Places for calls, the queue before them, and the streams of each caller."""

from __future__ import annotations

import asyncio

import pytest

from modelcatalog_server.domain.errors import OverloadedError, TooManyStreamsError
from modelcatalog_server.rpc.overload import OpenStreams, Places


class Work:
    """Calls that go on until they are told to end."""

    def __init__(self, places: Places) -> None:
        self.places = places
        self.end = asyncio.Event()
        self.running = 0
        self.most = 0

    async def call(self) -> None:
        async with self.places.place():
            self.running += 1
            self.most = max(self.most, self.running)
            try:
                await self.end.wait()
            finally:
                self.running -= 1


async def begin(work: Work, count: int) -> list[asyncio.Task[None]]:
    calls = [asyncio.create_task(work.call()) for _ in range(count)]
    for _ in range(3):
        await asyncio.sleep(0)
    return calls


async def test_so_many_run_so_many_wait_and_the_others_are_refused() -> None:
    work = Work(Places(3, 2))
    calls = await begin(work, 7)
    assert work.running == 3
    refused = [call for call in calls if call.done()]
    assert refused == calls[5:]
    for call in refused:
        error = call.exception()
        assert isinstance(error, OverloadedError)
        assert 0.1 < error.retry_after_s < 2
    work.end.set()
    await asyncio.gather(*calls[:5])
    assert work.most == 3


async def test_who_waits_too_long_is_refused() -> None:
    work = Work(Places(1, 5, patience_s=0.02))
    first, second = await begin(work, 2)
    with pytest.raises(OverloadedError):
        await second
    assert not first.done()
    work.end.set()
    await first


async def test_who_goes_away_gives_up_its_place_wherever_it_stands() -> None:
    work = Work(Places(1, 1))
    running, waiting = await begin(work, 2)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    (next_one,) = await begin(work, 1)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await begin(work, 0)
    assert work.running == 1
    work.end.set()
    await next_one
    assert not work.places._free.locked()
    assert work.places._waiting == 0


def test_streams_are_counted_for_each_caller() -> None:
    streams = OpenStreams(2)
    with streams.counted("ann"), streams.counted("ann"), streams.counted("bob"):
        with pytest.raises(TooManyStreamsError) as refused, streams.counted("ann"):
            pass
        assert refused.value.subject == "ann"
    with streams.counted("ann"):
        pass
    assert not streams._open
