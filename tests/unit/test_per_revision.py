"""What is made of a revision as a whole: once, whoever asks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest

from modelcatalog_server.catalog.per_revision import PerRevision
from modelcatalog_server.domain.ports.catalog import CatalogState

NOW = datetime(2026, 7, 2, tzinfo=UTC)


def state_of(revision: int, changed_at: datetime = NOW) -> CatalogState:
    return CatalogState(
        revision=revision,
        changed_at=changed_at,
        checked_at=None,
        source_url=None,
        source_etag=None,
        source_snapshot=None,
        upstream_not_before=None,
        upstream_not_before_url=None,
    )


class Maker:
    """Makes a text that says how often it was asked to."""

    def __init__(self) -> None:
        self.times = 0

    def make(self, what: str = "it") -> Callable[[], Awaitable[str]]:
        async def make() -> str:
            self.times += 1
            await asyncio.sleep(0)
            return f"{what}, {self.times}"

        return make


async def test_of_many_who_ask_at_once_one_makes_it() -> None:
    kept, maker = PerRevision[str](), Maker()
    assert not kept
    answers = await asyncio.gather(*(kept.get(state_of(1), maker.make()) for _ in range(10)))
    assert set(answers) == {"it, 1"}
    assert kept


async def test_who_gives_up_leaves_it_to_the_next() -> None:
    kept, maker = PerRevision[str](), Maker()
    first = asyncio.create_task(kept.get(state_of(1), maker.make()))
    second = asyncio.create_task(kept.get(state_of(1), maker.make()))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == "it, 2"


async def test_what_fails_is_not_kept() -> None:
    kept, maker = PerRevision[str](), Maker()

    async def fail() -> str:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await kept.get(state_of(1), fail)
    assert await kept.get(state_of(1), maker.make()) == "it, 1"


async def test_a_number_that_comes_again_is_another_revision() -> None:
    """As after a database was put back to an earlier state."""
    kept, maker = PerRevision[str](), Maker()
    assert await kept.get(state_of(2), maker.make()) == "it, 1"
    assert await kept.get(state_of(2, NOW + timedelta(seconds=1)), maker.make()) == "it, 2"
    assert await kept.get(state_of(2), maker.make()) == "it, 1"


async def test_two_revisions_are_kept_and_one_can_be_forgotten() -> None:
    kept, maker = PerRevision[str](), Maker()
    for revision in (1, 2, 3):
        await kept.get(state_of(revision), maker.make())
    assert await kept.get(state_of(2), maker.make()) == "it, 2"
    assert await kept.get(state_of(1), maker.make()) == "it, 4"
    kept.forget(state_of(1))
    kept.forget(state_of(7))
    assert await kept.get(state_of(1), maker.make()) == "it, 5"
