"""Watches of both clients against a server that misbehaves on request."""

# ruff: noqa: S105, S106 -- page and resume tokens, and one that opens nothing

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from contract.client_peer import DRIVER_IDS, DRIVERS, AsyncDriver, Behaviour, Peer, fail, hang, serving
from fault_proxy import FaultProxy
from modelcatalog_client import (
    AsyncModelCatalogClient,
    CallCancelledError,
    DeadlineExceededError,
    RefreshStatus,
    ResumeTokenExpiredError,
    ServerDrainingError,
    UnavailableError,
)
from modelcatalog_client._watching import ReconnectPolicy

IMPATIENT = ReconnectPolicy(initial_backoff=0.01, max_backoff=0.05, min_heartbeat=0.05)
DRAIN = fail("SERVER_DRAINING")


@pytest.fixture(params=DRIVERS, ids=DRIVER_IDS)
def driver(request: pytest.FixtureRequest) -> AsyncDriver:
    made: AsyncDriver = request.param
    return made


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    async with serving(Peer()) as serving_peer:
        yield serving_peer


@pytest.fixture
async def client(driver: AsyncDriver, peer: Peer) -> AsyncIterator[Any]:
    async with driver.client(peer.target) as made:
        made._reconnect_policy = IMPATIENT
        yield made


def event(kind: str, sequence: int, run: str = "a") -> RefreshStatus:
    return RefreshStatus(
        kind=RefreshStatus.Kind.Value(f"KIND_{kind}"),
        refresh_id=run,
        sequence=sequence,
        resume_token=f"{run}{sequence}",
    )


def beat(token: str) -> RefreshStatus:
    return RefreshStatus(kind=RefreshStatus.KIND_HEARTBEAT, resume_token=token)


def shown(events: list[RefreshStatus]) -> list[str]:
    return [f"{RefreshStatus.Kind.Name(each.kind)[5:]} {each.sequence}" for each in events]


async def test_a_watch_on_one_run_ends_after_its_terminal(driver: AsyncDriver, peer: Peer, client: Any) -> None:
    peer.streams.append([event("SNAPSHOT", 1), event("STATE", 2), event("TERMINAL", 3), hang])
    watch = client.watch_refresh_status("a", heartbeat_interval=7.5)
    assert peer.calls == []

    assert shown(await driver.read(watch)) == ["SNAPSHOT 1", "STATE 2", "TERMINAL 3"]
    (call,) = peer.calls
    assert call.request.refresh_id == "a"
    assert call.request.heartbeat_interval.ToTimedelta().total_seconds() == 7.5
    assert call.seconds is None
    await peer.until(lambda: peer.open_streams == 0)


async def test_an_end_of_the_stream_is_the_end(driver: AsyncDriver, peer: Peer, client: Any) -> None:
    peer.streams.append([event("STATE", sequence) for sequence in range(1, 1001)])
    assert len(await driver.read(client.watch_refresh_status("a"))) == 1000
    assert len(peer.calls) == 1


@pytest.mark.parametrize("loss", [DRAIN, fail("DATABASE_UNAVAILABLE"), fail("SLOW_CONSUMER")])
async def test_a_lost_stream_goes_on_where_it_stood(
    driver: AsyncDriver, peer: Peer, client: Any, loss: Behaviour
) -> None:
    peer.streams.append([event("SNAPSHOT", 1), event("STATE", 2), beat("b"), loss])
    peer.streams.append([DRAIN])
    peer.streams.append([event("SNAPSHOT", 4), event("STATE", 2), event("STATE", 3), event("TERMINAL", 4)])

    events = await driver.read(client.watch_refresh_status("a"))
    assert shown(events) == ["SNAPSHOT 1", "STATE 2", "STATE 3", "TERMINAL 4"]
    assert peer.tokens == ["", "b", "b"]


async def test_a_callers_token_is_where_it_begins(driver: AsyncDriver, peer: Peer, client: Any) -> None:
    peer.streams.append([event("SNAPSHOT", 4), DRAIN])
    peer.streams.append([event("SNAPSHOT", 4), event("STATE", 3), event("TERMINAL", 4)])
    events = await driver.read(client.watch_refresh_status("a", resume_token="a2"))
    assert shown(events) == ["SNAPSHOT 4", "STATE 3", "TERMINAL 4"]
    assert peer.tokens == ["a2", "a2"]


async def test_a_silent_stream_counts_as_lost(driver: AsyncDriver, peer: Peer, client: Any) -> None:
    peer.streams.append([event("STATE", 1), hang])
    peer.streams.append([event("TERMINAL", 2)])
    events = await driver.read(client.watch_refresh_status("a", heartbeat_interval=1))
    assert shown(events) == ["STATE 1", "TERMINAL 2"]
    assert peer.tokens == ["", "a1"]
    await peer.until(lambda: peer.open_streams == 0)


async def test_a_server_that_stays_silent_is_unavailable(driver: AsyncDriver, client: Any) -> None:
    watch = client.watch_refresh_status("a", heartbeat_interval=0.05, max_reconnect_seconds=0.2)
    with pytest.raises(UnavailableError, match="no message for"):
        await driver.read(watch)


def port_of(peer: Peer) -> int:
    return int(peer.target.rpartition(":")[2])


async def test_a_server_that_comes_back_is_found_again(driver: AsyncDriver) -> None:
    # Behind a proxy, for nobody else may take the address meanwhile.
    async with serving(Peer()) as first, FaultProxy("127.0.0.1", port_of(first)) as proxy:
        first.streams.append([event("STATE", 1), hang])
        target = f"127.0.0.1:{proxy.port}"
        async with driver.client(target, options=[("grpc.max_reconnect_backoff_ms", 100)]) as client:
            client._reconnect_policy = IMPATIENT
            watch = client.watch_refresh_status("a")
            assert shown(await driver.take(watch, 1)) == ["STATE 1"]
            reading = asyncio.create_task(driver.read(watch))
            await first.until(lambda: first.open_streams == 1)
            await first.stop()
            second = Peer()
            second.streams.append([event("STATE", 2), event("TERMINAL", 3)])
            async with serving(second):
                proxy.lead_to("127.0.0.1", port_of(second))
                assert shown(await reading) == ["STATE 2", "TERMINAL 3"]
            assert second.tokens == ["a1"]


@pytest.mark.parametrize(("seconds", "attempts"), [(0, 1), (1, 2)])
async def test_the_error_is_raised_when_the_time_to_get_back_is_over(
    driver: AsyncDriver, peer: Peer, client: Any, seconds: float, attempts: int
) -> None:
    peer.streams.extend([[DRAIN]] * 1000)
    # Patient with each answer: a busy machine must not turn the last one into silence.
    client._reconnect_policy = replace(IMPATIENT, min_heartbeat=30.0)
    watch = client.watch_refresh_status("a", max_reconnect_seconds=seconds)
    with pytest.raises(ServerDrainingError):
        await driver.read(watch)
    assert len(peer.calls) == attempts if seconds == 0 else len(peer.calls) >= attempts
    assert await driver.read(watch) == [], "a watch that has failed is over"


async def test_an_error_that_is_no_loss_is_raised_at_once(driver: AsyncDriver, peer: Peer, client: Any) -> None:
    peer.streams.append([fail("RESUME_TOKEN_EXPIRED")])
    with pytest.raises(ResumeTokenExpiredError, match="WatchRefreshStatus"):
        await driver.read(client.watch_refresh_status(resume_token="old"))
    assert len(peer.calls) == 1


@pytest.mark.parametrize("wanted", [True, False])
async def test_heartbeats_show_when_wanted(driver: AsyncDriver, peer: Peer, client: Any, wanted: bool) -> None:
    peer.streams.append([event("STATE", 1), beat("b"), event("TERMINAL", 2)])
    events = await driver.read(client.watch_refresh_status("a", heartbeats=wanted))
    assert len(events) == (3 if wanted else 2)


async def test_a_watch_on_all_runs_goes_on_after_a_terminal(driver: AsyncDriver, peer: Peer, client: Any) -> None:
    peer.streams.append([event("TERMINAL", 9, "a"), event("STATE", 1, "b"), hang])
    watch = client.watch_refresh_status()
    assert [each.refresh_id for each in await driver.take(watch, 2)] == ["a", "b"]
    assert watch.resume_token == "b1"
    await driver.call(watch.close)
    assert await driver.read(watch) == []


async def test_closing_from_elsewhere_ends_the_iteration_and_the_call(
    driver: AsyncDriver, peer: Peer, client: Any
) -> None:
    peer.streams.append([event("STATE", 1), hang])
    watch = client.watch_refresh_status("a")
    reading = asyncio.create_task(driver.read(watch))
    await peer.until(lambda: peer.open_streams == 1)
    await driver.call(watch.close)
    assert len(await reading) <= 1
    await peer.until(lambda: peer.open_streams == 0)


async def test_closing_does_not_wait_for_a_pause(driver: AsyncDriver, peer: Peer, client: Any) -> None:
    client._reconnect_policy = ReconnectPolicy(initial_backoff=60, max_backoff=60)
    peer.streams.append([DRAIN])
    watch = client.watch_refresh_status("a", max_reconnect_seconds=600)
    reading = asyncio.create_task(driver.read(watch))
    await peer.until(lambda: len(peer.calls) == 1 and peer.open_streams == 0)
    await driver.call(watch.close)
    assert await asyncio.wait_for(reading, 10) == []


async def test_closing_the_client_ends_its_watches(driver: AsyncDriver, peer: Peer, client: Any) -> None:
    reading = asyncio.create_task(driver.read(client.watch_refresh_status("a")))
    await peer.until(lambda: peer.open_streams == 1)
    await driver.call(client.close)
    with pytest.raises(CallCancelledError):
        await reading


async def test_a_watch_that_is_let_go_ends_its_call(driver: AsyncDriver, peer: Peer, client: Any) -> None:
    peer.streams.append([event("STATE", 1), hang])
    watch = client.watch_refresh_status("a")
    await driver.take(watch, 1)
    del watch
    gc.collect()
    await peer.until(lambda: peer.open_streams == 0)


async def test_a_watch_leaves_no_thread(driver: AsyncDriver, peer: Peer, client: Any) -> None:
    peer.streams.append([event("STATE", 1), DRAIN])
    peer.streams.append([event("TERMINAL", 2)])
    await driver.read(client.watch_refresh_status("a"))
    alarms = [each for each in threading.enumerate() if each.name == "modelcatalog-watch-alarm"]
    for alarm in alarms:
        await asyncio.to_thread(alarm.join, 10)
        assert not alarm.is_alive()


async def test_a_timeout_holds_for_the_watch_as_a_whole(driver: AsyncDriver, peer: Peer, client: Any) -> None:
    client._reconnect_policy = ReconnectPolicy(initial_backoff=0.6)  # a pause of 0.3 s or more
    peer.streams.append([event("STATE", 1), DRAIN])
    watch = client.watch_refresh_status("a", timeout=3)  # a busy machine may stand still for two
    with pytest.raises(DeadlineExceededError):
        await driver.read(watch)
    assert len(peer.calls) == 2
    first, second = (call.seconds or 0 for call in peer.calls)
    assert 0 < second < first <= 3.1, "as the peer reckons: a little more may be left than was given"


async def test_both_are_context_managers(peer: Peer) -> None:
    peer.streams.append([event("STATE", 1), hang])
    async with AsyncModelCatalogClient(peer.target) as client, client.watch_refresh_status("a") as watch:
        assert (await anext(watch)).sequence == 1
    await peer.until(lambda: peer.open_streams == 0)


async def test_a_read_that_was_given_up_loses_nothing(peer: Peer) -> None:
    peer.streams.append([event("STATE", 1), hang])
    peer.streams.append([event("TERMINAL", 2)])
    async with AsyncModelCatalogClient(peer.target) as client:
        watch = client.watch_refresh_status("a")
        await anext(watch)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(watch), 0.05)
        assert [each.sequence async for each in watch] == [2]
    assert peer.tokens == ["", "a1"]
