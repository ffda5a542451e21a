"""Replicas that share a database: as one, whichever is asked and however they race."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from conftest import DATA, Services, StartApp, read_json, refresh_to_end
from modelcatalog_server import app
from modelcatalog_server.domain.errors import RequestIdReusedError
from modelcatalog_server.domain.refresh import Refresh, RefreshRequest, RefreshType, State
from modelcatalog_server.storage.pools import Pools
from modelcatalog_server.storage.refresh_store import PostgresRefreshes
from replicas import replicas
from small_catalog import CATALOG_TABLES, SmallCatalog, Stage, clone_small, fetch, follow, locked, until
from upstream_server import UpstreamServer, hang

DATES = ("2026-05-07", "2026-06-25", "2026-07-01", "2026-07-02")
#: Some whose models come, go and change between these dates: one of them is new and one is gone after the first.
PROVIDERS = ("chutes", "github-copilot", "kiro", "nearai", "nvidia", "opencode", "siliconflow", "vercel")


@pytest.fixture
def database(templates: Services) -> Iterator[str]:
    yield from clone_small(templates)


@pytest.fixture
async def stage(start_app: StartApp, database: str) -> AsyncIterator[Stage]:
    async with follow(start_app, database) as stage:
        yield stage


@pytest.fixture
async def other(start_app: StartApp, stage: Stage) -> AsyncIterator[app.App]:
    """Another replica of the stage's service."""
    async with start_app(stage.database_url, upstream_url=stage.upstream.url) as other:
        yield other


async def run_count(stage: Stage) -> int:
    """Return how many runs there were since the first load."""
    (count,) = await stage.fetch("SELECT count(*) - 1 FROM models_refresh_history")
    return int(count)


# --- races --------------------------------------------------------------------------------------------------------


#: Times, what names a run, and numbers that a sequence gave.
_LEFT_OUT = "{first_seen_at,last_changed_at,last_models_sync,removed_at,committed_at,refresh_id,source_url}"


async def digests_of_tables(url: str) -> dict[str, str]:
    """Return a digest of each table of the catalog, apart from times and ids of runs and rows."""
    digests = {}
    for table in CATALOG_TABLES:
        row = f"to_jsonb(t) - '{_LEFT_OUT}'::text[]" + (" - 'id'" if table == "model_benchmarks" else "")
        rows = f"SELECT ({row})::text AS said FROM {table} AS t"
        (digests[table],) = await fetch(url, f"SELECT md5(string_agg(said, ',' ORDER BY said)) FROM ({rows}) AS r")
    return digests


@pytest.fixture
def databases(templates: Services) -> Iterator[tuple[str, str]]:
    """Two databases with the schema and nothing else."""
    urls = templates.clone("mc_empty"), templates.clone("mc_empty")
    yield urls
    for url in urls:
        templates.drop(url)


async def test_two_replicas_that_race_write_what_one_writes_alone(
    start_app: StartApp, databases: tuple[str, str], tmp_path: Path
) -> None:
    raced, alone = databases
    upstream = tmp_path.as_uri()
    async with AsyncExitStack() as stack:
        one, two, single = [
            await stack.enter_async_context(start_app(url, upstream_url=upstream)) for url in (raced, raced, alone)
        ]
        for date in DATES:
            whole = read_json(DATA / f"api-{date}.json.gz")
            some = {id_: provider for id_, provider in whole.items() if id_ in PROVIDERS}
            (tmp_path / "api.json").write_text(json.dumps(some))
            async with locked(raced, "refresh_reports IN EXCLUSIVE"):  # or it may be over before the other has asked
                started = await asyncio.gather(*(each.refreshes.start(RefreshRequest()) for each in (one, two)))
            runs = await asyncio.gather(
                *(end_of(each, run) for each, (run, _) in zip((one, two), started, strict=True))
            )
            assert runs[0] == runs[1], "one of them joined the other's"
            expected = await refresh_to_end(single)
            assert (runs[0].state, runs[0].counts) == (expected.state, expected.counts)
            assert runs[0].result_revision == expected.result_revision
    assert await digests_of_tables(raced) == await digests_of_tables(alone)
    assert await fetch(raced, "SELECT count(*) FROM models_refresh_history") == [len(DATES)]


async def test_two_replicas_that_start_at_once_on_nothing_make_one_run(
    templates: Services, empty_database: str, work_dir: Path
) -> None:
    async with UpstreamServer() as upstream, replicas(templates, work_dir) as start:
        upstream.serve("/catalog.json", SmallCatalog().body)
        await asyncio.gather(*(start(empty_database, upstream.url) for _ in range(2)))
    runs = await fetch(empty_database, "SELECT trigger, status, result_revision FROM models_refresh_history")
    assert runs == [("STARTUP", "SUCCEEDED", 1)]
    assert upstream.paths == ["/catalog.json"]


async def test_many_requests_to_both_at_once_start_one_run(stage: Stage, other: app.App) -> None:
    stage.upstream.misbehave("*", hang)
    both = [stage.running, other] * 10
    started = await asyncio.gather(*(replica.refreshes.start(RefreshRequest()) for replica in both))
    assert len({refresh.id for refresh, _ in started}) == 1
    assert sorted(already for _, already in started) == [False, *[True] * 19]
    assert await run_count(stage) == 1
    await other.refreshes.cancel(started[0][0].id)


# --- asked for once -----------------------------------------------------------------------------------------------


async def test_the_same_request_to_both_at_once_is_one_run(stage: Stage, other: app.App) -> None:
    for number in range(1, 6):
        request = RefreshRequest(request_id=uuid4())
        started = await asyncio.gather(
            *(replica.refreshes.start(request) for replica in (stage.running, other, stage.running, other))
        )
        assert len({refresh.id for refresh, _ in started}) == 1
        assert not any(already for _, already in started), "it is its own run, not another's"
        await end_of(other, started[0][0])
        assert await run_count(stage) == number


async def test_a_request_that_joined_gives_the_same_run_for_good(
    stage: Stage, other: app.App, start_app: StartApp
) -> None:
    stage.upstream.misbehave("*", hang)
    first, _ = await stage.running.refreshes.start(RefreshRequest())
    await stage.upstream.wait_for_request()
    request = RefreshRequest(type=RefreshType.FULL, request_id=uuid4())
    joined = await asyncio.gather(*(replica.refreshes.start(request) for replica in (stage.running, other)))
    assert [(refresh.id, already) for refresh, already in joined] == [(first.id, True)] * 2
    await other.refreshes.cancel(first.id)
    await end_of(other, first)
    stage.upstream.behave()
    async with start_app(stage.database_url, upstream_url=stage.upstream.url) as restarted:
        refresh, already = await restarted.refreshes.start(request)
        assert (refresh.id, refresh.state, already) == (first.id, State.CANCELLED, True)
        with pytest.raises(RequestIdReusedError):
            await restarted.refreshes.start(RefreshRequest(request_id=request.request_id))
    assert await run_count(stage) == 1


async def test_a_request_id_is_remembered_across_a_restart(stage: Stage, start_app: StartApp) -> None:
    request = RefreshRequest(request_id=uuid4(), force=True)
    first, _ = await stage.running.refreshes.start(request)
    await end_of(stage.running, first)
    async with start_app(stage.database_url, upstream_url=stage.upstream.url) as restarted:
        again, already = await restarted.refreshes.start(request)
        assert (again.id, again.state, already) == (first.id, State.SUCCEEDED, False)
        with pytest.raises(RequestIdReusedError):
            await restarted.refreshes.start(RefreshRequest(request_id=request.request_id))
    assert await run_count(stage) == 1


async def test_one_id_with_other_arguments_to_both_at_once_is_one_run_and_one_refusal(
    stage: Stage, other: app.App
) -> None:
    for _ in range(5):
        id_ = uuid4()
        requests = RefreshRequest(request_id=id_), RefreshRequest(request_id=id_, force=True)
        answers: Sequence[Any] = await asyncio.gather(
            stage.running.refreshes.start(requests[0]), other.refreshes.start(requests[1]), return_exceptions=True
        )
        refused = [answer for answer in answers if isinstance(answer, RequestIdReusedError)]
        started = [answer for answer in answers if not isinstance(answer, BaseException)]
        assert (len(refused), len(started)) == (1, 1), answers
        await end_of(other, started[0][0])


async def end_of(running: app.App, refresh: Refresh) -> Refresh:
    """Follow a run to its end."""
    async with asyncio.timeout(30), await running.feed.watch(refresh.id, "", 5) as watch:
        while await watch.next() is not None:
            pass
    return await running.refreshes.get(refresh.id)


# --- ownership ----------------------------------------------------------------------------------------------------


async def test_who_took_the_lock_of_a_dead_owner_is_not_taken_for_it(database: str) -> None:
    """One replica is about to start the next run when another finds that the last one's owner is lost."""
    async with Pools(database) as pools:  # and nobody who looks for orphans
        mine, theirs = PostgresRefreshes(pools, owner="mine"), PostgresRefreshes(pools, owner="theirs")
        lost = await mine.create(uuid4(), RefreshRequest())
        await fetch(
            database,
            "UPDATE models_refresh_history SET started_at = now() - interval '1 hour', heartbeat_at = NULL"
            " WHERE id = %s",
            lost.id,
        )
        ownership = await mine.try_own()
        assert ownership is not None
        ended = await theirs.end_expired(timedelta(seconds=20))
        assert ended is not None
        assert (ended.id, ended.state) == (lost.id, State.FAILED)
        assert await theirs.try_own() is None, "the new owner lost its lock"
        await ownership.release()


async def test_a_run_shows_signs_of_life_also_when_the_clock_is_set_back(stage: Stage) -> None:
    service = stage.running.refreshes
    service._policy = replace(service._policy, heartbeat=timedelta(seconds=0.05))
    service._now = lambda: datetime(2000, 1, 1, tzinfo=UTC)
    stage.upstream.misbehave("*", hang)
    refresh, _ = await service.start(RefreshRequest())
    beat = "SELECT heartbeat_at FROM models_refresh_history ORDER BY started_at DESC LIMIT 1"
    first = await stage.fetch(beat)

    async def has_beaten() -> bool:
        return await stage.fetch(beat) > first

    await until(has_beaten)
    await service.cancel(refresh.id)
    await end_of(stage.running, refresh)
