"""What a scrape shows of a real service, and that each figure moves when what it is about happens."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from grpc_health.v1 import health_pb2, health_pb2_grpc

from conftest import Services, StartApp
from identities import TOKENS, write_identities
from modelcatalog.v1 import (
    catalog_admin_service_pb2,
    model_catalog_service_pb2,
    refresh_service_pb2,
)
from modelcatalog_client import AsyncModelCatalogClient, ModelNotFoundError, RoleRequiredError, UnauthenticatedError
from modelcatalog_server.domain.measures import Histogram
from modelcatalog_server.domain.ports.catalog import ReplicaStats
from modelcatalog_server.domain.refresh import State, Trigger
from modelcatalog_server.metrics.endpoint import Answers, answering
from modelcatalog_server.metrics.listening import address_of, listening
from modelcatalog_server.metrics.loop_lag import measure_loop_lag
from modelcatalog_server.storage import queries
from scraping import Target, shown
from small_catalog import Stage, clone_small, follow, locked, until
from upstream_server import status

PAGE = Path(__file__).parents[2] / "docs/metrics.md"
GET_MODEL = {"grpc_service": "modelcatalog.v1.ModelCatalog", "grpc_method": "GetModel"}


@pytest.fixture
def database(templates: Services) -> Iterator[str]:
    yield from clone_small(templates)


@pytest.fixture
async def stage(start_app: StartApp, database: str) -> AsyncIterator[Stage]:
    async with follow(start_app, database) as stage:
        yield stage


@pytest.fixture
async def target(stage: Stage) -> AsyncIterator[Target]:
    async with shown(stage.running) as target:
        yield target


@pytest.fixture
async def client(stage: Stage) -> AsyncIterator[AsyncModelCatalogClient]:
    async with AsyncModelCatalogClient(stage.running.server.address) as client:
        yield client


def documented() -> dict[str, set[str]]:
    """Return the labels of each metric of the page."""
    rows = re.findall(r"^\| `(\w+)` \| (counter|gauge|histogram) \|([^|]*)\|", PAGE.read_text(), re.MULTILINE)
    return {name: set(re.findall(r"`(\w+)`", labels)) for name, _, labels in rows}


async def test_the_page_lists_what_is_shown_with_its_labels_and_nothing_else(stage: Stage) -> None:
    replica = ReplicaStats(available=True, revision=1, reads=0, fallbacks=0)
    running = replace(stage.running, sources=replace(stage.running.sources, get_replica=lambda: replica))
    await stage.refresh()  # so that everything has a value
    async with shown(running) as target:
        await until(lambda: counted(target, 1))  # which comes after a watcher hears of the end
        shown_labels = (await target.scrape()).labels
    assert documented() == {**shown_labels, "modelcatalog_worker_up": {"worker"}}


async def test_the_page_says_of_each_which_type_it_has(target: Target) -> None:
    families = (await target.scrape()).families
    types = dict(re.findall(r"^\| `(\w+)` \| (counter|gauge|histogram) \|", PAGE.read_text(), re.MULTILINE))
    for family in families.values():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert types[name] == family.type, name


async def test_every_method_is_there_before_its_first_call(target: Target) -> None:
    scrape = await target.scrape()
    modules = (model_catalog_service_pb2, refresh_service_pb2, catalog_admin_service_pb2)
    methods: list[MethodDescriptor] = [
        method
        for module in modules
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ]
    assert len(methods) >= 20
    started = {
        (sample.labels["grpc_service"], sample.labels["grpc_method"])
        for sample in scrape.families["grpc_server_started"].samples
    }
    assert {(method.containing_service.full_name, method.name) for method in methods} <= started
    assert scrape.value("grpc_server_handled_total") == scrape.value("grpc_server_started_total") == 0


async def test_calls_are_counted_by_code_near_hits_and_refusals_alike(
    target: Target, client: AsyncModelCatalogClient
) -> None:
    for _ in range(5):
        await client.get_model("openai/gpt-5")  # the first is no hit
    with pytest.raises(ModelNotFoundError):
        await client.get_model("openai/none")
    scrape = await target.scrape()
    kind = {"grpc_type": "unary"}
    assert scrape.value("grpc_server_started_total", **GET_MODEL, **kind) == 6
    assert scrape.value("grpc_server_handled_total", **GET_MODEL, **kind, grpc_code="OK") == 5
    assert scrape.value("grpc_server_handled_total", **GET_MODEL, **kind, grpc_code="NotFound") == 1
    assert scrape.value("grpc_server_handling_seconds_count", **GET_MODEL) == 6
    assert scrape.value("grpc_server_handling_seconds_bucket", **GET_MODEL, le="+Inf") == 6
    assert 0 < scrape.value("grpc_server_handling_seconds_sum", **GET_MODEL) < 60
    assert scrape.value("modelcatalog_errors_total", reason="MODEL_NOT_FOUND") == 1
    assert scrape.value("modelcatalog_rejected_total") == 0


async def test_who_is_refused_is_counted_by_reason(start_app: StartApp, database: str, tmp_path: Path) -> None:
    identities = write_identities(tmp_path / "identities.toml")
    async with (
        start_app(database, offline=True, tokens_file=identities) as running,
        shown(running) as target,
        AsyncModelCatalogClient(running.server.address) as nobody,
        AsyncModelCatalogClient(running.server.address, token=TOKENS["expired"]) as former,
        AsyncModelCatalogClient(running.server.address, token=TOKENS["reader"]) as reader,
    ):
        await reader.get_model("openai/gpt-5")
        with pytest.raises(UnauthenticatedError):
            await nobody.get_model("openai/gpt-5")  # which is at hand
        with pytest.raises(UnauthenticatedError):
            await former.get_model("openai/gpt-5")
        with pytest.raises(RoleRequiredError):
            await reader.get_cache_stats()
        scrape = await target.scrape()
    for reason in ("MISSING_TOKEN", "INVALID_TOKEN", "ROLE_REQUIRED"):
        assert scrape.value("modelcatalog_rejected_total", reason=reason) == 1, reason
    assert scrape.value("modelcatalog_rejected_total") == 3
    assert scrape.value("grpc_server_handled_total", **GET_MODEL, grpc_code="Unauthenticated") == 2
    assert scrape.value("grpc_server_handled_total", grpc_code="PermissionDenied") == 1


async def test_methods_that_there_are_not_are_one_and_health_is_counted(target: Target, stage: Stage) -> None:
    async with grpc.aio.insecure_channel(stage.running.server.address) as channel:
        for name in ("One", "Two"):
            call: Any = channel.unary_unary(f"/nobody.v1.Knows/{name}")
            with pytest.raises(grpc.aio.AioRpcError):
                await call(b"", timeout=10)
        health: Any = health_pb2_grpc.HealthStub(channel)
        with pytest.raises(grpc.aio.AioRpcError):
            await health.Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=10)
    scrape = await target.scrape()
    unknown = {"grpc_service": "unknown", "grpc_method": "unknown"}
    assert scrape.value("grpc_server_handled_total", **unknown, grpc_code="Unimplemented") == 2
    health_of = {"grpc_service": "grpc.health.v1.Health", "grpc_method": "Check"}
    assert scrape.value("grpc_server_handled_total", **health_of, grpc_code="NotFound") == 1


async def test_a_call_whose_caller_went_away_is_cancelled(target: Target, stage: Stage) -> None:
    async with (
        locked(stage.database_url, "models_metadata IN ACCESS EXCLUSIVE"),
        AsyncModelCatalogClient(stage.running.server.address) as client,
    ):
        asking = asyncio.create_task(client.get_model("openai/gpt-5"))
        await until(lambda: started(target))
        asking.cancel()
        await asyncio.wait({asking})
        await until(lambda: ended(target, "Canceled"))


async def started(target: Target) -> bool:
    return (await target.scrape()).value("grpc_server_started_total", **GET_MODEL) == 1


async def ended(target: Target, code: str) -> bool:
    return (await target.scrape()).value("grpc_server_handled_total", **GET_MODEL, grpc_code=code) == 1


async def test_the_cache_shows_both_layers(target: Target, client: AsyncModelCatalogClient, stage: Stage) -> None:
    for _ in range(3):
        await client.get_model("openai/gpt-5")
    await stage.running.responses.shared.flushed()
    scrape = await target.scrape()
    assert scrape.value("modelcatalog_cache_misses_total", layer="near") == 1
    assert scrape.value("modelcatalog_cache_hits_total", layer="near") == 2
    assert scrape.value("modelcatalog_cache_misses_total", layer="redis") == 1
    assert scrape.value("modelcatalog_cache_entries", layer="near") == 1
    assert scrape.value("modelcatalog_cache_entries", layer="redis") == 1
    assert scrape.value("modelcatalog_cache_bytes", layer="redis") > 100
    assert scrape.value("modelcatalog_redis_up") == 1


async def test_a_redis_that_is_down_is_seen(start_app: StartApp, database: str) -> None:
    async with (
        start_app(database, redis_url="redis://127.0.0.1:1", offline=True) as running,
        shown(running) as target,
    ):
        scrape = await target.scrape()
    assert scrape.value("modelcatalog_redis_up") == 0
    assert scrape.value("modelcatalog_redis_failures_total") >= 1


async def test_queries_are_shown_by_name_composed_and_copied_ones_too(
    target: Target, client: AsyncModelCatalogClient, stage: Stage
) -> None:
    await anext(aiter(client.list_models(filter="capabilities.vision = true", page_size=1)))
    await client.get_model("openai/gpt-5", timeout=4)  # within less time than a statement may take anyway
    stage.catalog.model("openai/gpt-5")["cost"]["input"] = 7
    assert (await stage.refresh()).state is State.SUCCEEDED
    scrape = await target.scrape()
    for query in ("list_selected_models", "get_models", "get_state", "copy_staged_models"):
        assert scrape.value("modelcatalog_db_query_seconds_count", query=query) >= 1, query
    assert scrape.value("modelcatalog_db_pool_connections_max", pool="read") == 8


def test_every_statement_is_told_by_its_description() -> None:
    files = (Path(queries.__file__).parent / "sql").glob("*.sql")
    statements = {name: body for file in files for name, body in queries.load(file.stem).items()}
    assert len(statements) > 100
    assert {name: queries.name_of(body) for name, body in statements.items()} == {name: name for name in statements}
    assert queries.name_of("SELECT 1") == "other"


async def test_who_waits_for_a_connection_is_seen(target: Target, stage: Stage) -> None:
    async with AsyncModelCatalogClient(stage.running.server.address) as client:
        async with locked(stage.database_url, "models_metadata IN ACCESS EXCLUSIVE"):
            asking = [asyncio.create_task(client.get_model(f"openai/gpt-{number}")) for number in range(12)]
            await until(lambda: exhausted(target))
        await asyncio.gather(*asking, return_exceptions=True)
    assert (await target.scrape()).value("modelcatalog_db_pool_wait_seconds_total", pool="read") > 0


async def exhausted(target: Target) -> bool:
    """Whether the pool has grown to what it may be and somebody waits all the same."""
    scrape = await target.scrape()
    in_use = scrape.value("modelcatalog_db_pool_connections_in_use", pool="read")
    return in_use == 8 and scrape.value("modelcatalog_db_pool_waiting", pool="read") >= 1


async def test_a_scrape_is_answered_though_the_database_is_not(target: Target, stage: Stage) -> None:
    async with locked(stage.database_url, "llm_providers IN ACCESS EXCLUSIVE"):
        scrape = await target.scrape()
    assert scrape.value("modelcatalog_revision") == 1
    assert "modelcatalog_provider_last_sync_timestamp_seconds" not in scrape.labels
    await until(lambda: has_seen_the_catalog(target))
    assert len((await target.scrape()).families["modelcatalog_provider_last_sync_timestamp_seconds"].samples) == 4


async def has_seen_the_catalog(target: Target) -> bool:
    family = (await target.scrape()).families.get("modelcatalog_quarantined_records")
    return family is not None and bool(family.samples)


async def test_runs_are_counted_by_result_and_the_catalog_is_as_old_as_the_last_check(
    target: Target, stage: Stage
) -> None:
    await until(lambda: has_seen_the_catalog(target))
    before = await target.scrape()
    await stage.refresh()
    await stage.refresh()
    stage.catalog.model("openai/gpt-5")["limit"] = "much"
    assert (await stage.refresh(trigger=Trigger.SCHEDULED)).state is State.PARTIALLY_SUCCEEDED
    stage.upstream.misbehave("/catalog.json", status(503))
    assert (await stage.refresh()).state is State.FAILED
    await until(lambda: counted(target, 4))  # which comes after a watcher hears of the end
    scrape = await target.scrape()

    def runs(**labels: str) -> float:
        return scrape.value("modelcatalog_refresh_runs_total", type="incremental", **labels)

    assert runs(result="succeeded", trigger="manual") == 1
    assert runs(result="not_modified", trigger="manual") == 1
    assert runs(result="partially_succeeded", trigger="scheduled") == 1
    assert runs(result="failed") == 1
    assert scrape.value("modelcatalog_refresh_seconds_count", type="incremental") == 4
    assert scrape.value("modelcatalog_refresh_attempts_total", result="ok") == 3
    assert scrape.value("modelcatalog_refresh_attempts_total", result="upstream_unavailable") == 3
    assert scrape.value("modelcatalog_upstream_requests_total", status="200") == 2
    assert scrape.value("modelcatalog_upstream_requests_total", status="304") == 1
    assert scrape.value("modelcatalog_upstream_requests_total", status="503") == 3
    assert scrape.value("modelcatalog_upstream_request_seconds_count") == 6
    assert scrape.value("modelcatalog_refresh_quarantined_total") == 1
    assert scrape.value("modelcatalog_quarantined_records") == 1
    assert before.value("modelcatalog_quarantined_records") == 0
    check = "modelcatalog_last_check_timestamp_seconds"
    assert scrape.value(check) > before.value(check)


async def counted(target: Target, runs: int) -> bool:
    return (await target.scrape()).value("modelcatalog_refresh_runs_total") == runs


async def test_a_gate_that_refuses_is_named(start_app: StartApp, database: str) -> None:
    async with (
        follow(start_app, database, gate_min_models=1000, refresh_fallback_seconds=0) as stage,
        shown(stage.running) as target,
    ):
        stage.catalog.model("openai/gpt-5")["name"] = "another"
        assert (await stage.refresh()).state is State.FAILED
        await until(lambda: counted(target, 1))
        scrape = await target.scrape()
    assert scrape.value("modelcatalog_refresh_gate_refusals_total", gate="minimum_models") == 1
    assert scrape.value("modelcatalog_refresh_gate_refusals_total") == 1


async def test_watches_are_counted_while_they_are_open(target: Target, stage: Stage) -> None:
    async with await stage.running.feed.watch(None, "", 15) as watch:
        await watch.next()
        assert (await target.scrape()).value("modelcatalog_watches") == 1
        await stage.refresh()
        await until(lambda: behind(target))
    scrape = await target.scrape()
    assert scrape.value("modelcatalog_watches") == 0
    assert scrape.value("modelcatalog_watch_messages_total") >= 1


async def behind(target: Target) -> bool:
    return (await target.scrape()).value("modelcatalog_watch_backlog_events") >= 2


async def test_ready_is_what_health_says(target: Target, stage: Stage) -> None:
    assert await target.get("/healthz") == (200, "ok\n")
    assert await target.get("/readyz") == (503, "not ready\n")
    stage.running.server.set_serving(True)
    assert await target.get("/readyz") == (200, "ok\n")
    assert (await target.scrape()).value("modelcatalog_ready") == 1
    await stage.running.server.drain(0)
    stage.running.server.set_serving(True)  # who looks at the database may still say so
    assert (await target.get("/readyz"))[0] == 503


async def test_an_event_loop_that_is_held_up_is_late() -> None:
    lag = Histogram((0.05,))
    measuring = asyncio.create_task(measure_loop_lag(lag))
    await until(lambda: sum(lag.counts) >= 1)
    time.sleep(0.25)  # noqa: ASYNC251 -- what is to be seen
    await until(lambda: lag.counts[1] >= 1)
    measuring.cancel()
    assert lag.sum >= 0.1


async def test_however_many_scrape_at_once_one_answer_is_made_for_them_all() -> None:
    made, may_end = list[int](), asyncio.Event()

    async def render() -> bytes:
        made.append(len(made))
        await may_end.wait()
        return f"# {made[-1]}\n".encode()

    async def is_ready() -> bool:
        return True

    with listening("127.0.0.1:0") as bound:
        assert bound is not None
        async with answering(bound, Answers(render, is_ready)):
            target = Target(address_of(bound))
            leaving, *scraping = [asyncio.create_task(target.get("/metrics")) for _ in range(20)]
            await until(lambda: made)
            leaving.cancel()
            assert await target.get("/readyz") == (200, "ok\n")
            may_end.set()
            assert await asyncio.gather(*scraping) == [(200, "# 0\n")] * 19
            assert await target.get("/metrics") == (200, "# 1\n")
