"""The composition root: the only place that names concrete adapters. Starts them in order, ends them in reverse."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

import structlog

from modelcatalog_server.cache.redis_cache import RedisCache
from modelcatalog_server.catalog.reader import CatalogReader
from modelcatalog_server.domain.errors import CatalogError, StartupError
from modelcatalog_server.domain.refresh import Refresh, RefreshRequest, State, Trigger
from modelcatalog_server.domain.signal import Signal
from modelcatalog_server.embedded import DataDirectory, EmbeddedPostgres, EmbeddedValkey, default_data_dir
from modelcatalog_server.modelsdev.client import ModelsDevUpstream
from modelcatalog_server.modelsdev.comparison import SpawnedComparison
from modelcatalog_server.modelsdev.offline import OfflineUpstream
from modelcatalog_server.refresh.feed import RefreshFeed
from modelcatalog_server.refresh.runner import RefreshRunner
from modelcatalog_server.refresh.service import RefreshService
from modelcatalog_server.rpc.admin_servicer import AdminServicer
from modelcatalog_server.rpc.catalog_servicer import CatalogServicer
from modelcatalog_server.rpc.model_messages import encode_model
from modelcatalog_server.rpc.refresh_servicer import RefreshServicer
from modelcatalog_server.rpc.server import RpcServer
from modelcatalog_server.settings import Settings
from modelcatalog_server.storage.catalog_store import PostgresCatalog
from modelcatalog_server.storage.changes import ChangeListener
from modelcatalog_server.storage.migrations import Migration, check_schema, migrate
from modelcatalog_server.storage.pools import Pools, connect
from modelcatalog_server.storage.refresh_store import PostgresRefreshes
from modelcatalog_server.tokens import TokenSealer

_log = structlog.get_logger(__name__)

_CONNECT_TIMEOUT_S = 10
# A first load over a slow line, and then some; after it the process gives up.
_FIRST_LOAD_TIMEOUT_S = 180.0
_HEALTH_INTERVAL_S = 1.0


@dataclass(frozen=True, slots=True)
class _Backends:
    """Where PostgreSQL and Redis are, and what tells that an own one died."""

    database_url: str
    redis_url: str
    owns_database: bool
    deaths: tuple[Callable[[], Awaitable[str]], ...]


@dataclass(frozen=True, slots=True)
class App:
    """A started service."""

    settings: Settings
    server: RpcServer
    reader: CatalogReader
    refreshes: RefreshService
    feed: RefreshFeed
    cache: RedisCache
    changed: Signal
    deaths: tuple[Callable[[], Awaitable[str]], ...]


async def migrate_database(settings: Settings) -> list[Migration]:
    """Bring the database, the own one if none is set, to the schema of this version; return what was applied."""
    async with AsyncExitStack() as stack:
        backends = await _start_backends(stack, settings, with_redis=False)
        async with await connect(backends.database_url, timeout_s=_CONNECT_TIMEOUT_S) as connection:
            return await migrate(connection)


async def serve(settings: Settings) -> None:
    """Serve until a signal comes or an own database dies.

    Raises:
        StartupError: it cannot start, or cannot go on.
    """
    stop = _stop_on_signals()
    async with start(settings) as app:
        health = asyncio.create_task(_report_health(app), name="health")
        try:
            await _load_if_empty(app, stop)
            if not stop.is_set():
                print(await _ready_line(app), flush=True)  # noqa: T201 - the one line that people and scripts wait for
            await _wait_for_end(app, stop)
        finally:
            health.cancel()
            await app.server.drain(settings.drain_seconds)


@asynccontextmanager
async def start(settings: Settings) -> AsyncIterator[App]:
    """Start everything in order and yield it, listening but not yet with a catalog. Leaving it stops everything."""
    async with AsyncExitStack() as stack:
        backends = await _start_backends(stack, settings, with_redis=True)
        async with await connect(backends.database_url, timeout_s=_CONNECT_TIMEOUT_S) as connection:
            if backends.owns_database:
                await migrate(connection)
            else:
                await check_schema(connection)
        pools = await stack.enter_async_context(Pools(backends.database_url))
        cache = await stack.enter_async_context(RedisCache(backends.redis_url))
        yield await _compose(stack, settings, backends, pools, cache)


async def _compose(
    stack: AsyncExitStack, settings: Settings, backends: _Backends, pools: Pools, cache: RedisCache
) -> App:
    changed = Signal()
    catalog = PostgresCatalog(pools)
    store = PostgresRefreshes(pools, encode_model)
    token_key = await catalog.get_token_key()
    new_upstream = OfflineUpstream if settings.offline else ModelsDevUpstream
    upstream = await stack.enter_async_context(new_upstream(settings.upstream_url))
    reader = CatalogReader(catalog, TokenSealer(token_key, "page"), changed)
    refreshes = await stack.enter_async_context(
        RefreshService(
            store,
            RefreshRunner(store, upstream, SpawnedComparison),
            new_id=uuid4,
            now=_now,
            max_age=settings.max_age,
        )
    )
    feed = await stack.enter_async_context(RefreshFeed(store, TokenSealer(token_key, "resume"), changed))
    await stack.enter_async_context(ChangeListener(backends.database_url, changed.notify))
    server = RpcServer(
        settings.listen,
        catalog=CatalogServicer(reader, refreshes),
        refresh=RefreshServicer(refreshes, feed, reader, TokenSealer(token_key, "refreshes"), _now),
        admin=AdminServicer(),
        with_reflection=settings.reflection,
    )
    await server.start()
    stack.push_async_callback(server.drain, 0)
    return App(settings, server, reader, refreshes, feed, cache, changed, backends.deaths)


async def _start_backends(stack: AsyncExitStack, settings: Settings, *, with_redis: bool) -> _Backends:
    """Start the PostgreSQL and the Redis that the settings do not name."""
    database_url = settings.database_url.get_secret_value() if settings.database_url else None
    redis_url = settings.redis_url.get_secret_value() if settings.redis_url else None
    own_database, own_redis = database_url is None, redis_url is None and with_redis
    deaths: list[Callable[[], Awaitable[str]]] = []
    if own_database or own_redis:
        directory = await stack.enter_async_context(DataDirectory(settings.data_dir or default_data_dir()))
        if own_redis:
            valkey = await stack.enter_async_context(EmbeddedValkey(directory))
            redis_url = valkey.url
        if own_database:
            postgres = await stack.enter_async_context(EmbeddedPostgres(directory))
            database_url = postgres.dsn
            deaths.append(postgres.wait_dead)
    return _Backends(database_url or "", redis_url or "", own_database, tuple(deaths))


async def _load_if_empty(app: App, stop: asyncio.Event) -> None:
    """Load a first catalog, or wait for the one that another process is loading."""
    if (await app.reader.get_state()).revision > 0:
        return
    refresh, _ = await app.refreshes.start(RefreshRequest(trigger=Trigger.STARTUP))
    _log.info("loading a first catalog", refresh_id=str(refresh.id))
    following = asyncio.create_task(_follow(app, refresh), name="first-load")
    stopping = asyncio.create_task(stop.wait(), name="first-load-stop")
    done, pending = await asyncio.wait({following, stopping}, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    if following not in done:
        return
    ended = await following
    if ended.state in {State.FAILED, State.CANCELLED} and (await app.reader.get_state()).revision == 0:
        reason = ended.failure.message if ended.failure else ended.state
        raise StartupError(f"cannot load a first catalog: {reason}")
    for warning in ended.warnings:
        _log.warning(warning)


async def _follow(app: App, refresh: Refresh) -> Refresh:
    """Watch a run to its end."""
    async with asyncio.timeout(_FIRST_LOAD_TIMEOUT_S), await app.feed.watch(refresh.id, "", 15) as watch:
        while (notice := await watch.next()) is not None:
            _log.debug("first load", phase=notice.phase, done=notice.done, total=notice.total)
            refresh = notice.refresh or refresh
    return refresh


async def _report_health(app: App) -> None:
    """Keep health true: serving while the database answers and a catalog is loaded."""
    was_serving = False
    while True:
        ticket = app.changed.ticket()
        try:
            serving = (await app.reader.get_state()).revision > 0
        except CatalogError as error:
            serving = False
            if was_serving:
                _log.error("not ready any more", reason=str(error))
        if serving != was_serving:
            await app.server.set_serving(serving)
            was_serving = serving
        try:
            async with asyncio.timeout(_HEALTH_INTERVAL_S):
                await ticket.wait()
        except TimeoutError:
            continue


async def _ready_line(app: App) -> str:
    read = await app.reader.get_info()
    state, counts = read.state, read.value.counts
    source = state.source_url or "nowhere"
    if state.checked_at is None:
        source += ", not checked against upstream"
    return (
        f"modelcatalog {version('modelcatalog')} ready on {app.server.address}: {counts.models} models of"
        f" {counts.providers} providers, revision {state.revision}, from {source}. Try: {_grpcurl()} -plaintext"
        f' -d \'{{"model_id":"openai/gpt-5"}}\' {app.server.address} modelcatalog.v1.ModelCatalog/GetModel'
    )


def _grpcurl() -> str:
    """Return how to call grpcurl here: as such when it is on the path, else the one beside this Python."""
    beside = Path(sys.executable).parent / "grpcurl"
    if shutil.which("grpcurl") or not beside.exists():
        return "grpcurl"
    return os.path.relpath(beside) if beside.is_relative_to(Path.cwd()) else str(beside)


def _stop_on_signals() -> asyncio.Event:
    """Return what SIGTERM and Ctrl-C set. A second signal ends the process at once; its children die with it."""
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            os._exit(1)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    return stop


async def _wait_for_end(app: App, stop: asyncio.Event) -> None:
    """Wait for a signal, or for an own server to die, without which nothing works."""
    tasks = [asyncio.ensure_future(death()) for death in app.deaths]
    stopping = asyncio.create_task(stop.wait(), name="stop")
    everything: list[asyncio.Future[Any]] = [stopping, *tasks]
    try:
        await asyncio.wait(everything, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                raise StartupError(task.result())
    finally:
        for waiting in everything:
            waiting.cancel()
        await asyncio.gather(*everything, return_exceptions=True)


def _now() -> datetime:
    return datetime.now(UTC)
