"""The revision that a process is at never goes back, and never lags behind what it has told somebody."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from modelcatalog_server.catalog.current import CurrentRevision, RevisionFollower, version_of
from modelcatalog_server.domain.errors import DatabaseUnavailableError
from modelcatalog_server.domain.ports.catalog import CatalogState
from modelcatalog_server.domain.signal import Signal

T0 = datetime(2026, 7, 2, tzinfo=UTC)


def state(revision: int, *, changed: int = 0, checked: int | None = None) -> CatalogState:
    return CatalogState(
        revision=revision,
        changed_at=T0 + timedelta(seconds=changed),
        checked_at=None if checked is None else T0 + timedelta(seconds=checked),
        source_url=None,
        source_etag=None,
        source_snapshot=None,
        upstream_not_before=None,
        upstream_not_before_url=None,
    )


def at(current: CurrentRevision) -> CatalogState | None:
    return current.state


def test_it_is_at_the_newest_state_that_was_seen() -> None:
    assert CurrentRevision().state is None
    current = CurrentRevision()
    for seen in (state(1), state(3), state(2), state(3, checked=5), state(3, checked=4)):
        current.observe(seen)
    assert at(current) == state(3, checked=5)


def test_a_revision_that_is_only_heard_of_makes_it_know_nothing_until_that_was_read() -> None:
    current = CurrentRevision()
    current.observe(state(1))
    current.expect(1)
    assert at(current) == state(1)
    current.expect(3)
    assert at(current) is None
    current.observe(state(2))
    assert at(current) is None, "somebody was told of 3"
    current.observe(state(3))
    assert at(current) == state(3)


def test_a_revision_that_was_heard_of_first() -> None:
    current = CurrentRevision()
    current.expect(2)
    current.observe(state(1))
    assert at(current) is None
    current.observe(state(2))
    assert at(current) == state(2)


def test_a_number_that_comes_again_is_another_version() -> None:
    assert version_of(state(7, changed=1)) != version_of(state(7, changed=2))
    assert version_of(state(7, checked=1)) == version_of(state(7, checked=2))


async def test_it_is_read_at_every_nudge_whatever_went_wrong_before() -> None:
    changed, reads = Signal(), 0
    failures = [DatabaseUnavailableError("away"), RuntimeError("a bug"), None]
    done = asyncio.Event()

    async def read_state() -> CatalogState:
        nonlocal reads
        failure = failures[reads]
        reads += 1
        asyncio.get_running_loop().call_soon(changed.notify)
        if failure is not None:
            raise failure
        failures.append(None)
        done.set()
        return state(1)

    current = CurrentRevision()
    async with RevisionFollower(current, read_state, changed, nothing):
        await asyncio.wait_for(done.wait(), 5)
    assert reads >= 3
    assert at(current) == state(1)


async def nothing() -> None:
    pass


async def test_it_is_read_before_anybody_can_ask() -> None:
    current = CurrentRevision()

    async def read_state() -> CatalogState:
        return state(4)

    async with RevisionFollower(current, read_state, Signal(), nothing):
        assert at(current) == state(4)


class Process:
    """A follower whose revision and preparations are in the hands of the test."""

    def __init__(self) -> None:
        self.current = CurrentRevision()
        self.changed = Signal()
        self.revision = 1
        self.begun, self.may_end = asyncio.Event(), asyncio.Event()
        self.prepared: list[CatalogState | None] = []
        self.ended = asyncio.Event()
        self.follower = RevisionFollower(self.current, self.read_state, self.changed, self.prepare)

    async def read_state(self) -> CatalogState:
        return state(self.revision)

    async def prepare(self) -> None:
        self.begun.set()
        await self.may_end.wait()
        self.prepared.append(at(self.current))
        self.ended.set()

    async def turn_to(self, revision: int) -> None:
        self.revision = revision
        moved = self.current.moved.ticket()
        self.changed.notify()
        await asyncio.wait_for(moved.wait(), 5)


async def test_answers_are_prepared_before_it_turns_to_a_new_revision() -> None:
    process = Process()
    process.may_end.set()
    async with process.follower:
        assert process.prepared == [], "nobody was answered of an older one"
        await process.turn_to(2)
        assert at(process.current) == state(2)
        assert process.prepared == [state(1)]


async def test_what_takes_long_to_prepare_is_not_waited_for_but_comes_to_its_end() -> None:
    process = Process()
    async with process.follower:
        await process.turn_to(2)
        await process.turn_to(3)
        assert process.prepared == []
        process.may_end.set()
        await asyncio.wait_for(process.ended.wait(), 5)
        assert process.prepared == [state(3)], "one at a time"


@pytest.mark.parametrize("failure", [DatabaseUnavailableError("away"), RuntimeError("a bug")])
async def test_a_preparation_that_fails_stops_nothing(failure: Exception) -> None:
    process = Process()

    async def fail() -> None:
        raise failure

    follower = RevisionFollower(process.current, process.read_state, process.changed, fail)
    async with follower:
        await process.turn_to(2)
        await process.turn_to(3)
        assert at(process.current) == state(3)


async def test_whoever_tells_of_a_revision_waits_until_the_process_is_at_it() -> None:
    process = Process()
    async with process.follower:
        process.revision = 2
        process.changed.notify()
        telling = asyncio.create_task(process.current.reach(2))
        await process.begun.wait()
        assert not telling.done()
        assert at(process.current) == state(1)
        process.may_end.set()
        await asyncio.wait_for(telling, 5)
        assert at(process.current) == state(2)


async def test_whoever_tells_of_a_revision_does_not_wait_for_long() -> None:
    current = CurrentRevision()
    current.observe(state(1))
    await asyncio.wait_for(current.reach(2), 5)
    assert at(current) is None, "it is not known what it is"
    current.observe(state(2))
    await current.reach(2)
    assert at(current) == state(2)


@pytest.mark.parametrize("revision", [0, 1])
def test_a_catalog_that_never_changed_has_a_version(revision: int) -> None:
    empty = CatalogState(
        revision=revision,
        changed_at=None,
        checked_at=None,
        source_url=None,
        source_etag=None,
        source_snapshot=None,
        upstream_not_before=None,
        upstream_not_before_url=None,
    )
    assert version_of(empty) == str(revision)
