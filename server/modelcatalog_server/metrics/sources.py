"""Where the figures are read from."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from modelcatalog_server.domain.measures import CallMeasures, Histogram, PoolStats, QueryMeasures, UpstreamMeasures
from modelcatalog_server.domain.ports.caching import CacheLayerStats
from modelcatalog_server.domain.ports.catalog import CatalogState, ReplicaStats
from modelcatalog_server.domain.refresh import Refresh
from modelcatalog_server.refresh.feed import RefreshFeed
from modelcatalog_server.refresh.measures import RefreshMeasures

#: Bounds in seconds of how late the event loop may be.
LAG_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)


class RedisFigures(Protocol):
    """How the shared cache does, since the start of the process."""

    available: bool
    failures: int
    late: int
    refused: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What is looked at for one answer. None of it waits, but for the three that ask.

    Attributes:
        build: Labels of ``modelcatalog_build_info``.
        is_ready: Whether calls are answered.
        calls: By RPC.
        get_cache_stats: Of each layer, with what Redis said last.
        redis: The connection to it.
        get_dropped: Responses that were not written to Redis.
        get_pools: Of each pool.
        queries: By name.
        get_replica: Of the read replica; ``None``: there is none.
        upstream: Requests to it.
        refreshes: Runs.
        feed: Watches.
        get_state: Of the catalog as it is known here; ``None`` before it was read.
        get_next_refresh: When the schedule is due.
        get_age: Time since the last check, and whether that is too long.
        max_age: How long is not too long.
        measure_cache: Ask Redis what it holds.
        list_sync_times: Ask when each provider was last written.
        get_last_applied: Ask for the run that the catalog is from.
        loop_lag: How late the event loop was, in seconds.
    """

    build: Mapping[str, str]
    is_ready: Callable[[], bool]
    calls: CallMeasures
    get_cache_stats: Callable[[], Sequence[CacheLayerStats]]
    redis: RedisFigures
    get_dropped: Callable[[], int]
    get_pools: Callable[[], Sequence[PoolStats]]
    queries: QueryMeasures
    get_replica: Callable[[], ReplicaStats | None]
    upstream: UpstreamMeasures
    refreshes: RefreshMeasures
    feed: RefreshFeed
    get_state: Callable[[], CatalogState | None]
    get_next_refresh: Callable[[], datetime | None]
    get_age: Callable[[CatalogState], tuple[timedelta | None, bool]]
    max_age: timedelta
    measure_cache: Callable[[], Awaitable[object]]
    list_sync_times: Callable[[], Awaitable[Mapping[str, datetime | None]]]
    get_last_applied: Callable[[], Awaitable[Refresh | None]]
    loop_lag: Histogram = field(default_factory=lambda: Histogram(LAG_SECONDS))
