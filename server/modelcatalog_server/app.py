"""The composition root: the only place that names concrete adapters. Starts them in order, ends them in reverse."""

from __future__ import annotations

import asyncio
import gc
import os
import platform
import shlex
import shutil
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Self
from uuid import uuid4

import structlog

from modelcatalog_server.backends import Backends, start_backends
from modelcatalog_server.cache.control import ResponseCacheControl
from modelcatalog_server.cache.near import NearCache
from modelcatalog_server.cache.quotas import SharedQuotas
from modelcatalog_server.cache.redis_cache import RedisCache
from modelcatalog_server.cache.responses import CachedResponses
from modelcatalog_server.cache.shared import SharedResponses
from modelcatalog_server.cache.warmer import CacheWarmer
from modelcatalog_server.catalog.comparison import ComparisonReader
from modelcatalog_server.catalog.current import CurrentRevision, RevisionFollower
from modelcatalog_server.catalog.facets import FacetReader
from modelcatalog_server.catalog.indexing import ReferenceIndexes
from modelcatalog_server.catalog.offers import OfferReader
from modelcatalog_server.catalog.paging import PageTokens
from modelcatalog_server.catalog.policy import PolicyService
from modelcatalog_server.catalog.reader import CatalogReader
from modelcatalog_server.catalog.references import References
from modelcatalog_server.catalog.search import ModelSearch
from modelcatalog_server.catalog.snapshots import Snapshots
from modelcatalog_server.domain.errors import StartupError
from modelcatalog_server.domain.features import SWITCHABLE, Feature
from modelcatalog_server.domain.measures import UpstreamMeasures
from modelcatalog_server.domain.ports.caching import RequestKey
from modelcatalog_server.domain.ports.quotas import Quotas
from modelcatalog_server.domain.ports.upstream import Progress, Upstream
from modelcatalog_server.domain.refresh import Payload, Refresh, RefreshRequest, State, Trigger
from modelcatalog_server.domain.signal import Signal
from modelcatalog_server.domain.tasks import callers, fail_after, rest, run_all
from modelcatalog_server.identity.certificates import TlsFiles
from modelcatalog_server.identity.following import FollowedFiles
from modelcatalog_server.logs import LEVEL
from modelcatalog_server.metrics.listening import listening
from modelcatalog_server.metrics.serving import showing_metrics
from modelcatalog_server.metrics.sources import Sources
from modelcatalog_server.modelsdev.comparison import SpawnedComparison
from modelcatalog_server.modelsdev.links import LinkTables
from modelcatalog_server.refresh.feed import RefreshFeed
from modelcatalog_server.refresh.retention import Retention
from modelcatalog_server.refresh.runner import RefreshRunner
from modelcatalog_server.refresh.scheduler import RefreshScheduler
from modelcatalog_server.refresh.service import RefreshService
from modelcatalog_server.rpc.admin_servicer import AdminServicer
from modelcatalog_server.rpc.admission import Admission
from modelcatalog_server.rpc.audit import AuditTrail
from modelcatalog_server.rpc.cached_reads import CachedReads, contract_digest
from modelcatalog_server.rpc.call_log import CallLog
from modelcatalog_server.rpc.call_measures import CallMeasures
from modelcatalog_server.rpc.catalog_servicer import CatalogServicer
from modelcatalog_server.rpc.model_messages import encode_model
from modelcatalog_server.rpc.overload import Places
from modelcatalog_server.rpc.preparing import prepare_ahead, prepare_models
from modelcatalog_server.rpc.rates import CallRates
from modelcatalog_server.rpc.refresh_servicer import RefreshServicer
from modelcatalog_server.rpc.server import RpcServer
from modelcatalog_server.rpc.tls import ServerTls
from modelcatalog_server.settings import Settings
from modelcatalog_server.storage.audit_store import PostgresAuditLog
from modelcatalog_server.storage.catalog_store import PostgresCatalog
from modelcatalog_server.storage.changes import ChangeListener
from modelcatalog_server.storage.migrations import Migration, migrate, prepare_schema
from modelcatalog_server.storage.policy_store import PostgresPolicy
from modelcatalog_server.storage.pools import Pools, PoolSettings, connect
from modelcatalog_server.storage.refresh_store import PostgresRefreshes
from modelcatalog_server.storage.replica import ReadReplica
from modelcatalog_server.storage.search_store import PostgresSearchDocuments
from modelcatalog_server.storage.state_rows import CatalogIdentity
from modelcatalog_server.tokens import TokenSealer
from modelcatalog_server.tracing.exporting import tracing_to

if TYPE_CHECKING:
    from modelcatalog_server.modelsdev.client import ModelsDevUpstream

_log = structlog.get_logger(__name__)

# A first load over a slow line, and then some; after it the process gives up.
_FIRST_LOAD_TIMEOUT_S = 180.0
_HEALTH_INTERVAL_S = 1.0
# What is told of a run to those who follow it comes first.
_HEALTH_REST_S = 0.004


@dataclass(frozen=True, slots=True)
class App:
    """A started service."""

    settings: Settings
    server: RpcServer
    reader: CatalogReader
    refreshes: RefreshService
    scheduler: RefreshScheduler
    feed: RefreshFeed
    cache: RedisCache
    responses: CachedResponses
    warmer: CacheWarmer
    changed: Signal
    sources: Sources
    ready: asyncio.Event = field(default_factory=asyncio.Event)


async def migrate_database(settings: Settings) -> list[Migration]:
    """Bring the database, the own one if none is set, to the schema of this version; return what was applied."""
    async with (
        start_backends(settings, with_redis=False) as backends,
        await connect(backends.database_url) as connection,
    ):
        return await migrate(connection)


async def serve(settings: Settings, backends: Backends, announce: Callable[[str], None]) -> None:
    """Serve until cancelled. ``announce`` gets the ready line.

    Raises:
        StartupError: it cannot start, or cannot go on because an own database died.
    """
    with listening(settings.metrics_listen) as metrics_socket:
        async with (
            start_on(backends, settings) as app,
            showing_metrics(metrics_socket, app.sources, app.ready),
        ):
            await _serve_until_cancelled(app, backends, announce)


async def _serve_until_cancelled(app: App, backends: Backends, announce: Callable[[str], None]) -> None:
    settings = app.settings
    try:
        await run_all(_serve_catalog(app, announce), *map(fail_after, (*backends.deaths, app.server.end)))
    finally:
        _log.info("stopping; a second signal ends it at once")
        async with asyncio.TaskGroup() as ends:
            ends.create_task(app.server.drain(settings.drain_seconds, delay_s=settings.drain_delay_seconds))
            ends.create_task(app.refreshes.close())  # so that another process can go on with it


@asynccontextmanager
async def start(settings: Settings) -> AsyncIterator[App]:
    """Start everything in order and yield it, listening but not yet with a catalog. Leaving it stops everything."""
    async with start_backends(settings) as backends, start_on(backends, settings) as app:
        yield app


@asynccontextmanager
async def start_on(backends: Backends, settings: Settings) -> AsyncIterator[App]:
    """Start the service on running backends."""
    await prepare_schema(backends.database_url, is_ours=backends.owns_database)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(tracing_to(settings.traces_endpoint, version("modelcatalog")))
        sizes = PoolSettings.shared_by(settings.workers)
        pools = await stack.enter_async_context(Pools(backends.database_url, sizes))
        cache = await stack.enter_async_context(
            RedisCache(backends.redis_url, read_budget_s=settings.cache_redis_budget_ms / 1000)
        )
        yield await _compose(stack, settings, backends, pools, cache)


async def _compose(
    stack: AsyncExitStack, settings: Settings, backends: Backends, pools: Pools, cache: RedisCache
) -> App:
    changed = Signal()
    store = PostgresRefreshes(pools, owner=f"{socket.gethostname()}:{os.getpid()}")
    audit_log = PostgresAuditLog(pools)
    current = CurrentRevision()
    identity = await PostgresCatalog(pools).get_identity()
    replica = await _open_replica(stack, settings, pools, identity, current)
    catalog = PostgresCatalog(pools, replica)
    token_key = identity.token_key
    upstream = await stack.enter_async_context(_UpstreamOnDemand(settings, upstream_measures := UpstreamMeasures()))
    snapshots = Snapshots(catalog, changed, current)
    responses = await _open_responses(stack, settings, cache, identity, current, snapshots)
    references = References(
        await stack.enter_async_context(ReferenceIndexes(snapshots, changed)),
        exact_only=Feature.RESOLVE not in settings.features,
    )
    page_tokens = PageTokens(TokenSealer(token_key, "page"))
    reader = CatalogReader(snapshots, references, page_tokens)
    schedule = settings.make_schedule(token_key)
    refreshes = await stack.enter_async_context(
        RefreshService(
            store,
            RefreshRunner(
                store,
                upstream,
                partial(SpawnedComparison, encode_model, LinkTables()),
                _now,
                settings.retry_policy,
                settings.gate_limits,
            ),
            changed,
            schedule,
            new_id=uuid4,
            now=_now,
            policy=settings.refresh_policy,
        )
    )
    documents = PostgresSearchDocuments(pools)
    await stack.enter_async_context(Retention(store, audit_log, documents, settings.retention_policy, _now))
    scheduler = RefreshScheduler(
        refreshes, store, schedule, now=_now, pause_after_run=timedelta(seconds=settings.refresh_fallback_seconds)
    )
    feed = await stack.enter_async_context(RefreshFeed(store, TokenSealer(token_key, "resume"), changed, current.reach))

    async def prepare() -> None:
        responses.take_ahead(await prepare_ahead(reader, await responses.hottest_here()))

    await stack.enter_async_context(RevisionFollower(current, snapshots.look, changed, prepare))
    control = ResponseCacheControl(responses, cache, catalog.tell_processes, current.moved)
    await stack.enter_async_context(ChangeListener(backends.database_url, changed.notify, control.hear))
    policy = PolicyService(PostgresPolicy(pools), reader)
    cached_reads = CachedReads(responses, snapshots.catch_up)
    calls, call_log = CallMeasures(), CallLog(settings.access_log_percent)
    stack.enter_context(callers.counted_by(calls.count_reads))
    stack.enter_context(LEVEL.followed_by(call_log.set_debug))
    server = RpcServer(
        settings.listen,
        catalog=CatalogServicer(
            reader,
            ModelSearch(snapshots, page_tokens),
            OfferReader(snapshots, references, page_tokens),
            ComparisonReader(snapshots, references),
            FacetReader(snapshots),
            refreshes,
            settings.features,
        ),
        refresh=RefreshServicer(refreshes, feed, reader, TokenSealer(token_key, "refreshes"), _now, store.get_report),
        admin=AdminServicer(
            policy,
            audit_log,
            reader,
            TokenSealer(token_key, "audit"),
            control,
            get_replica_stats=lambda: None if replica is None else replica.stats,
        ),
        with_reflection=settings.reflection,
        shares_port=settings.workers > 1,
        audit=await stack.enter_async_context(AuditTrail(audit_log)),
        cached_reads=cached_reads if settings.cache_entries else None,
        call_log=call_log,
        admission=await _open_admission(stack, settings, SharedQuotas(cache, secret=token_key)),
        places=Places(settings.max_concurrent_calls, settings.max_queued_calls),
        streams_per_caller=settings.max_streams_per_caller,
        tls=await _open_tls(stack, settings),
        measures=calls,
        features=settings.features,
    )
    await server.start()
    stack.push_async_callback(server.drain, 0)
    warmer = CacheWarmer(responses, current.moved, partial(prepare_models, reader), cached_reads.rebuild)
    sources = Sources(
        build={
            "version": version("modelcatalog"),
            "python": platform.python_version(),
            "schema": str(identity.schema_version),
        },
        is_ready=lambda: server.is_serving,
        calls=calls,
        get_cache_stats=lambda: control.known_stats,
        redis=cache,
        get_dropped=lambda: responses.shared.dropped,
        get_pools=lambda: pools.stats,
        queries=pools.queries,
        get_replica=lambda: None if replica is None else replica.stats,
        upstream=upstream_measures,
        refreshes=refreshes.measures,
        feed=feed,
        get_state=lambda: current.seen,
        get_next_refresh=refreshes.get_next_time,
        get_age=refreshes.get_age,
        max_age=settings.refresh_policy.max_age,
        measure_cache=control.get_stats,
        list_sync_times=catalog.list_sync_times,
        get_last_applied=store.get_last_applied,
    )
    return App(settings, server, reader, refreshes, scheduler, feed, cache, responses, warmer, changed, sources)


async def _open_tls(stack: AsyncExitStack, settings: Settings) -> ServerTls | None:
    """Return what connections are encrypted with.

    Raises:
        StartupError: the files are bad.
    """
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    files = TlsFiles(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
    return ServerTls(await stack.enter_async_context(FollowedFiles(files.paths, files.read)))


async def _open_admission(stack: AsyncExitStack, settings: Settings, quotas: Quotas) -> Admission:
    """Return who decides which call gets in.

    Raises:
        StartupError: the file that says who may is bad.
    """
    rates = await stack.enter_async_context(
        CallRates(
            quotas,
            per_principal=settings.rate_limits.per_principal,
            per_address=settings.rate_limits.per_address,
            failures=settings.rate_limits.failures,
            spares_local=settings.tokens_file is None,
        )
    )
    if settings.tokens_file is None:
        return Admission(rates=rates)
    from modelcatalog_server.identity.identities_file import read_identities

    identities = FollowedFiles([settings.tokens_file], partial(read_identities, settings.tokens_file))
    return Admission(
        await stack.enter_async_context(identities),
        with_certificates=settings.tls_client_ca is not None,
        reflection_is_open=settings.reflection_open,
        rates=rates,
    )


async def _open_replica(
    stack: AsyncExitStack, settings: Settings, pools: Pools, identity: CatalogIdentity, current: CurrentRevision
) -> ReadReplica | None:
    if settings.database_replica_url is None:
        return None
    url, sizes = settings.database_replica_url.get_secret_value(), PoolSettings.shared_by(settings.workers)
    return await stack.enter_async_context(ReadReplica(url, pools, identity, lambda: current.state, sizes))


async def _open_responses(
    stack: AsyncExitStack,
    settings: Settings,
    cache: RedisCache,
    identity: CatalogIdentity,
    current: CurrentRevision,
    snapshots: Snapshots,
) -> CachedResponses:
    near: NearCache[RequestKey] = NearCache(
        max_entries=settings.cache_entries,
        max_bytes=settings.cache_bytes,
        max_hot=settings.cache_hot_requests,
        clock=time.monotonic,
    )
    # Features: a reply to what people write for a model is none where only ids are taken. Those with settings of their
    # own change no answer that is cached, and replicas may differ in them.
    features = " ".join(sorted(settings.features & set(SWITCHABLE)))
    release = f"{version('modelcatalog')} {contract_digest()} {identity.schema_version} {identity.database} {features}"
    shared = await stack.enter_async_context(SharedResponses(cache, secret=identity.token_key, release=release))
    return await stack.enter_async_context(CachedResponses(near, shared, current, snapshots.get_state))


class _UpstreamOnDemand:
    """Fills the port ``Upstream`` with a client that is imported when it is first asked.

    Its HTTP library would take a third of a warm start, which has no need of it. An async context manager.
    """

    def __init__(self, settings: Settings, measures: UpstreamMeasures) -> None:
        self._settings = settings
        self._measures = measures
        self._stack = AsyncExitStack()
        self._upstream: Upstream | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    async def fetch(self, *, etag: str | None, progress: Progress) -> Payload | None:
        """Return the document, or ``None`` when it still has this ETag."""
        return await (await self._open()).fetch(etag=etag, progress=progress)

    async def get_source_url(self) -> str:
        """Return the address that its payloads have as their source."""
        return await (await self._open()).get_source_url()

    async def is_source(self, url: str) -> bool:
        """Whether a payload with this source address came from here."""
        return await (await self._open()).is_source(url)

    async def load_bundled(self) -> Payload:
        """Return the snapshot that ships with the package."""
        return await (await self._open()).load_bundled()

    async def _open(self) -> Upstream:
        if self._upstream is None:
            new_upstream = await asyncio.to_thread(_import_upstream, offline=self._settings.offline)
            _spare_what_stays()
            upstream = new_upstream(
                self._settings.upstream_url,
                total_timeout_s=self._settings.upstream_timeout_seconds,
                requests_per_minute=self._settings.upstream_requests_per_minute,
                measures=self._measures,
            )
            self._upstream = await self._stack.enter_async_context(upstream)
        return self._upstream


def _import_upstream(*, offline: bool) -> type[ModelsDevUpstream]:
    from modelcatalog_server.modelsdev.client import ModelsDevUpstream
    from modelcatalog_server.modelsdev.offline import OfflineUpstream

    return OfflineUpstream if offline else ModelsDevUpstream


async def _serve_catalog(app: App, announce: Callable[[str], None]) -> None:
    await _load_if_empty(app)
    _spare_what_stays()
    app.server.set_serving(True)  # before the line: who has read it may rely on it
    announce(await _ready_line(app))
    app.ready.set()
    async with AsyncExitStack() as stack:
        if app.settings.cache_entries:
            await stack.enter_async_context(app.warmer)
        if not app.settings.offline:
            await stack.enter_async_context(app.scheduler)
        await _report_health(app)


def _spare_what_stays() -> None:
    """Have the garbage collector leave alone what there is now: modules, and what was made to last.

    A full collection walks through all of it, which was seen to stop the event loop for 0.2 s, to find nothing.
    """
    gc.freeze()


async def _load_if_empty(app: App) -> None:
    """Load a first catalog, or wait for the one that another process is loading."""
    while (await app.reader.get_state()).revision == 0:
        refresh, already_running = await app.refreshes.start(RefreshRequest(trigger=Trigger.STARTUP))
        _log.info("loading a first catalog", refresh_id=str(refresh.id), already_running=already_running)
        ended = await _follow(app, refresh)
        if already_running:
            continue  # whatever became of it, there is a catalog now or it is our turn
        if ended.state in {State.FAILED, State.CANCELLED}:
            reason = ended.failure.message if ended.failure else ended.state
            raise StartupError(f"cannot load a first catalog: {reason}")
        for warning in ended.warnings:
            _log.warning(warning)


async def _follow(app: App, refresh: Refresh) -> Refresh:
    """Watch a run to its end."""
    try:
        async with asyncio.timeout(_FIRST_LOAD_TIMEOUT_S), await app.feed.watch(refresh.id, "", 15) as watch:
            while (notice := await watch.next()) is not None:
                _log.debug("first load", phase=notice.phase, done=notice.done, total=notice.total)
                refresh = notice.refresh or refresh
    except TimeoutError as error:
        raise StartupError(f"there is no first catalog after {_FIRST_LOAD_TIMEOUT_S:.0f} s") from error
    return refresh


async def _report_health(app: App) -> None:
    """Keep health true from ready on: serving while the database answers and a catalog is loaded."""
    was_serving = True
    while True:
        ticket = app.changed.ticket()
        serving, reason = await _look_whether_ready(app)
        if was_serving and not serving:
            _log.error("not ready any more", reason=reason)
        if serving != was_serving:
            app.server.set_serving(serving)
            was_serving = serving
            if serving:
                _log.warning("ready again")
        with suppress(TimeoutError):
            async with asyncio.timeout(_HEALTH_INTERVAL_S):
                await ticket.wait()
                await rest(_HEALTH_REST_S)


async def _look_whether_ready(app: App) -> tuple[bool, str]:
    """Return whether the database answers and has a catalog, and if not, why. One session that ended is no reason."""
    reason = ""
    for _ in range(2):
        try:
            return (await app.reader.look()).revision > 0, "there is no catalog"
        except Exception as error:
            reason = str(error)
    return False, reason


async def _ready_line(app: App) -> str:
    read = await app.reader.get_info()
    state, counts = read.state, read.value.counts
    source = state.source_url or "nowhere"
    if state.checked_at is None:
        source += ", not checked against upstream"
    line = (
        f"modelcatalog {version('modelcatalog')} ready on {app.server.address}: {counts.models} models of"
        f" {counts.providers} providers, revision {state.revision}, from {source}."
    )
    if not app.settings.reflection or app.settings.tls_cert:  # grpcurl needs the one; its flags for the other differ
        return line
    token = ' -H "authorization: Bearer $MODELCATALOG_TOKEN"' if app.settings.tokens_file else ""
    return (
        f'{line} Try: {_grpcurl()} -plaintext{token} -d \'{{"model_id":"openai/gpt-5"}}\' {app.server.address}'
        " modelcatalog.v1.ModelCatalog/GetModel"
    )


def _grpcurl() -> str:
    """Return how to call grpcurl here: as such when it is on the path, else the one beside this Python."""
    beside = Path(sys.executable).parent / "grpcurl"
    if shutil.which("grpcurl") or not beside.exists():
        return "grpcurl"
    return shlex.quote(os.path.relpath(beside) if beside.is_relative_to(Path.cwd()) else str(beside))


def _now() -> datetime:
    return datetime.now(UTC)
