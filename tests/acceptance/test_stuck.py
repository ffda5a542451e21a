"""A process that is stopped in the middle of a refresh: another ends its run, and it finds that out when it goes on."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from aiohttp import web

from conftest import Services, make_settings, refresh_to_end
from modelcatalog.v1.refresh_pb2 import Refresh, RefreshStatus
from modelcatalog_client import AsyncModelCatalogClient, OwnerLostError, refresh_error
from modelcatalog_server import app
from modelcatalog_server.domain.refresh import State
from modelcatalog_server.refresh.policy import RefreshPolicy
from modelcatalog_server.settings import Settings, load_settings
from modelcatalog_server.storage.refresh_ownership import OWNER_LOCK
from replicas import Replica, assert_consistent, digest_content, replicas
from small_catalog import SmallCatalog, clone_small, fetch, until
from upstream_server import UpstreamServer

#: The contract's time within which the run of a lost owner is over.
OWNER_LOST_WITHIN = timedelta(seconds=30)
#: How much of that is left for ending it once it is found.
ENDING = timedelta(seconds=5)


class Impatient(Settings):
    """What a replica is told that takes others for stuck soon."""

    @property
    def refresh_policy(self) -> RefreshPolicy:
        often = timedelta(seconds=0.2)
        return replace(super().refresh_policy, heartbeat=often, lease=timedelta(seconds=2), sweep=often)


@pytest.fixture
def database(templates: Services) -> Iterator[str]:
    yield from clone_small(templates)


@dataclass
class Slow:
    """An upstream that answers with a document once it is told."""

    body: bytes
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    told: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, _request: web.Request) -> web.StreamResponse:
        self.asked.set()
        await self.told.wait()
        return web.Response(body=self.body, content_type="application/json")


@dataclass
class Scene:
    """A replica of its own process, an upstream, and a database."""

    upstream: UpstreamServer
    replica: Replica
    url: str
    templates: Services

    def settings(self) -> Settings:
        return make_settings(self.templates, self.url, upstream_url=self.upstream.url)

    def publish(self, name: str) -> bytes:
        catalog = SmallCatalog()
        catalog.model("openai/gpt-5")["name"] = name
        self.upstream.serve("/catalog.json", catalog.body)
        return catalog.body

    async def assert_replica_lives(self) -> None:
        """It serves, and a later run there works."""
        self.publish("of a later run")
        async with AsyncModelCatalogClient(self.replica.address) as client:
            await client.get_model("openai/gpt-5")
            refresh = (await client.start_refresh()).refresh
            async with client.watch_refresh_status(refresh.id) as watch:
                *_, last = [status async for status in watch]
            assert last.kind == RefreshStatus.KIND_TERMINAL
            assert last.refresh.state == Refresh.STATE_SUCCEEDED, last.refresh
            assert (await client.get_model("openai/gpt-5")).model.name == "of a later run"
        await assert_consistent(self.url)


@pytest.fixture
async def scene(templates: Services, database: str, work_dir: Path) -> AsyncIterator[Scene]:
    async with UpstreamServer() as upstream, replicas(templates, work_dir) as start:
        upstream.serve("/catalog.json", SmallCatalog().body)
        yield Scene(upstream, await start(database, upstream.url), database, templates)


@asynccontextmanager
async def stopped(replica: Replica) -> AsyncIterator[None]:
    replica.send(signal.SIGSTOP)
    try:
        yield
    finally:
        replica.send(signal.SIGCONT)


def test_what_the_defaults_let_pass_before_a_stuck_run_is_found_leaves_time_to_end_it() -> None:
    policy = load_settings().refresh_policy
    assert policy.lease + policy.sweep + ENDING <= OWNER_LOST_WITHIN
    assert policy.lease >= 3 * policy.heartbeat, "one that is late once or twice must not be taken for stuck"


async def test_the_run_of_a_process_that_is_stuck_is_ended_by_another_and_it_writes_nothing_more(scene: Scene) -> None:
    slow = Slow(scene.publish("of the one that was stuck"))
    scene.upstream.misbehave("/catalog.json", slow)
    settings = Impatient(**dict(scene.settings()))
    async with app.start(settings) as other, AsyncModelCatalogClient(other.server.address) as client:
        async with AsyncModelCatalogClient(scene.replica.address) as there:
            lost = (await there.start_refresh()).refresh
        await slow.asked.wait()
        watch = client.watch_refresh_status(lost.id)
        assert (await anext(watch)).kind == RefreshStatus.KIND_SNAPSHOT

        async with stopped(scene.replica):
            stopped_at = datetime.now(UTC)
            told = [status async for status in watch]
            assert [status.kind for status in told].count(RefreshStatus.KIND_TERMINAL) == 1
            ended = told[-1].refresh
            assert isinstance(refresh_error(ended), OwnerLostError)
            waited = ended.end_time.ToDatetime(UTC) - stopped_at
            assert waited < settings.refresh_policy.lease + settings.refresh_policy.sweep + ENDING

            scene.upstream.behave()
            scene.publish("of the next run")
            refresh = await refresh_to_end(other)
            assert (refresh.state, refresh.result_revision) == (State.SUCCEEDED, 2)
            left = await digest_content(scene.url)

        slow.told.set()
        await until(lambda: "ended by somebody else" in scene.replica.log.read_text())
        assert await digest_content(scene.url) == left
        assert await assert_consistent(scene.url) == 2
        await scene.assert_replica_lives()


async def test_a_session_that_was_forgotten_with_the_right_to_refresh_keeps_nobody_from_it(scene: Scene) -> None:
    """Of a process whose word that gave it back was lost in the network; no run is under way."""
    async with await psycopg.AsyncConnection.connect(scene.url, autocommit=True) as forgotten:
        await forgotten.execute("SELECT pg_advisory_lock(%s)", (OWNER_LOCK,))
        async with app.start(Impatient(**dict(scene.settings()))) as running:
            assert (await refresh_to_end(running)).state is State.SUCCEEDED


async def test_a_process_that_is_stuck_while_it_writes_does_not_keep_others_from_writing(scene: Scene) -> None:
    """It holds the locks of a transaction, beside the one of the owner."""
    scene.publish("of the one that was stuck")
    async with (
        await psycopg.AsyncConnection.connect(scene.url) as barrier,
        AsyncModelCatalogClient(scene.replica.address) as there,
    ):
        await barrier.execute("LOCK TABLE catalog_revisions IN EXCLUSIVE MODE")
        lost = (await there.start_refresh()).refresh
        waiting = "SELECT count(*) FROM pg_locks WHERE relation = 'catalog_revisions'::regclass AND NOT granted"
        await until(lambda: _equals(scene.url, waiting, [1]))
        scene.replica.send(signal.SIGSTOP)
        await barrier.rollback()
    # Not before: who is so impatient may take one for stuck that is only slow.
    settings = Impatient(**dict(scene.settings()))
    async with app.start(settings) as other, AsyncModelCatalogClient(other.server.address) as client:
        async with stopped(scene.replica):
            told = [status async for status in client.watch_refresh_status(lost.id)]
            assert isinstance(refresh_error(told[-1].refresh), OwnerLostError)
            scene.publish("of the next run")
            refresh = await refresh_to_end(other)
            assert (refresh.state, refresh.result_revision) == (State.SUCCEEDED, 2)
        left = await digest_content(scene.url)
        await scene.assert_replica_lives()
        assert await digest_content(scene.url) != left
        assert await fetch(scene.url, "SELECT count(*) FROM catalog_revisions") == [3]


async def _equals(url: str, statement: str, expected: list[int]) -> bool:
    return await fetch(url, statement) == expected
