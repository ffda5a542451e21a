"""The life of a run: one at a time, asked for once, and always with an end, whatever happens to its process."""

# ruff: noqa: S105, S106 -- a planted secret that opens nothing, and page tokens

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from aiohttp import web

from conftest import Services, StartApp, refresh_to_end
from modelcatalog_client import AsyncModelCatalogClient
from modelcatalog_client import errors as client_errors
from modelcatalog_server import app
from modelcatalog_server.domain.errors import DatabaseUnavailableError, RequestIdReusedError, ServerDrainingError
from modelcatalog_server.domain.refresh import Refresh, RefreshRequest, RefreshType, State
from modelcatalog_server.storage.refresh_ownership import OWNER_LOCK
from small_catalog import Stage, clone_small, fetch, follow, marks_of_rows, until

OWNERS = (
    f"SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = {OWNER_LOCK & 0xFFFFFFFF}"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


@pytest.fixture
def database(templates: Services) -> Iterator[str]:
    yield from clone_small(templates)


@pytest.fixture
async def stage(start_app: StartApp, database: str) -> AsyncIterator[Stage]:
    async with follow(start_app, database) as stage:
        yield stage


@pytest.fixture
async def client(stage: Stage) -> AsyncIterator[AsyncModelCatalogClient]:
    async with AsyncModelCatalogClient(stage.running.server.address) as client:
        yield client


@dataclass
class Held:
    """An upstream that keeps its answer until it is told."""

    asked: asyncio.Event = field(default_factory=asyncio.Event)
    told: asyncio.Event = field(default_factory=asyncio.Event)

    def __call__(self, stage: Stage) -> Held:
        async def answer(_request: web.Request) -> web.StreamResponse:
            self.asked.set()
            await self.told.wait()
            return web.Response(body=stage.catalog.body, content_type="application/json")

        stage.upstream.misbehave("/catalog.json", answer)
        return self


@pytest.fixture
def held(stage: Stage) -> Iterator[Held]:
    held = Held()(stage)
    yield held
    held.told.set()


async def end_of(running: app.App, refresh_id: UUID) -> Refresh:
    """Follow a run to its end."""
    async with asyncio.timeout(30), await running.feed.watch(refresh_id, "", 5) as watch:
        while await watch.next() is not None:
            pass
    return await running.refreshes.get(refresh_id)


async def nobody_owns(stage: Stage) -> bool:
    return not await stage.fetch(OWNERS)


async def assert_at_rest(stage: Stage) -> None:
    """Nothing runs, nobody owns the right to run, and every run that ended said so exactly once."""
    active = "SELECT id FROM models_refresh_history WHERE status IN ('PENDING', 'RUNNING', 'CANCELLING')"
    assert await stage.fetch(active) == []
    await until(lambda: nobody_owns(stage))  # it is given back after the end was told
    not_one_end = (
        "SELECT h.id FROM models_refresh_history AS h WHERE 1 <>"
        " (SELECT count(*) FROM refresh_events AS e WHERE e.refresh_id = h.id AND e.kind = 'TERMINAL')"
    )
    assert await stage.fetch(not_one_end) == []
    out_of_order = (
        "SELECT refresh_id FROM (SELECT refresh_id, sequence,"
        " row_number() OVER (PARTITION BY refresh_id ORDER BY id) AS number FROM refresh_events) AS e"
        " WHERE sequence <> number"
    )
    assert await stage.fetch(out_of_order) == []


# --- one at a time -------------------------------------------------------------------------------------------------


async def test_a_second_request_joins_the_run_under_way(
    stage: Stage, client: AsyncModelCatalogClient, held: Held
) -> None:
    first = await client.start_refresh()
    await held.asked.wait()
    second = await client.start_refresh(type="full", request_id=str(uuid4()))
    assert (first.already_running, second.already_running) == (False, True)
    assert second.refresh.id == first.refresh.id
    assert second.refresh.type == second.refresh.TYPE_INCREMENTAL
    assert (await client.get_refresh_status()).running.id == first.refresh.id
    held.told.set()
    assert (await end_of(stage.running, UUID(first.refresh.id))).state is State.SUCCEEDED
    await assert_at_rest(stage)
    assert not (await client.get_refresh_status()).HasField("running")
    third = await client.start_refresh()
    assert (third.already_running, third.refresh.id == first.refresh.id) == (False, False)
    await end_of(stage.running, UUID(third.refresh.id))


async def test_a_request_to_another_process_joins_too(
    stage: Stage, start_app: StartApp, client: AsyncModelCatalogClient, held: Held
) -> None:
    first = await client.start_refresh()
    await held.asked.wait()
    async with start_app(stage.database_url, offline=True) as other:
        joined, already_running = await other.refreshes.start(RefreshRequest())
        assert (str(joined.id), already_running) == (first.refresh.id, True)
        following = asyncio.create_task(end_of(other, joined.id))
        held.told.set()
        assert (await following).state is State.SUCCEEDED
    await assert_at_rest(stage)


async def test_many_requests_at_once_start_one_run(stage: Stage, held: Held) -> None:
    started = await asyncio.gather(*(stage.running.refreshes.start(RefreshRequest()) for _ in range(20)))
    assert len({refresh.id for refresh, _ in started}) == 1
    assert sorted(already for _, already in started) == [False, *[True] * 19]
    held.told.set()
    await end_of(stage.running, started[0][0].id)
    await assert_at_rest(stage)


# --- asked for once ------------------------------------------------------------------------------------------------


async def test_the_same_request_again_gives_the_same_run(
    stage: Stage, client: AsyncModelCatalogClient, held: Held
) -> None:
    request_id = str(uuid4())
    first = await client.start_refresh(request_id=request_id)
    again = await client.start_refresh(request_id=request_id.upper())
    assert again.refresh.id == first.refresh.id
    assert not again.already_running, "it is its own run, not another's"
    held.told.set()
    await end_of(stage.running, UUID(first.refresh.id))
    late = await client.start_refresh(request_id=request_id)
    assert late.refresh.id == first.refresh.id
    assert late.refresh.state == late.refresh.STATE_SUCCEEDED
    assert await stage.fetch("SELECT count(*) FROM models_refresh_history") == [2]


@pytest.mark.parametrize(
    "other",
    [
        {"type": RefreshType.FULL},
        {"provider_id": "openai"},
        {"force": True},
        {"validate_only": True},
    ],
    ids=["type", "provider_id", "force", "validate_only"],
)
async def test_a_request_id_with_other_arguments_is_refused(stage: Stage, other: dict[str, Any], held: Held) -> None:
    request_id = uuid4()
    first, _ = await stage.running.refreshes.start(RefreshRequest(request_id=request_id))
    with pytest.raises(RequestIdReusedError):
        await stage.running.refreshes.start(RefreshRequest(request_id=request_id, **other))
    held.told.set()
    await end_of(stage.running, first.id)
    with pytest.raises(RequestIdReusedError):
        await stage.running.refreshes.start(RefreshRequest(request_id=request_id, **other))


async def test_a_request_id_with_other_arguments_is_told_to_the_caller(
    stage: Stage, client: AsyncModelCatalogClient
) -> None:
    request_id = str(uuid4())
    first = await client.start_refresh(request_id=request_id)
    with pytest.raises(client_errors.RequestIdReusedError):
        await client.start_refresh(request_id=request_id, force=True)
    await end_of(stage.running, UUID(first.refresh.id))


async def test_the_same_request_many_times_at_once_is_one_run_also_when_it_ends_at_once(stage: Stage) -> None:
    """A run that upstream answers with "not modified" is over before the last of these has looked."""
    request = RefreshRequest(request_id=uuid4())
    started = await asyncio.gather(*(stage.running.refreshes.start(request) for _ in range(30)))
    assert len({refresh.id for refresh, _ in started}) == 1
    await end_of(stage.running, started[0][0].id)
    await assert_at_rest(stage)


@pytest.mark.parametrize("request_id", ["7", "not-a-uuid", "0" * 31, "x" * 5000])
async def test_a_request_id_that_is_no_uuid_is_refused(client: AsyncModelCatalogClient, request_id: str) -> None:
    with pytest.raises(client_errors.InvalidQueryError) as raised:
        await client.start_refresh(request_id=request_id)
    assert [each.field for each in raised.value.field_violations] == ["request_id"]


async def test_a_run_for_a_provider_that_does_not_exist_is_refused(
    stage: Stage, client: AsyncModelCatalogClient
) -> None:
    with pytest.raises(client_errors.ProviderNotFoundError) as raised:
        await client.start_refresh(provider_id="opnai")
    assert "openai" in raised.value.candidates
    assert await stage.fetch("SELECT count(*) FROM models_refresh_history") == [1]


# --- always an end -------------------------------------------------------------------------------------------------


async def make_orphan(database_url: str, status: str = "RUNNING") -> UUID:
    """Leave what a process leaves that was killed in the middle of a run."""
    refresh_id = uuid4()
    await fetch(
        database_url,  # in one statement, or somebody may find and end it in between
        "WITH run AS (INSERT INTO models_refresh_history"
        "  (id, refresh_type, trigger, force, validate_only, status, phase, started_at, last_sequence)"
        "  VALUES (%s, 'FULL', 'SCHEDULED', false, false, %s, 'FETCH', now() - interval '1 hour', 2) RETURNING *)"
        " INSERT INTO refresh_events (refresh_id, sequence, kind, refresh)"
        " SELECT id, number, 'STATE', to_jsonb(run) FROM run, generate_series(1, 2) AS number",
        refresh_id,
        status,
    )
    return refresh_id


@pytest.mark.parametrize("status", ["PENDING", "RUNNING", "CANCELLING"])
async def test_what_a_killed_process_left_is_ended_when_the_service_starts(
    start_app: StartApp, database: str, status: str
) -> None:
    orphan = await make_orphan(database, status)
    async with follow(start_app, database) as stage:
        ended = await end_of(stage.running, orphan)
        assert ended.state is State.FAILED
        assert ended.failure is not None
        assert ended.failure.reason == "OWNER_LOST"
        assert ended.completed_at is not None
        await assert_at_rest(stage)


async def test_what_a_killed_process_left_is_ended_before_a_new_run_starts(stage: Stage) -> None:
    orphan = await make_orphan(stage.database_url)
    refresh = await stage.refresh()
    assert refresh.id != orphan
    ended = await stage.running.refreshes.get(orphan)
    assert ended.failure is not None
    assert (ended.state, ended.failure.reason) == (State.FAILED, "OWNER_LOST")
    await assert_at_rest(stage)


async def test_an_orphan_that_two_processes_find_is_ended_once(start_app: StartApp, database: str) -> None:
    orphan = await make_orphan(database)
    async with follow(start_app, database) as stage, start_app(database, offline=True) as other:
        assert await end_of(stage.running, orphan) == await end_of(other, orphan)
        await assert_at_rest(stage)


async def test_a_shutdown_in_the_middle_of_a_run_ends_it_as_cancelled(start_app: StartApp, database: str) -> None:
    async with follow(start_app, database) as stage:
        held = Held()(stage)
        refresh, _ = await stage.running.refreshes.start(RefreshRequest())
        await held.asked.wait()
        held.told.clear()
        shutdown = asyncio.create_task(stage.running.refreshes.__aexit__())
        ended = await end_of(stage.running, refresh.id)
        await shutdown
        with pytest.raises(ServerDrainingError):
            await stage.running.refreshes.start(RefreshRequest())
        held.told.set()
        assert ended.state is State.CANCELLED
        assert ended.failure is not None
        assert ended.failure.reason == "REFRESH_CANCELLED"
        await assert_at_rest(stage)
    async with follow(start_app, database) as stage:
        assert (await stage.refresh()).state is State.SUCCEEDED


@pytest.mark.parametrize("moment_s", [0.0, 0.05, 0.15, 0.2, 0.25, 0.3])
async def test_a_shutdown_at_any_moment_leaves_the_old_catalog_or_the_new_one(
    start_app: StartApp, database: str, moment_s: float
) -> None:
    async with follow(start_app, database) as stage:
        for number in range(300):
            stage.catalog.add(f"openai/new-{number}")
        stage.publish()
        refresh, _ = await stage.running.refreshes.start(RefreshRequest())
        await asyncio.sleep(moment_s)
    ended = await fetch(database, "SELECT status FROM models_refresh_history WHERE id = %s", refresh.id)
    revision = await fetch(database, "SELECT revision FROM catalog_state")
    models = await fetch(database, "SELECT count(*) FROM models_metadata WHERE model_id LIKE 'openai/new-%%'")
    assert (ended, revision, models) in [(["CANCELLED"], [1], [0]), (["SUCCEEDED"], [2], [300])]
    assert await fetch(database, "SELECT count(*) FROM model_versions WHERE revision = 2") == models
    assert await fetch(database, "SELECT count(*) FROM refresh_events WHERE refresh_id = %s", refresh.id) != [0]
    await assert_at_rest(stage)


async def test_a_start_whose_caller_goes_away_at_any_moment_leaves_no_lock_behind(stage: Stage) -> None:
    for turns in range(0, 60, 2):
        start = asyncio.create_task(stage.running.refreshes.start(RefreshRequest()))
        for _ in range(turns):
            await asyncio.sleep(0)
        start.cancel()
        with suppress(asyncio.CancelledError):
            await start
    await stage.refresh()  # perhaps the last of those above
    assert (await stage.refresh()).state is State.SUCCEEDED
    await assert_at_rest(stage)


async def test_an_owner_whose_connection_is_cut_loses_the_run_to_the_next(stage: Stage, held: Held) -> None:
    stage.catalog.model("openai/gpt-5")["name"] = "of the owner that was lost"
    lost, _ = await stage.running.refreshes.start(RefreshRequest())
    await held.asked.wait()
    assert len(await stage.fetch(OWNERS)) == 1
    await stage.fetch(f"SELECT pg_terminate_backend(pid) FROM ({OWNERS}) AS owner")
    await until(lambda: nobody_owns(stage))

    stage.upstream.behave()
    stage.catalog.model("openai/gpt-5")["name"] = "of the next"
    refresh = await stage.refresh()
    assert refresh.id != lost.id
    assert (refresh.state, refresh.result_revision) == (State.SUCCEEDED, 2)
    ended = await stage.running.refreshes.get(lost.id)
    assert ended.failure is not None
    assert (ended.state, ended.failure.reason) == (State.FAILED, "OWNER_LOST")

    stage.catalog.model("openai/gpt-5")["name"] = "of the owner that was lost"
    tasks = [task for task in asyncio.all_tasks() if task.get_name() == f"refresh-{lost.id}"]
    held.told.set()  # the first goes on, and finds out
    await asyncio.wait(tasks, timeout=20)
    assert await stage.fetch("SELECT model_name FROM models_metadata WHERE model_id = 'openai/gpt-5'") == [
        "of the next"
    ]
    assert await stage.fetch("SELECT revision FROM catalog_state") == [2]
    await assert_at_rest(stage)


@pytest.mark.usefixtures("impatient_pools")
async def test_the_database_away_in_the_middle_of_a_run_ends_it_later(stage: Stage, held: Held) -> None:
    """Every connection is cut and none let in; once they are, the run is ended and the next one works."""
    name = (await stage.fetch("SELECT current_database()"))[0]
    refresh, _ = await stage.running.refreshes.start(RefreshRequest())
    await held.asked.wait()
    admin = stage.database_url.replace(f"/{name}?", "/postgres?")
    await fetch(admin, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    await fetch(admin, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", name)
    task = next(task for task in asyncio.all_tasks() if task.get_name() == f"refresh-{refresh.id}")
    held.told.set()
    await asyncio.wait([task], timeout=30)
    assert task.done()
    await fetch(admin, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    stage.upstream.behave()

    async def works_again() -> bool:  # a pool finds out one by one that its connections are gone
        with suppress(DatabaseUnavailableError):
            return (await stage.refresh()).state is State.SUCCEEDED
        return False

    await until(works_again)
    ended = await stage.running.refreshes.get(refresh.id)
    assert ended.state is State.FAILED
    assert ended.failure is not None
    assert ended.failure.reason in {"OWNER_LOST", "DATABASE_UNAVAILABLE"}
    await assert_at_rest(stage)


SECRET = "s3cret-9d1f"
FAULT = f"""
CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'disk {SECRET} is full'; END $$;
CREATE TRIGGER fail BEFORE INSERT OR UPDATE ON {{table}} FOR EACH STATEMENT EXECUTE FUNCTION fail();
"""


@pytest.mark.parametrize(
    "table",
    ["llm_providers", "models_metadata", "model_benchmarks", "source_hashes", "model_versions", "catalog_revisions"],
)
async def test_a_fault_in_the_middle_of_writing_leaves_the_old_catalog_and_tells_nothing(
    stage: Stage, client: AsyncModelCatalogClient, table: str
) -> None:
    stage.catalog.add("openai/gpt-6")
    stage.catalog.remove("openai/gpt-5")
    stage.catalog.canonical_models["openai/gpt-5.5"]["benchmarks"][0]["score"] = 1.5
    before = await marks_of_rows(stage.database_url), await stage.fetch("SELECT * FROM catalog_state")
    await fetch(stage.database_url, FAULT.format(table=table))

    failed = await stage.refresh()

    assert failed.state is State.FAILED
    assert failed.failure is not None
    assert failed.failure.reason == "INTERNAL"
    assert failed.result_revision is None
    await fetch(stage.database_url, f"DROP TRIGGER fail ON {table}")
    after = await marks_of_rows(stage.database_url), await stage.fetch("SELECT * FROM catalog_state")
    assert after == before
    told = await client.get_refresh(str(failed.id))
    events = [event async for event in client.watch_refresh_status(str(failed.id))]
    for message in (told, *events):
        assert SECRET not in str(message)
        assert "fail()" not in str(message)
    logged = await stage.fetch(
        "SELECT count(*) FROM refresh_events WHERE refresh::text || message LIKE %s", f"%{SECRET}%"
    )
    assert logged == [0]
    assert (await stage.refresh()).result_revision == 2
    await assert_at_rest(stage)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("PERFORM pg_terminate_backend(pg_backend_pid())", "the database cannot be reached"),
        ("RAISE EXCEPTION USING ERRCODE = 'query_canceled'", "the database did not answer in time"),
    ],
    ids=["connection cut", "statement timeout"],
)
async def test_a_database_that_fails_in_the_middle_of_writing_ends_the_run_as_its_fault(
    stage: Stage, fault: str, message: str
) -> None:
    await fetch(
        stage.database_url,
        f"CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {fault}; RETURN NULL; END $$;"
        " CREATE TRIGGER fail AFTER INSERT ON model_versions FOR EACH STATEMENT EXECUTE FUNCTION fail()",
    )
    before = await marks_of_rows(stage.database_url)
    stage.catalog.add("openai/gpt-6")
    failed = await stage.refresh()
    assert failed.failure is not None
    assert (failed.state, failed.failure.reason) == (State.FAILED, "DATABASE_UNAVAILABLE")
    assert failed.failure.message == message
    assert await marks_of_rows(stage.database_url) == before
    await assert_at_rest(stage)


STAGING_FAILS = """
CREATE FUNCTION fail() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN {fault}; END $$;
CREATE EVENT TRIGGER fail ON ddl_command_end WHEN TAG IN ('CREATE TABLE AS') EXECUTE FUNCTION fail();
"""


@pytest.mark.parametrize(
    "fault",
    ["PERFORM pg_terminate_backend(pg_backend_pid())", "RAISE EXCEPTION USING ERRCODE = 'query_canceled'"],
    ids=["connection cut", "statement timeout"],
)
async def test_a_database_that_fails_while_models_are_handed_over_ends_the_run_as_its_fault(
    stage: Stage, fault: str
) -> None:
    await fetch(stage.database_url, STAGING_FAILS.format(fault=fault))
    before = await marks_of_rows(stage.database_url)
    stage.catalog.add("openai/gpt-6")
    failed = await stage.refresh()
    assert failed.failure is not None
    assert (failed.state, failed.failure.reason) == (State.FAILED, "DATABASE_UNAVAILABLE")
    assert await marks_of_rows(stage.database_url) == before
    await fetch(stage.database_url, "DROP EVENT TRIGGER fail")
    assert (await stage.refresh()).result_revision == 2
    await assert_at_rest(stage)


async def test_a_dry_run_hands_nothing_over(stage: Stage) -> None:
    await fetch(stage.database_url, STAGING_FAILS.format(fault="RAISE EXCEPTION 'staged'"))
    stage.catalog.add("openai/gpt-6")
    assert (await stage.refresh(validate_only=True)).state is State.SUCCEEDED
    assert (await stage.refresh()).state is State.FAILED, "the trigger sees who does"


def comparison_processes() -> list[int]:
    """Return the children of this process that compare."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [int(pid) for pid in children if b"comparison_process" in command_line(pid)]


def command_line(pid: str) -> bytes:
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""  # it has ended meanwhile


async def test_a_comparison_that_is_killed_is_no_fault_of_upstream(stage: Stage, held: Held) -> None:
    for number in range(10_000):  # few are decoded without a process, and not many before it can be killed
        stage.catalog.add(f"openai/new-{number}")
    stage.publish()
    refresh, _ = await stage.running.refreshes.start(RefreshRequest())
    await held.asked.wait()
    held.told.set()
    found: list[int] = []

    def is_found() -> bool:
        found[:] = comparison_processes()
        return bool(found)

    await until(is_found)
    os.kill(found[0], signal.SIGKILL)
    failed = await end_of(stage.running, refresh.id)
    assert failed.failure is not None
    assert (failed.state, failed.failure.reason) == (State.FAILED, "INTERNAL")
    assert failed.failure.message == "the comparison process ended by signal 9 and gave no result"
    await assert_at_rest(stage)
    assert comparison_processes() == []


# --- telling -------------------------------------------------------------------------------------------------------


async def test_runs_are_listed_newest_first_page_by_page(stage: Stage, client: AsyncModelCatalogClient) -> None:
    runs = [await refresh_to_end(stage.running, validate_only=number % 2 == 1) for number in range(4)]
    expected = [str(run.id) for run in reversed(runs)]
    for size in (1, 2, 3, 50):
        pages = [page async for page in client.list_refreshes(page_size=size).pages()]
        listed = [refresh.id for page in pages for refresh in page.refreshes]
        assert listed[:4] == expected, size
        assert len(listed) == 5
        assert all(len(page.refreshes) == size for page in pages[:-1])
    with pytest.raises(client_errors.InvalidPageTokenError):
        await anext(client.list_refreshes(page_token="forged").pages())
    with pytest.raises(client_errors.InvalidQueryError):
        await anext(client.list_refreshes(page_size=-1).pages())
    listing = await anext(client.list_models(page_size=1).pages())
    with pytest.raises(client_errors.InvalidPageTokenError):
        await anext(client.list_refreshes(page_token=listing.next_page_token).pages())


async def test_a_run_that_does_not_exist(client: AsyncModelCatalogClient) -> None:
    with pytest.raises(client_errors.RefreshNotFoundError):
        await client.get_refresh(str(uuid4()))
    for bad in ("", "7"):
        with pytest.raises(client_errors.InvalidQueryError):
            await client.get_refresh(bad)


async def test_the_overview_says_how_old_the_catalog_is(
    start_app: StartApp, stage: Stage, client: AsyncModelCatalogClient
) -> None:
    await stage.fetch("UPDATE catalog_state SET checked_at = now() - interval '2 hours'")
    overview = await client.get_refresh_status()
    assert not overview.stale
    assert round(overview.age.ToTimedelta().total_seconds() / 3600) == 2
    assert overview.last_success == overview.last_finished
    await stage.fetch("UPDATE catalog_state SET checked_at = now() - interval '25 hours'")
    overview = await client.get_refresh_status()
    assert overview.stale
    assert round(overview.age.ToTimedelta().total_seconds() / 3600) == 25
    assert (await client.get_catalog_info()).stale
    await stage.fetch("UPDATE catalog_state SET checked_at = now() + interval '10 minutes'")
    assert (await client.get_refresh_status()).age.ToTimedelta().total_seconds() == 0, "clocks differ"
