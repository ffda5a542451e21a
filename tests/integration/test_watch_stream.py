"""``WatchRefreshStatus`` over the wire: the stream's contract as a caller meets it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from conftest import Services, StartApp, refresh_to_end
from modelcatalog.v1 import refresh_service_pb2 as pb
from modelcatalog.v1.refresh_pb2 import Refresh, RefreshStatus
from modelcatalog.v1.refresh_service_pb2_grpc import RefreshServiceStub
from modelcatalog_client import AsyncModelCatalogClient
from modelcatalog_server.domain.refresh import EventKind, Phase, RefreshRequest, State
from modelcatalog_server.refresh import feed as feed_module
from modelcatalog_server.rpc import refresh_servicer
from modelcatalog_server.rpc.refresh_servicer import _to_heartbeat
from small_catalog import Stage, clone_small, follow, until
from upstream_server import hang

# The smallest window that HTTP/2 has: a reader that stops reading stops the writer soon.
NARROW = (("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0))


@pytest.fixture
def database(templates: Services) -> Iterator[str]:
    yield from clone_small(templates)


@pytest.fixture
async def stage(start_app: StartApp, database: str) -> AsyncIterator[Stage]:
    async with follow(start_app, database) as stage:
        yield stage


@pytest.fixture
async def channel(stage: Stage) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(stage.running.server.address, options=NARROW) as channel:
        yield channel


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> Any:
    return RefreshServiceStub(channel)


def watch(stub: Any, **request: Any) -> Any:
    return stub.WatchRefreshStatus(pb.WatchRefreshStatusRequest(**request), timeout=100)


async def read_all(call: Any, into: list[RefreshStatus] | None = None) -> list[RefreshStatus]:
    statuses = [] if into is None else into
    while (message := await call.read()) is not grpc.aio.EOF:
        statuses.append(message.status)
    return statuses


async def reason_of(call: Any) -> tuple[grpc.StatusCode, str, list[str]]:
    """Return the code, the reason and the names of the details that a call ended with."""
    code = await call.code()
    trailers = dict(await call.trailing_metadata())
    details = status_pb2.Status.FromString(trailers["grpc-status-details-bin"]).details
    info = error_details_pb2.ErrorInfo()
    assert details[0].Unpack(info)
    assert info.domain == "modelcatalog"
    assert trailers["x-request-id"]
    return code, info.reason, [detail.TypeName().rpartition(".")[2] for detail in details[1:]]


# --- the first message ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("situation", ["nothing running", "running", "already over", "no run ever"])
async def test_the_first_message_is_the_state_and_comes_at_once(
    start_app: StartApp, database: str, empty_database: str, situation: str
) -> None:
    async with follow(start_app, empty_database if situation == "no run ever" else database) as stage:
        refresh_id = ""
        if situation == "running":
            stage.upstream.misbehave("*", hang)
            refresh, _ = await stage.running.refreshes.start(RefreshRequest())
            await stage.upstream.wait_for_request()
            refresh_id = str(refresh.id)
        elif situation == "already over":
            refresh_id = str((await stage.refresh()).id)
        async with grpc.aio.insecure_channel(stage.running.server.address) as channel:
            await channel.channel_ready()
            call = watch(RefreshServiceStub(channel), refresh_id=refresh_id)
            message = await asyncio.wait_for(call.read(), 10)  # before anything that would break the silence
            call.cancel()
        status = message.status
        assert status.kind == RefreshStatus.KIND_SNAPSHOT
        assert status.resume_token
        assert status.HasField("event_time")
        expected = {
            "nothing running": Refresh.STATE_SUCCEEDED,
            "running": Refresh.STATE_RUNNING,
            "already over": Refresh.STATE_SUCCEEDED,
            "no run ever": Refresh.STATE_UNSPECIFIED,
        }
        assert status.refresh.state == expected[situation]
        assert status.HasField("refresh") is (situation != "no run ever")
        assert message.catalog_revision == (0 if situation == "no run ever" else 1)


async def test_a_watch_on_one_run_ends_with_ok_after_its_terminal(stage: Stage, stub: Any) -> None:
    stage.catalog.add("openai/gpt-6")
    stage.publish()
    started = await stub.StartRefresh(pb.StartRefreshRequest())
    call = watch(stub, refresh_id=started.refresh.id)
    messages = [message async for message in call]
    assert await call.code() is grpc.StatusCode.OK
    events = [message.status for message in messages]
    assert events[0].kind == RefreshStatus.KIND_SNAPSHOT
    assert [event.kind for event in events].count(RefreshStatus.KIND_TERMINAL) == 1
    assert events[-1].kind == RefreshStatus.KIND_TERMINAL
    assert {event.refresh_id for event in events} == {started.refresh.id}
    sequences = [event.sequence for event in events]
    assert sequences == sorted(set(sequences))
    last = events[-1].refresh
    assert (last.state, last.result_revision, last.counts.added) == (Refresh.STATE_SUCCEEDED, 2, 1)
    assert last == (await stub.GetRefresh(pb.GetRefreshRequest(refresh_id=last.id))).refresh
    assert messages[-1].catalog_revision == 2, "who reads TERMINAL may read the catalog"


async def test_what_terminal_tells_can_be_read_at_once(stage: Stage) -> None:
    async with AsyncModelCatalogClient(stage.running.server.address) as client:
        for number in range(3):
            stage.catalog.add(f"openai/new-{number}")
            stage.publish()
            started = (await client.start_refresh()).refresh
            last = [event async for event in client.watch_refresh_status(started.id)][-1]
            model = (await client.get_model(f"openai/new-{number}")).model
            assert model.revision == last.refresh.result_revision


# --- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({"refresh_id": "7"}, (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_QUERY", ["BadRequest"])),
        ({"refresh_id": str(uuid4())}, (grpc.StatusCode.NOT_FOUND, "REFRESH_NOT_FOUND", [])),
        ({"resume_token": "forged"}, (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_RESUME_TOKEN", ["BadRequest"])),
    ],
    ids=["no uuid", "no such run", "forged token"],
)
async def test_what_cannot_be_watched_is_refused(
    stage: Stage, stub: Any, request_: dict[str, str], expected: tuple[grpc.StatusCode, str, list[str]]
) -> None:
    call = watch(stub, **request_)
    with pytest.raises(grpc.RpcError):
        await call.read()
    assert await reason_of(call) == expected


async def test_one_watch_too_many_is_told_when_to_come_back(
    stage: Stage, stub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "MAX_WATCHES", 3)
    calls = [watch(stub) for _ in range(3)]
    for call in calls:
        await call.read()
    refused = watch(stub)
    with pytest.raises(grpc.RpcError):
        await refused.read()
    code, reason, details = await reason_of(refused)
    assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS")
    assert details == ["QuotaFailure", "RetryInfo"]
    calls[0].cancel()
    await until(lambda: len(stage.running.feed._buffers) == 2)
    again = watch(stub)
    assert (await again.read()).status.kind == RefreshStatus.KIND_SNAPSHOT


@pytest.mark.parametrize(
    ("asked", "given"), [(0.0, 5.0), (-3.0, 5.0), (4.999, 5.0), (5.0, 5.0), (7.5, 7.5), (60.0, 60.0), (3600.0, 60.0)]
)
def test_a_heartbeat_is_asked_for_between_5_and_60_seconds(asked: float, given: float) -> None:
    interval = Duration()
    interval.FromNanoseconds(round(asked * 1e9))
    assert _to_heartbeat(interval) == given


async def test_heartbeats_come_over_the_wire(stage: Stage, stub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refresh_servicer, "HEARTBEAT_S", 0.1)
    call = watch(stub)
    messages = [(await call.read()).status for _ in range(3)]
    assert [message.kind for message in messages[1:]] == [RefreshStatus.KIND_HEARTBEAT] * 2
    assert [(beat.refresh_id, beat.sequence, beat.HasField("refresh")) for beat in messages[1:]] == [("", 0, False)] * 2
    call.cancel()


# --- ends ----------------------------------------------------------------------------------------------------------


async def test_a_closed_stream_gives_its_room_back(stage: Stage, stub: Any, channel: grpc.aio.Channel) -> None:
    cancelled, read, kept = watch(stub), watch(stub), watch(stub)
    for call in (cancelled, read, kept):
        await call.read()
    assert len(stage.running.feed._buffers) == 3
    cancelled.cancel()
    await until(lambda: len(stage.running.feed._buffers) == 2)
    await channel.close()
    await until(lambda: not stage.running.feed._buffers)


async def test_a_drain_ends_every_stream_with_its_reason_and_at_once(stage: Stage, stub: Any) -> None:
    stage.upstream.misbehave("*", hang)
    refresh, _ = await stage.running.refreshes.start(RefreshRequest())
    calls = [watch(stub), watch(stub, refresh_id=str(refresh.id))]
    for call in calls:
        await call.read()
    loop = asyncio.get_running_loop()
    started = loop.time()
    drain = asyncio.create_task(stage.running.server.drain(30))
    for call in calls:
        with pytest.raises(grpc.RpcError):
            await read_all(call)
        assert await reason_of(call) == (grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING", [])
    await drain
    assert loop.time() - started < 20


async def test_a_drain_does_not_wait_for_somebody_who_watches_health(stage: Stage, channel: grpc.aio.Channel) -> None:
    health: Any = health_pb2_grpc.HealthStub(channel)
    call = health.Watch(health_pb2.HealthCheckRequest(service=""))
    await call.read()
    loop = asyncio.get_running_loop()
    started = loop.time()
    await stage.running.server.drain(30)
    assert loop.time() - started < 20


async def test_a_call_that_is_cancelled_while_the_database_works_frees_everything(stage: Stage, stub: Any) -> None:
    for _ in range(20):
        call = watch(stub, refresh_id=str(uuid4()))
        await asyncio.sleep(0)
        call.cancel()
    await until(lambda: not stage.running.feed._buffers)
    assert (await refresh_to_end(stage.running)).state is State.SUCCEEDED


# --- slow readers --------------------------------------------------------------------------------------------------


async def nothing() -> None:
    """Do not wait for anybody."""


async def talk(
    stage: Stage, events: int, *, size: int = 8000, after_each: Callable[[], Awaitable[Any]] = nothing
) -> str:
    """Write a run of so many large STATE events and its end. Returns its id."""
    store = stage.running.feed._store
    ownership = await store.try_own()
    assert ownership is not None
    refresh = await store.create(uuid4(), RefreshRequest())
    for _ in range(events):
        running = replace(refresh, state=State.RUNNING, phase=Phase.FETCH)
        refresh = await store.record(running, EventKind.STATE, message="x" * size)
        await after_each()
    await store.record(replace(refresh, state=State.SUCCEEDED), EventKind.TERMINAL)
    await ownership.release()
    return str(refresh.id)


async def test_a_reader_that_stops_reading_delays_nobody_and_can_resume(
    stage: Stage, stub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "_BUFFER", 30)
    monkeypatch.setattr(refresh_servicer, "WRITE_TIMEOUT_S", 100.0)  # it has a test of its own
    stopped = watch(stub)
    first = await stopped.read()
    async with grpc.aio.insecure_channel(stage.running.server.address) as other:
        quick = watch(RefreshServiceStub(other))
        await quick.read()
        async with asyncio.timeout(60):
            run = await talk(stage, 100, after_each=quick.read)
            while (await quick.read()).status.kind != RefreshStatus.KIND_TERMINAL:
                pass
    (buffer,) = [each for each in stage.running.feed._buffers if each.overflowed]
    assert len(buffer.events) <= 31
    read = [first.status]
    with pytest.raises(grpc.RpcError):
        await read_all(stopped, into=read)
    assert (await reason_of(stopped))[:2] == (grpc.StatusCode.RESOURCE_EXHAUSTED, "SLOW_CONSUMER")
    rest = await read_all(watch(stub, refresh_id=run, resume_token=read[-1].resume_token))
    sequences = [status.sequence for status in (*read[1:], *rest[1:])]
    assert sequences == list(range(1, 103))


async def test_a_reader_that_never_reads_again_loses_its_place(
    stage: Stage, stub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refresh_servicer, "WRITE_TIMEOUT_S", 0.3)
    stopped = watch(stub)
    await stopped.read()
    await talk(stage, 60)
    await until(lambda: not stage.running.feed._buffers)
    with pytest.raises(grpc.RpcError):
        await read_all(stopped)
    assert (await reason_of(stopped))[:2] == (grpc.StatusCode.RESOURCE_EXHAUSTED, "SLOW_CONSUMER")


async def test_a_drain_does_not_wait_for_a_reader_that_stopped_reading(stage: Stage, stub: Any) -> None:
    stopped = watch(stub)
    await stopped.read()
    await talk(stage, 60)
    loop = asyncio.get_running_loop()
    started = loop.time()
    await stage.running.server.drain(1)
    assert loop.time() - started < 20
