"""A server that drains: not ready first, then no streams, then no calls, and nothing waits for what does not end."""

from __future__ import annotations

import asyncio
import gc
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from conftest import Services, StartApp, make_settings
from fuzzing import DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, call_headers, frame, grpc_message
from modelcatalog_client import AsyncModelCatalogClient
from modelcatalog_client.errors import CatalogError, ServerDrainingError, UnavailableError
from modelcatalog_server import app
from modelcatalog_server.backends import start_backends
from modelcatalog_server.domain.errors import StartupError
from modelcatalog_server.domain.tasks import end_tasks
from modelcatalog_server.rpc import server
from modelcatalog_server.rpc.accepting import new_server
from replicas import replicas
from small_catalog import Stage, clone_small, fetch, follow, locked, until
from upstream_server import UpstreamServer, hang

NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVING = health_pb2.HealthCheckResponse.SERVING
#: Without a look at health, which would not let it make calls at all.
PLAIN: list[tuple[str, str | int]] = [("grpc.enable_retries", 0), ("grpc.service_config", "{}")]


@pytest.fixture
def database(templates: Services) -> Iterator[str]:
    yield from clone_small(templates)


@pytest.fixture
async def stage(start_app: StartApp, database: str) -> AsyncIterator[Stage]:
    async with follow(start_app, database) as stage:
        stage.running.server.set_serving(True)
        yield stage


async def test_it_answers_for_a_while_after_it_has_turned_not_ready(stage: Stage) -> None:
    address = stage.running.server.address
    async with AsyncModelCatalogClient(address, options=PLAIN) as client, grpc.aio.insecure_channel(address) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        watches = [health.Watch(health_pb2.HealthCheckRequest(service=name)) for name in ("", "modelcatalog.accepting")]
        assert [(await watch.read()).status for watch in watches] == [SERVING] * 2
        assert (await client.get_model("openai/gpt-5")).model.id == "openai/gpt-5"  # it is connected
        draining = asyncio.create_task(stage.running.server.drain(5, delay_s=3))
        assert [(await watch.read()).status for watch in watches] == [NOT_SERVING] * 2

        assert (await health.Check(health_pb2.HealthCheckRequest())).status == NOT_SERVING
        assert (await client.get_model("openai/gpt-5")).model.id == "openai/gpt-5"
        with pytest.raises(ServerDrainingError):
            await anext(client.watch_refresh_status(max_reconnect_seconds=0))
        assert not draining.done()

        for watch in watches:
            with pytest.raises(grpc.aio.AioRpcError) as ended:
                await watch.read()
            assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
        await draining


async def call_for(seconds: float, client: AsyncModelCatalogClient) -> None:
    """Call without a pause, so long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        await client.get_model("openai/gpt-5")


async def test_it_answers_on_while_callers_are_slow_to_leave(stage: Stage) -> None:
    async with AsyncModelCatalogClient(stage.running.server.address, options=PLAIN) as client:
        await client.get_model("openai/gpt-5")
        draining = asyncio.create_task(stage.running.server.drain(20, delay_s=0.01))
        async with asyncio.timeout(15):
            await asyncio.gather(*(call_for(0.7, client) for _ in range(4)))
            await draining


async def test_who_never_leaves_does_not_keep_it(stage: Stage) -> None:
    async with AsyncModelCatalogClient(stage.running.server.address, options=PLAIN) as client:
        await client.get_model("openai/gpt-5")
        calling = asyncio.create_task(call_for(60, client))
        async with asyncio.timeout(15):
            await stage.running.server.drain(0.5, delay_s=0.01)
        with pytest.raises(CatalogError):
            await calling


async def test_who_watches_health_and_takes_nothing_holds_up_neither_others_nor_the_end(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    address = stage.running.server.address
    host, _, port = address.rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(PREFACE + frame(SETTINGS, 0, 0, b"\0\4\0\0\0\0") + watch_health(""))  # a window of nothing
        await until(lambda: len(stage.running.server._calls._health_watches) == 1)
        async with grpc.aio.insecure_channel(address) as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)
            watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=60)
            assert (await watch.read()).status == SERVING
            async with asyncio.timeout(20):
                await stage.running.server.drain(1, delay_s=0.2)
            assert (await watch.read()).status == NOT_SERVING
        await until(lambda: not of_calls())
        assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []
    finally:
        writer.close()


def of_calls() -> list[asyncio.Task[Any]]:
    """Return the tasks of calls that are not over."""
    return [task for task in asyncio.all_tasks() if task.get_name() == "rpc_task"]


def watch_health(service: str) -> bytes:
    """Return the frames that begin to watch."""
    request = health_pb2.HealthCheckRequest(service=service).SerializeToString()
    begin = frame(HEADERS, END_HEADERS, 1, call_headers(b"/grpc.health.v1.Health/Watch"))
    return begin + frame(DATA, END_STREAM, 1, grpc_message(request))


async def test_whatever_hangs_it_ends_in_time_and_its_refresh_before(
    templates: Services, work_dir: Path, database: str
) -> None:
    waiting = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        " AND application_name = 'modelcatalog-read'"
    )
    states = "SELECT status FROM models_refresh_history WHERE trigger = 'MANUAL'"

    async def is_waiting() -> bool:
        return await fetch(database, waiting) != [0]

    async def is_cancelled() -> bool:
        return await fetch(database, states) == ["CANCELLED"]

    async with UpstreamServer() as upstream, replicas(templates, work_dir) as start:
        upstream.misbehave("*", hang)
        replica = await start(database, upstream.url, DRAIN_SECONDS="3")
        async with AsyncModelCatalogClient(replica.address, options=PLAIN) as client:
            await client.start_refresh()
            await upstream.wait_for_request()
            async with locked(database, "model_benchmarks IN ACCESS EXCLUSIVE"):
                calling = asyncio.ensure_future(client.list_model_benchmarks("openai/gpt-5", timeout=60))
                await until(is_waiting)
                begun_at = time.monotonic()
                replica.send(signal.SIGTERM)
                await until(is_cancelled)
                assert not calling.done(), "what the other replica may go on with does not wait for calls"
                assert await asyncio.to_thread(replica.process.wait, 20) == 0
                # Of the calls that it was given 3 s for one would have gone on for 60.
                assert 2.5 < time.monotonic() - begun_at < 20
                with pytest.raises(UnavailableError):
                    await calling


async def test_a_grpc_server_that_stops_by_itself_ends_the_service(
    templates: Services, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[grpc.aio.Server] = []

    def new_server_noted(*arguments: Any) -> grpc.aio.Server:
        started.append(new_server(*arguments))
        return started[0]

    monkeypatch.setattr(server, "new_server", new_server_noted)
    settings = make_settings(templates, database, offline=True, metrics_listen="off")
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    async with start_backends(settings) as backends:
        serving = asyncio.create_task(app.serve(settings, backends, ready.set_result))
        try:
            await until(lambda: ready.done() or serving.done())
            await started[0].stop(None)
            async with asyncio.timeout(10):
                with pytest.raises(StartupError, match="stopped by itself"):
                    await serving
        finally:
            await end_tasks(serving)
            gc.unfreeze()
