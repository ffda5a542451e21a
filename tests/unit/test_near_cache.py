"""What the memory of a process keeps of responses, and what it lets go of."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from modelcatalog_server.cache.absences import ABSENCE_TTL_S, MAX_ABSENCES, Absences
from modelcatalog_server.cache.flights import Flights
from modelcatalog_server.cache.near import ENTRY_BYTES, NearCache
from modelcatalog_server.domain.errors import ModelNotFoundError


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def make(clock: Clock | None = None, **bounds: Any) -> NearCache[str]:
    near = NearCache[str](**{"max_entries": 100, "max_bytes": 10**6, "max_hot": 3, "clock": clock or Clock(), **bounds})
    near.turn_to("1")
    return near


def put(near: NearCache[str], *keys: str, version: str = "1", body: bytes = b"x", ttl_s: float = 60) -> None:
    for key in keys:
        near.put(version, key, body, size=len(key) + len(body), ttl_s=ttl_s)


def held(near: NearCache[str]) -> list[str]:
    return [key for key, _ in near.items()]


# --- what is kept ---------------------------------------------------------------------------------------------------


def test_gives_what_it_was_given() -> None:
    near = make()
    assert near.get("1", "a") is None
    put(near, "a", body=b"one")
    put(near, "b", body=b"")
    assert (near.get("1", "a"), near.get("1", "b")) == (b"one", b"")
    assert near.hits == 2
    put(near, "a", body=b"other")
    assert near.get("1", "a") == b"other"
    assert (len(near), near.bytes) == (2, 1 + 5 + 1 + 0 + 2 * ENTRY_BYTES)


def test_nothing_of_another_version_is_given_or_taken() -> None:
    near = make()
    put(near, "a", body=b"old")
    put(near, "b", version="2", body=b"early")
    assert held(near) == ["a"]
    assert near.get("2", "a") is None
    put(near, "a", version="1", body=b"late")
    assert near.get("2", "a") is None, "read at 1, done when the catalog was at 2"
    assert (len(near), near.bytes, near.evictions) == (0, 0, 0)


def test_an_entry_is_given_for_as_long_as_it_may() -> None:
    clock = Clock()
    near = make(clock)
    put(near, "a", ttl_s=60)
    clock.now = 59.9
    assert near.get("1", "a") == b"x"
    clock.now = 60
    assert near.get("1", "a") is None
    assert (len(near), near.bytes, near.evictions) == (0, 0, 0)


def test_what_was_used_longest_ago_gives_way_to_the_hundred_and_first() -> None:
    near = make()
    put(near, *(f"{number}" for number in range(100)))
    near.get("1", "0")
    put(near, "new")
    assert near.evictions == 1
    assert near.get("1", "1") is None
    assert near.get("1", "0") == b"x"
    assert len(near) == 100


def test_bytes_are_bounded_with_what_an_entry_costs_beside_them() -> None:
    near = make(max_bytes=20_000)
    put(near, *(f"{number:02}" for number in range(50)), body=b"x" * 1_000)
    assert len(near) == 20_000 // (1_000 + 2 + ENTRY_BYTES)
    assert near.bytes <= 20_000
    assert held(near)[-1] == "49"


def test_one_that_would_drive_out_an_eighth_of_the_others_is_not_kept() -> None:
    near = make(max_bytes=80_000)
    put(near, "fits", body=b"x" * 9_000)
    put(near, "large", body=b"x" * 10_000)
    assert held(near) == ["fits"]


def test_no_entries_at_all() -> None:
    near = make(max_entries=0)
    put(near, "a")
    assert (near.get("1", "a"), len(near)) == (None, 0)


def test_entries_go_one_by_one_and_all_at_once() -> None:
    near = make()
    put(near, "a", "b", "c")
    assert near.discard("a")
    assert not near.discard("a")
    assert held(near) == ["b", "c"]
    assert (near.clear(), near.clear(), near.bytes) == (2, 0, 0)


# --- what is remembered ---------------------------------------------------------------------------------------------


def read(near: NearCache[str], version: str, **times: int) -> None:
    for key, count in times.items():
        for _ in range(count):
            near.get(version, key)


def hottest(near: NearCache[str]) -> list[tuple[str, int]]:
    ranked: list[tuple[str, int]] = []
    for _ in near.rank(ranked):
        pass
    return ranked


def test_what_is_read_most_outlives_its_version_by_name() -> None:
    near = make()
    put(near, "a", "b", "c", "d", "never")
    read(near, "1", a=8, b=2, c=9, d=3)
    near.turn_to("2")
    assert hottest(near) == [("c", 9), ("a", 8), ("d", 3)]


def test_a_rebuilt_entry_cools_down_when_nobody_asks_any_more() -> None:
    near = make()
    put(near, "a", "b")
    read(near, "1", a=8, b=2)
    for version, expected in (("2", [("a", 4), ("b", 1)]), ("3", [("a", 2)]), ("4", [("a", 1)]), ("5", [])):
        near.turn_to(version)
        put(near, "a", "b", version=version)
        assert hottest(near) == expected


def test_what_was_read_is_known_however_many_turns_pass_before_somebody_asks() -> None:
    near = make()
    put(near, "a", "b", "never")
    read(near, "1", a=8, b=2)
    near.turn_to("2")
    put(near, "a", version="2")
    near.turn_to("3")
    assert hottest(near) == [("a", 4), ("b", 2)]
    assert held(near) == []


def test_what_is_read_most_is_found_among_many_whatever_comes_between_two_steps() -> None:
    near = make(max_entries=10_000)
    keys = [f"key-{number}" for number in range(1000)]
    put(near, *keys)
    times = {key: number % 7 + 1 for number, key in enumerate(keys)}
    read(near, "1", **times | {"key-3": 20, "key-500": 30, "key-999": 10})
    expected = [("key-500", 30), ("key-3", 20), ("key-999", 10)]
    ranked: list[tuple[str, int]] = []
    steps = near.rank(ranked)
    next(steps)
    put(near, "more")
    assert len(list(steps)) > 3
    assert ranked == expected
    near.turn_to("2")
    next(near.settle())
    put(near, "key-500", version="2")
    assert hottest(near) == [("key-3", 20), ("key-500", 15), ("key-999", 10)]


def test_the_order_of_use_does_not_change_what_is_read_most() -> None:
    near = make(max_entries=10_000, max_hot=2)
    keys = [f"key-{number}" for number in range(500)]
    put(near, *keys)
    read(near, "1", **dict.fromkeys(keys, 1))
    read(near, "1", **dict.fromkeys(reversed(keys), 1))
    read(near, "1", **{"key-7": 2, "key-450": 1})
    assert hottest(near) == [("key-7", 4), ("key-450", 3)]


def test_what_goes_while_it_is_ranked_is_left_out_and_what_comes_waits_for_the_next_time() -> None:
    near = make(max_entries=10_000)
    keys = [f"key-{number}" for number in range(500)]
    put(near, *keys)
    read(near, "1", **{"key-10": 3, "key-450": 9, "key-460": 8})
    ranked: list[tuple[str, int]] = []
    steps = near.rank(ranked)
    next(steps)
    near.discard("key-450")
    put(near, "more")
    read(near, "1", **{"more": 7, "key-0": 1})
    list(steps)
    assert ranked == [("key-460", 8), ("key-10", 3)]
    assert hottest(near) == [("key-460", 8), ("more", 7), ("key-10", 3)]


def test_nothing_is_ranked_where_nothing_was_read() -> None:
    near = make()
    assert hottest(near) == []
    put(near, "a")
    assert hottest(near) == []


# --- that there is nothing ------------------------------------------------------------------------------------------


def test_an_absence_is_remembered_for_seconds() -> None:
    clock = Clock()
    absences = Absences(clock)
    error = ModelNotFoundError("a/b", ["a/c"])
    absences.put("key", error)
    clock.now = ABSENCE_TTL_S - 0.1
    assert absences.get("key") is error
    clock.now = ABSENCE_TTL_S
    assert absences.get("key") is None
    absences.put("key", error)
    absences.clear()
    assert absences.get("key") is None


def test_a_caller_that_asks_for_everything_that_is_not_there_costs_bounded_memory() -> None:
    absences = Absences(Clock())
    for number in range(MAX_ABSENCES + 10):
        absences.put(number, ModelNotFoundError(str(number)))
    assert len(absences) == MAX_ABSENCES
    assert absences.get(9) is None
    assert absences.get(10) is not None


# --- single flight --------------------------------------------------------------------------------------------------


class Fetching:
    """Something that takes until it is told to end."""

    def __init__(self) -> None:
        self.begun = 0
        self.ended = 0
        self.go_on = asyncio.Event()

    async def fetch(self) -> str:
        self.begun += 1
        try:
            await self.go_on.wait()
            return "fetched"
        finally:
            self.ended += 1


async def begin(flights: Flights[str], fetching: Fetching, count: int, key: str = "key") -> list[asyncio.Task[str]]:
    tasks = [asyncio.create_task(flights.join(key, fetching.fetch)) for _ in range(count)]
    for _ in range(3):
        await asyncio.sleep(0)
    return tasks


async def test_all_who_ask_at_once_cause_one_fetch() -> None:
    flights, fetching = Flights[str](), Fetching()
    tasks = await begin(flights, fetching, 100)
    tasks += await begin(flights, fetching, 1, key="other")
    assert fetching.begun == 2
    fetching.go_on.set()
    assert await asyncio.gather(*tasks) == ["fetched"] * 101
    assert await flights.join("key", fetching.fetch) == "fetched"
    assert fetching.begun == 3, "what has landed is not waited for"


async def test_the_first_one_may_leave_and_the_others_still_get_it() -> None:
    flights, fetching = Flights[str](), Fetching()
    first, *others = await begin(flights, fetching, 3)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    fetching.go_on.set()
    assert await asyncio.gather(*others) == ["fetched"] * 2
    assert fetching.begun == 1


async def test_a_fetch_that_nobody_waits_for_any_more_ends() -> None:
    flights, fetching = Flights[str](), Fetching()
    for task in (leaving := await begin(flights, fetching, 2)):
        task.cancel()
    await asyncio.wait(leaving)
    (late,) = await begin(flights, fetching, 1)
    assert (fetching.begun, fetching.ended) == (2, 1), "whoever comes later begins anew"
    fetching.go_on.set()
    assert await late == "fetched"


async def test_everybody_gets_the_error() -> None:
    async def fail() -> str:
        await asyncio.sleep(0)
        raise ModelNotFoundError("a/b")

    flights = Flights[str]()
    results = await asyncio.gather(*(flights.join("key", fail) for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [ModelNotFoundError] * 3


async def test_closing_ends_what_is_under_way() -> None:
    flights, fetching = Flights[str](), Fetching()
    (waiting,) = await begin(flights, fetching, 1)
    await flights.close()
    assert fetching.ended == 1
    with pytest.raises(asyncio.CancelledError):
        await waiting
