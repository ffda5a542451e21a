"""The seams: what the use cases ask of the world. Adapters in storage, modelsdev and cache fill them.

Every method may raise :class:`~modelcatalog_server.domain.errors.DatabaseUnavailableError` where it talks to the
database. No method waits longer than the bound its adapter was made with.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Protocol
from uuid import UUID

from modelcatalog_server.domain.audit import AuditEntry, AuditEvent
from modelcatalog_server.domain.facets import FacetRequest, Tallies
from modelcatalog_server.domain.models import Benchmark, Model, ModelRecord, Prices, Provider
from modelcatalog_server.domain.offers import Offer, OfferSummary
from modelcatalog_server.domain.query import Boundary, Expression, Listed, Selection
from modelcatalog_server.domain.refresh import (
    Difference,
    EventKind,
    KnownState,
    Payload,
    Refresh,
    RefreshEvent,
    RefreshReport,
    RefreshRequest,
)
from modelcatalog_server.domain.search import Findings, SearchText

#: Called with units done and, where known, units in all.
Progress = Callable[[int, int | None], None]


class Upstream(Protocol):
    """Where the catalog comes from."""

    async def fetch(self, *, etag: str | None, progress: Progress) -> Payload | None:
        """Return the document, or ``None`` when it still has this ETag. Progress is in bytes as received.

        Raises:
            UpstreamUnavailableError: no answer, or an answer that another attempt may better.
            UpstreamInvalidError: an answer that is no catalog: a redirect, HTML, too large, broken compression.
        """
        ...

    async def get_source_url(self) -> str:
        """Return the address that its payloads have as their source, if it has the document that is asked for first."""
        ...

    async def is_source(self, url: str) -> bool:
        """Whether a payload with this source address came from here: its ETag means nothing to another upstream."""
        ...

    async def load_bundled(self) -> Payload:
        """Return the snapshot that ships with the package."""
        ...


class PayloadComparison(Protocol):
    """Decodes what is new in a payload, record by record, and finds what differs. An async context manager.

    Reads do not feel it. Whatever does the work is started when it is needed, and ends with the context.
    """

    async def __aenter__(self) -> PayloadComparison: ...

    async def __aexit__(self, *exc_info: object) -> None: ...

    async def compare(self, payload: Payload, known: KnownState, *, provider_id: str | None, full: bool) -> Difference:
        """Return what has to be written. With ``provider_id`` only that provider and its models are looked at.

        Raises:
            UpstreamInvalidError: the payload as a whole is no catalog.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogState:
    """The revision that was read and how fresh it is. ``checked_at`` is ``None`` for a bundled snapshot.

    ``upstream_not_before``: the upstream at ``upstream_not_before_url`` asked to be left alone until then.
    """

    revision: int
    changed_at: datetime | None
    checked_at: datetime | None
    source_url: str | None
    source_etag: str | None
    source_snapshot: str | None
    upstream_not_before: datetime | None
    upstream_not_before_url: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogCounts:
    """What the catalog holds; removed ones count only in ``removed_models``."""

    providers: int
    models: int
    enabled_models: int
    removed_models: int
    canonical_models: int
    benchmarks: int


class CatalogSnapshot(Protocol):
    """The catalog at one instant: everything read through one snapshot belongs to ``state.revision``."""

    @property
    def state(self) -> CatalogState:
        """Revision and freshness of the snapshot."""
        ...

    async def get_models(self, model_ids: Sequence[str], *, with_raw: bool) -> dict[str, Model]:
        """Return the models that exist among the exact ids, removed ones too, disabled providers' not."""
        ...

    async def list_models(
        self,
        selection: Selection,
        *,
        revision: int,
        provider_id: str | None,
        after: Boundary,
        offset: int,
        limit: int,
        show_removed: bool,
        with_raw: bool,
    ) -> list[Listed[Model]]:
        """Return selected models behind ``after``, as they were at ``revision`` (at most the snapshot's)."""
        ...

    async def count_models(self, selection: Selection, *, provider_id: str | None, show_removed: bool) -> int:
        """Return how many models a listing has in all, now."""
        ...

    async def search_models(
        self,
        text: SearchText,
        matching: Expression | None,
        *,
        revision: int,
        after: Boundary,
        offset: int,
        limit: int,
        with_raw: bool,
    ) -> Findings:
        """Return models whose words fit and that match, best first, behind ``after``, as they were at ``revision``."""
        ...

    async def get_superseded_for(self, revision: int) -> timedelta | None:
        """Return how long ago another revision took the place of this one, ``None`` for the newest."""
        ...

    async def find_near_words(self, words: Sequence[str], *, anyway: bool) -> Mapping[str, Sequence[str]]:
        """Return for words that begin no word of the catalog those that are spelt most nearly so.

        ``anyway``: for all of them, those that do begin one too.
        """
        ...

    async def list_offers(
        self, of: Expression, *, ratio: Decimal, revision: int, after: Boundary, limit: int, with_raw: bool
    ) -> list[Listed[Offer]]:
        """Return offers of a model behind ``after``, as they were at ``revision`` (at most the snapshot's).

        Cheapest first by the price of ``ratio`` input tokens to one output token, unknown prices last, then by id.
        ``of`` says which model. What is removed or of a disabled provider is no offer.
        """
        ...

    async def summarize_offers(self, of: Expression, *, revision: int) -> OfferSummary:
        """Return what all offers of a model are together, as they were at ``revision``."""
        ...

    async def tally_models(self, matching: Expression | None, request: FacetRequest) -> Tallies:
        """Return what the models that are listed now and match have in these fields, ``None``: all of them."""
        ...

    async def find_near_model_ids(self, model_id: str) -> list[str]:
        """Return up to ten listed ids that look like this one, nearest first."""
        ...

    async def list_links(self) -> Mapping[str, Mapping[str, str | None]]:
        """Return by provider the upstream ids of all listed models with their canonical ids.

        Every provider is there; a disabled one has no models.
        """
        ...

    async def list_release_dates(self) -> Mapping[str, str | None]:
        """Return the ids of all listed canonical models with the dates of their release, as upstream wrote them."""
        ...

    async def get_canonical_id(self, model_id: str) -> tuple[bool, str | None]:
        """Return whether the id is a served or canonical one, and its canonical id where known."""
        ...

    async def list_benchmarks(self, canonical_id: str) -> list[Benchmark]:
        """Return the published results of a canonical model by name, version, dataset, metric, harness, variant."""
        ...

    async def list_benchmarks_of_models(self, model_ids: Sequence[str]) -> list[Benchmark]:
        """Return the same of the canonical models behind served ones."""
        ...

    async def find_near_canonical_ids(self, canonical_id: str) -> list[str]:
        """Return up to ten ids of listed canonical models that look like this one, nearest first."""
        ...

    async def get_provider(self, provider_id: str) -> Provider | None:
        """Return a provider, also a disabled or removed one."""
        ...

    async def list_providers(
        self, selection: Selection, *, revision: int, after: Boundary, limit: int, show_removed: bool
    ) -> list[Listed[Provider]]:
        """Return selected providers behind ``after``, as they were at ``revision``."""
        ...

    async def count_providers(self, selection: Selection, *, revision: int, show_removed: bool) -> int:
        """Return how many providers a listing has in all."""
        ...

    async def find_near_provider_ids(self, provider_id: str) -> list[str]:
        """Return up to ten listed ids that look like this one, nearest first."""
        ...

    async def get_counts(self) -> CatalogCounts:
        """Return what the catalog holds."""
        ...


class CatalogStore(Protocol):
    """Reads of the catalog."""

    def snapshot(self) -> AbstractAsyncContextManager[CatalogSnapshot]:
        """Open a consistent view; it holds a connection until it is closed."""
        ...

    async def get_state(self) -> CatalogState:
        """Return the current revision and its freshness, in one round trip."""
        ...

    async def get_schema_version(self) -> int:
        """Return the number of the newest migration in the database."""
        ...


class SearchDocuments(Protocol):
    """What is searched, beyond the revision of now."""

    async def prune(self, *, before: datetime) -> int:
        """Delete what no revision since then has, a bounded number at a time; return how many."""
        ...


class PolicyStore(Protocol):
    """Writes of policy."""

    async def set_provider_enabled(self, provider_id: str, *, enabled: bool) -> tuple[Provider, CatalogState]:
        """Show or hide a provider's models; return the provider and the state of the catalog with the change in it.

        The revision rises by one, unless the provider is so already.

        Raises:
            ProviderNotFoundError: there is no such provider.
        """
        ...


class AuditLog(Protocol):
    """Who did what. Append-only, but for retention."""

    async def append(self, entry: AuditEntry) -> None:
        """Write one entry."""
        ...

    async def list_events(
        self, matching: Expression | None = None, *, before_id: int | None, limit: int
    ) -> list[AuditEvent]:
        """Return events newest first, those older than ``before_id``, all or those that match."""
        ...

    async def prune(self, *, before: datetime) -> int:
        """Delete entries older than that, a bounded number at a time; return how many."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownRequest:
    """What a request id stands for: what was asked for, and the run that was started or joined."""

    request: RefreshRequest
    refresh: Refresh
    joined: bool


#: Encodes a record as the contract's ``Model`` without what is known only on reading.
MessageEncoder = Callable[[ModelRecord], bytes]


class RefreshOwnership(Protocol):
    """The right to run a refresh: at most one exists in the cluster, and it dies with its holder's connection."""

    async def release(self) -> None:
        """Give it back. Safe to call twice and after the connection is gone."""
        ...


class RefreshStore(Protocol):
    """History, events and writes of refreshes."""

    async def try_own(self) -> RefreshOwnership | None:
        """Return the ownership, or ``None`` while another run holds it."""
        ...

    async def create(
        self, refresh_id: UUID, request: RefreshRequest, slots: Mapping[str, datetime] = MappingProxyType({})
    ) -> Refresh:
        """Write an accepted run, its first heartbeat and its first STATE event. Needs the ownership.

        ``slots`` of the schedule, by timer, are taken with it.

        Raises:
            SlotTakenError: one of them is taken already; nothing was written.
        """
        ...

    async def find_request(self, request_id: UUID) -> KnownRequest | None:
        """Return what a request id stands for."""
        ...

    async def remember_joined(self, request: RefreshRequest, refresh_id: UUID) -> None:
        """Note that a request, which has an id, joined a run. The first note of an id stays."""
        ...

    async def beat(self, refresh_id: UUID) -> None:
        """Note a sign of life of a run under way."""
        ...

    async def cancel(self, refresh_id: UUID) -> Refresh | None:
        """Ask a run to stop, with a STATE event if it is under way; return it as it is now."""
        ...

    async def end_expired(self, lease: timedelta) -> Refresh | None:
        """End the run under way as OWNER_LOST if it gave no sign of life within ``lease``; return it as ended.

        Its owner loses the ownership, however alive it may turn out to be.
        """
        ...

    async def get_slots(self) -> Mapping[str, datetime]:
        """Return the newest slot of each timer of the schedule that was taken."""
        ...

    async def take_slots(self, slots: Mapping[str, datetime]) -> None:
        """Note slots as taken, by timer, unless newer ones are."""
        ...

    async def set_upstream_not_before(self, at: datetime, source_url: str) -> None:
        """Note that the upstream with this address is to be left alone until then."""
        ...

    async def prune(self, *, events_before: datetime, refreshes_before: datetime) -> int:
        """Delete what is older than its retention, a bounded number at a time; return how many refreshes.

        A refresh that made a revision stays, and the event that ended a refresh as long as the refresh.
        """
        ...

    async def record(
        self,
        refresh: Refresh,
        kind: EventKind,
        *,
        done: int = 0,
        total: int | None = None,
        message: str = "",
    ) -> Refresh:
        """Write the run as it is now with an event, in one transaction, and return it as stored.

        Raises:
            OwnerLostError: the run is over already.
            RefreshCancelledError: it was asked to stop, and this is not its end as CANCELLED or FAILED.
        """
        ...

    async def get_known_state(self, provider_id: str | None) -> KnownState:
        """Return the hashes of what the catalog holds; with ``provider_id`` only that provider's models."""
        ...

    async def get_prices(self, model_ids: Sequence[str]) -> Mapping[str, Prices]:
        """Return the base prices now of the models that exist among the ids, removed ones too."""
        ...

    async def get_catalog_state(self) -> CatalogState:
        """Return the current revision and source."""
        ...

    async def save_report(self, refresh_id: UUID, report: RefreshReport) -> None:
        """Write what a run found, over what was written before. The run exists; it may be over or come to nothing."""
        ...

    async def get_report(self, refresh_id: UUID) -> RefreshReport | None:
        """Return what a run found, ``None`` before it has compared or when the report is gone."""
        ...

    async def apply(
        self,
        refresh: Refresh,
        difference: Difference,
        payload: Payload,
        *,
        progress: Progress,
        message: str,
    ) -> Refresh:
        """Write the difference, the run's end and its TERMINAL event in one transaction; return the run as stored.

        The revision rises by one if the difference is not empty. ``refresh`` comes in its final state; base and result
        revision are filled in here.

        Raises:
            OwnerLostError: the run is over already; nothing was written.
            RefreshCancelledError: it was asked to stop; nothing was written.
        """
        ...

    async def finish_not_modified(self, refresh: Refresh, *, message: str) -> Refresh:
        """Write that upstream still says what it said, the run's end and its TERMINAL event, in one transaction."""
        ...

    async def get(self, refresh_id: UUID) -> Refresh | None:
        """Return one run."""
        ...

    async def get_active(self) -> Refresh | None:
        """Return the run under way."""
        ...

    async def get_last_finished(self, *, only_success: bool) -> Refresh | None:
        """Return the newest run that is over."""
        ...

    async def get_last_applied(self) -> Refresh | None:
        """Return the newest run that applied a whole document: the one that "not modified" is about."""
        ...

    async def list_refreshes(
        self, matching: Expression | None = None, *, before: tuple[datetime, UUID] | None, limit: int
    ) -> list[Refresh]:
        """Return runs newest first, those that started before ``before``, all or those that match."""
        ...

    async def get_last_event_id(self) -> int:
        """Return the id of the newest event, 0 when there is none."""
        ...

    async def get_terminal_event_id(self, refresh_id: UUID) -> int | None:
        """Return the id of the event that ended a run, ``None`` while it is not over."""
        ...

    async def get_event_at(self, event_id: int, refresh_id: UUID | None) -> RefreshEvent | None:
        """Return the newest event at or before ``event_id``, of one run or of all."""
        ...

    async def list_events(self, after_id: int, refresh_id: UUID | None, limit: int) -> list[RefreshEvent]:
        """Return events after ``after_id`` in commit order, of one run or of all."""
        ...


class SharedCache(Protocol):
    """A cache that all processes share. It never raises: what it holds can always be had again."""

    @property
    def available(self) -> bool:
        """Whether it answered when it was last asked."""
        ...

    async def get(self, key: str) -> bytes | None:
        """Return the value, ``None`` when there is none or nobody who says so soon enough."""
        ...

    async def set(self, key: str, value: bytes, *, ttl_s: int) -> None:
        """Store the value for ``ttl_s`` seconds, if there is somebody to ask."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedResponse:
    """The bytes of a response, and the state of the catalog that it belongs to."""

    body: bytes
    state: CatalogState


#: Full name of an RPC, and the bytes of a request of it.
RequestKey = tuple[str, bytes]


class ResponseCache(Protocol):
    """Keeps responses that are a function of the catalog's revision, the RPC and the request, and nothing else."""

    def peek(self, key: RequestKey) -> EncodedResponse | None:
        """Return the response if this process has it for the revision that it is at. Costs no I/O."""
        ...

    async def read(
        self, key: RequestKey, fetch: Callable[[bytes], Coroutine[Any, Any, EncodedResponse]], *, ttl_s: float
    ) -> EncodedResponse:
        """Return the response of the revision that this process is at, or of a newer one.

        ``fetch`` makes it of the request, when nobody has it; many who ask at once cause one call of it. ``ttl_s``: how
        long it may be given out.

        Raises what ``fetch`` raises. Of that only that something does not exist is kept, for seconds.
        """
        ...

    async def rebuild(
        self, key: RequestKey, fetch: Callable[[bytes], Coroutine[Any, Any, EncodedResponse]], *, ttl_s: float
    ) -> None:
        """Have the response at hand before somebody asks for it. Raises what ``fetch`` raises."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheLayerStats:
    """Figures of one layer of the response cache. What it holds is not known, and 0, while it is not available."""

    name: str
    available: bool
    entries: int
    bytes: int
    hits: int
    misses: int
    evictions: int


class CacheControl(Protocol):
    """What an operator sees of the response cache, and does to it."""

    async def get_stats(self) -> list[CacheLayerStats]:
        """Return the figures of each layer, nearest first."""
        ...

    async def invalidate(self, naming: str = "") -> int:
        """Let every process and Redis go of what names this, of everything if empty; return how many entries went.

        Those of other processes are not counted. Never needed for correct answers.
        """
        ...
