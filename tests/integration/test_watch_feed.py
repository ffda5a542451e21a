"""Watches at the feed: what each watcher gets, whatever it does, and that none costs another anything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest

from aged_tokens import DAY_S, sealed_ago
from conftest import Services, StartApp, refresh_to_end
from modelcatalog_server import app
from modelcatalog_server.domain.errors import (
    InvalidResumeTokenError,
    RefreshNotFoundError,
    ResumeTokenExpiredError,
    ServerDrainingError,
    SlowConsumerError,
    TooManyStreamsError,
)
from modelcatalog_server.domain.refresh import EventKind, Phase, Refresh, RefreshRequest, State
from modelcatalog_server.refresh import feed as feed_module
from modelcatalog_server.refresh.feed import MAX_WATCHES, Notice, Watch
from small_catalog import Stage, clone_small, fetch, follow, until

#: What a watch never loses.
KEPT = {EventKind.STATE, EventKind.TERMINAL}


@pytest.fixture
def database(templates: Services) -> Iterator[str]:
    yield from clone_small(templates)


@pytest.fixture
async def stage(start_app: StartApp, database: str) -> AsyncIterator[Stage]:
    async with follow(start_app, database) as stage:
        yield stage


async def read(watch: Watch, *, seconds: float = 20) -> list[Notice]:
    """Return all messages of a watch that ends."""
    notices = []
    async with asyncio.timeout(seconds):
        while (notice := await watch.next()) is not None:
            notices.append(notice)
    return notices


async def watch_to_end(running: app.App, refresh_id: UUID | None, token: str = "") -> list[Notice]:
    async with await running.feed.watch(refresh_id, token, 15) as watch:
        return await read(watch)


def kinds(notices: list[Notice]) -> list[str]:
    return [str(notice.kind) for notice in notices]


async def last_run(stage: Stage) -> UUID:
    (id_,) = await stage.fetch("SELECT id FROM models_refresh_history ORDER BY started_at DESC LIMIT 1")
    assert isinstance(id_, UUID)
    return id_


# --- from the first message to the last ----------------------------------------------------------------------------


async def test_a_watch_tells_a_whole_run_in_order(stage: Stage) -> None:
    stage.catalog.add("openai/gpt-6")
    stage.publish()
    refresh, _ = await stage.running.refreshes.start(RefreshRequest())
    notices = await watch_to_end(stage.running, refresh.id)
    assert notices[0].kind is EventKind.SNAPSHOT
    assert kinds(notices).count("TERMINAL") == 1
    assert notices[-1].kind is EventKind.TERMINAL
    sequences = [notice.sequence for notice in notices]
    assert sequences == sorted(set(sequences))
    phases = list(dict.fromkeys(notice.phase for notice in notices if notice.phase))
    assert phases == list(Phase)[list(Phase).index(phases[0]) :]
    last = notices[-1].refresh
    assert last == await stage.running.refreshes.get(refresh.id)
    assert all(notice.happened_at and notice.resume_token for notice in notices)


async def test_a_run_that_is_over_gives_its_end_at_once(stage: Stage) -> None:
    refresh_id = await last_run(stage)
    first, last = await watch_to_end(stage.running, refresh_id)
    assert (first.kind, last.kind) == (EventKind.SNAPSHOT, EventKind.TERMINAL)
    assert first.sequence < last.sequence
    assert first.refresh == last.refresh
    assert last.refresh is not None
    assert last.refresh.state is State.SUCCEEDED


async def test_a_watch_opened_at_any_moment_of_a_run_gets_exactly_one_terminal(stage: Stage) -> None:
    """Also the one that is opened in the very moment that the run ends."""
    watching: list[asyncio.Task[list[Notice]]] = []
    for _ in range(5):
        refresh, _ = await stage.running.refreshes.start(RefreshRequest())
        running = True
        while running:
            if len(stage.running.feed._buffers) < MAX_WATCHES // 2:  # the end may be long in coming
                watching.append(asyncio.create_task(watch_to_end(stage.running, refresh.id)))
            await asyncio.sleep(0.0005)
            running = not (await stage.running.refreshes.get(refresh.id)).state.is_over
    for notices in await asyncio.gather(*watching):
        assert notices[0].kind is EventKind.SNAPSHOT
        assert kinds(notices).count("TERMINAL") == 1
        sequences = [notice.sequence for notice in notices]
        assert sequences == sorted(set(sequences))


async def test_a_watch_of_everything_begins_with_the_newest_run_and_goes_on(stage: Stage) -> None:
    newest = await last_run(stage)
    async with await stage.running.feed.watch(None, "", 15) as watch:
        first = await watch.next()
        assert first is not None
        assert (first.kind, first.refresh and first.refresh.id) == (EventKind.SNAPSHOT, newest)
        runs = [await refresh_to_end(stage.running) for _ in range(2)]
        ended: list[UUID] = []
        async with asyncio.timeout(20):
            while len(ended) < 2:
                notice = await watch.next()
                assert notice is not None
                assert notice.refresh is not None
                if notice.kind is EventKind.TERMINAL:
                    ended.append(notice.refresh.id)
    assert ended == [run.id for run in runs]


async def test_a_watch_before_the_first_run_has_an_empty_snapshot(start_app: StartApp, empty_database: str) -> None:
    async with start_app(empty_database, offline=True) as running, await running.feed.watch(None, "", 15) as watch:
        first = await watch.next()
        assert first is not None
        assert (first.kind, first.refresh, first.sequence) == (EventKind.SNAPSHOT, None, 0)
        assert first.resume_token


async def test_a_run_that_does_not_exist_is_refused(stage: Stage) -> None:
    with pytest.raises(RefreshNotFoundError):
        await stage.running.feed.watch(uuid4(), "", 15)
    assert not stage.running.feed._buffers


# --- going on where one stopped ------------------------------------------------------------------------------------


async def test_every_token_gives_exactly_the_rest_on_another_server_and_after_a_restart(
    start_app: StartApp, stage: Stage
) -> None:
    stage.catalog.add("openai/gpt-6")
    refresh = await stage.refresh()
    token = stage.running.feed.seal(refresh.id, 0)
    whole = (await watch_to_end(stage.running, refresh.id, token))[1:]
    assert [notice.kind for notice in whole if notice.kind in KEPT] == [*[EventKind.STATE] * 5, EventKind.TERMINAL]
    for _ in ("another server", "after a restart"):
        async with start_app(stage.database_url, offline=True) as other:
            for number, notice in enumerate(whole, start=1):
                first, *rest = await watch_to_end(other, refresh.id, notice.resume_token)
                assert first.kind is EventKind.SNAPSHOT
                assert first.sequence == notice.sequence
                assert [replace(each, resume_token="") for each in rest] == [
                    replace(each, resume_token="") for each in whole[number:]
                ]


async def test_the_token_of_a_snapshot_and_of_a_heartbeat_lose_nothing(stage: Stage) -> None:
    async with await stage.running.feed.watch(None, "", 0.01) as watch:
        first, beat = await watch.next(), await watch.next()
    assert first is not None
    assert beat is not None
    assert beat.kind is EventKind.HEARTBEAT
    refresh = await stage.refresh()
    for token in (first.resume_token, beat.resume_token):
        notices = await watch_to_end(stage.running, refresh.id, token)
        assert notices[0].kind is EventKind.SNAPSHOT
        assert [notice.sequence for notice in notices[1:]] == list(range(1, refresh.last_sequence + 1))


async def test_a_token_of_everything_goes_on_through_all_later_runs(stage: Stage) -> None:
    token = stage.running.feed.seal(None, 0)
    runs = [await last_run(stage), *[(await refresh_to_end(stage.running)).id for _ in range(3)]]
    async with await stage.running.feed.watch(None, token, 15) as watch:
        ended: list[Any] = []
        async with asyncio.timeout(20):
            while len(ended) < len(runs):
                notice = await watch.next()
                assert notice is not None
                if notice.kind is EventKind.TERMINAL and notice.refresh:
                    ended.append(notice.refresh.id)
    assert ended == runs


async def test_a_watch_that_is_resumed_in_the_middle_of_a_run_misses_nothing(stage: Stage) -> None:
    """A reader that loses its stream after every single message."""
    stage.catalog.add("openai/gpt-6")
    stage.publish()
    refresh, _ = await stage.running.refreshes.start(RefreshRequest())
    token = stage.running.feed.seal(refresh.id, 0)
    seen: list[Notice] = []
    async with asyncio.timeout(20):
        while not (seen and seen[-1].kind is EventKind.TERMINAL):
            async with await stage.running.feed.watch(refresh.id, token, 15) as watch:
                await watch.next()
                notice = await watch.next()
                assert notice is not None
                seen.append(notice)
                token = notice.resume_token
    ended = await stage.running.refreshes.get(refresh.id)
    assert [notice.sequence for notice in seen] == list(range(1, ended.last_sequence + 1))


async def test_bad_tokens_are_refused(stage: Stage) -> None:
    refresh_id = await last_run(stage)
    (key,) = await stage.fetch("SELECT token_key FROM catalog_state")
    good = [str(refresh_id), 1]
    feed = stage.running.feed
    for token in (
        "forged",
        "x" * 10_000,
        feed.seal(refresh_id, 1)[:-3],
        sealed_ago(0, key, "page", good),
        sealed_ago(0, bytes(32), "resume", good),
        sealed_ago(0, key, "resume", [str(refresh_id)]),
        sealed_ago(0, key, "resume", "ab"),
        sealed_ago(0, key, "resume", None),
        sealed_ago(0, key, "resume", [str(uuid4()), 1]),
    ):
        with pytest.raises(InvalidResumeTokenError):
            await feed.watch(refresh_id, token, 15)
    with pytest.raises(InvalidResumeTokenError, match="another refresh"):
        await feed.watch(None, feed.seal(refresh_id, 1), 15)
    with pytest.raises(ResumeTokenExpiredError):
        await feed.watch(refresh_id, sealed_ago(DAY_S + 60, key, "resume", good), 15)
    assert not feed._buffers, "a watch that was refused left its buffer"
    assert await watch_to_end(stage.running, refresh_id, sealed_ago(DAY_S - 60, key, "resume", good))


# --- silence -------------------------------------------------------------------------------------------------------


async def test_silence_is_broken_by_heartbeats(stage: Stage) -> None:
    async with await stage.running.feed.watch(None, "", 0.05) as watch:
        loop = asyncio.get_running_loop()
        await watch.next()
        started = loop.time()
        beats = [await watch.next() for _ in range(3)]
        assert 0.14 < loop.time() - started < 15
        assert [beat and beat.kind for beat in beats] == [EventKind.HEARTBEAT] * 3
        assert {beat.refresh for beat in beats if beat} == {None}
        assert {beat.sequence for beat in beats if beat} == {0}
        refresh = await refresh_to_end(stage.running)
        notices: list[Notice] = []
        while not notices or notices[-1].kind is not EventKind.TERMINAL:
            notice = await watch.next()
            assert notice is not None
            notices.append(notice)
        events = [notice for notice in notices if notice.kind is not EventKind.HEARTBEAT]
        assert [notice.sequence for notice in events] == list(range(1, refresh.last_sequence + 1))


# --- slow readers --------------------------------------------------------------------------------------------------


class Talker:
    """A run that only talks: it writes as many events as it is told, and ends when it is told."""

    def __init__(self, running: app.App, refresh: Refresh) -> None:
        self.store = running.feed._store
        self.refresh = refresh

    async def say(self, kind: EventKind, times: int, start: int = 0) -> None:
        for number in range(start, start + times):
            self.refresh = await self.store.record(
                replace(self.refresh, state=State.RUNNING, phase=Phase.FETCH), kind, done=number
            )

    async def end(self) -> None:
        await self.store.record(replace(self.refresh, state=State.SUCCEEDED), EventKind.TERMINAL)


@pytest.fixture
async def talker(stage: Stage) -> AsyncIterator[Talker]:
    store = stage.running.feed._store
    ownership = await store.try_own()
    assert ownership is not None
    yield Talker(stage.running, await store.create(uuid4(), RefreshRequest()))
    await ownership.release()


async def catch_up(talker: Talker, *watches: Watch) -> Notice:
    """Bring watches past what the table holds, so that from here on they live off their buffers."""
    for watch in watches:
        await watch.next()
    waiting = [asyncio.create_task(watch.next()) for watch in watches]
    await until(lambda: all(watch._replay is None for watch in watches))
    await talker.say(EventKind.STATE, 1)
    first, *_ = await asyncio.gather(*waiting)
    assert first is not None
    assert first.kind is EventKind.STATE
    return first


async def heard(stage: Stage) -> None:
    """Wait until this process has handed out every event that there is."""
    (newest,) = await stage.fetch("SELECT max(id) FROM refresh_events")
    await until(lambda: stage.running.feed._last_id == newest)


async def test_a_slow_reader_gets_the_latest_progress_and_every_state(stage: Stage, talker: Talker) -> None:
    async with await stage.running.feed.watch(talker.refresh.id, "", 15) as watch:
        await catch_up(talker, watch)
        await talker.say(EventKind.PROGRESS, 40)
        await talker.say(EventKind.STATE, 3)
        await talker.say(EventKind.PROGRESS, 40, start=100)
        await talker.end()
        await heard(stage)
        notices = await read(watch)
    assert kinds(notices) == ["PROGRESS", "STATE", "STATE", "STATE", "PROGRESS", "TERMINAL"]
    assert [notice.done for notice in notices if notice.kind is EventKind.PROGRESS] == [39, 139]


async def test_a_full_buffer_drops_progress_before_anything_else(
    stage: Stage, talker: Talker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "_BUFFER", 20)
    async with await stage.running.feed.watch(talker.refresh.id, "", 15) as watch:
        await catch_up(talker, watch)
        for _ in range(12):  # in turns, so that none replaces the one before
            await talker.say(EventKind.STATE, 1)
            await talker.say(EventKind.PROGRESS, 1)
        await talker.end()
        await heard(stage)
        notices = await read(watch)
    assert kinds(notices).count("STATE") == 12
    assert notices[-1].kind is EventKind.TERMINAL
    assert kinds(notices).count("PROGRESS") < 12


async def test_a_reader_that_does_not_keep_up_is_told_so_and_can_go_on(
    stage: Stage, talker: Talker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "_BUFFER", 20)
    async with (
        await stage.running.feed.watch(talker.refresh.id, "", 15) as slow,
        await stage.running.feed.watch(talker.refresh.id, "", 15) as quick,
    ):
        last = await catch_up(talker, slow, quick)
        reading = asyncio.create_task(read(quick))
        for _ in range(6):
            await talker.say(EventKind.STATE, 10)
            await heard(stage)
        await talker.end()
        assert kinds(await reading) == [*["STATE"] * 60, "TERMINAL"], "it delays nobody else"
        await heard(stage)
        assert len(slow._buffer.events) <= 21, "what is lost anyway is not kept"
        with pytest.raises(SlowConsumerError):
            await slow.next()
        assert stage.running.feed.slow_consumers == 1, "it is counted"
    rest = await watch_to_end(stage.running, talker.refresh.id, last.resume_token)
    assert kinds(rest) == ["SNAPSHOT", *["STATE"] * 60, "TERMINAL"]


# --- bounds and ends -----------------------------------------------------------------------------------------------


async def test_a_process_takes_so_many_watches_and_gets_the_room_back(stage: Stage) -> None:
    feed = stage.running.feed
    async with AsyncExitStack() as stack:
        opening = (feed.watch(None, "", 15) for _ in range(MAX_WATCHES))
        watches = await asyncio.gather(*opening)
        for watch in watches:
            await stack.enter_async_context(watch)
        with pytest.raises(TooManyStreamsError):
            await feed.watch(None, "", 15)
        await watches[0].__aexit__()
        async with await feed.watch(None, "", 15) as one_more:
            await one_more.next()
        refresh = await refresh_to_end(stage.running)
        for watch in watches[1:]:
            notices = [await watch.next() for _ in range(1 + refresh.last_sequence)]
            last = notices[-1]
            assert last is not None
            assert (last.kind, last.refresh and last.refresh.id) == (EventKind.TERMINAL, refresh.id)
    assert not feed._buffers


async def test_many_that_open_at_once_do_not_get_past_the_limit(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "MAX_WATCHES", 10)
    opened = await asyncio.gather(*(stage.running.feed.watch(None, "", 15) for _ in range(40)), return_exceptions=True)
    assert sum(isinstance(each, Watch) for each in opened) == 10
    assert sum(isinstance(each, TooManyStreamsError) for each in opened) == 30


async def test_a_server_that_drains_ends_its_watches_and_takes_no_new_ones(stage: Stage, talker: Talker) -> None:
    feed = stage.running.feed
    async with await feed.watch(None, "", 15) as waiting, await feed.watch(talker.refresh.id, "", 15) as fresh:
        await waiting.next()
        pending = asyncio.create_task(waiting.next())
        await asyncio.sleep(0)
        feed.close()
        with pytest.raises(ServerDrainingError):
            await pending
        with pytest.raises(ServerDrainingError):
            await read(fresh)
        with pytest.raises(ServerDrainingError):
            await feed.watch(None, "", 15)


async def test_a_watch_hears_of_a_run_of_another_process(start_app: StartApp, stage: Stage) -> None:
    async with start_app(stage.database_url, offline=True) as other, await other.feed.watch(None, "", 15) as watch:
        await watch.next()
        refresh = await refresh_to_end(stage.running)
        notices = [await asyncio.wait_for(watch.next(), 10) for _ in range(refresh.last_sequence)]
        assert notices[-1] is not None
        assert notices[-1].refresh == refresh


async def test_a_watch_goes_on_when_the_listening_connection_was_cut(stage: Stage) -> None:
    listeners = (
        "SELECT pid FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'modelcatalog-changes'"
    )
    async with await stage.running.feed.watch(None, "", 15) as watch:
        await watch.next()
        pids: list[int] = []

        async def listens() -> bool:
            pids[:] = await fetch(stage.database_url, listeners)
            return bool(pids)

        await until(listens)
        (pid,) = pids
        await fetch(stage.database_url, "SELECT pg_terminate_backend(%s)", pid)
        refresh = await refresh_to_end(stage.running)
        notices = [await asyncio.wait_for(watch.next(), 10) for _ in range(refresh.last_sequence)]
        assert notices[-1] is not None
        assert notices[-1].kind is EventKind.TERMINAL

        async def listens_again() -> bool:
            return await fetch(stage.database_url, listeners) not in ([], [pid])

        await until(listens_again)
