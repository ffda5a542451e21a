"""Limits on how often callers call, over a real Redis: shared by replicas, there without it, true."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from conftest import Services, StartApp
from identities import TOKENS, write_identities
from modelcatalog_client import AsyncModelCatalogClient
from modelcatalog_client.errors import (
    CatalogError,
    InvalidTokenError,
    RateLimitedError,
    RoleRequiredError,
    TooManyStreamsError,
)
from modelcatalog_server import app
from redis_nodes import Node, alone
from small_catalog import clone_small, fetch, until

HIT = "openai/gpt-5"


@pytest.fixture
def database(templates: Services) -> Iterator[str]:
    yield from clone_small(templates)


@pytest.fixture
def redis(work_dir: Path) -> Iterator[Node]:
    with alone(work_dir) as redis:
        yield redis


Start = Callable[..., Awaitable[app.App]]


@pytest.fixture
async def start(start_app: StartApp, database: str, redis: Node, work_dir: Path) -> AsyncIterator[Start]:
    """Start a replica whose callers are identified, on the Redis of this test."""
    identities = write_identities(work_dir / f"identities-{redis.port}.toml")
    async with AsyncExitStack() as stack:

        async def start(**settings: Any) -> app.App:
            defaults = {
                "offline": True,
                "redis_url": f"redis://{redis.address}",
                "tokens_file": identities,
                "rate_limit_principal": "off",
                "rate_limit_address": "off",
                "rate_limit_failures": "off",
            }
            running = await stack.enter_async_context(start_app(database, **{**defaults, **settings}))
            running.server.set_serving(True)
            return running

        yield start


@asynccontextmanager
async def talk_to(running: app.App, token: str | None = TOKENS["reader"]) -> AsyncIterator[AsyncModelCatalogClient]:
    options = [("grpc.enable_retries", 0)]
    async with AsyncModelCatalogClient(running.server.address, token=token, options=options) as client:
        yield client


async def try_often(call: Callable[[], Awaitable[Any]], times: int) -> list[CatalogError | None]:
    """Make a call again and again, and return how each ended."""

    async def once() -> CatalogError | None:
        try:
            await call()
        except CatalogError as error:
            return error
        return None

    return [await once() for _ in range(times)]


def admitted(ends: list[CatalogError | None]) -> int:
    """Return how many got in; all others were refused for what they were."""
    refused = [end for end in ends if end is not None]
    assert {type(end) for end in refused} <= {RateLimitedError}, refused
    return len(ends) - len(refused)


# --- refusing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("near", [True, False], ids=["near hits", "the long way"])
async def test_a_principal_gets_in_as_often_as_it_may(start: Start, near: bool) -> None:
    running = await start(rate_limit_principal="30/day", cache_entries=1000 if near else 0)
    async with talk_to(running) as client, talk_to(running, TOKENS["admin"]) as other:
        ends = await try_often(lambda: client.get_model(HIT), 50)
        assert admitted(ends) == 30
        assert ends[:30] == [None] * 30
        assert admitted(await try_often(lambda: other.get_model(HIT), 5)) == 5


async def test_a_refusal_says_whose_limit_it_is_and_when_to_come_back(start: Start) -> None:
    running = await start(rate_limit_principal="5/second")
    async with talk_to(running) as client:
        error = None
        while error is None:  # 6 calls, unless the machine takes more than a second for them
            (error,) = await try_often(lambda: client.get_model(HIT), 1)
        assert isinstance(error, RateLimitedError)
        assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")
        assert error.retry_delay is not None
        assert 0 < error.retry_delay <= 1
        assert error.request_id
        assert isinstance(error.__cause__, grpc.aio.AioRpcError)
        trailers = dict(iter(error.__cause__.trailing_metadata()))
        status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
        quota = error_details_pb2.QuotaFailure()
        assert any(detail.Unpack(quota) for detail in status.details if detail.Is(quota.DESCRIPTOR))
        assert [violation.subject for violation in quota.violations] == ["principal:reader-person"]
        await asyncio.sleep(error.retry_delay + 0.02)
        await client.get_model(HIT)


async def test_tokens_can_be_tried_so_often(start: Start) -> None:
    running = await start(rate_limit_failures="5/day")
    async with talk_to(running) as client, talk_to(running, "mcat_guessed") as guessing:
        await client.get_model(HIT)
        ends = await try_often(lambda: guessing.get_model(HIT), 10)
        assert [type(end) for end in ends] == [InvalidTokenError] * 5 + [RateLimitedError] * 5
        async with talk_to(running, TOKENS["admin"]) as found:
            assert admitted(await try_often(lambda: found.get_model(HIT), 3)) == 0
        assert admitted(await try_often(lambda: client.get_model(HIT), 3)) == 3


async def test_who_may_not_call_does_not_fill_the_audit_log_with_it(start: Start, database: str) -> None:
    running = await start(rate_limit_principal="5/day")
    async with talk_to(running) as client:
        ends = await try_often(lambda: client.update_provider("openai", enabled=False), 20)
        assert [type(end) for end in ends] == [RoleRequiredError] * 5 + [RateLimitedError] * 15
    await until(lambda: _has_entries(database, 5))


async def _has_entries(database: str, count: int) -> bool:
    (found,) = await fetch(database, "SELECT count(*) FROM audit_log WHERE principal = 'reader-person'")
    assert found <= count
    return bool(found == count)


async def test_health_is_never_limited(start: Start) -> None:
    running = await start(rate_limit_principal="1/day", rate_limit_address="1/day", rate_limit_failures="1/day")
    async with talk_to(running, "mcat_guessed") as client:
        await try_often(lambda: client.get_model(HIT), 5)
    async with grpc.aio.insecure_channel(running.server.address) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        for _ in range(50):
            answer = await health.Check(health_pb2.HealthCheckRequest())
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        watch = health.Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING


async def test_reflection_that_is_open_is_limited_by_address(start: Start) -> None:
    running = await start(reflection_open=True, rate_limit_address="8/day")
    async with grpc.aio.insecure_channel(running.server.address, [("grpc.enable_retries", 0)]) as channel:
        blocking: Any = channel  # what the stub is typed for
        reflection: Any = reflection_pb2_grpc.ServerReflectionStub(blocking)

        async def list_services(times: int) -> int:
            asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")] * times)
            return len([answer async for answer in reflection.ServerReflectionInfo(asked)])

        assert [await list_services(times) for times in (1, 2, 0, 3)] == [1, 2, 0, 3]
        for times in (2, 1):  # in the midst of a stream, and at its beginning
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await list_services(times)
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_callers_on_this_machine_are_not_limited_while_nobody_is_identified(start: Start) -> None:
    running = await start(tokens_file=None, rate_limit_principal="1/day", rate_limit_address="1/day")
    async with talk_to(running, None) as client:
        assert admitted(await try_often(lambda: client.get_model(HIT), 20)) == 20


async def test_a_caller_has_so_many_streams(start: Start) -> None:
    running = await start(max_streams_per_caller=3)
    async with talk_to(running) as client, talk_to(running, TOKENS["admin"]) as other:
        watches = [client.watch_refresh_status(max_reconnect_seconds=0) for _ in range(4)]
        for watch in watches[:3]:
            await anext(watch)
        with pytest.raises(TooManyStreamsError) as refused:
            await anext(watches[3])
        assert refused.value.retry_delay == 5
        await anext(other.watch_refresh_status())
        await watches[0].close()

        async def has_room() -> bool:
            try:
                await anext(client.watch_refresh_status(max_reconnect_seconds=0))
            except TooManyStreamsError:
                return False
            return True

        await until(has_room)


# --- sharing --------------------------------------------------------------------------------------------------------


async def test_replicas_share_what_a_caller_may(start: Start) -> None:
    one, other = await start(rate_limit_principal="200/day"), await start(rate_limit_principal="200/day")
    async with talk_to(one) as here, talk_to(other) as there:
        count = 0
        for _ in range(20):
            count += admitted(await try_often(lambda: here.get_model(HIT), 10))
            count += admitted(await try_often(lambda: there.get_model(HIT), 10))
        # Up to a twentieth each may be leased by the one that is not asked any more.
        assert 180 <= count <= 200


async def test_without_redis_each_process_counts_for_itself_and_with_it_again_they_share(
    start: Start, redis: Node
) -> None:
    one, other = await start(rate_limit_principal="20/day"), await start(rate_limit_principal="20/day")
    async with talk_to(one) as here, talk_to(other) as there:
        redis.kill()
        assert admitted(await try_often(lambda: here.get_model(HIT), 40)) == 20
        assert admitted(await try_often(lambda: there.get_model(HIT), 40)) == 20
    redis.restart()  # with nothing in it
    await until(one.cache.check)
    await until(other.cache.check)
    async with talk_to(one, TOKENS["operator"]) as here, talk_to(other, TOKENS["operator"]) as there:
        count = admitted(await try_often(lambda: here.get_model(HIT), 40))
        count += admitted(await try_often(lambda: there.get_model(HIT), 40))
        assert count == 20


async def test_a_redis_that_hangs_delays_nobody(start: Start, redis: Node) -> None:
    running = await start(rate_limit_principal="1000/second", cache_redis_budget_ms=5)
    async with talk_to(running) as client:
        await client.get_model(HIT)
        redis.stop_for_a_while()
        try:
            begun_at = time.monotonic()
            assert admitted(await try_often(lambda: client.get_model(HIT), 200)) == 200
            assert time.monotonic() - begun_at < 20, "which is less than 200 calls would wait for it"
        finally:
            redis.go_on()
