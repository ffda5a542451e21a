"""Cancelling, asked on one replica of a run on another: it ends CANCELLED and nothing changed, or it was too late."""

# ruff: noqa: S311 -- when a test cancels is no secret

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from uuid import UUID, uuid4

import psycopg
import pytest

from conftest import Services, StartApp, refresh_to_end
from modelcatalog_client import AsyncModelCatalogClient
from modelcatalog_client import errors as client_errors
from modelcatalog_server import app
from modelcatalog_server.domain.errors import RefreshNotCancellableError, RefreshNotFoundError
from modelcatalog_server.domain.refresh import Refresh, RefreshRequest, State
from small_catalog import Stage, clone_small, fetch, follow, marks_of_rows, until
from upstream_server import hang, status

#: What a run waits for in each phase when somebody holds it, and how strong that lock must be.
HELD_BY = {
    "VALIDATE": "LOCK TABLE canonical_models IN ACCESS EXCLUSIVE MODE",
    "COMPARE": "LOCK TABLE refresh_reports IN EXCLUSIVE MODE",
    "APPLY": "LOCK TABLE catalog_revisions IN EXCLUSIVE MODE",
}


@pytest.fixture
def database(templates: Services) -> Iterator[str]:
    yield from clone_small(templates)


@pytest.fixture
async def stage(start_app: StartApp, database: str) -> AsyncIterator[Stage]:
    async with follow(start_app, database) as stage:
        stage.catalog.add("openai/gpt-6")
        stage.publish()
        yield stage


@pytest.fixture
async def other(start_app: StartApp, stage: Stage) -> AsyncIterator[app.App]:
    """The replica that is asked to cancel."""
    async with start_app(stage.database_url, offline=True) as other:
        yield other


async def end_of(running: app.App, refresh_id: UUID) -> Refresh:
    async with asyncio.timeout(30), await running.feed.watch(refresh_id, "", 5) as watch:
        while await watch.next() is not None:
            pass
    return await running.refreshes.get(refresh_id)


async def ends(stage: Stage, refresh_id: UUID) -> list[str]:
    return await stage.fetch(
        "SELECT refresh ->> 'status' FROM refresh_events WHERE refresh_id = %s AND kind = 'TERMINAL'", refresh_id
    )


async def assert_cancelled(stage: Stage, other: app.App, refresh_id: UUID) -> None:
    """It ended CANCELLED, once, and says so however often it is asked to stop."""
    ended = await end_of(other, refresh_id)
    assert ended.state is State.CANCELLED
    assert ended.failure is not None
    assert (ended.failure.reason, ended.failure.message) == ("REFRESH_CANCELLED", "stopped on request")
    assert ended.result_revision is None
    for replica in (other, stage.running):
        assert await replica.refreshes.cancel(refresh_id) == ended
    assert await ends(stage, refresh_id) == ["CANCELLED"]
    assert await stage.fetch("SELECT revision FROM catalog_state") == [1]


async def assert_runs_again(stage: Stage) -> None:
    """Whatever was cancelled, the next run is as any other."""
    stage.upstream.behave()
    assert (await refresh_to_end(stage.running)).result_revision == 2


async def test_a_run_that_was_just_accepted(stage: Stage, other: app.App) -> None:
    before = await marks_of_rows(stage.database_url)
    stage.upstream.misbehave("*", hang)  # or it may be over before it can be asked
    refresh, _ = await stage.running.refreshes.start(RefreshRequest())
    assert (await other.refreshes.cancel(refresh.id)).state is State.CANCELLING
    await assert_cancelled(stage, other, refresh.id)
    assert await marks_of_rows(stage.database_url) == before
    await assert_runs_again(stage)


async def test_a_run_that_waits_for_upstream(stage: Stage, other: app.App) -> None:
    stage.upstream.misbehave("*", hang)
    refresh, _ = await stage.running.refreshes.start(RefreshRequest())
    await stage.upstream.wait_for_request()
    # Twice at once and on both: the first asks, the others hear that it was asked.
    asked = await asyncio.gather(*(replica.refreshes.cancel(refresh.id) for replica in (other, stage.running, other)))
    assert {each.state for each in asked} <= {State.CANCELLING, State.CANCELLED}
    await assert_cancelled(stage, other, refresh.id)
    await assert_runs_again(stage)


async def test_a_run_that_waits_to_ask_upstream_again(stage: Stage, other: app.App) -> None:
    stage.upstream.misbehave("*", status(503, {"Retry-After": "50"}))
    refresh, _ = await stage.running.refreshes.start(RefreshRequest())

    async def pauses() -> bool:
        attempts = (await other.refreshes.get(refresh.id)).attempts
        return bool(attempts and attempts[0].retry_delay)

    await until(pauses)
    await other.refreshes.cancel(refresh.id)
    await assert_cancelled(stage, other, refresh.id)
    assert len(stage.upstream.requests) == 1
    await assert_runs_again(stage)


@pytest.mark.parametrize("phase", HELD_BY)
async def test_a_run_in_a_phase_of_its_own_work(stage: Stage, other: app.App, phase: str) -> None:
    before = await marks_of_rows(stage.database_url)
    async with await psycopg.AsyncConnection.connect(stage.database_url) as holder:
        await holder.execute(HELD_BY[phase].encode())
        refresh, _ = await stage.running.refreshes.start(RefreshRequest())

        async def is_held() -> bool:
            # Whoever reads what is locked waits as well, and not always for the run.
            return (await other.refreshes.get(refresh.id)).phase == phase and await _waits_for_a_lock(stage)

        await until(is_held)
        assert (await other.refreshes.cancel(refresh.id)).state is State.CANCELLING
        await assert_cancelled(stage, other, refresh.id)
    assert await marks_of_rows(stage.database_url) == before
    await assert_runs_again(stage)


async def _waits_for_a_lock(stage: Stage) -> bool:
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation IS NOT NULL AND database ="
    found = await stage.fetch(f"{waiting} (SELECT oid FROM pg_database WHERE datname = current_database())")
    return found != [0]


async def test_at_any_moment_it_is_either_cancelled_or_too_late(stage: Stage, other: app.App) -> None:
    """Never both, and never neither."""
    quick = await refresh_to_end(stage.running)
    assert quick.completed_at is not None
    whole_s = (quick.completed_at - quick.started_at).total_seconds()
    outcomes: set[State] = set()
    number = -1
    while (number := number + 1) < 20 or len(outcomes) < 2:
        # Every other one comes when it is about to commit or over, however busy the machine is by then.
        wait_s = whole_s * (number % 20 / 20 if number % 2 else random.uniform(0.9, 1.1))
        (revision,) = await stage.fetch("SELECT revision FROM catalog_state")
        stage.catalog.model("openai/gpt-5")["name"] = f"GPT-5 {number}"
        stage.publish()
        refresh, _ = await stage.running.refreshes.start(RefreshRequest())
        await asyncio.sleep(wait_s)
        try:
            asked = await other.refreshes.cancel(refresh.id)
        except RefreshNotCancellableError:
            expected = State.SUCCEEDED
        else:
            assert asked.state is State.CANCELLING
            expected = State.CANCELLED
        ended = await end_of(other, refresh.id)
        assert ended.state is expected
        changed = expected is State.SUCCEEDED
        assert await stage.fetch("SELECT revision FROM catalog_state") == [revision + changed]
        name = (await stage.fetch("SELECT model_name FROM models_metadata WHERE model_id = 'openai/gpt-5'"))[0]
        assert (name == f"GPT-5 {number}") is changed
        assert await ends(stage, refresh.id) == [str(expected)]
        outcomes.add(expected)
        if number % 2 == 0:
            whole_s *= 0.9 if changed else 1.2


async def test_a_run_that_was_asked_to_stop_is_not_joined(stage: Stage, other: app.App) -> None:
    for _ in range(5):
        stage.upstream.misbehave("*", hang)  # or it may be over before it can be asked
        refresh, _ = await stage.running.refreshes.start(RefreshRequest(force=True))
        await other.refreshes.cancel(refresh.id)
        stage.upstream.behave()
        following, already_running = await stage.running.refreshes.start(RefreshRequest(force=True))
        assert not already_running
        assert following.id != refresh.id
        assert (await end_of(other, refresh.id)).state is State.CANCELLED
        assert (await end_of(other, following.id)).state is State.SUCCEEDED


async def test_a_run_that_is_over_or_never_was(stage: Stage, other: app.App) -> None:
    succeeded = await refresh_to_end(stage.running)
    stage.upstream.misbehave("*", status(404))
    failed = await refresh_to_end(stage.running)
    assert (succeeded.state, failed.state) == (State.SUCCEEDED, State.FAILED)
    for refresh in (succeeded, failed):
        with pytest.raises(RefreshNotCancellableError):
            await other.refreshes.cancel(refresh.id)
        assert await other.refreshes.get(refresh.id) == refresh
    with pytest.raises(RefreshNotFoundError):
        await other.refreshes.cancel(uuid4())


async def test_callers_are_told_the_same(stage: Stage, other: app.App) -> None:
    stage.upstream.misbehave("*", hang)
    async with (
        AsyncModelCatalogClient(stage.running.server.address) as here,
        AsyncModelCatalogClient(other.server.address) as there,
    ):
        refresh = (await here.start_refresh()).refresh
        asked = (await there.cancel_refresh(refresh.id)).refresh
        assert asked.state == asked.STATE_CANCELLING
        events = [event async for event in there.watch_refresh_status(refresh.id)]
        assert isinstance(client_errors.refresh_error(events[-1].refresh), client_errors.RefreshCancelledError)
        again = (await there.cancel_refresh(refresh.id)).refresh
        assert again.state == again.STATE_CANCELLED
        over = await first_run(stage)
        with pytest.raises(client_errors.RefreshNotCancellableError):
            await there.cancel_refresh(over)
        with pytest.raises(client_errors.RefreshNotFoundError):
            await there.cancel_refresh(str(uuid4()))
        with pytest.raises(client_errors.InvalidQueryError):
            await there.cancel_refresh("7")


async def first_run(stage: Stage) -> str:
    (id_,) = await fetch(stage.database_url, "SELECT id FROM models_refresh_history ORDER BY started_at LIMIT 1")
    return str(id_)
