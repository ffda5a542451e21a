"""PostgreSQL that is cut off, hangs, is forgotten by a firewall, can only be read, or is replaced by its standby.

Between the service and it is a proxy that does what networks do; PostgreSQL and the service, from ready on, are real.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from structlog.testing import capture_logs

from conftest import Services, make_settings
from fault_proxy import proxied, socket_of
from modelcatalog.v1.catalog_admin_service_pb2 import GetCacheStatsRequest, UpdateProviderRequest
from modelcatalog.v1.catalog_admin_service_pb2_grpc import CatalogAdminStub
from modelcatalog.v1.model_catalog_service_pb2 import GetModelRequest, ListModelsRequest
from modelcatalog.v1.model_catalog_service_pb2_grpc import ModelCatalogStub
from modelcatalog.v1.refresh_service_pb2 import GetRefreshRequest, StartRefreshRequest
from modelcatalog.v1.refresh_service_pb2_grpc import RefreshServiceStub
from modelcatalog_client import DatabaseUnavailableError, Refresh, from_rpc_error
from modelcatalog_server import app
from modelcatalog_server.domain import errors
from modelcatalog_server.domain.errors import StartupError
from modelcatalog_server.storage import migrations, staging
from modelcatalog_server.storage.pools import Pools, PoolSettings
from modelcatalog_server.storage.staging import RowCopy
from served import served
from small_catalog import SmallCatalog, clone_small, fetch, load_small, locked, until
from standby import Pair, standby_pair
from upstream_server import UpstreamServer

pytestmark = pytest.mark.usefixtures("impatient_pools")

#: A silent connection is cut after 3.5 s, the one that listens after 2 s, and a new one of it given up after 5 s.
NOTICED_WITHIN_S = 15
#: Attempts to connect are 2 s apart at most, and health is looked at once a second.
BACK_WITHIN_S = 5

GPT_5 = GetModelRequest(model_id="openai/gpt-5")


@dataclass
class Scene:
    """A service, and its callers."""

    channel: grpc.aio.Channel
    catalog_file: SmallCatalog
    upstream: UpstreamServer

    @property
    def catalog(self) -> Any:  # the stubs are typed for channels that block
        return ModelCatalogStub(self.channel)

    @property
    def refreshes(self) -> Any:
        return RefreshServiceStub(self.channel)

    @property
    def admin(self) -> Any:
        return CatalogAdminStub(self.channel)

    async def is_serving(self) -> bool:
        health: Any = health_pb2_grpc.HealthStub(self.channel)
        answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=5)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    async def is_not_serving(self) -> bool:
        return not await self.is_serving()

    async def read_from_memory(self) -> dict[str, str]:
        """Read what was prepared ahead; return the trailers."""
        call = self.catalog.GetModel(GPT_5, timeout=5)
        assert (await call).model.id == "openai/gpt-5"
        return {key: value for key, value in await call.trailing_metadata() if isinstance(value, str)}

    async def read_from_database(self) -> int:
        """Read what nobody has asked for before; return how many models there are."""
        request = ListModelsRequest(filter=f'name != "{uuid4()}"')
        return int((await self.catalog.ListModels(request, timeout=20)).total_size)

    async def refresh(self, *, price: str) -> Refresh:
        """Have upstream say another price, and the catalog follow."""
        self.catalog_file.model("openai/gpt-5")["cost"]["input"] = float(price)
        self.upstream.serve("/catalog.json", self.catalog_file.body)
        started = (await self.refreshes.StartRefresh(StartRefreshRequest(), timeout=20)).refresh
        ended: list[Refresh] = []

        async def is_over() -> bool:
            asked = self.refreshes.GetRefresh(GetRefreshRequest(refresh_id=started.id), timeout=20)
            ended[:] = [(await asked).refresh]
            return ended[0].HasField("end_time")

        await until(is_over)
        return ended[0]

    async def fails(self, call: Callable[[], Any]) -> str:
        """Return what a call fails with, which has to be DATABASE_UNAVAILABLE."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call()
        error = from_rpc_error(caught.value)
        assert isinstance(error, DatabaseUnavailableError), error
        return error.message


@asynccontextmanager
async def serving(templates: Services, url: str, **more: Any) -> AsyncIterator[Scene]:
    """Serve as the command does, with an upstream of its own."""
    catalog = SmallCatalog()
    async with UpstreamServer() as upstream:
        upstream.serve("/catalog.json", catalog.body)
        schedule = {"refresh_full_cron": "off", "refresh_incremental_cron": "off", "metrics_listen": "off"}
        settings = make_settings(templates, url, upstream_url=upstream.url, drain_delay_seconds=0, **schedule, **more)
        async with served(settings) as (_, channel):
            yield Scene(channel, catalog, upstream)


@pytest.fixture
def database(templates: Services) -> Iterator[str]:
    yield from clone_small(templates)


async def is_prepared(scene: Scene) -> bool:
    """Whether models are answered from memory: all of them, or one that nobody has asked for would not be."""
    stats = await scene.admin.GetCacheStats(GetCacheStatsRequest(), timeout=5)
    return bool(stats.layers[0].entries >= 87)


# --- away ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["cut", "black_hole"])
async def test_while_it_is_away_memory_answers_and_says_how_old_that_is(
    templates: Services, database: str, fault: str
) -> None:
    async with proxied(database) as (proxy, url), serving(templates, url) as scene:
        await until(lambda: is_prepared(scene))
        before = await scene.read_from_memory()
        with capture_logs() as logs:
            getattr(proxy, fault)()
            await until(scene.is_not_serving, seconds=NOTICED_WITHIN_S)
            begun = time.monotonic()
            assert "cannot be reached" in await scene.fails(scene.read_from_database)
            if fault == "cut":
                # Longer than the first attempts to connect again, whose pauses double: 1, 2, 4 s.
                await asyncio.sleep(8 - (time.monotonic() - begun))
            asked = time.monotonic()
            await scene.fails(scene.read_from_database)
            assert time.monotonic() - asked < 3, "where there is no server, nobody has to wait for one"
            now = await scene.read_from_memory()
            assert now["x-catalog-checked-at"] == before["x-catalog-checked-at"]
            proxy.mend()
            mended = time.monotonic()
            await until(scene.is_serving, seconds=BACK_WITHIN_S)
            assert await scene.read_from_database() == 87
            assert time.monotonic() - mended < BACK_WITHIN_S
            assert (await scene.refresh(price="7")).state == Refresh.STATE_SUCCEEDED
        events = [
            line["event"] for line in logs if line["log_level"] in {"warning", "error"} and line["event"] != "call"
        ]
        assert len(events) == len(set(events)), "each is said once, however long it takes"
        assert {"not ready any more", "ready again", "lost the connection that listens for changes"} <= set(events)


async def test_connections_that_a_firewall_has_forgotten_are_given_up(templates: Services, database: str) -> None:
    """Nothing comes back on them and nobody says so; new ones work."""
    async with proxied(database) as (proxy, url), serving(templates, url) as scene:
        await until(lambda: is_prepared(scene))
        with capture_logs() as logs:
            proxy.half_open()
            await until(
                lambda: [line for line in logs if line["event"].startswith("lost the conn")], seconds=NOTICED_WITHIN_S
            )
            await until(lambda: [line for line in logs if line["event"].endswith("is back")], seconds=NOTICED_WITHIN_S)
            await until(scene.is_serving, seconds=NOTICED_WITHIN_S)
            assert await scene.read_from_database() == 87
            assert (await scene.refresh(price="7")).state == Refresh.STATE_SUCCEEDED


async def test_a_read_whose_answer_is_swallowed_fails_when_that_is_late(templates: Services, database: str) -> None:
    """PostgreSQL gives up after 3 s, which nobody hears of."""
    async with proxied(database) as (proxy, url), serving(templates, url) as scene:
        # What is prepared ahead reads, too, and would be taken for the read.
        await until(lambda: is_prepared(scene))
        async with locked(database, "models_metadata IN ACCESS EXCLUSIVE"):
            begun = time.monotonic()
            reading = asyncio.ensure_future(scene.fails(scene.read_from_database))
            await until(partial(_is_waiting, database))
            proxy.half_open()
            assert "cannot be reached" in await reading
            assert time.monotonic() - begun < NOTICED_WITHIN_S


async def test_a_connection_that_was_left_in_pipeline_mode_is_used_by_nobody(database: str) -> None:
    """The driver leaves it there when who waits for the end of a pipeline is cancelled at the wrong moment."""
    async with Pools(database, PoolSettings(write_size=1)) as pools:
        async with pools.writing() as connection:
            connection.pgconn.enter_pipeline_mode()
        async with pools.writing() as another:
            assert another is not connection
            await another.execute("CREATE TEMPORARY TABLE rows (id text) ON COMMIT DROP")
            async with RowCopy(another, "COPY rows FROM STDIN") as copy:
                await copy.write([("a",)])


@pytest.mark.parametrize("has_begun", [False, True], ids=["as it begins", "when it has begun"])
async def test_who_forgets_a_copy_is_given_up_long_before_a_statement_would_be(
    database: str, monkeypatch: pytest.MonkeyPatch, *, has_begun: bool
) -> None:
    """PostgreSQL waits for rows without a limit."""
    monkeypatch.setattr(staging, "_PATIENCE_S", 1.0)
    async with proxied(database) as (proxy, url), Pools(url) as pools:
        begun = 0.0

        async def copy_rows() -> None:
            nonlocal begun
            async with pools.writing() as connection:
                usual_s = connection.patience_s
                await connection.execute("CREATE TEMPORARY TABLE rows (id text) ON COMMIT DROP")
                async with RowCopy(connection, "COPY rows FROM STDIN") as copy:
                    await copy.write([("a",)])
                assert connection.patience_s == usual_s > NOTICED_WITHIN_S
                begun = time.monotonic()
                if not has_begun:
                    proxy.half_open()
                async with RowCopy(connection, "COPY rows FROM STDIN") as copy:
                    await copy.write([("b",)])
                    begun = time.monotonic()
                    proxy.half_open()

        with pytest.raises(errors.DatabaseUnavailableError):
            await copy_rows()
        assert time.monotonic() - begun < NOTICED_WITHIN_S


@pytest.mark.parametrize("while_waiting", [False, True], ids=["under a write", "while an answer is waited for"])
async def test_who_vanishes_is_given_up_long_before_a_statement_would_be(database: str, while_waiting: bool) -> None:
    async def has_begun() -> bool:
        sleeping = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"
        return await fetch(database, sleeping) == [1]

    async with proxied(database) as (proxy, url), Pools(url, PoolSettings(unacknowledged_s=1)) as pools:

        async def write() -> None:
            async with pools.writing() as connection:
                await connection.execute("SELECT 1")
                if not while_waiting:
                    proxy.vanish()
                await connection.execute("SELECT pg_sleep(59)")

        writing = asyncio.create_task(write())
        if while_waiting:
            await until(has_begun)
            proxy.vanish()
        async with asyncio.timeout(30):
            with pytest.raises(errors.DatabaseUnavailableError):
                await writing


async def test_what_the_operator_says_of_connections_holds(database: str) -> None:
    async with (
        proxied(database) as (_, url),
        Pools(f"{url}?tcp_user_timeout=7000") as pools,
        pools.writing() as connection,
    ):
        with socket.socket(fileno=os.dup(connection.pgconn.socket)) as shared:
            assert shared.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 7000


async def _is_waiting(database: str) -> bool:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    return await fetch(database, waiting) != [0]


async def test_after_a_restart_no_call_meets_a_connection_that_has_ended(templates: Services, database: str) -> None:
    async with proxied(database) as (proxy, url), serving(templates, url) as scene:
        await asyncio.gather(*(scene.read_from_database() for _ in range(20)))
        for _ in range(3):
            await proxy.reset_all()
            assert await asyncio.gather(*(scene.read_from_database() for _ in range(20))) == [87] * 20


async def test_one_that_hangs_ends_a_start_with_one_line(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrations, "_PATIENCE_S", 0.5)
    async with locked(database, "schema_migrations IN ACCESS EXCLUSIVE"):
        with pytest.raises(StartupError, match=r"cannot use the database at .*: it does not answer"):
            await migrations.prepare_schema(database, is_ours=False)


# --- without writes -----------------------------------------------------------------------------------------------


async def test_where_it_can_only_be_read_reads_go_on_and_writes_say_why(templates: Services, database: str) -> None:
    name = database.partition("?")[0].rpartition("/")[2]
    async with serving(templates, database) as scene:
        await set_read_only(templates, name, "on")
        assert await scene.read_from_database() == 87
        assert "can only be read" in await scene.fails(lambda: scene.refresh(price="7"))
        update = UpdateProviderRequest(provider_id="zeldoc", enabled=False)
        assert "can only be read" in await scene.fails(lambda: scene.admin.UpdateProvider(update, timeout=20))
        assert await scene.is_serving()
        # Its sessions began when it was so; nobody ends them for the service.
        templates.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = off")
        with suppress(grpc.aio.AioRpcError):  # the last of those sessions may be met once more
            await scene.refresh(price="6")
        assert (await scene.refresh(price="7")).state == Refresh.STATE_SUCCEEDED
        assert (await scene.catalog.GetModel(GPT_5, timeout=5)).model.pricing.input == "7"


async def set_read_only(templates: Services, name: str, value: str) -> None:
    templates.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = {value}")
    # Until they have ended: one that is about to is met as one that lives.
    templates.execute(f"SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity WHERE datname = '{name}'")


async def test_a_server_that_starts_where_it_can_only_be_read_serves(templates: Services, database: str) -> None:
    name = database.partition("?")[0].rpartition("/")[2]
    await set_read_only(templates, name, "on")
    with capture_logs() as logs:
        async with serving(templates, database) as scene:
            assert await scene.is_serving()
            assert await scene.read_from_database() == 87
            await scene.fails(lambda: scene.refresh(price="7"))
    assert [
        line for line in logs if line["log_level"] == "error" and line["event"] != "an audit entry could not be written"
    ] == []


# --- another in its place -----------------------------------------------------------------------------------------


@pytest.fixture
def pair(templates: Services, tmp_path_factory: pytest.TempPathFactory, work_dir: Path) -> Iterator[Pair]:
    with standby_pair(work_dir / f"failover-{uuid4().hex}") as pair:
        asyncio.run(app.migrate_database(make_settings(templates, pair.primary.url)))
        asyncio.run(load_small(templates, pair.primary.url))
        yield pair


@pytest.mark.parametrize("way", ["one address", "two hosts"])
async def test_a_standby_takes_over_and_nothing_has_to_be_restarted(templates: Services, pair: Pair, way: str) -> None:
    async with proxied(pair.primary.url) as (proxy, url):
        if way == "two hosts":
            hosts = [socket_of(node.url).rpartition("/")[0] for node in (pair.primary, pair.replica)]
            url = f"postgresql://modelcatalog@/modelcatalog?host={','.join(hosts)}&target_session_attrs=read-write"
        async with serving(templates, url) as scene:
            first = await scene.refresh(price="7")
            await until(
                lambda: pair.replica.execute("SELECT revision FROM catalog_state") == [(first.result_revision,)]
            )
            await asyncio.to_thread(pair.primary.kill)
            await until(scene.is_not_serving)
            proxy.lead_to(socket_of(pair.replica.url))
            await asyncio.to_thread(pair.replica.execute, "SELECT pg_promote()")
            promoted = time.monotonic()
            await until(scene.is_serving)
            assert time.monotonic() - promoted < BACK_WITHIN_S
            assert await scene.read_from_database() == 87
            second = await scene.refresh(price="8")
            assert second.result_revision == first.result_revision + 1
            assert (await scene.catalog.GetModel(GPT_5, timeout=5)).model.pricing.input == "8"
            assert await fetch(pair.replica.url, "SELECT revision FROM catalog_state") == [second.result_revision]
