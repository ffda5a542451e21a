"""Reads while the catalog changes: latencies during a refresh, hits of a mixed load, how soon every replica knows."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import accumulate
from typing import Any

import grpc
import psycopg

from modelcatalog.v1 import model_catalog_service_pb2 as pb
from modelcatalog.v1.refresh_pb2 import Refresh
from modelcatalog_client import ModelCatalogClient
from serving import h2load
from serving.arrivals import quantiles
from serving.h2load import Answered, Call
from serving.report import ms, table
from serving.stage import Process, Stage
from serving.throughput import GET_MODEL, SERVICE

#: The cache is filled anew behind a refresh.
WARMING_S = 3.0
#: As many calls as there are during some refreshes: of fewer, 99 of 100 vary by a third from one time to the next.
IDLE_S = 15.0


# --- latencies during a refresh -------------------------------------------------------------------------------------


def disturb(stage: Stage, refreshes: int, per_second: float) -> None:
    """Print latencies without and during refreshes that change a tenth of the catalog, and while the cache is filled.

    First with the server on a core of its own and everything else on that of the load, then with nothing pinned but the
    load: PostgreSQL then takes its turns on the core of the server, too. How much of what a call feels is the machine's
    shows in the echo, a process that has nothing to do with the catalog and is called meanwhile.
    """
    with stage.apart():
        _disturb(stage, refreshes, per_second, pinned=True)
    _disturb(stage, refreshes, per_second, pinned=False)


def _disturb(stage: Stage, refreshes: int, per_second: float, *, pinned: bool) -> None:
    with stage.serve(pinned=pinned) as server, ModelCatalogClient(server.address, timeout=60) as client:
        body = server.call(GET_MODEL)
        refresh(stage, client, every=10)  # the first one imports what it needs
        time.sleep(WARMING_S)
        seconds = refreshes * (WARMING_S + 4) + IDLE_S + 2
        with stage.echo({"get": body}, pinned=pinned) as echo:
            loads = [
                Background(stage, server, GET_MODEL, per_second, seconds, first=pinned),
                Background(stage, echo, Call("/echo/get", GET_MODEL.request), per_second / 5, seconds, first=pinned),
            ]
            spans = go_through(stage, client, refreshes)
            assert all(load.goes_on for load in loads), "the load was over before what it was to go with"
            answers = [load.finish() for load in loads]
    rows = []
    for span, times in spans.items():
        for name, made in zip(("GetModel", "echo"), answers, strict=True):
            within = [answer for answer in made if any(begin <= answer.begun < end for begin, end in times)]
            rows.append((f"{name}, {span}", f"{len(within):,}", *map(ms, quantiles(within, 50, 99, 100))))
    lengths = [over - begun for begun, over in spans["refreshing"]]
    print(
        f"\nGetModel, near hits, {per_second:,.0f} calls/s on 20 connections; {refreshes} refreshes that change a tenth"
        f" of the models, {ms(max(lengths))} at most from StartRefresh to TERMINAL; {_places(pinned=pinned)}\n"
    )
    table(("", "calls", "p50", "p99", "slowest"), rows)


def _places(*, pinned: bool) -> str:
    if not pinned:
        return "nothing pinned but the load"
    load = "the load, which goes first," if h2load.may_be_first() else "the load"
    return f"the server and the echo on one core, {load} and PostgreSQL on the other"


class Background:
    """Calls that go on while something else happens. ``first``: before everything else on their core."""

    def __init__(
        self, stage: Stage, server: Process, call: Call, per_second: float, seconds: float, *, first: bool = False
    ) -> None:
        self._answers: list[Answered] = []
        self._thread = threading.Thread(target=self._load, args=(stage, server, call, per_second, seconds, first))
        self._thread.start()

    @property
    def goes_on(self) -> bool:
        """Whether there are calls still."""
        return self._thread.is_alive()

    def finish(self) -> list[Answered]:
        """Return what was answered."""
        self._thread.join()
        return self._answers

    def _load(self, stage: Stage, server: Process, call: Call, per_second: float, seconds: float, first: bool) -> None:
        made = h2load.run(
            server.address,
            call,
            core=stage.load_core,
            calls=round(per_second * seconds / 20) * 20,
            connections=20,
            streams=100,
            per_second=per_second,
            with_answers=True,
            first=first,
        )
        assert made.failed == 0, made
        self._answers.extend(made.answers)


Spans = dict[str, list[tuple[float, float]]]


def go_through(stage: Stage, client: ModelCatalogClient, refreshes: int) -> Spans:
    """Do nothing, then refresh again and again; return what was when, in seconds since the epoch."""
    time.sleep(1)
    begun = time.time()
    time.sleep(IDLE_S)
    spans: Spans = {"idle": [(begun, time.time())], "refreshing": [], "filling the cache": []}
    for _ in range(refreshes):
        begun, over = refresh(stage, client, every=10)
        spans["refreshing"].append((begun, over))
        spans["filling the cache"].append((over, over + WARMING_S))
        time.sleep(WARMING_S)
    return spans


def refresh(stage: Stage, client: ModelCatalogClient, *, every: int) -> tuple[float, float]:
    """Change every n-th model and have the service take that over; return when it began and ended."""
    changed = stage.publish(every)
    begun = time.time()
    started = client.start_refresh().refresh
    with client.watch_refresh_status(started.id, timeout=60) as watch:
        for status in watch:
            last = status
    over = time.time()
    assert last.refresh.state == Refresh.STATE_SUCCEEDED, last
    assert last.refresh.counts.changed >= changed * 0.9, last
    return begun, over


# --- hits of a mixed load -------------------------------------------------------------------------------------------


def zipf(stage: Stage, seconds: float, pause: float) -> None:
    """Print how many reads the near layer answers while refreshes go on: of models alone, and of all kinds."""
    rows = []
    with stage.serve() as server, ModelCatalogClient(server.address, timeout=60) as client:
        ids = [model.id for model in client.list_models(read_mask=["id"], page_size=1000)]
        providers = [provider.id for provider in client.list_providers(page_size=1000)]
        for name, requests in (("GetModel", of_models(ids)), ("mixed", of_all_kinds(ids, providers))):
            before = server.layers()["near"]
            with refreshing(stage, client, pause) as done:
                made = asyncio.run(ask(server, requests, seconds))
            after = server.layers()["near"]
            hits, misses = after.hits - before.hits, after.misses - before.misses
            ratio = f"{100 * hits / (hits + misses):.2f} %"
            rows.append((name, f"{sum(made.values()):,}", str(len(done)), f"{hits:,}", f"{misses:,}", ratio))
    print(
        f"\nmodels drawn by Zipf's law from all {len(ids):,}, {seconds:.0f} s each; refreshes change 1 % of the models;"
        " mixed are 85 % GetModel, 8 % ListModels of a provider, 4 % GetProvider, 3 % SearchModels\n"
    )
    table(("", "reads", "refreshes", "near hits", "misses", "ratio"), rows)


Requests = Callable[[], tuple[str, bytes]]


def of_models(ids: list[str]) -> Requests:
    """Return what draws a request for a model."""
    draw_id = by_zipf(ids, random.Random(7))  # noqa: S311 - arguments, not secrets
    return lambda: ("GetModel", pb.GetModelRequest(model_id=draw_id()).SerializeToString())


def of_all_kinds(ids: list[str], providers: list[str]) -> Requests:
    """Return what draws a request: for models, providers and searches, each in the same distribution."""
    chance = random.Random(7)  # noqa: S311 - arguments, not secrets
    draw_id, draw_provider = by_zipf(ids, chance), by_zipf(providers, chance)

    def draw() -> tuple[str, bytes]:
        kind = chance.random()
        if kind < 0.85:
            return "GetModel", pb.GetModelRequest(model_id=draw_id()).SerializeToString()
        if kind < 0.93:
            return "ListModels", pb.ListModelsRequest(provider_id=draw_provider(), page_size=20).SerializeToString()
        if kind < 0.97:
            return "GetProvider", pb.GetProviderRequest(provider_id=draw_provider()).SerializeToString()
        query = draw_id().rpartition("/")[2]
        return "SearchModels", pb.SearchModelsRequest(query=query, page_size=20).SerializeToString()

    return draw


def by_zipf(population: list[str], chance: random.Random) -> Callable[[], str]:
    """Return what draws: the n-th as often as an n-th of the first (exponent 1), in an order of chance."""
    shuffled = chance.sample(population, len(population))
    weights = list(accumulate(1 / rank for rank in range(1, len(shuffled) + 1)))
    return lambda: chance.choices(shuffled, cum_weights=weights)[0]


async def ask(server: Process, requests: Requests, seconds: float, callers: int = 8) -> Counter[str]:
    """Ask as fast as answers come."""
    made: Counter[str] = Counter()
    until = time.monotonic() + seconds

    async def call(channel: grpc.aio.Channel) -> None:
        while time.monotonic() < until:
            method, request = requests()
            ask: Any = channel.unary_unary(f"{SERVICE}/{method}")
            await ask(request, timeout=30)
            made[method] += 1

    async with grpc.aio.insecure_channel(server.address) as channel:
        await asyncio.gather(*(call(channel) for _ in range(callers)))
    return made


@contextmanager
def refreshing(stage: Stage, client: ModelCatalogClient, pause: float) -> Iterator[list[tuple[float, float]]]:
    """Have the catalog change again and again."""
    done: list[tuple[float, float]] = []
    over = threading.Event()

    def go_on() -> None:
        while not over.wait(pause):
            done.append(refresh(stage, client, every=100))

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield done
    finally:
        over.set()
        thread.join()


# --- how soon every replica knows -----------------------------------------------------------------------------------


def spread(stage: Stage, changes: int) -> None:
    """Print how long after a commit each of two replicas serves the new revision."""
    taken: dict[str, list[float]] = {"the one that was asked": [], "the other": []}
    with (
        stage.serve(pinned=False) as first,
        stage.serve(pinned=False) as second,
        ModelCatalogClient(first.address, timeout=30) as client,
        commits(stage.database_url) as committed,
    ):
        pollers = [Poller(server) for server in (first, second)]
        for number in range(changes):
            revision = client.update_provider("zenmux", enabled=number % 2 == 1).catalog_revision
            seen = [poller.when_at(revision) for poller in pollers]
            begun = committed(revision)
            for name, when in zip(taken, seen, strict=True):
                taken[name].append(when - begun)
            time.sleep(0.2)
        for poller in pollers:
            poller.close()
    print(f"\nfrom the commit of a new revision to the first answer of it, {changes} changes of policy\n")
    rows = []
    for name, times in taken.items():
        answers = [Answered(0, each) for each in times]
        rows.append((name, *map(ms, quantiles(answers, 50, 95, 99, 100))))
    table(("replica", "p50", "p95", "p99", "slowest"), rows)


class Poller:
    """Asks a server for the same model again and again, and notes when it first had which revision."""

    def __init__(self, server: Process) -> None:
        self._channel = grpc.insecure_channel(server.address)
        self._get_model: Any = self._channel.unary_unary(
            GET_MODEL.path, response_deserializer=pb.GetModelResponse.FromString
        )
        self._first: dict[int, float] = {}
        self._news = threading.Condition()
        self._over = False
        self._thread = threading.Thread(target=self._poll)
        self._thread.start()

    def when_at(self, revision: int) -> float:
        with self._news:
            assert self._news.wait_for(lambda: revision in self._first, timeout=10), f"{revision} was never served"
            return self._first[revision]

    def close(self) -> None:
        self._over = True
        self._thread.join()
        self._channel.close()

    def _poll(self) -> None:
        while not self._over:
            revision = self._get_model(GET_MODEL.request, timeout=10).catalog_revision
            if revision not in self._first:
                with self._news:
                    self._first[revision] = time.time()
                    self._news.notify_all()
            time.sleep(0.001)


@contextmanager
def commits(database_url: str) -> Iterator[Callable[[int], float]]:
    """Yield what tells when a revision was committed, by the clock of PostgreSQL's own log of commits."""
    with psycopg.connect(database_url, autocommit=True) as connection:

        def committed(revision: int) -> float:
            row = connection.execute(
                "SELECT extract(epoch FROM pg_xact_commit_timestamp(xmin)) FROM catalog_revisions WHERE revision = %s",
                (revision,),
            ).fetchone()
            assert row is not None
            return float(row[0])

        yield committed
