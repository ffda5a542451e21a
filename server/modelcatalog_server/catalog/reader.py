"""Reads of the catalog. Every answer belongs to one revision and says which."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

from modelcatalog_server.catalog.fields import MODEL_FIELDS, PROVIDER_FIELDS
from modelcatalog_server.catalog.filtering import parse_filter
from modelcatalog_server.catalog.ordering import parse_order_by
from modelcatalog_server.domain.errors import (
    CatalogNotReadyError,
    InvalidModelIdError,
    InvalidPageTokenError,
    InvalidQueryError,
    ModelNotFoundError,
    PageTokenExpiredError,
    ProviderNotFoundError,
    RevisionNotAvailableError,
    TooManyIdsError,
)
from modelcatalog_server.domain.models import Benchmark, Model, Provider
from modelcatalog_server.domain.ports import CatalogCounts, CatalogSnapshot, CatalogState, CatalogStore
from modelcatalog_server.domain.query import START, Boundary, FieldCatalogue, Listed, Selection
from modelcatalog_server.domain.signal import Signal
from modelcatalog_server.tokens import ExpiredTokenError, InvalidTokenError, TokenSealer

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 1000
MAX_BATCH = 100
#: Longest model id in UTF-8; upstream's longest served one is 77.
MAX_MODEL_ID_BYTES = 512
#: Longest provider id in UTF-8; upstream's rule is 24.
MAX_PROVIDER_ID_BYTES = 128
_MAX_PAGE = 1_000_000

T = TypeVar("T")
#: The arguments that a page token is bound to.
Scope = Sequence[str | bool | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class AtLeast:
    """The revision that a reader must see, and how many seconds it is worth waiting for."""

    revision: int = 0
    timeout_s: float = 10.0


ANY_REVISION = AtLeast()


@dataclass(frozen=True, slots=True, kw_only=True)
class Read(Generic[T]):
    """An answer and the state of the catalog it belongs to."""

    state: CatalogState
    value: T


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[T]):
    """One page. ``next_token`` is empty on the last one; ``revision`` is that of the first page."""

    items: list[T]
    next_token: str
    total: int
    revision: int


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
    """Results of one canonical model, ``None`` when the served model's is not known."""

    canonical_id: str | None
    items: list[Benchmark]


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogInfo:
    """What the catalog holds."""

    counts: CatalogCounts
    schema_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Position:
    """Where a page begins: behind an item, in a revision, of so many in all."""

    revision: int
    after: Boundary = START
    total: int = -1


class CatalogReader:
    """Answers reads from the store. ``changed`` is nudged when a new revision may be there."""

    def __init__(self, store: CatalogStore, page_tokens: TokenSealer, changed: Signal) -> None:
        self._store = store
        self._page_tokens = page_tokens
        self._changed = changed

    async def get_model(
        self, model_id: str, *, with_raw: bool = False, at_least: AtLeast = ANY_REVISION
    ) -> Read[Model]:
        """Return one model by exact id, also a removed one.

        Raises:
            ModelNotFoundError: with up to ten near ids.
        """
        check_model_id("model_id", model_id)
        async with self._snapshot(at_least) as snapshot:
            models = await snapshot.get_models([model_id], with_raw=with_raw)
            if model_id not in models:
                raise ModelNotFoundError(model_id, await snapshot.find_near_model_ids(model_id))
            return Read(state=snapshot.state, value=models[model_id])

    async def get_models(
        self, model_ids: Sequence[str], *, with_raw: bool = False, at_least: AtLeast = ANY_REVISION
    ) -> Read[dict[str, Model]]:
        """Return the models that exist among 1 to 100 exact ids."""
        if not 1 <= len(model_ids) <= MAX_BATCH:
            raise TooManyIdsError("model_ids", f"takes 1 to {MAX_BATCH} ids, got {len(model_ids)}")
        for index, model_id in enumerate(model_ids):
            check_model_id(f"model_ids[{index}]", model_id)
        async with self._snapshot(at_least) as snapshot:
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
        if query.page < 0 or query.page > _MAX_PAGE:
            raise InvalidQueryError("page", f"must be 1 to {_MAX_PAGE}, got {query.page}")
        if query.page and query.page_token:
            raise InvalidQueryError("page", "cannot be combined with page_token")
        if query.provider_id is not None:
            check_provider_id("provider_id", query.provider_id)
        selection = _select(query, MODEL_FIELDS)
        scope = _scope(query, "models", query.provider_id, query.show_removed)
        async with self._snapshot(at_least) as snapshot:
            if query.provider_id is not None:
                await _check_provider_exists(snapshot, query.provider_id)
            position = self._position(query.page_token, scope, snapshot.state)
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
            total = position.total
            if total < 0:
                total = await snapshot.count_models(
                    selection, provider_id=query.provider_id, show_removed=query.show_removed
                )
            return Read(state=snapshot.state, value=self._page(models, size, position.revision, total, scope))

    async def list_benchmarks(self, model_id: str, *, at_least: AtLeast = ANY_REVISION) -> Read[Benchmarks]:
        """Return the results of the canonical model behind a served one, or of a canonical one itself.

        Raises:
            ModelNotFoundError: with up to ten near ids.
        """
        check_model_id("model_id", model_id)
        async with self._snapshot(at_least) as snapshot:
            found, canonical_id = await snapshot.get_canonical_id(model_id)
            if not found:
                raise ModelNotFoundError(model_id, await snapshot.find_near_model_ids(model_id))
            items = await snapshot.list_benchmarks(canonical_id) if canonical_id else []
            return Read(state=snapshot.state, value=Benchmarks(canonical_id=canonical_id, items=items))

    async def get_provider(self, provider_id: str, *, at_least: AtLeast = ANY_REVISION) -> Read[Provider]:
        """Return one provider, also a disabled or removed one.

        Raises:
            ProviderNotFoundError: with up to ten near ids.
        """
        check_provider_id("provider_id", provider_id)
        async with self._snapshot(at_least) as snapshot:
            return Read(state=snapshot.state, value=await _check_provider_exists(snapshot, provider_id))

    async def list_providers(self, query: ProviderQuery, *, at_least: AtLeast = ANY_REVISION) -> Read[Page[Provider]]:
        """Return one page of providers as :meth:`list_models` does of models."""
        size = to_page_size(query.page_size)
        selection = _select(query, PROVIDER_FIELDS)
        scope = _scope(query, "providers", query.show_removed)
        async with self._snapshot(at_least) as snapshot:
            position = self._position(query.page_token, scope, snapshot.state)
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
            return Read(state=snapshot.state, value=self._page(providers, size, position.revision, total, scope))

    async def get_info(self, *, at_least: AtLeast = ANY_REVISION) -> Read[CatalogInfo]:
        """Return what the catalog holds; answers before the first refresh too, with zeros."""
        schema_version = await self._store.get_schema_version()
        async with self._snapshot(at_least, may_be_empty=True) as snapshot:
            info = CatalogInfo(counts=await snapshot.get_counts(), schema_version=schema_version)
            return Read(state=snapshot.state, value=info)

    async def get_state(self) -> CatalogState:
        """Return the current revision and its freshness."""
        async with self._store.snapshot() as snapshot:
            return snapshot.state

    @asynccontextmanager
    async def _snapshot(self, at_least: AtLeast, *, may_be_empty: bool = False) -> AsyncIterator[CatalogSnapshot]:
        """Open a snapshot of at least this revision, waiting for it as long as the caller has time."""
        if at_least.revision > 0:
            await self._wait_for(at_least)
        async with self._store.snapshot() as snapshot:
            if snapshot.state.revision == 0 and not may_be_empty:
                raise CatalogNotReadyError("no catalog has been loaded yet: ask again after the first refresh")
            yield snapshot

    async def _wait_for(self, at_least: AtLeast) -> None:
        clock = asyncio.get_running_loop().time
        deadline = clock() + at_least.timeout_s
        with suppress(TimeoutError):
            async with asyncio.timeout(at_least.timeout_s):
                # The deadline is looked at, too: the one cancellation of a time-out may be lost in the driver (see
                # domain.tasks).
                while clock() < deadline:
                    ticket = self._changed.ticket()
                    if (await self.get_state()).revision >= at_least.revision:
                        return
                    await ticket.wait()
        raise RevisionNotAvailableError(f"revision {at_least.revision} did not arrive in time")

    def _position(self, token: str, scope: Scope, state: CatalogState) -> _Position:
        if not token:
            return _Position(revision=state.revision)
        try:
            sealed_scope, revision, after_id, total, *keys = self._page_tokens.unseal(token)
        except ExpiredTokenError as error:
            raise PageTokenExpiredError("page_token is older than 24 hours: list again from the first page") from error
        except (InvalidTokenError, ValueError, TypeError) as error:
            raise InvalidPageTokenError("page_token", "is not one of this service's tokens") from error
        if sealed_scope != list(scope):
            raise InvalidPageTokenError("page_token", "belongs to a listing with other arguments")
        return _Position(revision=revision, after=Boundary(id=after_id, keys=tuple(keys)), total=total)

    def _page(self, listed: Sequence[Listed[T]], size: int, revision: int, total: int, scope: Scope) -> Page[T]:
        """Cut the one item that was read beyond the page; that it was there means that there is a next page."""
        token = ""
        if len(listed) > size:
            last = listed[size - 1].boundary
            token = self._page_tokens.seal([scope, revision, last.id, total, *last.keys])
        return Page(items=[each.item for each in listed[:size]], next_token=token, total=total, revision=revision)


def _select(query: ModelQuery | ProviderQuery, fields: FieldCatalogue) -> Selection:
    return Selection(filter=parse_filter(query.filter, fields), order=parse_order_by(query.order_by, fields))


def _scope(query: ModelQuery | ProviderQuery, *arguments: str | bool | None) -> Scope:
    """Return what a token is bound to; filter and order as a digest, for they may be long."""
    selected = [_digest([query.filter, query.order_by])] if query.filter or query.order_by else []
    return [*arguments, *selected]


def model_etag(model: Model) -> str:
    """Return what changes exactly when the model's message changes: its record, its revision, its provider's name."""
    return _digest([model.content_hash, str(model.revision), model.provider_name])


def provider_etag(provider: Provider) -> str:
    """Return what changes exactly when the provider's message changes."""
    return _digest([provider.record.id, provider.record.content_hash, str(provider.revision)])


def page_etag(page: Page[Model]) -> str:
    """Return what changes exactly when what the page shows changes."""
    return _digest([str(page.total), str(bool(page.next_token)), *map(model_etag, page.items)])


def check_model_id(field: str, model_id: str) -> None:
    """Refuse what cannot be a model id: ids are not empty, printable and of bounded length."""
    _check_id(InvalidModelIdError, field, model_id, MAX_MODEL_ID_BYTES)


def check_provider_id(field: str, provider_id: str) -> None:
    """Refuse what cannot be a provider id."""
    _check_id(InvalidQueryError, field, provider_id, MAX_PROVIDER_ID_BYTES)
    if "/" in provider_id:
        raise InvalidQueryError(field, "holds a slash: a provider id is the part of a model id before the first one")


def _check_id(error: type[InvalidModelIdError | InvalidQueryError], field: str, value: str, max_bytes: int) -> None:
    if not value:
        raise error(field, "is required")
    if (length := len(value.encode())) > max_bytes:
        raise error(field, f"is {length} bytes long, at most {max_bytes} are allowed")
    if not value.isprintable():
        raise error(field, "holds characters that no id has")


def to_page_size(asked: int) -> int:
    """Return the size of a page: the default for 0, the most there is for more."""
    if asked < 0:
        raise InvalidQueryError("page_size", f"must not be negative, got {asked}")
    return min(asked or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)


async def _check_provider_exists(snapshot: CatalogSnapshot, provider_id: str) -> Provider:
    provider = await snapshot.get_provider(provider_id)
    if provider is None:
        raise ProviderNotFoundError(provider_id, await snapshot.find_near_provider_ids(provider_id))
    return provider


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
