"""A server that drains ends its streams also where one of them drops the cancellation."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, cast

import pytest

from modelcatalog_server.rpc.calls import Calls
from modelcatalog_server.rpc.context import Context


async def open_stream(calls: Calls, dropped: int) -> asyncio.Task[Any]:
    """Open a stream whose handler goes on in spite of so many cancellations."""

    async def handle(_request: Any, _context: Context) -> None:
        for _ in range(dropped):
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
        await asyncio.Event().wait()

    known = cast("Any", calls._known(handle)(None, cast("Context", SimpleNamespace(peer=lambda: "unix:"))))
    task: asyncio.Task[Any] = asyncio.create_task(known)
    await asyncio.sleep(0)
    return task


@pytest.mark.parametrize("dropped", [0, 1, 2])
async def test_a_stream_is_ended_however_often_it_drops_that(dropped: int) -> None:
    calls = Calls()
    streams = [await open_stream(calls, dropped), await open_stream(calls, 0)]
    async with asyncio.timeout(30):
        await calls.end_streams()
    assert all(stream.cancelled() for stream in streams)


async def test_without_a_stream_there_is_nothing_to_wait_for() -> None:
    await Calls().end_streams()
