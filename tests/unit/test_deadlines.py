"""Deadlines: who has them, who shares them, who is not bound by them."""

from __future__ import annotations

import asyncio
import math

from modelcatalog_server.cache.flights import Flights
from modelcatalog_server.domain.deadlines import Deadline, create_lasting_task, current_deadline, deadline


async def find_deadline() -> Deadline:
    return current_deadline()


def test_time_runs_down_to_nothing() -> None:
    now = 10.0
    until = Deadline(12.0, clock=lambda: now)
    assert until.remaining_s == 2
    now = 13.0
    assert until.remaining_s == 0


def test_the_most_patient_one_counts() -> None:
    until = Deadline(5.0)
    until.extend(Deadline(3.0))
    assert until.at == 5
    until.extend(Deadline())
    assert until.at == math.inf


async def test_it_holds_in_its_block_and_in_the_tasks_that_are_started_there() -> None:
    until = Deadline.after(5)
    with deadline(until):
        assert current_deadline() is until
        assert await asyncio.create_task(find_deadline()) is until
    assert current_deadline().remaining_s == math.inf


async def test_a_task_that_is_to_last_does_not_have_it() -> None:
    with deadline(Deadline.after(5)):
        assert (await create_lasting_task(find_deadline(), name="lasting")).remaining_s == math.inf
        until = Deadline.after(60)
        assert await create_lasting_task(find_deadline(), name="lasting", until=until) is until


async def test_a_flight_has_the_time_of_its_most_patient_caller() -> None:
    flights, go_on = Flights[float](), asyncio.Event()

    async def fetch() -> float:
        await go_on.wait()
        return current_deadline().at

    async def ask(at: float) -> float:
        with deadline(Deadline(at)):
            return await flights.join("key", fetch)

    asking = [asyncio.create_task(ask(at)) for at in (2.0, 7.0, 5.0)]
    await asyncio.sleep(0)
    go_on.set()
    assert await asyncio.gather(*asking) == [7.0] * 3
