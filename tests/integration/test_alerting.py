"""What the rules of Prometheus ask for moves when that happens which they are there for.

A real service, behind proxies before its PostgreSQL and its Redis and with an upstream of its own, gets load and
faults, and is scraped before and after. Whether the rules make of it what they should is for promtool, whether there
is what they ask for at all for ``make check-deploy``.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import grpc
import promql_parser
import pytest
import yaml
from promql_parser import MatchOp, VectorSelector

from conftest import Services, make_settings
from fault_proxy import FaultProxy, proxied
from modelcatalog.v1.model_catalog_service_pb2 import GetModelRequest, ListModelsRequest
from modelcatalog.v1.model_catalog_service_pb2_grpc import ModelCatalogStub
from modelcatalog.v1.refresh_service_pb2 import StartRefreshRequest
from modelcatalog.v1.refresh_service_pb2_grpc import RefreshServiceStub
from scraping import Scrape, Target
from served import served
from small_catalog import SmallCatalog, clone_small, fetch, locked, until
from upstream_server import UpstreamServer, status

RULES = sorted((Path(__file__).parents[2] / "deploy/prometheus/rules").glob("*.yaml"))
#: More calls at once than the read pool has connections, which are 8, and fewer than are made at once.
RUNNING = 12
#: Of the small catalog, which has 87 models.
MIN_MODELS = 80
WAITING = (
    "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    " AND application_name = 'modelcatalog-read' AND clock_timestamp() - query_start > interval '200 ms'"
)


def asked_for() -> set[str]:
    """Return what the rules select of a scrape, as it is written; rules over other rules select what these do."""
    rules = [rule for path in RULES for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]
    made = {rule["record"] for rule in rules if "record" in rule}
    nodes: list[Any] = []
    for rule in rules:
        promql_parser.walk(promql_parser.parse(rule["expr"]), nodes.append)
    return {written(node) for node in nodes if isinstance(node, VectorSelector) and node.name not in made}


def select(text: str) -> VectorSelector:
    selector = promql_parser.parse(text)
    assert isinstance(selector, VectorSelector)
    return selector


def written(selector: VectorSelector) -> str:
    """Return the selector without how long ago, and with its labels in one order."""
    return f"{selector.name}{sorted(str(matcher) for matcher in selector.matchers.matchers)}"


#: A call or a statement is slow that takes longer, as the objectives say.
SLOW = "0.1"


def value_of(selector: VectorSelector, scrape: Scrape | None) -> float:
    """Return the sum of what a selector finds in a scrape; of a histogram's, how many are above 0.1 s."""
    if selector.name == "up":
        return float(scrape is not None)
    assert scrape is not None
    found = [
        sample
        for family in scrape.families.values()
        for sample in family.samples
        if sample.name == selector.name and fits(selector, sample.labels)
    ]
    sign = {SLOW: -1, "+Inf": 1}
    is_histogram = any("le" in sample.labels for sample in found)
    return sum(sample.value * (sign.get(sample.labels["le"], 0) if is_histogram else 1) for sample in found)


def fits(selector: VectorSelector, labels: dict[str, str]) -> bool:
    """Whether a sample with these labels is selected."""
    return all(_fits(matcher, labels.get(matcher.name, "")) for matcher in selector.matchers.matchers)


def _fits(matcher: promql_parser.Matcher, value: str) -> bool:
    if matcher.op == MatchOp.Equal:
        return matcher.value == value
    if matcher.op == MatchOp.NotEqual:
        return matcher.value != value
    return (re.fullmatch(matcher.value, value) is not None) is (matcher.op == MatchOp.Re)


@dataclass
class Scene:
    """A service that is scraped. ``moved`` is what has moved so far."""

    target: Target
    database_url: str
    database: FaultProxy
    redis: FaultProxy
    upstream: UpstreamServer
    catalog: SmallCatalog
    channel: grpc.aio.Channel
    task: asyncio.Task[None]
    moved: set[str] = field(default_factory=set)

    async def scrape(self) -> Scrape | None:
        """Return ``None`` where nobody answers, which Prometheus makes ``up == 0`` of."""
        with suppress(aiohttp.ClientConnectionError):
            return await self.target.scrape()
        return None

    async def scrape_with(self, high: Sequence[str]) -> Scrape | None:
        """Scrape when all of this is above 0: after a fault, somebody has to ask before it is found to be over."""
        async with asyncio.timeout(20):
            while True:
                scrape = await self.scrape()
                if all(value_of(select(text), scrape) > 0 for text in high):
                    return scrape
                await self.read()

    @asynccontextmanager
    async def moving(self, *, rises: Sequence[str] = (), falls: Sequence[str] = ()) -> AsyncIterator[None]:
        """Expect that what happens in the block has moved this, soon after it at the latest."""
        before = await self.scrape_with(falls)
        yield
        for texts, way in ((rises, 1), (falls, -1)):
            for text in texts:
                await self.wait_until_moved(select(text), before, way)

    async def wait_until_moved(self, selector: VectorSelector, before: Scrape | None, way: int) -> None:
        """Wait until what is selected is more than before, or less, where the way is -1."""

        async def has_moved() -> bool:
            return (value_of(selector, await self.scrape()) - value_of(selector, before)) * way > 0

        try:
            await until(has_moved)
        except TimeoutError:
            pytest.fail(f"{selector} has not moved")
        self.moved.add(written(selector))

    async def read(self, *, timeout_s: float = 30) -> str:
        """Read what nobody has asked for before; return the code of the answer."""
        stub: Any = ModelCatalogStub(self.channel)  # typed for channels that block
        request = ListModelsRequest(filter=f'name != "{uuid4()}"', page_size=1)
        try:
            await stub.ListModels(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            return error.code().name
        return "OK"

    async def read_again(self) -> None:
        """Read what is at hand."""
        stub: Any = ModelCatalogStub(self.channel)
        for _ in range(2):
            await stub.GetModel(GetModelRequest(model_id="openai/gpt-5"), timeout=30)

    async def is_held_up(self) -> bool:
        """Whether somebody reads and waits for a lock."""
        return bool((await fetch(self.database_url, WAITING))[0])

    async def start_refresh(self) -> None:
        """Publish the catalog, and have it fetched."""
        self.upstream.serve("/catalog.json", self.catalog.body)
        stub: Any = RefreshServiceStub(self.channel)
        await stub.StartRefresh(StartRefreshRequest(), timeout=30)


@asynccontextmanager
async def set_up(templates: Services, database_url: str) -> AsyncIterator[Scene]:
    """Serve as the command does, with everything that can go wrong."""
    redis_socket = templates.redis_url.removeprefix("unix://").partition("?")[0]
    async with (
        UpstreamServer() as upstream,
        FaultProxy(redis_socket) as redis,
        proxied(database_url) as (database, through_proxy),
    ):
        settings = make_settings(
            templates,
            through_proxy,
            redis_url=f"redis://127.0.0.1:{redis.port}",
            upstream_url=upstream.url,
            metrics_listen=f"unix:@modelcatalog-{uuid4().hex}",
            refresh_full_cron="off",
            refresh_incremental_cron="off",
            gate_min_models=MIN_MODELS,
            max_concurrent_calls=RUNNING,
            max_queued_calls=1,
            drain_delay_seconds=0,
        )
        target = Target(settings.metrics_listen)
        async with served(settings, retries=False) as (task, channel):  # refusals are to be seen
            yield Scene(target, database_url, database, redis, upstream, SmallCatalog(), channel, task)


FAILS_FOR_THE_SERVERS_SAKE = (
    'grpc_server_handled_total{grpc_service=~"modelcatalog.v1.*",'
    'grpc_code=~"Unknown|DeadlineExceeded|Internal|Unavailable|DataLoss"}'
)


async def an_old_catalog_is_refreshed_with_a_record_that_nobody_can_read(scene: Scene) -> None:
    scene.catalog.model("openai/gpt-5")["limit"] = "much"
    async with scene.moving(
        rises=[
            'modelcatalog_refresh_runs_total{result=~"succeeded|not_modified|partially_succeeded"}',
            'modelcatalog_refresh_runs_total{result!="cancelled"}',
            "modelcatalog_last_check_timestamp_seconds",
            "modelcatalog_quarantined_records",
        ],
        falls=["modelcatalog_stale"],
    ):
        await scene.start_refresh()


async def a_payload_has_too_few_models(scene: Scene) -> None:
    for model_id in scene.catalog.model_ids[: 87 - MIN_MODELS + 1]:
        scene.catalog.remove(model_id)
    async with scene.moving(
        rises=["modelcatalog_refresh_gate_refusals_total", 'modelcatalog_refresh_runs_total{result="failed"}']
    ):
        await scene.start_refresh()


async def upstream_asks_for_fewer_requests(scene: Scene) -> None:
    scene.upstream.misbehave("/catalog.json", status(429))
    async with scene.moving(
        rises=[
            'modelcatalog_upstream_requests_total{status="429"}',
            'modelcatalog_refresh_runs_total{result="failed"}',
        ]
    ):
        await scene.start_refresh()


async def much_is_read(scene: Scene) -> None:
    async with scene.moving(
        rises=[
            'grpc_server_handled_total{grpc_service=~"modelcatalog.v1.*"}',
            'modelcatalog_cache_hits_total{layer="near"}',
            'modelcatalog_cache_misses_total{layer="near"}',
        ]
    ):
        await scene.read()
        await scene.read_again()


async def the_database_is_slow_and_too_much_is_asked(scene: Scene) -> None:
    slow = (
        'grpc_server_handling_seconds_bucket{grpc_service="modelcatalog.v1.ModelCatalog",grpc_type="unary"}',
        "modelcatalog_db_query_seconds_bucket",
    )
    async with scene.moving(rises=slow):
        async with (
            locked(scene.database_url, "models_metadata IN ACCESS EXCLUSIVE"),
            scene.moving(rises=["modelcatalog_db_pool_waiting", 'modelcatalog_rejected_total{reason="OVERLOADED"}']),
        ):
            reads = [asyncio.create_task(scene.read()) for _ in range(2 * RUNNING)]
            await until(scene.is_held_up)
        # The last of them where a machine takes 5 s to come here.
        answers = {"OK", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "DEADLINE_EXCEEDED"}
        assert set(await asyncio.gather(*reads)) <= answers


async def redis_is_away(scene: Scene) -> None:
    async with scene.moving(falls=["modelcatalog_redis_up"]):
        scene.redis.cut()
        assert await scene.read() == "OK"
    scene.redis.mend()


async def the_event_loop_is_held_up(scene: Scene) -> None:
    async with scene.moving(rises=["modelcatalog_event_loop_lag_seconds_bucket"]):
        time.sleep(3 * float(SLOW))  # noqa: ASYNC251 -- what is to be seen


async def the_database_is_away(scene: Scene) -> None:
    async def is_refused() -> bool:
        # The first waits for a connection until it gives up itself, the next one is told that there is none.
        return await scene.read(timeout_s=1.5) == "UNAVAILABLE"

    async with scene.moving(rises=[FAILS_FOR_THE_SERVERS_SAKE, "modelcatalog_db_pool_timeouts_total"]):
        scene.database.cut()
        await until(is_refused)
    scene.database.mend()


async def it_ends_while_somebody_is_answered(scene: Scene) -> None:
    async with scene.moving(falls=['up{job="modelcatalog"}']):
        async with (
            locked(scene.database_url, "models_metadata IN ACCESS EXCLUSIVE"),
            scene.moving(falls=["modelcatalog_ready"]),
        ):
            reading = asyncio.create_task(scene.read())
            await until(scene.is_held_up)
            scene.task.cancel()
        await reading
        await asyncio.wait({scene.task})


INCIDENTS = [
    an_old_catalog_is_refreshed_with_a_record_that_nobody_can_read,
    a_payload_has_too_few_models,
    upstream_asks_for_fewer_requests,
    much_is_read,
    the_database_is_slow_and_too_much_is_asked,
    redis_is_away,
    the_event_loop_is_held_up,
    the_database_is_away,
    it_ends_while_somebody_is_answered,
]


@pytest.fixture
def database(templates: Services) -> Iterator[str]:
    yield from clone_small(templates)


async def test_what_each_rule_asks_for_moves_when_that_happens(templates: Services, database: str) -> None:
    await fetch(database, "UPDATE catalog_state SET checked_at = now() - interval '2 days'")
    async with set_up(templates, database) as scene:
        for incident in INCIDENTS:
            await incident(scene)
    assert scene.moved == asked_for()
