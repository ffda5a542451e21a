"""Reads from a real streaming replica: while it is at the revision that the process is at, and never otherwise."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from conftest import ImpatientPools, Services, make_settings
from modelcatalog.v1.catalog_admin_service_pb2 import ReadReplicaStats
from modelcatalog_client import AsyncModelCatalogClient, ModelNotFoundError
from modelcatalog_server import app
from modelcatalog_server.catalog.current import CurrentRevision
from modelcatalog_server.catalog.indexing import ReferenceIndexes
from modelcatalog_server.catalog.paging import PageTokens
from modelcatalog_server.catalog.reader import CatalogReader, ModelQuery
from modelcatalog_server.catalog.references import References
from modelcatalog_server.catalog.snapshots import AtLeast, Snapshots
from modelcatalog_server.domain.errors import DatabaseUnavailableError
from modelcatalog_server.domain.signal import Signal
from modelcatalog_server.settings import load_settings
from modelcatalog_server.storage.catalog_store import PostgresCatalog
from modelcatalog_server.storage.policy_store import PostgresPolicy
from modelcatalog_server.storage.pools import Pools, PoolSettings
from modelcatalog_server.storage.replica import ReadReplica
from modelcatalog_server.tokens import TokenSealer
from small_catalog import load_small, until
from standby import Pair, standby_pair

GPT_5 = "openai/gpt-5"
ZELDOC = "zeldoc/z-code"
CONNECTED = "SELECT pid FROM pg_stat_activity WHERE application_name = 'modelcatalog-replica' ORDER BY pid"
UP, DOWN = "the read replica answers reads", "the read replica is down: reads go to the primary"
BEHIND = "the read replica is at another revision: reads go to the primary"


@pytest.fixture(scope="module")
def pair(work_dir: Path) -> Iterator[Pair]:
    """A PostgreSQL with the small catalog, and its replica."""
    with standby_pair(work_dir / "pair") as pair:
        asyncio.run(app.migrate_database(load_settings(database_url=pair.primary.url)))
        asyncio.run(load_small(Services(**pair.primary.address), pair.primary.url))
        yield pair


@asynccontextmanager
async def serving(pair: Pair, replica_url: str = "") -> AsyncIterator[AsyncModelCatalogClient]:
    """Serve what nothing caches, so that every read is one, and yield a client of that."""
    services = Services(**pair.primary.address)
    replica = replica_url or pair.replica.url
    settings = make_settings(
        services, services.database_url, database_replica_url=replica, cache_entries=0, offline=True
    )
    async with app.start(settings) as running:
        running.server.set_serving(True)
        async with AsyncModelCatalogClient(running.server.address) as client:
            yield client


async def stats_of(client: AsyncModelCatalogClient) -> ReadReplicaStats:
    return (await client.get_cache_stats()).read_replica


async def goes_to_the_replica(client: AsyncModelCatalogClient) -> bool:
    """Read something and tell who answered."""
    before = (await stats_of(client)).reads
    await client.get_model(GPT_5)
    return (await stats_of(client)).reads > before


@contextmanager
def lag(pair: Pair) -> Iterator[None]:
    """Have the replica stay where it is."""
    pair.replica.execute("SELECT pg_wal_replay_pause()")
    try:
        yield
    finally:
        pair.replica.execute("SELECT pg_wal_replay_resume()")


async def test_reads_go_to_the_replica_and_say_the_same(pair: Pair) -> None:
    async with serving(pair) as client:
        await until(lambda: goes_to_the_replica(client))
        before = await stats_of(client)
        answer = await client.get_model(GPT_5)
        assert len([model async for model in client.list_models()]) == 87
        assert (await client.get_catalog_info()).catalog_revision == answer.catalog_revision
        after = await stats_of(client)
        assert (after.reads - before.reads, after.fallbacks) == (4, before.fallbacks), "one for each page"
        assert (after.available, after.revision) == (True, answer.catalog_revision)
        reading = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'modelcatalog-replica'"
        assert pair.replica.execute(reading) >= [(1,)]


async def test_without_a_replica_there_are_no_figures_of_one(pair: Pair) -> None:
    services = Services(**pair.primary.address)
    async with (
        app.start(make_settings(services, services.database_url, offline=True)) as running,
        AsyncModelCatalogClient(running.server.address) as client,
    ):
        assert not (await client.get_cache_stats()).HasField("read_replica")


async def test_a_replica_that_is_behind_answers_nothing_until_it_has_caught_up(pair: Pair) -> None:
    async with serving(pair) as client:
        await until(lambda: goes_to_the_replica(client))
        with lag(pair):
            revision = (await client.update_provider("zeldoc", enabled=False)).catalog_revision
            for at_least in (0, revision):
                with pytest.raises(ModelNotFoundError):
                    await client.get_model(ZELDOC, min_revision=at_least)
            assert (await client.get_model(GPT_5)).catalog_revision == revision
            assert not await goes_to_the_replica(client)
            await until(lambda: says(client, revision=revision - 1))
        await until(lambda: goes_to_the_replica(client))
        assert (await client.get_model(GPT_5)).catalog_revision == revision
        await client.update_provider("zeldoc", enabled=True)


async def says(client: AsyncModelCatalogClient, *, revision: int) -> bool:
    return (await stats_of(client)).revision == revision


async def test_reads_never_go_back_while_the_catalog_changes_and_the_replica_stops_and_goes(pair: Pair) -> None:
    async with serving(pair) as client:
        seen, ended = [0], asyncio.Event()

        async def read_on() -> None:
            while not ended.is_set():
                at_least = seen[-1]
                revision = (await client.get_model(GPT_5)).catalog_revision
                assert revision >= at_least
                seen.append(revision)

        readers = [asyncio.create_task(read_on()) for _ in range(4)]
        for turn in range(10):
            with lag(pair) if turn % 2 else nullcontext():
                changed = await client.update_provider("zeldoc", enabled=bool(turn % 2))
                assert (await client.get_model(GPT_5)).catalog_revision >= changed.catalog_revision
        ended.set()
        await asyncio.gather(*readers)
        stats = await stats_of(client)
        assert stats.reads > 0
        assert stats.fallbacks > 0


async def test_when_it_is_killed_no_read_fails_and_it_is_picked_up_again_by_itself(pair: Pair) -> None:
    with capture_logs() as logs:
        async with serving(pair) as client:
            await until(lambda: goes_to_the_replica(client))
            answered, ended = [0], asyncio.Event()

            async def read_on() -> None:
                while not ended.is_set():
                    await client.get_model(GPT_5)
                    answered[0] += 1

            readers = [asyncio.create_task(read_on()) for _ in range(4)]
            await asyncio.to_thread(pair.replica.kill)
            before = answered[0]
            await until(lambda: answered[0] > before + 20)
            assert not (await stats_of(client)).available
            await asyncio.to_thread(pair.replica.start)
            await until(lambda: goes_to_the_replica(client))
            ended.set()
            await asyncio.gather(*readers)
    said = [line["event"] for line in logs if "replica" in line["event"]]
    assert said == [DOWN, UP]


async def test_one_that_hangs_holds_nobody_up_for_long(pair: Pair) -> None:
    async with serving(pair) as client:
        await until(lambda: goes_to_the_replica(client))
        pair.replica.signal(signal.SIGSTOP)
        try:
            # It is asked once a second and has two to answer; on a busy machine the rest of the ten.
            await asyncio.gather(*(client.get_model(GPT_5, timeout=10) for _ in range(12)))
            assert not (await stats_of(client)).available, "so that nobody else has to wait"
        finally:
            pair.replica.signal(signal.SIGCONT)
        await until(lambda: goes_to_the_replica(client))


@pytest.mark.parametrize("url", ["postgresql://127.0.0.1:1/nothing", "host=/nowhere dbname=nothing"])
async def test_one_that_is_not_there_is_one_warning_and_the_service_starts(pair: Pair, url: str) -> None:
    with capture_logs() as logs:
        async with serving(pair, url) as client:
            assert (await client.get_model(GPT_5)).model.id == GPT_5
            assert not (await stats_of(client)).HasField("revision")
    (line,) = [line for line in logs if "replica" in line["event"]]
    assert (line["event"], line["log_level"]) == (DOWN, "warning")
    assert line["reason"].endswith("Check MODELCATALOG_DATABASE_REPLICA_URL.")


async def test_one_of_another_catalog_is_not_read(pair: Pair, empty_database: str) -> None:
    with capture_logs() as logs:
        async with serving(pair, empty_database) as client:
            assert (await client.get_model(GPT_5)).model.id == GPT_5
            assert (await stats_of(client)).reads == 0
    (line,) = [line for line in logs if "replica" in line["event"]]
    assert line["reason"] == "it is no copy of this catalog: check MODELCATALOG_DATABASE_REPLICA_URL"


# --- below the service --------------------------------------------------------------------------------------------


class Process:
    """What reads the catalog in a process: it moves on when it is told to, and not by itself."""

    def __init__(self, pools: Pools, replica: ReadReplica, current: CurrentRevision) -> None:
        self.pools = pools
        self.replica = replica
        self.current = current
        self.catalog = PostgresCatalog(pools, replica)
        self.snapshots = Snapshots(self.catalog, Signal(), current)
        references = References(ReferenceIndexes(self.snapshots, Signal()))
        self.reader = CatalogReader(self.snapshots, references, PageTokens(TokenSealer(b"k" * 32, "page")))

    async def change(self) -> int:
        """Make a revision, as another process does."""
        policy = PostgresPolicy(self.pools)
        await policy.set_provider_enabled("zeldoc", enabled=False)
        _, state = await policy.set_provider_enabled("zeldoc", enabled=True)
        return state.revision


@asynccontextmanager
async def process_on(pair: Pair, **more: Any) -> AsyncIterator[Process]:
    current = CurrentRevision()
    async with Pools(pair.primary.url, ImpatientPools()) as pools:
        identity = await PostgresCatalog(pools).get_identity()
        known = {"poll_s": 0.05, **more}
        async with ReadReplica(pair.replica.url, pools, identity, lambda: current.state, **known) as replica:
            process = Process(pools, replica, current)
            await process.snapshots.get_state()
            await until(lambda: reads_from(process))
            yield process


async def reads_from(process: Process) -> bool:
    before = process.replica.reads
    async with process.catalog.snapshot():
        return process.replica.reads > before


async def test_a_page_goes_on_in_its_revision_also_where_that_is_not_known_yet(pair: Pair) -> None:
    async with process_on(pair) as behind, process_on(pair) as ahead:
        with lag(pair):
            revision = await ahead.change()
            await ahead.snapshots.get_state()
            first = await ahead.reader.list_models(ModelQuery(page_size=5))
            assert first.state.revision == revision > behind.current.newest_revision
            second = await behind.reader.list_models(ModelQuery(page_size=5, page_token=first.value.next_token))
        assert second.state.revision == second.value.revision == revision


async def test_one_that_stays_behind_is_said_to_be_so_once_and_left_alone(pair: Pair) -> None:
    with capture_logs() as logs:
        async with process_on(pair, patience_s=0.2) as process:
            with lag(pair):
                await process.change()
                await process.snapshots.get_state()
                await until(lambda: not process.replica.stats.available)
                assert not await reads_from(process)
            await until(lambda: reads_from(process))
    assert [line["event"] for line in logs] == [BEHIND, UP]


async def test_a_read_that_loses_it_goes_on_at_the_primary_if_that_is_where_it_was(pair: Pair) -> None:
    async with process_on(pair) as process:
        async with process.catalog.snapshot() as same, process.catalog.snapshot() as moved:
            counts = await same.get_counts()
            assert process.replica.reads >= 2
            await asyncio.to_thread(pair.replica.kill)
            assert await same.get_counts() == counts
            await process.change()
            assert await same.get_counts() == counts, "its transaction sees what it saw"
            with pytest.raises(DatabaseUnavailableError, match="moved on"):
                await moved.get_counts()
        await asyncio.to_thread(pair.replica.start)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
async def test_the_first_read_that_finds_it_dead_does_not_wait_and_tells_all(pair: Pair, number: int) -> None:
    async with process_on(pair, poll_s=3600.0) as process:
        async with AsyncExitStack() as stack:
            for _ in range(4):
                await stack.enter_async_context(process.catalog.snapshot())
        (postmaster, *_) = pair.replica.processes
        os.kill(postmaster, number)
        await asyncio.to_thread(pair.replica.stop)
        try:
            begun = time.monotonic()
            assert not any(await asyncio.gather(*(reads_from(process) for _ in range(20))))
            assert time.monotonic() - begun < 0.4
            assert not process.replica.stats.available, "so that nobody else asks there"
        finally:
            await asyncio.to_thread(pair.replica.start)


async def test_one_whose_connections_are_all_in_use_is_waited_for_for_a_moment(pair: Pair) -> None:
    async with process_on(pair, poll_s=3600.0, settings=PoolSettings(read_size=1)) as process:
        pids = pair.replica.execute(CONNECTED)
        async with process.catalog.snapshot():
            assert not await reads_from(process)
            assert process.replica.stats.available, "it is only busy"
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(process.catalog.snapshot())
            waiting = asyncio.create_task(reads_from(process))
            await stack.aclose()
            assert await waiting
        assert pair.replica.execute(CONNECTED) == pids, "none was closed for it"


async def test_who_gives_up_leaves_no_transaction_behind(pair: Pair) -> None:
    async with process_on(pair) as process:
        for turns in range(30):
            reading = asyncio.create_task(reads_from(process))
            for _ in range(turns):
                await asyncio.sleep(0)
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading
        open_ones = (
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE application_name = 'modelcatalog-replica' AND state = 'idle in transaction'"
        )
        await until(lambda: pair.replica.execute(open_ones) == [(0,)])
        assert await reads_from(process)
        assert process.replica.stats.available, "that a caller went away says nothing about it"


async def test_while_the_primary_is_away_the_replica_answers_what_is_known(pair: Pair) -> None:
    async with process_on(pair) as process:
        known = await process.snapshots.get_state()
        await asyncio.to_thread(pair.primary.kill)
        try:
            assert await process.snapshots.get_state() == known
            assert (await process.reader.get_info()).value.counts.models == 87
            begun = time.monotonic()
            with pytest.raises(DatabaseUnavailableError):
                await process.snapshots.catch_up(AtLeast(revision=known.revision + 1, timeout_s=30))
            assert time.monotonic() - begun < 15, "it is not waited for as long as the caller has time"
            with pytest.raises(DatabaseUnavailableError):
                await process.snapshots.catch_up(AtLeast(revision=known.revision + 1, timeout_s=0.1))
            process.current.expect(known.revision + 1)
            with pytest.raises(DatabaseUnavailableError):
                await process.snapshots.get_state()
        finally:
            await asyncio.to_thread(pair.primary.start)
