"""Refreshes that start by themselves: each time of the schedule starts one run, whatever stands in its way.

The clock is the tests'; the database, the runs and the processes that race for a slot are real.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from structlog.testing import capture_logs

from conftest import Services, StartApp, refresh_to_end
from modelcatalog_client import AsyncModelCatalogClient
from modelcatalog_server import app
from modelcatalog_server.domain.refresh import RefreshRequest, State
from modelcatalog_server.refresh import scheduler as scheduler_module
from modelcatalog_server.refresh.schedule import Schedule
from modelcatalog_server.refresh.scheduler import RefreshScheduler
from small_catalog import Stage, clone_small, fetch, follow, runs_owned_here, until
from upstream_server import hang, status

DAILY_AND_HOURLY = Schedule(full_cron="0 2 * * *", incremental_cron="0 * * * *")
ACTIVE = "SELECT count(*) FROM models_refresh_history WHERE completed_at IS NULL"


@dataclass
class Clock:
    """The wall clock, moved by hand."""

    time: datetime = datetime(2026, 7, 2, 9, 30, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.time

    def pass_(self, **duration: float) -> None:
        self.time += timedelta(**duration)


@pytest.fixture(autouse=True)
def short_naps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler_module, "_LONGEST_NAP_S", 0.02)
    monkeypatch.setattr(scheduler_module, "_RETRY_S", 0.02)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def database(templates: Services) -> Iterator[str]:
    yield from clone_small(templates)


@pytest.fixture
async def stage(start_app: StartApp, database: str) -> AsyncIterator[Stage]:
    async with follow(start_app, database) as stage:
        yield stage


@asynccontextmanager
async def scheduling(running: app.App, clock: Clock, schedule: Schedule = DAILY_AND_HOURLY) -> AsyncIterator[None]:
    """Run a scheduler on a service, from when it has found its place in the schedule on."""
    scheduler = RefreshScheduler(
        running.refreshes, running.feed._store, schedule, now=clock, pause_after_run=timedelta(seconds=60)
    )
    async with scheduler:
        await until(running.feed._store.get_slots)
        yield


async def started(stage: Stage, trigger: str = "SCHEDULED") -> list[Any]:
    """Return type and state of the runs that started by themselves, oldest first."""
    return await stage.fetch(
        "SELECT refresh_type, status FROM models_refresh_history WHERE trigger = %s ORDER BY started_at", trigger
    )


async def until_started(stage: Stage, *expected: str) -> None:
    """Wait until runs of these types have started by themselves and succeeded, and check that there are no others."""

    async def are_over() -> bool:
        runs = await started(stage)
        return len(runs) >= len(expected) and all(State(state).is_over for _, state in runs)

    await until(are_over)
    assert await started(stage) == [(type_, "SUCCEEDED") for type_ in expected]


# --- slots --------------------------------------------------------------------------------------------------------


async def test_a_new_installation_does_not_make_up_for_times_before_it(stage: Stage, clock: Clock) -> None:
    async with scheduling(stage.running, clock):
        assert await stage.fetch("SELECT name FROM refresh_schedule ORDER BY name") == ["FULL", "INCREMENTAL"]
        assert await started(stage) == []
        clock.pass_(minutes=31)
        await until_started(stage, "INCREMENTAL")


async def test_times_that_were_missed_are_one_run(stage: Stage, clock: Clock) -> None:
    async with scheduling(stage.running, clock):
        clock.pass_(hours=6)
        await until_started(stage, "INCREMENTAL")
        clock.pass_(days=5)
        await until_started(stage, "INCREMENTAL", "FULL")  # both are due: a full one does what the other does
        clock.pass_(hours=1)
        await until_started(stage, "INCREMENTAL", "FULL", "INCREMENTAL")


async def test_times_that_passed_while_no_process_ran_are_one_run(stage: Stage, clock: Clock) -> None:
    async with scheduling(stage.running, clock):
        pass
    clock.pass_(hours=7)
    async with scheduling(stage.running, clock):
        await until_started(stage, "INCREMENTAL")


async def test_the_same_clock_time_starts_nothing_again_after_a_restart(stage: Stage, clock: Clock) -> None:
    for _ in range(3):
        async with scheduling(stage.running, clock):
            pass
    assert await started(stage) == []
    clock.pass_(hours=1)
    for _ in range(3):
        async with scheduling(stage.running, clock):
            await until_started(stage, "INCREMENTAL")


async def test_processes_with_one_schedule_start_one_run_each_time(
    stage: Stage, start_app: StartApp, clock: Clock
) -> None:
    async with (
        start_app(stage.database_url, upstream_url=stage.upstream.url) as other,
        scheduling(stage.running, clock),
        scheduling(other, clock),
    ):
        for times in range(1, 6):
            clock.pass_(hours=1)
            await until_started(stage, *["INCREMENTAL"] * times)


async def test_nothing_is_started_when_it_is_off(stage: Stage, clock: Clock) -> None:
    async with RefreshScheduler(
        stage.running.refreshes, stage.running.feed._store, Schedule(), now=clock, pause_after_run=timedelta(0)
    ):
        clock.pass_(days=3)
        await refresh_to_end(stage.running)
    assert await started(stage) == []
    assert await stage.fetch("SELECT * FROM refresh_schedule") == []


# --- what stands in the way ---------------------------------------------------------------------------------------


async def test_a_full_refresh_waits_for_the_run_under_way(stage: Stage, clock: Clock) -> None:
    async with scheduling(stage.running, clock, Schedule(full_cron="0 2 * * *")):
        stage.upstream.misbehave("*", hang)
        under_way, _ = await stage.running.refreshes.start(RefreshRequest())
        await stage.upstream.wait_for_request()
        clock.pass_(hours=17)
        slot = "SELECT slot FROM refresh_schedule WHERE name = 'FULL'"
        for _ in range(20):  # of the scheduler's naps
            await asyncio.sleep(0.02)
            assert await started(stage) == []
        assert await stage.fetch(slot) == [datetime(2026, 7, 2, 2, tzinfo=UTC)], "it is taken with its run"
        stage.upstream.behave()
        await stage.running.refreshes.cancel(under_way.id)
        await until_started(stage, "FULL")
        assert await stage.fetch(slot) == [datetime(2026, 7, 3, 2, tzinfo=UTC)]
    assert (await stage.running.refreshes.get(under_way.id)).state is State.CANCELLED


async def test_what_a_process_that_is_ended_had_begun_is_done_by_another(
    stage: Stage, start_app: StartApp, clock: Clock
) -> None:
    stage.upstream.misbehave("*", hang)
    async with start_app(stage.database_url, upstream_url=stage.upstream.url) as other:
        async with scheduling(other, clock):
            clock.pass_(hours=1)
            await stage.upstream.wait_for_request()
        await other.refreshes.close()
        stage.upstream.behave()
        assert await started(stage) == [("INCREMENTAL", "CANCELLED")]
        async with scheduling(stage.running, clock):
            await until(lambda: _has_runs(stage, 2))
            assert await started(stage) == [("INCREMENTAL", "CANCELLED"), ("INCREMENTAL", "SUCCEEDED")]


async def test_what_an_operator_has_stopped_stays_stopped(stage: Stage, clock: Clock) -> None:
    stage.upstream.misbehave("*", hang)
    async with scheduling(stage.running, clock):
        clock.pass_(hours=1)
        await stage.upstream.wait_for_request()
        under_way = (await stage.running.refreshes.get_overview()).running
        assert under_way is not None
        await stage.running.refreshes.cancel(under_way.id)
        await until(lambda: _has_runs(stage, 1))
        stage.upstream.behave()
        for _ in range(20):  # of the scheduler's naps
            await asyncio.sleep(0.02)
            assert await started(stage) == [("INCREMENTAL", "CANCELLED")]


async def _has_runs(stage: Stage, count: int) -> bool:
    """Whether so many runs have started by themselves, and are over."""
    runs = await started(stage)
    return len(runs) == count and all(State(state).is_over for _, state in runs)


async def test_an_incremental_refresh_is_done_by_the_run_under_way(stage: Stage, clock: Clock) -> None:
    async with scheduling(stage.running, clock, Schedule(incremental_cron="0 * * * *")) as _:
        stage.upstream.misbehave("*", hang)
        under_way, _ = await stage.running.refreshes.start(RefreshRequest())
        await stage.upstream.wait_for_request()
        clock.pass_(hours=1)
        await until(lambda: _equals(stage, "SELECT slot FROM refresh_schedule", [datetime(2026, 7, 2, 10, tzinfo=UTC)]))
        stage.upstream.behave()
        await stage.running.refreshes.cancel(under_way.id)
        clock.pass_(hours=1)
        await until_started(stage, "INCREMENTAL")


async def _equals(stage: Stage, statement: str, expected: list[Any]) -> bool:
    return await stage.fetch(statement) == expected


async def test_a_time_at_which_the_database_was_away_is_made_up_for(stage: Stage, clock: Clock) -> None:
    (name,) = await stage.fetch("SELECT current_database()")
    admin = stage.database_url.replace(f"/{name}?", "/postgres?")
    async with scheduling(stage.running, clock):
        await fetch(admin, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        await fetch(admin, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", name)
        clock.pass_(hours=1)
        gone = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s"
        await until(lambda: _is_zero(admin, gone, name))
        clock.pass_(minutes=1)
        await fetch(admin, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        await until_started(stage, "INCREMENTAL")


async def _is_zero(url: str, statement: str, *parameters: Any) -> bool:
    return await fetch(url, statement, *parameters) == [0]


async def test_a_database_that_fails_between_two_slots_loses_neither(stage: Stage, clock: Clock) -> None:
    await stage.fetch(
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'query_canceled'; END $$"
    )
    async with scheduling(stage.running, clock):
        await stage.fetch(
            "CREATE TRIGGER fail BEFORE UPDATE ON refresh_schedule FOR EACH ROW"
            " WHEN (NEW.name = 'INCREMENTAL') EXECUTE FUNCTION fail()"
        )
        clock.pass_(days=1)
        with capture_logs() as logs:
            await until(lambda: [line for line in logs if line["event"] == "cannot start what is due"])
        assert await started(stage) == [], "a run is started with its slots or not at all"
        await stage.fetch("DROP TRIGGER fail ON refresh_schedule")
        await until_started(stage, "FULL")


async def test_a_run_that_fails_does_not_keep_the_next_time_from_its_own(stage: Stage, clock: Clock) -> None:
    async with scheduling(stage.running, clock):
        stage.upstream.misbehave("*", status(404))
        clock.pass_(hours=1)
        await until(lambda: _equals(stage, "SELECT count(*) FROM models_refresh_history WHERE status = 'FAILED'", [1]))
        stage.upstream.behave()
        clock.pass_(hours=1)
        await until(lambda: _has_started(stage, [("INCREMENTAL", "FAILED"), ("INCREMENTAL", "SUCCEEDED")]))


async def _has_started(stage: Stage, expected: list[Any]) -> bool:
    return await started(stage) == expected


# --- at start -----------------------------------------------------------------------------------------------------


async def test_a_catalog_that_is_too_old_is_refreshed_at_start(stage: Stage, clock: Clock) -> None:
    await stage.fetch("UPDATE catalog_state SET checked_at = now() - interval '25 hours'")
    # The first catalog was loaded at start too, just now; that is no reason to wait.
    await stage.fetch("UPDATE models_refresh_history SET completed_at = %s", clock.time - timedelta(hours=25))
    async with scheduling(stage.running, clock):
        await until(lambda: _equals(stage, ACTIVE, [0]))
        assert await started(stage, "STARTUP") == [("INCREMENTAL", "SUCCEEDED")] * 2
        assert not (await stage.running.refreshes.get_overview()).stale
    async with scheduling(stage.running, clock):
        pass
    assert len(await started(stage, "STARTUP")) == 2


async def test_after_a_run_just_now_a_catalog_that_is_too_old_waits_a_little(stage: Stage, clock: Clock) -> None:
    await stage.fetch("UPDATE catalog_state SET checked_at = now() - interval '25 hours'")
    await stage.fetch("UPDATE models_refresh_history SET completed_at = %s", clock.time - timedelta(seconds=59))
    scheduler = RefreshScheduler(
        stage.running.refreshes,
        stage.running.feed._store,
        DAILY_AND_HOURLY,
        now=clock,
        pause_after_run=timedelta(seconds=60),
    )
    async with scheduler:
        assert await scheduler._refresh_if_stale() == 1
        assert len(await started(stage, "STARTUP")) == 1
        clock.pass_(seconds=2)
        await until(lambda: _has_startups(stage, 2))


async def _has_startups(stage: Stage, count: int) -> bool:
    return len(await started(stage, "STARTUP")) == count


# --- clocks and upstreams that are off ----------------------------------------------------------------------------


async def test_a_time_that_a_clock_took_which_was_ahead_does_not_stop_the_schedule(stage: Stage, clock: Clock) -> None:
    ahead = Clock(clock.time + timedelta(days=365))
    async with scheduling(stage.running, ahead):
        pass
    await stage.fetch("UPDATE refresh_schedule SET slot = greatest(slot, clock_timestamp() + interval '365 days')")
    with capture_logs() as logs:
        async with scheduling(stage.running, clock):
            await until(lambda: [line for line in logs if line["event"].startswith("forgot times")])
            await until(stage.running.feed._store.get_slots)
            assert await started(stage) == []
            clock.pass_(hours=1)
            await until_started(stage, "INCREMENTAL")


async def test_a_clock_that_is_set_back_starts_nothing_twice(stage: Stage, clock: Clock) -> None:
    async with scheduling(stage.running, clock):
        clock.pass_(hours=1)
        await until_started(stage, "INCREMENTAL")
        clock.pass_(hours=-1)
        for _ in range(20):  # of the scheduler's naps
            await asyncio.sleep(0.02)
            assert await started(stage) == [("INCREMENTAL", "SUCCEEDED")]
        clock.pass_(hours=2)
        await until_started(stage, "INCREMENTAL", "INCREMENTAL")


async def test_an_upstream_that_is_down_for_a_week_is_asked_as_scheduled_and_the_catalog_says_so(
    start_app: StartApp, database: str, clock: Clock
) -> None:
    settings = {"refresh_backoff_seconds": 0.001, "upstream_requests_per_minute": 6000, "refresh_fallback_seconds": 0}
    async with follow(start_app, database, **settings) as stage:
        assert (await stage.refresh()).state is State.SUCCEEDED
        stage.upstream.requests.clear()
        six_hourly = Schedule(full_cron="0 2 * * *", incremental_cron="0 */6 * * *")
        stage.upstream.misbehave("*", status(503))
        with capture_logs() as logs:
            async with scheduling(stage.running, clock, six_hourly):
                for _ in range(28):
                    before = await count_failed(stage)
                    clock.pass_(hours=6)
                    await until(partial(_has_failed_again, stage, before))
                await until(lambda: not runs_owned_here())  # and none follows the last one
                stage.upstream.behave()
                await stage.fetch("UPDATE catalog_state SET checked_at = now() - interval '7 days'")
                async with AsyncModelCatalogClient(stage.running.server.address) as client:
                    info = await client.get_catalog_info()
                    assert (info.stale, info.age.ToTimedelta().days) == (True, 7)
                    assert (await client.get_model("openai/gpt-5")).model.id == "openai/gpt-5"
                    clock.pass_(hours=6)
                    await until(lambda: _has_succeeded(stage))
                    assert not (await client.get_catalog_info()).stale
        failed = await count_failed(stage)
        assert failed >= 28
        assert len(stage.upstream.requests) <= 3 * failed + 2, "three attempts a run"
        assert len([line for line in logs if line["log_level"] != "debug"]) <= 3 * failed


async def count_failed(stage: Stage) -> int:
    (count,) = await stage.fetch("SELECT count(*) FROM models_refresh_history WHERE status = 'FAILED'")
    return int(count)


async def _has_failed_again(stage: Stage, before: int) -> bool:
    return await count_failed(stage) > before and await stage.fetch(ACTIVE) == [0]


async def _has_succeeded(stage: Stage) -> bool:
    runs = await stage.fetch("SELECT status FROM models_refresh_history ORDER BY started_at DESC LIMIT 1")
    return bool(runs == ["SUCCEEDED"])
