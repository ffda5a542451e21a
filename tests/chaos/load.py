"""Callers that never rest, what became of their calls, and what they were told."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from chaos.ground import Ground
from chaos.numbered import SWITCHED, NumberedCatalog
from chaos.oracle import Oracle
from modelcatalog.v1.refresh_pb2 import Refresh, RefreshStatus
from modelcatalog_client import AsyncModelCatalogClient, CatalogError, refresh_error
from small_catalog import until

READERS = 4
#: How long a caller waits for an answer.
TIMEOUT_S = 4.0
#: A minute until a write that the network has swallowed is given up, and as much as a fault may keep from hearing that.
WATCH_S = 120.0
#: How long after the last run a watch on all of them may take to hear of its end.
HEARD_WITHIN_S = 30.0
PAUSE_S = 0.005
WORDS = ("gpt", "claude opus", "mini", "sonnet 4", "openai", "image", "o3", "turbo", "haiku", "codex")

#: What the contract lets a call come to while something is away; without a reason it is gRPC itself that says so.
DOCUMENTED = {
    ("UNAVAILABLE", reason)
    for reason in ("", "DATABASE_UNAVAILABLE", "SERVER_DRAINING", "OVERLOADED", "REVISION_NOT_AVAILABLE")
} | {("DEADLINE_EXCEEDED", ""), ("DEADLINE_EXCEEDED", "DEADLINE")}
#: The same for a run.
DOCUMENTED_ENDS = {"DATABASE_UNAVAILABLE", "UPSTREAM_UNAVAILABLE", "UPSTREAM_INVALID", "OWNER_LOST"}


@dataclass
class Window:
    """The time from the beginning of a fault to the beginning of the next one. Times are of the monotonic clock."""

    name: str
    begun_at: float = field(default_factory=time.monotonic)
    mended_at: float | None = None
    refreshed_at: float | None = None
    last_failure_at: float = 0.0
    longest_s: float = 0.0
    answered: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    runs: Counter[str] = field(default_factory=Counter)
    probes: int = 0
    unready: int = 0
    log_lines: int = 0

    @property
    def kinds(self) -> set[str]:
        return {*self.answered, *self.failed}

    @property
    def calls(self) -> int:
        return self.answered.total() + self.failed.total()


class Load:
    """Has the replicas called. Each call counts in the window that it ends in."""

    def __init__(self, ground: Ground, catalog: NumberedCatalog, random_: random.Random) -> None:
        self.oracle = Oracle(catalog)
        self.window = Window("in peace")
        self.undocumented: list[str] = []
        self.everything: list[RefreshStatus] = []
        self.serving: dict[int, bool] = {}
        self._ground = ground
        self._catalog = catalog
        self._random = random_
        self._stopping = asyncio.Event()
        self._number = 1
        self._begun = list[float]()

    @property
    def oldest_call_at(self) -> float:
        """When the first of the calls began that are under way."""
        return min(self._begun, default=math.inf)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Call until the block is over; then every caller ends what it has begun."""
        target = "ipv4:" + ",".join(replica.address for replica in self._ground.replicas)
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(AsyncModelCatalogClient(target, timeout=TIMEOUT_S))
            watch = client.watch_refresh_status()
            self.everything.append(await anext(watch))
            watching = asyncio.create_task(self._follow(watch))
            async with asyncio.TaskGroup() as group:
                for _ in range(READERS):
                    group.create_task(self._repeat(lambda: self._read(client)))
                group.create_task(self._repeat(lambda: self._switch(client)))
                group.create_task(self._repeat(lambda: self._refresh(client)))
                for place, replica in enumerate(self._ground.replicas):
                    probe = await stack.enter_async_context(self._probing(place, replica.address))
                    group.create_task(self._repeat(probe))
                try:
                    yield
                finally:
                    self._stopping.set()
            with suppress(TimeoutError):  # what it has not heard of by then is missed
                await until(self._has_heard_of_all, seconds=HEARD_WITHIN_S)
            await watch.close()
            await watching

    def _has_heard_of_all(self) -> bool:
        """Whether the watch on all runs has got the ends of those that were watched by themselves."""
        ended = {status.refresh_id for status in self.everything if status.kind == RefreshStatus.KIND_TERMINAL}
        return ended >= self.oracle.watched_runs

    async def _follow(self, watch: Any) -> None:
        async for status in watch:
            self.everything.append(status)

    async def _repeat(self, act: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while not self._stopping.is_set():
            await act()
            await asyncio.sleep(PAUSE_S)

    async def _ask(self, kind: str, call: Callable[[], Awaitable[Any]]) -> Any:
        """Return the answer, or ``None`` where there was none, which is noted."""
        begun = time.monotonic()
        self._begun.append(begun)
        try:
            answer = await call()
        except CatalogError as error:
            window = self.window
            window.failed[kind] += 1
            window.codes[error.reason or error.code.name] += 1
            window.last_failure_at = time.monotonic()
            if (error.code.name, error.reason) not in DOCUMENTED:
                self.undocumented.append(f"{window.name}: {error!r}")
            return None
        finally:
            self._begun.remove(begun)
            self.window.longest_s = max(self.window.longest_s, time.monotonic() - begun)
        self.window.answered[kind] += 1
        return answer

    # --- readers --------------------------------------------------------------------------------------------------

    async def _read(self, client: AsyncModelCatalogClient) -> None:
        dice = self._random.random()
        if dice < 0.8:
            await self._get(client)
        elif dice < 0.9:
            await self._list(client)
        else:
            await self._search(client)

    async def _get(self, client: AsyncModelCatalogClient) -> None:
        model_id = self._random.choice(self._catalog.always_listed)
        if answer := await self._ask("get", lambda: client.get_model(model_id)):
            self.oracle.note_models(answer.catalog_revision, [answer.model])
            if answer.model.id != model_id:
                self.oracle.wrong.append(f"asked for {model_id}, got {answer.model.id}")

    async def _list(self, client: AsyncModelCatalogClient) -> None:
        """Read a listing whole: all of its pages are of one revision."""
        pages = client.list_models(page_size=self._random.randint(20, 60)).pages()
        listed, revisions = list[str](), set[int]()
        while page := await self._ask("list", lambda: anext(pages, "end")):
            if page == "end":
                break
            self.oracle.note_models(page.catalog_revision, page.models)
            listed += [model.id for model in page.models]
            revisions.add(page.catalog_revision)
        else:
            return
        if len(revisions) > 1:
            self.oracle.wrong.append(f"the pages of one listing are of {revisions}")
        self.oracle.note_listing(min(revisions), listed)

    async def _search(self, client: AsyncModelCatalogClient) -> None:
        pages = client.search_models(self._random.choice(WORDS), page_size=self._random.randint(1, 20)).pages()
        if answer := await self._ask("search", lambda: anext(pages)):
            self.oracle.note_models(answer.catalog_revision, [result.model for result in answer.results])

    # --- writers --------------------------------------------------------------------------------------------------

    async def _switch(self, client: AsyncModelCatalogClient) -> None:
        """Hide a provider or show it again, and read that."""
        shown = self._random.random() < 0.5
        answer = await self._ask("update", lambda: client.update_provider(SWITCHED, enabled=shown))
        if answer:
            revision = answer.catalog_revision
            self.oracle.note_switch(revision, shown=shown)
            read = await self._ask("get", lambda: client.get_provider(SWITCHED, min_revision=revision))
            if read and (read.catalog_revision < revision or read.provider.enabled != shown):
                self.oracle.wrong.append(f"{SWITCHED} at {read.catalog_revision}, after {revision}: not as it was set")
        await asyncio.sleep(0.25)

    async def _refresh(self, client: AsyncModelCatalogClient) -> None:
        """Publish a new document, have it fetched, and watch that to its end."""
        self._number += 1
        self._ground.publish(self._catalog.make_body(self._number))
        request_id, number = str(uuid4()), self._number
        started = await self._insist(lambda: client.start_refresh(request_id=request_id))
        try:
            async with asyncio.timeout(WATCH_S), client.watch_refresh_status(started.refresh.id) as watch:
                told = [status async for status in watch]
        except (TimeoutError, CatalogError) as error:
            self.oracle.gaps.append(f"{self.window.name}: no end of {started.refresh.id} within {WATCH_S} s: {error!r}")
            return
        self.oracle.note_watch(started.refresh.id, told)
        self._note_end(told[-1].refresh, None if started.already_running else number)
        await asyncio.sleep(0.1)

    async def _insist(self, start: Callable[[], Awaitable[Any]]) -> Any:
        """Ask until there is an answer: the same request stands for the same run."""
        while True:
            if started := await self._ask("start", start):
                return started
            await asyncio.sleep(PAUSE_S)

    def _note_end(self, ended: Refresh, number: int | None) -> None:
        """Take down how a run ended, and with which document if it was surely ours."""
        window = self.window
        if error := refresh_error(ended):
            window.runs[error.reason] += 1
            if error.reason not in DOCUMENTED_ENDS:
                self.undocumented.append(f"{window.name}: a run ended with {error!r}")
            return
        window.runs["SUCCEEDED"] += 1
        if ended.result_revision and number is not None:
            self.oracle.note_run(ended.result_revision, number)
        if window.mended_at is not None and window.refreshed_at is None:
            window.refreshed_at = time.monotonic()

    # --- probes ---------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _probing(self, place: int, address: str) -> AsyncIterator[Callable[[], Coroutine[Any, Any, None]]]:
        """Yield what asks one replica a model, the state of the catalog, and how it is."""
        async with AsyncModelCatalogClient(address, timeout=TIMEOUT_S) as client, _plain_channel(address) as channel:
            health = health_pb2_grpc.HealthStub(channel)

            async def probe() -> None:
                process = f"replica {place}, life {self._ground.lives[place]}"
                for call in (lambda: client.get_model("openai/gpt-5"), client.get_catalog_info):
                    newest = self.oracle.newest_of(process)
                    if answer := await self._ask("probe", call):
                        self.oracle.note_revision(process, answer.catalog_revision, asked_at=newest)
                self.serving[place] = await _is_serving(health)
                self.window.probes += 1
                self.window.unready += not self.serving[place]
                await asyncio.sleep(0.02)

            yield probe


def _plain_channel(address: str) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(address, [("grpc.enable_http_proxy", 0), ("grpc.max_reconnect_backoff_ms", 500)])


async def _is_serving(health: Any) -> bool:
    try:
        answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
    except grpc.aio.AioRpcError:
        return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
