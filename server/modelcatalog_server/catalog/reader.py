"""Reads of the catalog. Every answer belongs to one revision and says which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modelcatalog_server.catalog.arguments import to_page_size
from modelcatalog_server.catalog.fields import MODEL_FIELDS, PROVIDER_FIELDS
from modelcatalog_server.catalog.filtering import parse_filter
from modelcatalog_server.catalog.ordering import parse_order_by
from modelcatalog_server.catalog.paging import Page, PageTokens, scope_of
from modelcatalog_server.catalog.references import FoundModel, References, ResolvedModel
from modelcatalog_server.catalog.snapshots import ANY_REVISION, AtLeast, Read, Snapshots
from modelcatalog_server.domain.errors import ProviderNotFoundError
from modelcatalog_server.domain.models import Benchmark, Model, Provider
from modelcatalog_server.domain.ports.catalog import CatalogCounts, CatalogSnapshot, CatalogState
from modelcatalog_server.domain.query import EVERYTHING, Boundary, FieldCatalogue, Selection
from modelcatalog_server.domain.resolution import Resolution


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelQuery:
    """Arguments of a listing of models."""

    provider_id: str | None = None
    filter: str = ""
    order_by: str = ""
    page_size: int = 0
    page_token: str = ""
    page: int = 0
    show_removed: bool = False
    with_raw: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderQuery:
    """Arguments of a listing of providers."""

    filter: str = ""
    order_by: str = ""
    page_size: int = 0
    page_token: str = ""
    show_removed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmarks:
    """Results of one canonical model, ``None`` when the served model's is not known.

    ``resolution``: how the model was found, ``None`` for an exact id.
    """

    canonical_id: str | None
    items: list[Benchmark]
    resolution: Resolution | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogInfo:
    """What the catalog holds."""

    counts: CatalogCounts
    schema_version: int


class CatalogReader:
    """Answers reads from snapshots."""

    def __init__(self, snapshots: Snapshots, references: References, page_tokens: PageTokens) -> None:
        self._snapshots = snapshots
        self._references = references
        self._page_tokens = page_tokens

    async def get_model(
        self, model_id: str, *, with_raw: bool = False, at_least: AtLeast = ANY_REVISION
    ) -> Read[FoundModel]:
        """Return one model: by exact id, also a removed one, else the one that is meant.

        Raises:
            AmbiguousModelError, ModelNotFoundError: with up to ten candidates.
        """
        async with self._snapshots.open(at_least) as snapshot:
            found = await self._references.get_model(snapshot, model_id, with_raw=with_raw)
            return Read(state=snapshot.state, value=found)

    async def resolve_model(
        self, reference: str, preferred_provider_ids: Sequence[str] = (), *, at_least: AtLeast = ANY_REVISION
    ) -> Read[ResolvedModel]:
        """Return the model behind a reference, with others that it could have been.

        Raises:
            AmbiguousModelError, ModelNotFoundError: with up to ten candidates.
        """
        async with self._snapshots.open(at_least) as snapshot:
            resolved = await self._references.resolve_model(snapshot, reference, preferred_provider_ids)
            return Read(state=snapshot.state, value=resolved)

    async def get_models(
        self, model_ids: Sequence[str], *, with_raw: bool = False, at_least: AtLeast = ANY_REVISION
    ) -> Read[dict[str, Model]]:
        """Return the models that exist among some exact ids."""
        async with self._snapshots.open(at_least) as snapshot:
            models = await snapshot.get_models(model_ids, with_raw=with_raw)
            return Read(state=snapshot.state, value=models)

    async def list_models(self, query: ModelQuery, *, at_least: AtLeast = ANY_REVISION) -> Read[Page[Model]]:
        """Return one page of models, by id or in the order asked for; later pages stay in the revision of the first.

        Raises:
            ProviderNotFoundError: there is no such provider.
            InvalidFilterError, InvalidOrderByError: with the column of the mistake.
            InvalidPageTokenError, PageTokenExpiredError: the token is not good.
        """
        size = to_page_size(query.page_size)
        selection = _select(query, MODEL_FIELDS)
        scope = scope_of(query.filter, query.order_by, "models", query.provider_id, query.show_removed)
        async with self._snapshots.open(self._page_tokens.at_least(query.page_token, at_least)) as snapshot:
            position = self._page_tokens.read_position(query.page_token, scope, snapshot.state)
            models = await snapshot.list_models(
                selection,
                revision=position.revision,
                provider_id=query.provider_id,
                after=position.after,
                offset=max(query.page - 1, 0) * size,
                limit=size + 1,
                show_removed=query.show_removed,
                with_raw=query.with_raw,
            )
            if query.provider_id is not None and not models:  # else there is such a provider
                await _check_provider_exists(snapshot, query.provider_id)
            total = position.total
            if total < 0:
                total = await snapshot.count_models(
                    selection, provider_id=query.provider_id, show_removed=query.show_removed
                )
            return Read(
                state=snapshot.state, value=self._page_tokens.cut_page(models, size, position.revision, total, scope)
            )

    async def list_models_after(self, model_id: str, limit: int) -> Read[list[Model]]:
        """Return the listed models behind an id, by id, without what a listing has besides."""
        async with self._snapshots.open(ANY_REVISION) as snapshot:
            listed = await snapshot.list_models(
                EVERYTHING,
                revision=snapshot.state.revision,
                provider_id=None,
                after=Boundary(id=model_id),
                offset=0,
                limit=limit,
                show_removed=False,
                with_raw=False,
            )
            return Read(state=snapshot.state, value=[each.item for each in listed])

    async def get_models_ahead(self, model_ids: Sequence[str]) -> Read[dict[str, Model]]:
        """Return the models that exist among some exact ids, in what is committed, which the process need not be at."""
        async with self._snapshots.open_ahead() as snapshot:
            return Read(state=snapshot.state, value=await snapshot.get_models(model_ids, with_raw=False))

    async def list_benchmarks(self, model_id: str, *, at_least: AtLeast = ANY_REVISION) -> Read[Benchmarks]:
        """Return the results of the canonical model behind a served one, or of a canonical one itself.

        Raises:
            AmbiguousModelError, ModelNotFoundError: with up to ten candidates.
        """
        async with self._snapshots.open(at_least) as snapshot:
            found, canonical_id = await snapshot.get_canonical_id(model_id)
            resolution = None
            if not found:
                resolution = await self._references.require_canonical(snapshot, model_id)
                canonical_id = resolution.canonical_id
            items = await snapshot.list_benchmarks(canonical_id) if canonical_id else []
            benchmarks = Benchmarks(canonical_id=canonical_id, items=items, resolution=resolution)
            return Read(state=snapshot.state, value=benchmarks)

    async def get_provider(self, provider_id: str, *, at_least: AtLeast = ANY_REVISION) -> Read[Provider]:
        """Return one provider, also a disabled or removed one.

        Raises:
            ProviderNotFoundError: with up to ten near ids.
        """
        async with self._snapshots.open(at_least) as snapshot:
            return Read(state=snapshot.state, value=await _check_provider_exists(snapshot, provider_id))

    async def list_providers(self, query: ProviderQuery, *, at_least: AtLeast = ANY_REVISION) -> Read[Page[Provider]]:
        """Return one page of providers as :meth:`list_models` does of models."""
        size = to_page_size(query.page_size)
        selection = _select(query, PROVIDER_FIELDS)
        scope = scope_of(query.filter, query.order_by, "providers", query.show_removed)
        async with self._snapshots.open(self._page_tokens.at_least(query.page_token, at_least)) as snapshot:
            position = self._page_tokens.read_position(query.page_token, scope, snapshot.state)
            providers = await snapshot.list_providers(
                selection,
                revision=position.revision,
                after=position.after,
                limit=size + 1,
                show_removed=query.show_removed,
            )
            total = position.total
            if total < 0:
                total = await snapshot.count_providers(
                    selection, revision=position.revision, show_removed=query.show_removed
                )
            return Read(
                state=snapshot.state, value=self._page_tokens.cut_page(providers, size, position.revision, total, scope)
            )

    async def get_info(self, *, at_least: AtLeast = ANY_REVISION) -> Read[CatalogInfo]:
        """Return what the catalog holds; answers before the first refresh too, with zeros."""
        async with self._snapshots.open(at_least, may_be_empty=True) as snapshot:
            info = CatalogInfo(counts=await snapshot.get_counts(), schema_version=await snapshot.get_schema_version())
            return Read(state=snapshot.state, value=info)

    async def get_state(self) -> CatalogState:
        """Return the current revision and its freshness."""
        return await self._snapshots.get_state()

    async def look(self) -> CatalogState:
        """Return the current revision, for nobody to be answered with: the process does not turn to it."""
        return await self._snapshots.look()

    def observe(self, state: CatalogState) -> None:
        """Take note of a state that was read elsewhere and is about to be answered with."""
        self._snapshots.observe(state)


def _select(query: ModelQuery | ProviderQuery, fields: FieldCatalogue) -> Selection:
    return Selection(filter=parse_filter(query.filter, fields), order=parse_order_by(query.order_by, fields))


async def _check_provider_exists(snapshot: CatalogSnapshot, provider_id: str) -> Provider:
    provider = await snapshot.get_provider(provider_id)
    if provider is None:
        raise ProviderNotFoundError(provider_id, await snapshot.find_near_provider_ids(provider_id))
    return provider
