"""What an operator sees of the response cache, and letting go of what it holds, on every replica."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from conftest import Services, StartApp
from fault_proxy import FaultProxy
from modelcatalog.v1 import catalog_admin_service_pb2 as pb
from modelcatalog.v1.catalog_admin_service_pb2_grpc import CatalogAdminStub
from modelcatalog_client import AsyncModelCatalogClient
from modelcatalog_client.errors import from_rpc_error
from modelcatalog_server import app
from modelcatalog_server.storage.changes import ChangeListener
from redis_nodes import alone
from small_catalog import Stage, clone_small, fetch, follow, until

GPT_5, OPUS = "openai/gpt-5", "anthropic/claude-opus-4-5"


@pytest.fixture
def database(templates: Services) -> Iterator[str]:
    yield from clone_small(templates)


@pytest.fixture
async def stage(start_app: StartApp, database: str, services: Services) -> AsyncIterator[Stage]:
    async with Redis.from_url(services.redis_url) as redis:
        await redis.flushall()
    async with follow(start_app, database) as stage:
        yield stage


@pytest.fixture
async def client(stage: Stage) -> AsyncIterator[AsyncModelCatalogClient]:
    async with AsyncModelCatalogClient(stage.running.server.address) as client:
        yield client


@pytest.fixture
async def admin(stage: Stage) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(stage.running.server.address) as channel:
        yield CatalogAdminStub(channel)


async def fill(client: AsyncModelCatalogClient, running: app.App) -> None:
    """Three entries in either layer, and a hit of each."""
    for _ in range(2):
        await client.get_model(GPT_5)
        await client.get_model(OPUS)
        await client.get_provider("zeldoc")
    await running.responses.shared.flushed()


async def stats(admin: Any) -> dict[str, Any]:
    return {layer.name: layer for layer in (await admin.GetCacheStats(pb.GetCacheStatsRequest())).layers}


async def test_the_figures_of_each_layer(stage: Stage, client: AsyncModelCatalogClient, admin: Any) -> None:
    empty = await stats(admin)
    assert list(empty) == ["near", "redis"]
    for layer in empty.values():
        assert (layer.available, layer.entries, layer.bytes, layer.hits, layer.misses) == (True, 0, 0, 0, 0)
        assert not layer.HasField("hit_ratio")
    await fill(client, stage.running)
    near, redis = (await stats(admin)).values()
    assert (near.entries, near.hits, near.misses, near.evictions, near.hit_ratio) == (3, 3, 3, 0, 0.5)
    assert (redis.entries, redis.hits, redis.misses, redis.hit_ratio) == (3, 0, 3, 0)
    model = (await client.get_model(GPT_5)).ByteSize()
    assert model < redis.bytes < near.bytes < 20_000


async def test_a_redis_that_is_down_says_so(start_app: StartApp, database: str) -> None:
    async with (
        start_app(database, offline=True, redis_url="redis://127.0.0.1:1/0") as running,
        grpc.aio.insecure_channel(running.server.address) as channel,
    ):
        near, redis = (await stats(CatalogAdminStub(channel))).values()
        assert (near.available, redis.available, redis.entries) == (True, False, 0)
        invalidated = await CatalogAdminStub(channel).InvalidateCache(pb.InvalidateCacheRequest())
        assert (invalidated.invalidated_count, invalidated.catalog_revision) == (0, 1)


async def test_a_redis_that_does_not_let_us_count_is_available(
    start_app: StartApp, database: str, tmp_path: Path
) -> None:
    with alone(tmp_path) as node:
        node.ask("ACL", "SETUSER", "cat", "on", ">secret", "~*", "-@all", "+get", "+set")
        async with (
            start_app(database, offline=True, redis_url=f"redis://cat:secret@{node.address}") as running,
            grpc.aio.insecure_channel(running.server.address) as channel,
        ):
            redis = (await stats(CatalogAdminStub(channel)))["redis"]
            assert (redis.available, redis.entries, redis.bytes, redis.evictions) == (True, 0, 0, 0)


async def test_what_is_invalidated_while_redis_is_away_is_gone_when_it_is_back(
    start_app: StartApp, database: str, tmp_path: Path
) -> None:
    with alone(tmp_path) as node:
        async with (
            FaultProxy("127.0.0.1", node.port) as proxy,
            start_app(database, offline=True, redis_url=f"redis://127.0.0.1:{proxy.port}") as running,
            AsyncModelCatalogClient(running.server.address) as client,
            grpc.aio.insecure_channel(running.server.address) as channel,
        ):
            node.ask("SET", f"{running.responses.shared.prefix}:old", "x")
            proxy.cut()
            await CatalogAdminStub(channel).InvalidateCache(pb.InvalidateCacheRequest())
            proxy.mend()

            async def is_gone() -> bool:
                running.responses.near.clear()
                await client.get_model(GPT_5)
                return not node.ask("EXISTS", f"{running.responses.shared.prefix}:old")

            await until(is_gone)


async def test_everything_goes_and_is_made_anew(stage: Stage, client: AsyncModelCatalogClient, admin: Any) -> None:
    await fill(client, stage.running)
    await fetch(stage.database_url, "UPDATE llm_providers SET name = 'Renamed by hand' WHERE id = 'openai'")
    assert (await client.get_model(GPT_5)).model.provider_name == "OpenAI"
    response = await admin.InvalidateCache(pb.InvalidateCacheRequest())
    assert (response.invalidated_count, response.catalog_revision) == (6, 1)
    assert {layer.entries for layer in (await stats(admin)).values()} == {0}
    assert (await client.get_model(GPT_5)).model.provider_name == "Renamed by hand"


@pytest.mark.parametrize(
    ("request_", "left"),
    [
        (pb.InvalidateCacheRequest(model_id=GPT_5), 2),
        (pb.InvalidateCacheRequest(provider_id="anthropic"), 2),
        (pb.InvalidateCacheRequest(model_id="openai/nothing"), 3),
    ],
    ids=str,
)
async def test_what_names_a_model_or_provider_goes_and_the_rest_stays(
    stage: Stage, client: AsyncModelCatalogClient, admin: Any, request_: Any, left: int
) -> None:
    await fill(client, stage.running)
    response = await admin.InvalidateCache(request_)
    assert response.invalidated_count == 2 * (3 - left)
    assert {layer.entries for layer in (await stats(admin)).values()} == {left}


async def test_every_replica_lets_go(
    stage: Stage, start_app: StartApp, client: AsyncModelCatalogClient, admin: Any
) -> None:
    async with (
        start_app(stage.database_url, offline=True) as other,
        AsyncModelCatalogClient(other.server.address) as there,
    ):
        await fill(there, other)
        assert len(other.responses.near) == 3
        await admin.InvalidateCache(pb.InvalidateCacheRequest(model_id=GPT_5))
        await until(lambda: len(other.responses.near) == 2)
        await admin.InvalidateCache(pb.InvalidateCacheRequest())
        await until(lambda: len(other.responses.near) == 0)
        assert stage.running.responses.forgotten == 2, "not once more for the message of its own"


async def test_who_has_begun_to_listen_hears_what_is_said_from_then_on(database: str) -> None:
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as saying:
        heard: list[str | None] = []
        async with ChangeListener(database, lambda: None, heard.append):
            await saying.execute("NOTIFY modelcatalog, 'at once'")
            await until(lambda: heard == ["at once"])


async def test_who_cannot_listen_yet_does_not_keep_the_service_from_starting(tmp_path: Path) -> None:
    with capture_logs() as logs:
        async with ChangeListener(f"postgresql://modelcatalog@/modelcatalog?host={tmp_path}", lambda: None):
            pass
    assert [line["event"] for line in logs] == ["lost the connection that listens for changes"]


async def test_a_replica_that_may_have_missed_it_lets_go_of_everything(
    stage: Stage, client: AsyncModelCatalogClient
) -> None:
    await fill(client, stage.running)
    await fetch(
        stage.database_url,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'modelcatalog-changes'",
    )
    await until(lambda: len(stage.running.responses.near) == 0)


async def test_what_was_prepared_is_prepared_again(stage: Stage, admin: Any) -> None:
    async with stage.running.warmer:
        await until(lambda: stage.running.warmer.warmed)
        count = len(stage.running.responses.near)
        assert count == len(stage.catalog.model_ids)
        await admin.InvalidateCache(pb.InvalidateCacheRequest())
        await until(lambda: len(stage.running.responses.near) == count)


@pytest.mark.parametrize(
    "request_",
    [
        pb.InvalidateCacheRequest(model_id=GPT_5, provider_id="openai"),
        pb.InvalidateCacheRequest(model_id="\n"),
        pb.InvalidateCacheRequest(provider_id="a/b"),
    ],
    ids=str,
)
async def test_what_cannot_be_meant_is_refused(admin: Any, request_: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await admin.InvalidateCache(request_)
    assert from_rpc_error(raised.value).code is grpc.StatusCode.INVALID_ARGUMENT
