"""What readers of the catalog ask of its database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Protocol

from modelcatalog_server.domain.facets import FacetRequest, Tallies
from modelcatalog_server.domain.models import Benchmark, Model, Provider
from modelcatalog_server.domain.offers import Offer, OfferSummary
from modelcatalog_server.domain.query import Boundary, Expression, Listed, Selection
from modelcatalog_server.domain.search import Findings, SearchText


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

    async def get_schema_version(self) -> int:
        """Return the number of the newest migration in the database."""
        ...


class CatalogStore(Protocol):
    """Reads of the catalog."""

    def snapshot(self, *, newest: bool = False) -> AbstractAsyncContextManager[CatalogSnapshot]:
        """Open a consistent view; it holds a connection until it is closed.

        ``newest``: of what is committed, also while the process is at an older revision.
        """
        ...

    async def get_state(self, *, newest: bool = False) -> CatalogState:
        """Return the current revision and its freshness, in one round trip.

        ``newest``: of what is committed, and not of what is known while nobody can tell that.
        """
        ...


class SearchDocuments(Protocol):
    """What is searched, beyond the revision of now."""

    async def prune(self, *, before: datetime) -> int:
        """Delete what no revision since then has, a bounded number at a time; return how many."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaStats:
    """Figures of the read replica as this process sees it.

    Attributes:
        available: Whether reads go to it.
        revision: What it was at when it was last asked, ``None`` before the first answer.
        reads: Reads that it answered.
        fallbacks: Reads that went to the primary instead.
    """

    available: bool
    revision: int | None
    reads: int
    fallbacks: int
