"""The time of a call is that of its queries: seen in pg_stat_activity, of a server that lives and of one that hangs."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from conftest import Services, StartApp
from modelcatalog_client import AsyncModelCatalogClient, AsyncPager
from modelcatalog_client.errors import DeadlineExceededError
from replicas import replicas
from small_catalog import clone_small, fetch, follow, locked, until

READ, WRITE = "modelcatalog-read", "modelcatalog-write"

Call = Callable[[AsyncModelCatalogClient, float], Awaitable[Any]]

#: Statements of the service that wait for the test's own lock.
WAITING = (
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND application_name = %s AND wait_event_type = 'Lock'"
)
#: Sessions that do something, or hold a transaction open.
BUSY = (
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND application_name = %s AND state <> 'idle'"
)


@dataclass(frozen=True)
class Way:
    """One way to the database: what is locked there, which nothing but this call asks for, and the pool."""

    lock: str
    call: Call
    pool: str = READ


WAYS = {
    "a read that is cached": Way(
        "model_benchmarks IN ACCESS EXCLUSIVE",
        lambda client, seconds: client.list_model_benchmarks("openai/gpt-5", timeout=seconds),
    ),
    "a single statement": Way(
        "audit_log IN ACCESS EXCLUSIVE", lambda client, seconds: _first(client.list_audit_events(timeout=seconds))
    ),
    "a write": Way(
        "llm_providers IN EXCLUSIVE",  # which lets others read
        lambda client, seconds: client.update_provider("openai", enabled=False, timeout=seconds),
        WRITE,
    ),
}
every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


async def _first(pager: AsyncPager[Any, Any]) -> Any:
    return await anext(aiter(pager.pages()))


@pytest.fixture
def database(templates: Services) -> Iterator[str]:
    yield from clone_small(templates)


@asynccontextmanager
async def talk_to(address: str) -> AsyncIterator[AsyncModelCatalogClient]:
    async with AsyncModelCatalogClient(address, options=[("grpc.enable_retries", 0)]) as client:
        yield client


@dataclass(frozen=True)
class Sessions:
    """The sessions of one pool."""

    database_url: str
    pool: str = READ

    async def are_waiting(self) -> bool:
        return await self._count(WAITING) > 0

    async def have_given_up(self) -> bool:
        return await self._count(WAITING) == 0

    async def are_idle(self) -> bool:
        return await self._count(BUSY) == 0

    async def _count(self, statement: str) -> int:
        (found,) = await fetch(self.database_url, statement, self.pool)
        return int(found)


@every_way
async def test_a_call_that_is_cancelled_takes_its_query_along(start_app: StartApp, database: str, way: Way) -> None:
    sessions = Sessions(database, way.pool)
    async with follow(start_app, database) as stage, talk_to(stage.running.server.address) as client:
        async with locked(database, way.lock):
            calling = asyncio.ensure_future(way.call(client, 20))
            await until(sessions.are_waiting)
            cancelled_at = time.monotonic()
            calling.cancel()
            await until(sessions.have_given_up)
            # Less than a statement may take (5 s), and than the call had left.
            assert time.monotonic() - cancelled_at < 4.5
        await until(sessions.are_idle)
        await way.call(client, 20)


@every_way
async def test_a_query_ends_with_its_call_although_the_server_hangs(
    templates: Services, work_dir: Path, database: str, way: Way
) -> None:
    """PostgreSQL has heard with the query how long it may take."""
    sessions = Sessions(database, way.pool)
    async with replicas(templates, work_dir) as start:
        replica = await start(database, "file:///nowhere")
        async with talk_to(replica.address) as client, locked(database, way.lock):
            begun_at = time.monotonic()
            calling = asyncio.ensure_future(way.call(client, 2))
            await until(sessions.are_waiting)
            replica.send(signal.SIGSTOP)
            await until(sessions.have_given_up)
            # The bounds of statements themselves are 5 s for reads and 60 s for writes.
            assert 1.5 < time.monotonic() - begun_at < 4.8
            with pytest.raises(DeadlineExceededError):
                await calling
            replica.send(signal.SIGCONT)
        async with talk_to(replica.address) as client:
            await way.call(client, 20)


async def test_a_query_that_callers_share_has_the_time_of_the_most_patient_one(
    start_app: StartApp, database: str
) -> None:
    sessions = Sessions(database)
    async with follow(start_app, database) as stage, talk_to(stage.running.server.address) as client:
        await client.get_provider("openai")  # so that to connect takes nothing of the time of the hasty one
        async with locked(database, "models_metadata IN ACCESS EXCLUSIVE"):
            hasty = asyncio.ensure_future(client.get_model("openai/gpt-5", timeout=2.5))
            await until(sessions.are_waiting)
            patient = asyncio.ensure_future(client.get_model("openai/gpt-5", timeout=20))
            with pytest.raises(DeadlineExceededError):
                await hasty
            await asyncio.wait({patient}, timeout=1)  # PostgreSQL ends the query as it was told by the hasty one
            assert not patient.done()
            await until(sessions.are_waiting)
        assert (await patient).model.id == "openai/gpt-5"


async def test_a_run_outlives_the_call_that_started_it(start_app: StartApp, database: str) -> None:
    """Its statements come long after the call was over: none of them has what was left of its time."""
    sessions = Sessions(database)
    async with follow(start_app, database) as stage, talk_to(stage.running.server.address) as client:
        stage.catalog.model("openai/gpt-5")["name"] = "GPT-5 (new)"
        stage.publish()
        await client.get_provider("openai")  # so that to connect takes nothing of the time of the call
        async with locked(database, "models_metadata IN ACCESS EXCLUSIVE"):
            begun_at = time.monotonic()
            refresh = (await client.start_refresh(timeout=3)).refresh
            await until(sessions.are_waiting)
            await asyncio.sleep(begun_at + 3.1 - time.monotonic())  # the call's time is over
            assert await sessions.are_waiting()
        async with client.watch_refresh_status(refresh.id) as watch:
            *_, last = [status async for status in watch]
        assert last.refresh.state == last.refresh.STATE_SUCCEEDED, last.refresh
