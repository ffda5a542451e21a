"""Two replicas that are replaced one after the other under load: no call fails, and a watch hears of everything."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from acceptance.serving import END_TIMEOUT_S
from conftest import Services
from modelcatalog.v1.refresh_pb2 import RefreshStatus
from modelcatalog_client import AsyncModelCatalogClient, CatalogError
from replicas import Replica, StartReplica, kept_events, replicas
from small_catalog import SmallCatalog, clone_small, until
from upstream_server import UpstreamServer

#: Callers at once; each makes its next call soon after the last one was answered.
CALLERS = 48
PAUSE_S = 0.1
#: Reads that each replica must have answered before one of them is restarted.
STEADY = 200

TERMINAL = "TERMINAL"

CALLS: tuple[Callable[[AsyncModelCatalogClient], Awaitable[Any]], ...] = (
    lambda client: client.get_model("openai/gpt-5"),
    lambda client: client.get_catalog_info(),
    lambda client: client.batch_get_models(["openai/gpt-5", "anthropic/claude-opus-4-1"]),
    lambda client: client.update_provider("openai", enabled=True),
)

#: So often a client looks for a replica that was gone, instead of every 5 s: the test waits for that eight times.
IMPATIENT = [("grpc.max_reconnect_backoff_ms", 500)]


@pytest.fixture
def database(templates: Services) -> Iterator[str]:
    yield from clone_small(templates)


@dataclass
class Load:
    """Callers that call all the time, and what became of their calls."""

    client: AsyncModelCatalogClient
    answered: int = 0
    failures: Counter[str] = field(default_factory=Counter)

    async def call(self, number: int) -> None:
        while True:
            number += 1
            try:
                await CALLS[number % len(CALLS)](self.client)
                self.answered += 1
            except CatalogError as error:
                self.failures[f"{error.method} {error}"] += 1
            await asyncio.sleep(PAUSE_S)  # so that the replicas have something left to start with

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        callers = [asyncio.create_task(self.call(number)) for number in range(CALLERS)]
        try:
            yield
        finally:
            for caller in callers:
                caller.cancel()
            await asyncio.gather(*callers, return_exceptions=True)

    async def reaches(self, replica: Replica) -> None:
        """Wait until the load is spread over this replica, too: a client that lost it tries every few seconds."""
        async with AsyncModelCatalogClient(replica.address) as client:
            before = await _count_hits(client)

            async def has_hits() -> bool:
                await asyncio.sleep(0.2)  # to be asked costs a replica as much as many reads
                return await _count_hits(client) >= before + STEADY

            await until(has_hits)


async def _count_hits(client: AsyncModelCatalogClient) -> int:
    return sum(layer.hits for layer in (await client.get_cache_stats()).layers)


async def restart(replica: Replica, start: StartReplica, database: str, upstream: UpstreamServer) -> Replica:
    replica.send(signal.SIGTERM)
    assert await asyncio.to_thread(replica.process.wait, END_TIMEOUT_S) == 0
    return await start(database, upstream.url, listen=replica.address)


async def test_a_rolling_restart_fails_no_call_and_leaves_no_gap_in_a_watch(
    templates: Services, work_dir: Path, database: str
) -> None:
    async with UpstreamServer() as upstream, replicas(templates, work_dir) as start:
        catalog = SmallCatalog()
        upstream.serve("/catalog.json", catalog.body)
        both = [await start(database, upstream.url), await start(database, upstream.url)]
        target = "ipv4:" + ",".join(replica.address for replica in both)
        async with AsyncModelCatalogClient(target, options=IMPATIENT) as client:
            load, seen, runs = Load(client), [], []
            watch = client.watch_refresh_status()
            first = await anext(watch)
            assert first.kind == RefreshStatus.KIND_SNAPSHOT

            async def follow() -> None:
                async for status in watch:
                    kind = RefreshStatus.Kind.Name(status.kind).removeprefix("KIND_")
                    if kind in ("STATE", TERMINAL):
                        seen.append((status.refresh_id, kind))

            following = asyncio.create_task(follow())
            async with load.running():
                for turn in range(3):
                    at = turn % 2
                    for replica in both:
                        await load.reaches(replica)
                    both[at] = await restart(both[at], start, database, upstream)
                    catalog.model("openai/gpt-5")["name"] = f"GPT-5, {turn}"
                    upstream.serve("/catalog.json", catalog.body)
                    runs.append((await client.start_refresh()).refresh.id)
            assert load.failures == {}
            await until(lambda: TERMINAL in [kind for run, kind in seen if run == runs[-1]])
            for run in runs:
                kept = [kind for _, kind in await kept_events(database, run)]
                assert [kind for seen_run, kind in seen if seen_run == run] == kept
            await watch.close()
            await following
