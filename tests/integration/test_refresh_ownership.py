"""Who owns a run shows that it is alive, however many writers wait for the catalog."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from uuid import uuid4

import psycopg
import pytest
from aiohttp import web
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from structlog.testing import capture_logs

from conftest import Services, StartApp
from fault_proxy import FaultProxy
from modelcatalog_server.domain.errors import DatabaseUnavailableError
from modelcatalog_server.domain.refresh import RefreshRequest, State
from modelcatalog_server.storage.policy_store import PostgresPolicy
from modelcatalog_server.storage.pools import Pools, PoolSettings
from modelcatalog_server.storage.refresh_store import PostgresRefreshes
from small_catalog import clone_small, fetch, follow, until

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


@pytest.fixture
def database(templates: Services) -> Iterator[str]:
    yield from clone_small(templates)


async def test_an_ownership_whose_return_the_network_has_lost_is_taken_back(database: str) -> None:
    lease = timedelta(seconds=0.3)
    folder = str(conninfo_to_dict(database)["host"])
    async with FaultProxy(f"{folder}/.s.PGSQL.5432") as proxy, Pools(database) as pools:
        store = PostgresRefreshes(pools, owner="test")
        async with Pools(proxied(database, proxy), PoolSettings(read_timeout_s=2.0, silence_s=0.5)) as theirs:
            ownership = await PostgresRefreshes(theirs, owner="theirs").try_own()
            assert ownership is not None
            assert not await store.end_idle_owner(timedelta(hours=1)), "it may be about to start a run"
            proxy.half_open()
            await ownership.release()
        assert await store.try_own() is None
        await until(lambda: store.end_idle_owner(lease))

        async def is_free() -> bool:
            return await store.try_own() is not None

        await until(is_free)


async def test_the_ownership_of_a_run_under_way_is_left_alone_however_long_it_takes(database: str) -> None:
    async with Pools(database) as pools:
        store = PostgresRefreshes(pools, owner="test")
        assert await store.try_own() is not None
        await store.create(uuid4(), RefreshRequest())
        assert not await store.end_idle_owner(timedelta(0))


def proxied(database: str, proxy: FaultProxy) -> str:
    """Return the address of a database behind a proxy."""
    return make_conninfo(database, host="127.0.0.1", port=proxy.port, sslmode="disable")


@asynccontextmanager
async def locked_catalog(database: str) -> AsyncIterator[None]:
    """Hold what a refresh holds that writes, or one that is stuck in it."""
    async with await psycopg.AsyncConnection.connect(database) as connection:
        await connection.execute("SELECT revision FROM catalog_state FOR UPDATE")
        yield


async def test_a_run_shows_signs_of_life_while_every_writer_waits_for_the_catalog(database: str) -> None:
    async with Pools(database) as pools:
        store = PostgresRefreshes(pools, owner="test")
        policy = PostgresPolicy(pools)
        ownership = await store.try_own()
        assert ownership is not None
        refresh = await store.create(uuid4(), RefreshRequest())
        (before,) = await fetch(database, "SELECT heartbeat_at FROM models_refresh_history WHERE completed_at IS NULL")
        async with locked_catalog(database):
            writers = [
                asyncio.create_task(policy.set_provider_enabled("openai", enabled=False))
                for _ in range(PoolSettings().write_size + 1)
            ]

            async def all_wait() -> bool:
                return await fetch(database, WAITING) == [PoolSettings().write_size]

            await until(all_wait)
            async with asyncio.timeout(10):  # what has to wait does so until the catalog is unlocked
                await store.beat(refresh.id)
                assert await store.try_own() is None
                assert await store.end_expired(timedelta(hours=1)) is None
        (after,) = await fetch(database, "SELECT heartbeat_at FROM models_refresh_history WHERE completed_at IS NULL")
        assert after > before
        revisions = {state.revision for _, state in await asyncio.gather(*writers)}
        assert revisions == {2}, "the first one changes it, the others find it so"
        await ownership.release()


async def test_a_change_of_policy_gives_up_on_a_catalog_that_stays_locked(database: str) -> None:
    async with Pools(database) as pools, locked_catalog(database):
        policy = PostgresPolicy(pools, lock_timeout_s=0.1)
        with pytest.raises(DatabaseUnavailableError, match="is being written: ask again"):
            await policy.set_provider_enabled("openai", enabled=False)
    assert await fetch(database, "SELECT enabled FROM llm_providers WHERE id = 'openai'") == [True]


@pytest.mark.usefixtures("impatient_pools")
async def test_a_run_whose_end_cannot_be_written_is_a_warning_and_is_ended_by_the_next(
    start_app: StartApp, database: str
) -> None:
    released = asyncio.Event()

    async def refuse_late(_request: web.Request) -> web.StreamResponse:
        await released.wait()
        return web.Response(status=404)

    folder = str(conninfo_to_dict(database)["host"])
    async with FaultProxy(f"{folder}/.s.PGSQL.5432") as proxy, follow(start_app, proxied(database, proxy)) as stage:
        stage.upstream.misbehave("*", refuse_late)
        lost, _ = await stage.running.refreshes.start(RefreshRequest())
        await stage.upstream.wait_for_request()
        with capture_logs() as logs:
            proxy.cut()
            released.set()
            await until(lambda: "a refresh could not be ended" in [line["event"] for line in logs])
        proxy.mend()
        assert [line["log_level"] for line in logs if "exc_info" in line or "ended" in line["event"]] == ["warning"]
        stage.upstream.behave()

        async def is_well() -> bool:
            with suppress(DatabaseUnavailableError):
                return (await stage.refresh()).state is State.SUCCEEDED
            return False

        await until(is_well)
        ends = await fetch(database, "SELECT error_reason FROM models_refresh_history WHERE id = %s", lost.id)
        assert ends == ["OWNER_LOST"]
