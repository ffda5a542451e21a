"""Who owns a run shows that it is alive, however many writers wait for the catalog."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import uuid4

import psycopg
import pytest

from conftest import Services
from modelcatalog_server.domain.errors import DatabaseUnavailableError
from modelcatalog_server.domain.refresh import RefreshRequest
from modelcatalog_server.storage.policy_store import PostgresPolicy
from modelcatalog_server.storage.pools import Pools, PoolSettings
from modelcatalog_server.storage.refresh_store import PostgresRefreshes
from small_catalog import clone_small, fetch, until

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


@pytest.fixture
def database(templates: Services) -> Iterator[str]:
    yield from clone_small(templates)


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
            async with asyncio.timeout(2):
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
