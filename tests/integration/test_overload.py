"""A server that has too much to do: it says so at once, health goes on, and all is well afterwards."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from conftest import Services, StartApp
from modelcatalog_client import AsyncModelCatalogClient
from modelcatalog_client.errors import OverloadedError
from modelcatalog_server.storage.pools import PoolSettings
from small_catalog import SmallCatalog, Stage, clone_small, fetch, follow, locked, until

LOCK = "models_metadata IN ACCESS EXCLUSIVE"
WAITING = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    " AND application_name = 'modelcatalog-read'"
)
RUNNING, QUEUED = 30, 10
#: More of them than there are connections.
MODELS = [id_ for id_ in SmallCatalog().model_ids if id_ != "openai/gpt-5"][:20]
CONNECTIONS = PoolSettings().read_size


@pytest.fixture
def database(templates: Services) -> Iterator[str]:
    yield from clone_small(templates)


@pytest.fixture
async def stage(start_app: StartApp, database: str, patient_pools: None) -> AsyncIterator[Stage]:
    async with follow(
        start_app, database, max_concurrent_calls=RUNNING, max_queued_calls=QUEUED, cache_entries=1000
    ) as stage:
        stage.running.server.set_serving(True)
        yield stage


def talk_to(stage: Stage, *, retries: bool = False) -> AsyncModelCatalogClient:
    return AsyncModelCatalogClient(stage.running.server.address, options=[("grpc.enable_retries", int(retries))])


async def read(client: AsyncModelCatalogClient, number: int) -> str:
    """Read what is locked, each call something else; return how it ended."""
    try:
        await client.get_model(MODELS[number % len(MODELS)], timeout=90 + number / 1000)
    except OverloadedError as error:
        return error.reason if error.retry_delay and 0.1 < error.retry_delay < 2 else "OVERLOADED for ever"
    except Exception as error:
        return type(error).__name__
    return "OK"


async def test_what_is_too_much_is_refused_while_health_and_the_cache_answer(stage: Stage) -> None:
    async with talk_to(stage) as client, grpc.aio.insecure_channel(stage.running.server.address) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        await client.get_model("openai/gpt-5")
        async with locked(stage.database_url, LOCK):
            calls = [asyncio.create_task(read(client, number)) for number in range(100)]

            async def is_saturated() -> bool:
                return (
                    await fetch(stage.database_url, WAITING) == [CONNECTIONS]
                    and sum(call.done() for call in calls) >= 60
                )

            await until(is_saturated)
            for _ in range(20):
                # What had to wait would do so for as long as there is the lock.
                answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=10)
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
                assert (await client.get_model("openai/gpt-5", timeout=10)).model.id == "openai/gpt-5"
            # Those in the queue have no more patience than a second.
            await until(lambda: sum(call.done() for call in calls) == 70)
        ends = Counter(await asyncio.gather(*calls))
        assert ends == {"OVERLOADED": 70, "OK": RUNNING}
        assert Counter([await read(client, number) for number in range(50)]) == {"OK": 50}


async def test_the_state_of_the_catalog_is_known_while_reads_use_up_the_database(stage: Stage) -> None:
    """Or health would come to say that there is no database, and calls would go on at the next one to fall."""
    async with talk_to(stage) as client:
        async with locked(stage.database_url, LOCK):
            calls = [asyncio.create_task(read(client, number)) for number in range(RUNNING)]

            async def is_saturated() -> bool:
                return await fetch(stage.database_url, WAITING) == [CONNECTIONS]

            await until(is_saturated)
            async with asyncio.timeout(10):  # which the others have to wait for
                assert (await stage.running.reader.get_state()).revision == 1
        await asyncio.gather(*calls)


async def test_a_client_comes_back_when_it_is_told_to(stage: Stage) -> None:
    """By the trailer that gRPC itself looks at: sooner, a second attempt would be refused as well."""
    async with talk_to(stage) as client, talk_to(stage, retries=True) as patient:
        async with locked(stage.database_url, LOCK):
            calls = [asyncio.create_task(read(client, number)) for number in range(RUNNING + QUEUED)]
            await until(lambda: waiting_for_a_place(stage) == QUEUED)
            begun_at = time.monotonic()
            comes_back = asyncio.create_task(patient.resolve_model("gpt-5-mini"))
            await until(lambda: refused(stage, "ResolveModel") >= 1)
            assert not comes_back.done()
        await asyncio.gather(*calls)
        assert (await comes_back).model.id == "openai/gpt-5-mini"
        assert time.monotonic() - begun_at >= 0.25


def waiting_for_a_place(stage: Stage) -> int:
    places = stage.running.server._calls._places
    assert places is not None
    return places._waiting


def refused(stage: Stage, rpc: str) -> int:
    return sum(calls.handled["UNAVAILABLE"] for calls in stage.running.sources.calls.methods if calls.method == rpc)
