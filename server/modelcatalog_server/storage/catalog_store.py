"""Reads of the catalog: port ``CatalogStore`` over PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar

from psycopg.rows import DictRow

from modelcatalog_server.domain.errors import DatabaseUnavailableError
from modelcatalog_server.domain.facets import FacetRequest, Tallies
from modelcatalog_server.domain.models import Benchmark, BenchmarkRecord, Model, Provider, ProviderRecord
from modelcatalog_server.domain.offers import Offer, OfferSummary
from modelcatalog_server.domain.ports.catalog import CatalogCounts, CatalogState
from modelcatalog_server.domain.query import Boundary, Expression, Listed, Selection
from modelcatalog_server.domain.search import Findings, SearchText
from modelcatalog_server.storage import facets, offers, queries
from modelcatalog_server.storage.composition import (
    MODEL_COLUMNS,
    PROVIDER_COLUMNS,
    Statement,
    compose,
    compose_search,
)
from modelcatalog_server.storage.fetching import fetch_all, require_one
from modelcatalog_server.storage.pools import Pools, Statements
from modelcatalog_server.storage.replica import ReadReplica
from modelcatalog_server.storage.search_rows import compile_text, read_findings, read_near_words
from modelcatalog_server.storage.state_rows import CatalogIdentity, opening_state, read_identity, read_state

_STATE = queries.load("state")
_MODELS = queries.load("models")
_PROVIDERS = queries.load("providers")
_LISTINGS = queries.load("listings")
_SEARCH = queries.load("search")

T = TypeVar("T")


class PostgresCatalog:
    """Port ``CatalogStore``."""

    def __init__(self, pools: Pools, replica: ReadReplica | None = None) -> None:
        self._pools = pools
        self._replica = replica

    @asynccontextmanager
    async def snapshot(self, *, newest: bool = False) -> AsyncIterator[PostgresSnapshot]:
        """Open a REPEATABLE READ transaction; its first statement reads the revision and so fixes it.

        On the replica, where that is at the version that the process is at, unless it is to be the newest.
        """
        async with AsyncExitStack() as stack:
            replica = None if newest else self._replica
            read = await stack.enter_async_context(replica.reading()) if replica else None
            if read is not None:
                yield PostgresSnapshot(read, read.state)
                return
            yield PostgresSnapshot(*await stack.enter_async_context(opening_state(self._pools)))

    async def get_state(self, *, newest: bool = False) -> CatalogState:
        """Return the current revision and its freshness: what the primary says.

        While that is away, what is known, if there is a replica that answers reads of it, but not as the newest.
        """
        try:
            async with self._pools.watching() as connection:
                return await read_state(connection)
        except DatabaseUnavailableError:
            state = await self._replica.confirm() if self._replica and not newest else None
            if state is None:
                raise
            return state

    async def tell_processes(self, message: str) -> None:
        """Send a message to every process that listens on this database."""
        async with self._pools.writing() as connection:
            await connection.execute(_STATE["tell_processes"], {"message": message})

    async def list_sync_times(self) -> Mapping[str, datetime | None]:
        """Return by id when a refresh last wrote each listed provider or one of its models."""
        async with self._pools.asking() as connection:
            rows = await fetch_all(connection, _PROVIDERS["list_sync_times"])
        return {row["id"]: row["last_models_sync"] for row in rows}

    async def get_identity(self) -> CatalogIdentity:
        """Return what tells this catalog from others."""
        async with self._pools.asking() as connection:
            return await read_identity(connection)


@dataclass(frozen=True, slots=True)
class PostgresSnapshot:
    """Port ``CatalogSnapshot``: one read transaction."""

    connection: Statements
    state: CatalogState

    async def get_models(self, model_ids: Sequence[str], *, with_raw: bool) -> dict[str, Model]:
        """Return the models that exist among the exact ids."""
        rows = await self._fetch_all(_MODELS["get_models"], model_ids=list(model_ids), with_raw=with_raw)
        return {row["model_id"]: Model(**row) for row in rows}

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
        """Return one page: from the current rows, or from the versions when the revision is a past one."""
        is_past = revision != self.state.revision
        arguments = {
            "revision": revision,
            "offset": offset,
            "limit": limit,
            "show_removed": show_removed,
            "with_raw": with_raw,
        }
        if selection.is_plain:
            statement = "list_models" if provider_id is None else "list_models_of_provider"
            if is_past:
                statement = "list_models_at_revision"
            rows = await self._fetch_all(_MODELS[statement], after_id=after.id, provider_id=provider_id, **arguments)
            return [Listed(item=Model(**row), boundary=Boundary(id=row["model_id"])) for row in rows]
        statement = "list_selected_models_at_revision" if is_past else "list_selected_models"
        composition = compose(selection, MODEL_COLUMNS, provider_id=provider_id, after=after)
        rows = await self._fetch_all(composition.fill(_LISTINGS[statement]), **composition.parameters, **arguments)
        return [_read_listed(row, row["model_id"], _read_model) for row in rows]

    async def count_models(self, selection: Selection, *, provider_id: str | None, show_removed: bool) -> int:
        """Return how many models a listing has in all, now."""
        if selection.filter is None:
            row = await require_one(
                self.connection, _MODELS["count_models"], provider_id=provider_id, show_removed=show_removed
            )
        else:
            composition = compose(selection, MODEL_COLUMNS, provider_id=provider_id)
            statement = composition.fill(_LISTINGS["count_selected_models"])
            row = await require_one(self.connection, statement, **composition.parameters, show_removed=show_removed)
        return int(row["total"])

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
        """Return one page of the models whose words fit, and how many there are."""
        composition = compose_search(matching, is_past=revision != self.state.revision)
        rows = await self._fetch_all(
            composition.fill(_SEARCH["search_models"]),
            **composition.parameters,
            **compile_text(text),
            revision=revision,
            after_id=after.id,
            after_score=after.keys[0] if after.keys else None,
            offset=offset,
            limit=limit,
            with_raw=with_raw,
        )
        return read_findings(rows)

    async def get_superseded_for(self, revision: int) -> timedelta | None:
        """Return how long ago the next revision was committed."""
        rows = await self._fetch_all(_SEARCH["get_superseded_for"], revision=revision)
        return rows[0]["superseded_for"] if rows else None

    async def find_near_words(self, words: Sequence[str], *, anyway: bool) -> Mapping[str, Sequence[str]]:
        """Return the nearest words, of several those that are nearly as near as the nearest."""
        rows = await self._fetch_all(_SEARCH["find_near_words"], words=list(words), anyway=anyway)
        return read_near_words(rows)

    async def list_offers(
        self, of: Expression, *, ratio: Decimal, revision: int, after: Boundary, limit: int, with_raw: bool
    ) -> list[Listed[Offer]]:
        """Return one page of the offers of a model."""
        return await offers.list_offers(
            self.connection,
            of,
            ratio=ratio,
            past_revision=self._if_past(revision),
            after=after,
            limit=limit,
            with_raw=with_raw,
        )

    async def summarize_offers(self, of: Expression, *, revision: int) -> OfferSummary:
        """Return what all offers of a model are together."""
        return await offers.summarize_offers(self.connection, of, past_revision=self._if_past(revision))

    async def tally_models(self, matching: Expression | None, request: FacetRequest) -> Tallies:
        """Return what the listed models that match have in these fields."""
        return await facets.tally_models(self.connection, matching, request)

    async def find_near_model_ids(self, model_id: str) -> list[str]:
        """Return up to ten listed ids, nearest first."""
        return [row["model_id"] for row in await self._fetch_all(_MODELS["find_near_model_ids"], model_id=model_id)]

    async def list_links(self) -> Mapping[str, Mapping[str, str | None]]:
        """Return by provider the upstream ids of all listed models with their canonical ids."""
        return {row["provider_id"]: _read_links(row) for row in await self._fetch_all(_MODELS["list_links"])}

    async def list_release_dates(self) -> Mapping[str, str | None]:
        """Return the ids of all listed canonical models with the dates of their release."""
        rows = await self._fetch_all(_MODELS["list_release_dates"])
        return {row["id"]: row["release_date"] for row in rows}

    async def get_canonical_id(self, model_id: str) -> tuple[bool, str | None]:
        """Return whether the id is a served or canonical one, and its canonical id where known."""
        row = await require_one(self.connection, _MODELS["get_canonical_id"], model_id=model_id)
        return row["found"], row["canonical_id"]

    async def list_benchmarks(self, canonical_id: str) -> list[Benchmark]:
        """Return the published results of a canonical model."""
        rows = await self._fetch_all(_MODELS["list_benchmarks"], canonical_id=canonical_id)
        return [_read_benchmark(row) for row in rows]

    async def list_benchmarks_of_models(self, model_ids: Sequence[str]) -> list[Benchmark]:
        """Return the published results of the canonical models behind served ones."""
        rows = await self._fetch_all(_MODELS["list_benchmarks_of_models"], model_ids=list(model_ids))
        return [_read_benchmark(row) for row in rows]

    async def find_near_canonical_ids(self, canonical_id: str) -> list[str]:
        """Return up to ten listed ids of canonical models, nearest first."""
        rows = await self._fetch_all(_MODELS["find_near_canonical_ids"], canonical_id=canonical_id)
        return [row["id"] for row in rows]

    async def get_provider(self, provider_id: str) -> Provider | None:
        """Return a provider, also a disabled or removed one."""
        rows = await self._fetch_all(_PROVIDERS["get_provider"], provider_id=provider_id)
        return read_provider(rows[0]) if rows else None

    async def list_providers(
        self, selection: Selection, *, revision: int, after: Boundary, limit: int, show_removed: bool
    ) -> list[Listed[Provider]]:
        """Return one page of providers. There are hundreds, so one statement does for all revisions and selections."""
        composition = compose(selection, PROVIDER_COLUMNS, after=after)
        rows = await self._fetch_all(
            composition.fill(_LISTINGS["list_providers"]),
            **composition.parameters,
            revision=revision,
            limit=limit,
            show_removed=show_removed,
        )
        return [_read_listed(row, row["id"], read_provider) for row in rows]

    async def count_providers(self, selection: Selection, *, revision: int, show_removed: bool) -> int:
        """Return how many providers a listing has in all."""
        composition = compose(selection, PROVIDER_COLUMNS)
        statement = composition.fill(_LISTINGS["count_providers"])
        row = await require_one(
            self.connection, statement, **composition.parameters, revision=revision, show_removed=show_removed
        )
        return int(row["total"])

    async def find_near_provider_ids(self, provider_id: str) -> list[str]:
        """Return up to ten listed ids, nearest first."""
        rows = await self._fetch_all(_PROVIDERS["find_near_provider_ids"], provider_id=provider_id)
        return [row["id"] for row in rows]

    async def get_counts(self) -> CatalogCounts:
        """Return what the catalog holds."""
        return CatalogCounts(**await require_one(self.connection, _STATE["get_counts"]))

    async def get_schema_version(self) -> int:
        """Return the number of the newest migration in the database."""
        return int((await require_one(self.connection, _STATE["get_schema_version"]))["version"])

    def _if_past(self, revision: int) -> int | None:
        return revision if revision != self.state.revision else None

    async def _fetch_all(self, statement: Statement, **parameters: Any) -> list[DictRow]:
        return await (await self.connection.execute(statement, parameters)).fetchall()


def _read_listed(row: DictRow, id_: str, read: Callable[[DictRow], T]) -> Listed[T]:
    boundary = Boundary(id=id_, keys=tuple(row.pop("sort_keys")))
    return Listed(item=read(row), boundary=boundary)


def _read_model(row: DictRow) -> Model:
    return Model(**row)


def _read_links(row: DictRow) -> dict[str, str | None]:
    if row["upstream_ids"] is None:
        return {}
    canonical_ids = (id_ or None for id_ in row["canonical_ids"].split("\n"))
    return dict(zip(row["upstream_ids"].split("\n"), canonical_ids, strict=True))


def _read_benchmark(row: DictRow) -> Benchmark:
    return Benchmark(
        canonical_id=row["canonical_id"],
        rank=row["rank"],
        normalized_score=row["normalized_score"],
        series_size=row["series_size"],
        record=BenchmarkRecord(
            name=row["benchmark_name"],
            canonical_name=row["canonical_name"],
            type=row["benchmark_type"],
            series=row["series"],
            higher_is_better=row["higher_is_better"],
            score=row["score"],
            score_text=row["score_text"],
            metric=row["metric"],
            harness=row["harness"],
            variant=row["variant"],
            dataset=row["dataset"],
            version=row["version"],
            source=row["source"],
            date=row["benchmark_date"],
            raw=row["raw"],
        ),
    )


def read_provider(row: DictRow) -> Provider:
    """Return the provider of a row of ``get_provider`` or ``list_providers``."""
    return Provider(
        record=ProviderRecord(
            id=row["id"],
            name=row["name"],
            documentation_url=row["documentation_url"],
            api_base_url=row["api_base_url"],
            npm_package=row["npm_package"],
            env_vars=tuple(row["env_vars"]),
            raw=row["raw"],
            content_hash=row["content_hash"],
        ),
        enabled=row["enabled"],
        model_count=row["total_models"],
        enabled_model_count=row["enabled_models"],
        last_sync_at=row["last_models_sync"],
        revision=row["revision"],
        removed_at=row["removed_at"],
    )
