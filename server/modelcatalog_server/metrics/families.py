"""The metrics: their names, their labels and where each comes from. docs/metrics.md lists them; a test compares."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import accumulate

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)

from modelcatalog_server.domain.measures import Histogram, MethodCalls
from modelcatalog_server.metrics.facts import Facts
from modelcatalog_server.metrics.sources import Sources

Labels = Sequence[str]

_METHOD = ("grpc_type", "grpc_service", "grpc_method")
# As go-grpc-middleware writes codes, which dashboards and alerts of others expect: NotFound, and Canceled with one l.
_GO_CODES = {"OK": "OK", "CANCELLED": "Canceled"}


class ServiceCollector:
    """A collector of prometheus_client: makes the families anew for each scrape."""

    def __init__(self, sources: Sources, facts: Facts) -> None:
        self._sources = sources
        self._facts = facts

    def collect(self) -> Iterator[Metric]:
        """Yield every family."""
        sources = self._sources
        yield from _process(sources)
        yield from _calls(list(sources.calls.methods))
        yield from _errors(sources)
        yield from _cache(sources)
        yield from _database(sources)
        yield from _refreshes(sources)
        yield from _catalog(sources, self._facts)
        yield from _watches(sources)
        yield from _upstream(sources)


def _process(sources: Sources) -> Iterator[Metric]:
    build = InfoMetricFamily("modelcatalog_build", "What runs here.")
    build.add_metric([], dict(sources.build))
    yield build
    yield _gauge("modelcatalog_ready", "Whether calls are answered: 1 or 0.", float(sources.is_ready()))
    yield _histogram(
        "modelcatalog_event_loop_lag_seconds", "How much later than asked the event loop woke.", sources.loop_lag
    )


def _calls(methods: Sequence[MethodCalls]) -> Iterator[Metric]:
    started = _counter("grpc_server_started", "Calls that have begun.", _METHOD)
    handled = _counter("grpc_server_handled", "Calls that have ended.", (*_METHOD, "grpc_code"))
    seconds = HistogramMetricFamily("grpc_server_handling_seconds", "How long calls took.", labels=_METHOD)
    for calls in methods:
        labels = [calls.kind, calls.service, calls.method]
        started.add_metric(labels, calls.started)
        for code, count in calls.handled.items():
            handled.add_metric([*labels, go_code(code)], count)
        _add(seconds, labels, calls.seconds)
    yield from (started, handled, seconds)


def go_code(code: str) -> str:
    """Return a status code as Go writes it."""
    return _GO_CODES.get(code) or code.title().replace("_", "")


def _errors(sources: Sources) -> Iterator[Metric]:
    errors = sources.calls.errors
    yield _counted("modelcatalog_errors", "Calls that ended with an error.", "reason", errors)
    rejected = {reason: errors[reason] for reason in sources.calls.rejections}
    yield _counted("modelcatalog_rejected", "Those that were refused before they were handled.", "reason", rejected)


def _cache(sources: Sources) -> Iterator[Metric]:
    layers, redis = sources.get_cache_stats(), sources.redis
    for kind, figure, text in (
        (_counter, "hits", "Reads that the layer answered."),
        (_counter, "misses", "Reads that it could not answer."),
        (_counter, "evictions", "Entries that it let go of for want of room."),
        (_gauges, "entries", "Responses that it holds."),
        (_gauges, "bytes", "Their size."),
    ):
        family = kind(f"modelcatalog_cache_{figure}", text, ["layer"])
        for layer in layers:
            family.add_metric([layer.name], getattr(layer, figure))
        yield family
    yield _gauge("modelcatalog_redis_up", "Whether Redis is asked: 0 while it is left alone.", float(redis.available))
    failures = "Questions that Redis failed or was too slow for, not outages: each probe that finds it down is one."
    yield _count("modelcatalog_redis_failures", failures, redis.failures)
    yield _count("modelcatalog_redis_late", "Answers that came after their reader had gone on.", redis.late)
    yield _count("modelcatalog_redis_refused", "Writes that Redis answered with an error.", redis.refused)
    yield _count("modelcatalog_redis_dropped", "Responses that were not written there.", sources.get_dropped())


def _database(sources: Sources) -> Iterator[Metric]:
    pools = sources.get_pools()
    for kind, name, figure, text in (
        (_gauges, "connections", "size", "Connections that there are."),
        (_gauges, "connections_max", "max_size", "Connections that there may be."),
        (_gauges, "connections_in_use", "in_use", "Connections that somebody has."),
        (_gauges, "waiting", "waiting", "Who waits for a connection."),
        (_counter, "waits", "waits", "Times that a connection was waited for."),
        (_counter, "wait_seconds", "wait_s", "How long, all together."),
        (_counter, "timeouts", "timeouts", "Times that none came in time."),
    ):
        family = kind(f"modelcatalog_db_pool_{name}", text, ["pool"])
        for pool in pools:
            family.add_metric([pool.name], getattr(pool, figure))
        yield family
    yield _histograms("modelcatalog_db_query_seconds", "How long queries took.", "query", dict(sources.queries.seconds))
    replica = sources.get_replica()
    if replica is not None:
        yield _gauge("modelcatalog_replica_up", "Whether reads go to the replica.", float(replica.available))
        yield _count("modelcatalog_replica_reads", "Reads that it answered.", replica.reads)
        yield _count("modelcatalog_replica_fallbacks", "Reads that the primary answered instead.", replica.fallbacks)


def _refreshes(sources: Sources) -> Iterator[Metric]:
    measures = sources.refreshes
    runs = _counter("modelcatalog_refresh_runs", "Runs that ended.", ("type", "trigger", "result"))
    for labels, count in measures.runs.items():
        runs.add_metric(labels, count)
    yield runs
    yield _histograms("modelcatalog_refresh_seconds", "How long runs took.", "type", measures.seconds)
    yield _counted("modelcatalog_refresh_attempts", "Attempts at fetching.", "result", measures.attempts)
    yield _count("modelcatalog_refresh_quarantined", "Records that runs set aside.", measures.quarantined)
    yield _counted("modelcatalog_refresh_gate_refusals", "Runs that a gate refused.", "gate", measures.refusals)
    yield _time("modelcatalog_refresh_next", "When the schedule is due next.", sources.get_next_refresh())


def _catalog(sources: Sources, facts: Facts) -> Iterator[Metric]:
    state = sources.get_state()
    if state is not None:
        yield _gauge("modelcatalog_revision", "Revision of the catalog.", state.revision)
        yield _time("modelcatalog_last_check", "When the catalog last equalled upstream.", state.checked_at)
        yield _time("modelcatalog_last_change", "When its newest revision was made.", state.changed_at)
        yield _gauge("modelcatalog_stale", "Whether that check was too long ago.", float(sources.get_age(state)[1]))
    yield _gauge("modelcatalog_max_age_seconds", "How long is not too long.", sources.max_age.total_seconds())
    if facts.quarantined is not None:
        yield _gauge("modelcatalog_quarantined_records", "Records that are set aside now.", facts.quarantined)
    synced = _gauges(
        "modelcatalog_provider_last_sync_timestamp_seconds", "When a refresh last wrote the provider.", ["provider"]
    )
    for provider_id, synced_at in facts.sync_times.items():
        if synced_at is not None:
            synced.add_metric([provider_id], synced_at.timestamp())
    yield synced


def _watches(sources: Sources) -> Iterator[Metric]:
    feed = sources.feed
    yield _gauge("modelcatalog_watches", "Watches that are open.", feed.watches)
    yield _gauge("modelcatalog_watch_backlog_events", "Events that wait for the slowest reader.", feed.backlog)
    yield _count("modelcatalog_watch_messages", "Messages of watches, heartbeats too.", feed.told)
    yield _count("modelcatalog_watch_slow_consumers", "Watches ended for slow readers.", feed.slow_consumers)


def _upstream(sources: Sources) -> Iterator[Metric]:
    upstream = sources.upstream
    yield _counted("modelcatalog_upstream_requests", "Requests to upstream.", "status", upstream.requests)
    yield _histogram("modelcatalog_upstream_request_seconds", "How long they took, with the body.", upstream.seconds)


def _counter(name: str, text: str, labels: Labels) -> CounterMetricFamily:
    return CounterMetricFamily(name, text, labels=labels)


def _gauges(name: str, text: str, labels: Labels) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=labels)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value)


def _count(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value)


def _time(name: str, text: str, at: datetime | None) -> Metric:
    """Return a gauge of seconds since 1970; without a sample where there is no such time."""
    family = _gauges(f"{name}_timestamp_seconds", text, [])
    if at is not None:
        family.add_metric([], at.timestamp())
    return family


def _counted(name: str, text: str, label: str, counts: Mapping[str, int]) -> Metric:
    family = _counter(name, text, [label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family


def _histogram(name: str, text: str, histogram: Histogram) -> Metric:
    family = HistogramMetricFamily(name, text, labels=[])
    _add(family, [], histogram)
    return family


def _histograms(name: str, text: str, label: str, histograms: Mapping[str, Histogram]) -> Metric:
    family = HistogramMetricFamily(name, text, labels=[label])
    for value, histogram in histograms.items():
        _add(family, [value], histogram)
    return family


def _add(family: HistogramMetricFamily, labels: Labels, histogram: Histogram) -> None:
    bounds: Iterable[str] = (*(f"{bound:g}" for bound in histogram.bounds), "+Inf")
    cumulated = accumulate(histogram.counts)
    family.add_metric(labels, list(zip(bounds, cumulated, strict=True)), histogram.sum)
