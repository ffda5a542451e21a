"""How often callers get in: by principal, by address, and with tokens that are none."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from modelcatalog_server.cache.quota_storage import Windows, own_windows
from modelcatalog_server.domain.errors import (
    CatalogError,
    InvalidTokenError,
    MissingTokenError,
    RateLimitedError,
    RoleRequiredError,
)
from modelcatalog_server.domain.identity import ANONYMOUS, Principal, Role
from modelcatalog_server.domain.limits import RateLimit
from modelcatalog_server.rpc import rates as rates_module
from modelcatalog_server.rpc.peers import LOCAL, address_of
from modelcatalog_server.rpc.rates import CallRates, Unsettled

ANN, BOB = Principal("ann", Role.READER), Principal("bob", Role.READER)
HERE, THERE = "ipv4:10.0.0.1:40000", "ipv4:10.0.0.2:40000"
INVALID = InvalidTokenError()


class Clock:
    """A clock that a test sets."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the windows, which begin at full seconds and hours of it: none of them ends by itself."""
    clock = Clock(1_800_000_600.0)
    monkeypatch.setattr(time, "time", clock)
    return clock


@pytest.fixture
async def windows(wall: Clock) -> AsyncIterator[Windows]:
    windows = own_windows()
    yield windows
    timer: Any = getattr(windows._storage, "timer", None)
    if timer is not None:
        await timer


async def call(rates: CallRates, principal: Principal = ANN, peer: str = HERE) -> bool:
    """Whether a call gets in."""
    admitted = rates.admit(peer, principal)
    if isinstance(admitted, Unsettled):
        admitted = await admitted.settle()
    return admitted is principal


async def refusal(rates: CallRates, principal: Principal = ANN, peer: str = HERE) -> RateLimitedError:
    admitted = rates.admit(peer, principal)
    if isinstance(admitted, Unsettled):
        admitted = await admitted.settle()
    assert isinstance(admitted, RateLimitedError)
    return admitted


async def count(rates: CallRates, calls: int, principal: Principal = ANN, peer: str = HERE) -> int:
    return sum([await call(rates, principal, peer) for _ in range(calls)])


# --- principals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("amount", [1, 3, 100, 1000])
async def test_as_many_get_in_as_may(windows: Windows, amount: int) -> None:
    async with CallRates(windows, per_principal=RateLimit(amount, 3600)) as rates:
        assert await count(rates, amount + 50) == amount
        assert await count(rates, amount, BOB) == amount, "another's calls are another's"


async def test_many_at_once_are_as_many_as_may(windows: Windows) -> None:
    async with CallRates(windows, per_principal=RateLimit(100, 3600)) as rates:
        assert sum(await asyncio.gather(*(call(rates) for _ in range(300)))) == 100


async def test_processes_share_what_a_caller_may(windows: Windows) -> None:
    limit = RateLimit(400, 3600)
    async with CallRates(windows, per_principal=limit) as one, CallRates(windows, per_principal=limit) as other:
        got_in = [await count(rates, 10) for _ in range(60) for rates in (one, other)]
        # What one has leased and does not use any more, the other does not have.
        assert 400 - 400 // rates_module._PART <= sum(got_in) <= 400


async def test_most_calls_are_counted_without_asking(windows: Windows) -> None:
    async with CallRates(windows, per_principal=RateLimit(1000, 3600)) as rates:
        asked = 0
        for _ in range(500):
            admitted = rates.admit(HERE, ANN)
            if isinstance(admitted, Unsettled):
                asked += 1
                await admitted.settle()
            await asyncio.sleep(0)  # the loop has other things to do, too
        assert asked <= 3


@pytest.mark.parametrize("begun_s", [0.0, 0.3, 0.97])
@pytest.mark.parametrize("amount", [2, 40])
async def test_after_the_delay_and_not_before_the_next_one_gets_in(
    windows: Windows, wall: Clock, amount: int, begun_s: float
) -> None:
    wall.now += begun_s
    async with CallRates(windows, per_principal=RateLimit(amount, 1), clock=wall) as rates:
        assert await count(rates, amount) == amount
        error = await refusal(rates)
        assert (error.subject, error.principal) == ("principal:ann", "ann")
        assert 0 < error.retry_after_s <= 1
        refused_at = wall.now
        for step in range(20):
            wall.now = refused_at + (error.retry_after_s - 0.001) * step / 20
            assert not await call(rates)
        wall.now = refused_at + error.retry_after_s + 0.01
        assert await call(rates)


async def test_what_is_leased_and_not_used_in_its_window_is_lost(windows: Windows) -> None:
    now = 0.0
    async with CallRates(windows, per_principal=RateLimit(100_000, 60), clock=lambda: now) as rates:
        assert await call(rates)
        lease = rates._leases["principal:ann"]
        assert lease.left > 100
        now = 60.0
        assert isinstance(rates.admit(HERE, ANN), Unsettled)


async def test_a_clock_that_jumps_neither_locks_out_nor_lets_all_in(windows: Windows, wall: Clock) -> None:
    steady = Clock(0.0)
    async with CallRates(windows, per_principal=RateLimit(10, 1), clock=steady) as rates:
        assert await count(rates, 20) == 10
        for jump in (-86_400.0, 2 * 86_400.0):
            wall.now += jump
            assert await count(rates, 30) <= 10
            wall.now += 1.1
            steady.now += 1.1
            assert await call(rates), jump


# --- addresses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:10.1.2.3:4000", "10.1.2.3"),
        ("ipv6:%5B2001:db8:1:2:3:4:5:6%5D:4000", "2001:db8:1:2::/64"),
        ("ipv6:[2001:db8:1:2::9]:4000", "2001:db8:1:2::/64"),
        ("ipv6:%5Bfe80::1%25eth0%5D:4000", "fe80::/64"),
        ("ipv6:%5B::ffff:10.1.2.3%5D:4000", "10.1.2.3"),
        ("ipv6:%5B::ffff:127.0.0.1%5D:4000", LOCAL),
        ("ipv4:127.0.0.1:4000", LOCAL),
        ("ipv6:%5B::1%5D:4000", LOCAL),
        ("unix:", LOCAL),
    ],
)
def test_an_address_is_without_port_and_of_ipv6_the_network(peer: str, address: str) -> None:
    assert address_of(peer) == address


async def test_connections_of_an_address_share_what_it_may(windows: Windows) -> None:
    async with CallRates(windows, per_address=RateLimit(10, 3600)) as rates:
        got_in = [
            await call(rates, principal, f"ipv4:10.0.0.1:{port}") for port in range(10) for principal in (ANN, BOB)
        ]
        assert sum(got_in) == 10
        assert (await refusal(rates)).subject == "address:10.0.0.1"
        assert await call(rates, ANN, THERE)


async def test_a_call_that_one_limit_refuses_does_not_count_for_the_other(windows: Windows) -> None:
    async with CallRates(windows, per_principal=RateLimit(5, 3600), per_address=RateLimit(8, 3600)) as rates:
        assert await count(rates, 100) == 5
        assert await count(rates, 100, BOB) == 3


async def test_who_is_not_identified_is_limited_by_address_alone_and_on_this_machine_not_at_all(
    windows: Windows,
) -> None:
    limit = RateLimit(5, 3600)
    async with CallRates(windows, per_principal=limit, per_address=limit, spares_local=True) as rates:
        assert await count(rates, 20, ANONYMOUS, "ipv4:127.0.0.1:1") == 20
        assert await count(rates, 20, ANONYMOUS, "unix:") == 20
        assert await count(rates, 20, ANONYMOUS, HERE) == 5
        assert await count(rates, 20, ANONYMOUS, THERE) == 5


async def test_however_many_addresses_call_no_more_than_so_many_are_kept(
    windows: Windows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rates_module, "_MAX_SUBJECTS", 10)
    async with CallRates(windows, per_address=RateLimit(5, 3600), failures=RateLimit(5, 3600)) as rates:
        for number in range(40):
            assert await call(rates, ANN, f"ipv4:10.0.1.{number}:1")
            await rates.charge(f"ipv4:10.0.2.{number}:1", INVALID)
        assert len(rates._leases) == len(rates._seen) == 10


# --- those who may not ----------------------------------------------------------------------------------------------


async def charge(rates: CallRates, error: CatalogError, times: int) -> list[CatalogError]:
    return [await rates.charge(HERE, error) for _ in range(times)]


async def test_tokens_can_be_tried_so_often_and_then_no_new_caller_gets_in_from_there(windows: Windows) -> None:
    async with CallRates(windows, failures=RateLimit(5, 3600)) as rates:
        assert await call(rates, ANN)
        answers = await charge(rates, INVALID, 8)
        assert [type(answer) for answer in answers] == [InvalidTokenError] * 5 + [RateLimitedError] * 3
        assert (await refusal(rates, BOB)).subject == "address:10.0.0.1", "one that was found by trying, perhaps"
        assert await call(rates, ANN), "who was there before is not locked out by others"
        assert await call(rates, BOB, THERE)


async def test_calls_that_are_refused_count_as_others_do(windows: Windows) -> None:
    async with CallRates(windows, per_principal=RateLimit(5, 3600), per_address=RateLimit(20, 3600)) as rates:
        lacking = await charge(rates, RoleRequiredError("takes the role admin", "ann"), 6)
        assert [type(answer) for answer in lacking] == [RoleRequiredError] * 5 + [RateLimitedError]
        missing = await charge(rates, MissingTokenError(), 30)
        assert [type(answer) for answer in missing].count(RateLimitedError) == 15


# --- what goes wrong ------------------------------------------------------------------------------------------------


class Broken:
    async def take(self, limit: RateLimit, subject: str, count: int) -> bool:
        raise RuntimeError("quotas cannot be counted")

    async def get_delay(self, limit: RateLimit, subject: str) -> float:
        raise RuntimeError("quotas cannot be counted")


async def test_a_fault_in_counting_lets_callers_in() -> None:
    async with CallRates(Broken(), per_principal=RateLimit(5, 3600)) as rates:
        assert await count(rates, 20) == 20


async def test_a_caller_that_goes_away_while_it_waits_leaves_nothing_behind(windows: Windows) -> None:
    async with CallRates(windows, per_principal=RateLimit(100, 3600)) as rates:
        waiting = asyncio.create_task(call(rates))
        await asyncio.sleep(0)
        waiting.cancel()
        assert await count(rates, 200) == 100


@pytest.mark.parametrize(
    ("text", "limit"),
    [("10/second", RateLimit(10, 1)), ("1/minute", RateLimit(1, 60)), ("5/day", RateLimit(5, 86_400))],
)
def test_a_limit_is_a_number_per_time(text: str, limit: RateLimit) -> None:
    assert RateLimit.parse(text) == limit
    assert str(limit) == text.replace("/", " calls a ")


@pytest.mark.parametrize(
    "text", ["", "10", "0/second", "-1/second", "1.5/second", "10/fortnight", "10 / second", "x/day"]
)
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="1000/second"):
        RateLimit.parse(text)
