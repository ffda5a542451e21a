"""Many watches of one process, over the wire, and watches of what is long gone."""

from __future__ import annotations

import asyncio
import resource
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest

from conftest import Services, StartApp
from modelcatalog.v1 import refresh_service_pb2 as pb
from modelcatalog.v1.refresh_pb2 import RefreshStatus
from modelcatalog.v1.refresh_service_pb2_grpc import RefreshServiceStub
from modelcatalog_client import AsyncModelCatalogClient, TooManyStreamsError
from modelcatalog_server.domain.refresh import EventKind
from modelcatalog_server.refresh.feed import MAX_WATCHES
from small_catalog import Stage, clone_small, follow, until

#: Grown by the server's and the clients' side of all streams together, which are one process here.
MAX_GROWTH_MB = 150
#: Busy machines included; undisturbed it is a second or two.
MAX_SECONDS = 60


@pytest.fixture
def database(templates: Services) -> Iterator[str]:
    yield from clone_small(templates)


@pytest.fixture
async def stage(start_app: StartApp, database: str) -> AsyncIterator[Stage]:
    async with follow(start_app, database, max_streams_per_caller=1000) as stage:
        yield stage


def peak_mb() -> float:
    """Return the most memory that this process had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1024 * 1024)


async def first_and_rest(call: Any, opened: asyncio.Semaphore) -> list[RefreshStatus]:
    """Read a watch of everything up to the end of a run, without what only breaks the silence."""
    read = [(await call.read()).status]
    opened.release()
    while read[-1].kind != RefreshStatus.KIND_TERMINAL:
        status = (await call.read()).status
        if status.kind != RefreshStatus.KIND_HEARTBEAT:
            read.append(status)
    return read


async def test_500_watch_one_process_and_the_next_one_is_refused(stage: Stage) -> None:
    opened = asyncio.Semaphore(0)
    stage.catalog.add("openai/gpt-6")
    stage.publish()
    peak_before = peak_mb()
    async with asyncio.timeout(MAX_SECONDS), AsyncExitStack() as stack:
        channels = [
            # Without an option of its own a channel shares the connection of the others.
            await stack.enter_async_context(
                grpc.aio.insecure_channel(stage.running.server.address, options=(("modelcatalog.test.number", number),))
            )
            for number in range(5)
        ]
        calls = [
            RefreshServiceStub(channels[number % 5]).WatchRefreshStatus(pb.WatchRefreshStatusRequest())
            for number in range(MAX_WATCHES)
        ]
        reading = [asyncio.create_task(first_and_rest(call, opened)) for call in calls]
        for _ in calls:
            await opened.acquire()
        assert len(stage.running.feed._buffers) == MAX_WATCHES

        async with AsyncModelCatalogClient(stage.running.server.address) as one_more:
            with pytest.raises(TooManyStreamsError):
                await anext(one_more.watch_refresh_status(max_reconnect_seconds=0))
            refresh = (await one_more.start_refresh()).refresh
            told = await asyncio.gather(*reading)
            for first, *events in told:
                assert first.kind == RefreshStatus.KIND_SNAPSHOT
                assert {event.refresh_id for event in events} == {refresh.id}
                assert [event.kind for event in events].count(RefreshStatus.KIND_TERMINAL) == 1
                kept = [event.sequence for event in events if event.kind != RefreshStatus.KIND_PROGRESS]
                assert kept == [event.sequence for event in told[0][1:] if event.kind != RefreshStatus.KIND_PROGRESS]
            for call in calls:
                call.cancel()
            await until(lambda: not stage.running.feed._buffers)
            await anext(one_more.watch_refresh_status(max_reconnect_seconds=0))
    assert peak_mb() - peak_before < MAX_GROWTH_MB


# --- what is left of old runs --------------------------------------------------------------------------------------


async def test_a_run_whose_events_are_deleted_still_tells_its_end_once(stage: Stage) -> None:
    stage.catalog.add("openai/gpt-6")
    refresh = await stage.refresh()
    feed = stage.running.feed
    tokens = ["", feed.seal(refresh.id, 0), feed.seal(None, 0)]
    await feed._store.prune(
        events_before=datetime.now(UTC) + timedelta(days=1), refreshes_before=datetime(2000, 1, 1, tzinfo=UTC)
    )
    assert await stage.fetch("SELECT DISTINCT kind FROM refresh_events") == ["TERMINAL"]
    for token in tokens:
        async with asyncio.timeout(10), await feed.watch(refresh.id, token, 15) as watch:
            first, last, end = [await watch.next() for _ in range(3)]
        assert first is not None
        assert last is not None
        assert (first.kind, last.kind, end) == (EventKind.SNAPSHOT, EventKind.TERMINAL, None)
        assert first.refresh == last.refresh == await stage.running.refreshes.get(refresh.id)
        assert first.sequence < last.sequence == refresh.last_sequence


async def test_a_watch_goes_on_at_another_replica(stage: Stage, start_app: StartApp) -> None:
    """A caller that has a token of one replica and asks the other, run after run."""
    async with (
        start_app(stage.database_url, offline=True) as other,
        AsyncModelCatalogClient(stage.running.server.address) as here,
        AsyncModelCatalogClient(other.server.address) as there,
    ):
        watch = here.watch_refresh_status()
        assert (await anext(watch)).kind == RefreshStatus.KIND_SNAPSHOT
        token, seen = watch.resume_token, []
        await watch.close()
        for turn in range(4):
            stage.catalog.model("openai/gpt-5")["name"] = f"GPT-5 {turn}"
            refresh = await stage.refresh()
            asked = (there, here)[turn % 2]
            async with asyncio.timeout(20), asked.watch_refresh_status(resume_token=token) as resumed:
                async for status in resumed:
                    seen.append(status)
                    if status.kind == RefreshStatus.KIND_TERMINAL:
                        break
                token = resumed.resume_token
            assert seen[-1].refresh_id == str(refresh.id)
        await assert_seen_is_whole(stage, seen)


async def assert_seen_is_whole(stage: Stage, seen: list[RefreshStatus]) -> None:
    events = [
        (status.refresh_id, status.sequence)
        for status in seen
        if status.kind in (RefreshStatus.KIND_STATE, RefreshStatus.KIND_TERMINAL)
    ]
    runs = list(dict.fromkeys(refresh_id for refresh_id, _ in events))
    assert len(runs) == 4
    assert events == await stage.fetch(
        "SELECT refresh_id::text, sequence FROM refresh_events WHERE refresh_id = ANY(%s::uuid[])"
        " AND kind <> 'PROGRESS' ORDER BY id",
        runs,
    )
