"""The writes of a refresh to the catalog, in one transaction, and what they are compared with before."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, LiteralString, Self

from psycopg.rows import DictRow

from modelcatalog_server.domain.models import ModelRecord, Prices, RecordKind
from modelcatalog_server.domain.ports.catalog import CatalogState
from modelcatalog_server.domain.refresh import Difference, EventKind, KnownState, Payload, Refresh, RefreshType
from modelcatalog_server.domain.scores import MIN_RANKED_MODELS, MIN_SCORED_BENCHMARKS, MIN_SCORED_MODELS
from modelcatalog_server.domain.tasks import rest, run_in_slices
from modelcatalog_server.storage import queries, staging
from modelcatalog_server.storage.fetching import fetch_all, fetch_one
from modelcatalog_server.storage.pools import Connection, Pools
from modelcatalog_server.storage.refresh_events import record_event
from modelcatalog_server.storage.state_rows import read_state

_APPLY = queries.load("apply")
_MODELS = queries.load("models")
_SEARCH = queries.load("search")

#: To read so many takes a fifth of a millisecond of the event loop.
_PRICES_AT_ONCE = 100


class PostgresApply:
    """The part of ``RefreshStore`` that is about the catalog."""

    def __init__(self, pools: Pools) -> None:
        self._pools = pools

    async def get_catalog_state(self) -> CatalogState:
        """Return the current revision and source."""
        async with self._pools.asking() as connection:
            return await read_state(connection)

    async def get_known_state(self, provider_id: str | None) -> KnownState:
        """Return the hashes of what the catalog holds."""
        async with self._pools.reading() as connection:
            models = await _read_known(connection, _APPLY["get_known_models"], provider_id=provider_id)
            providers = await _read_known(connection, _APPLY["get_known_providers"], provider_id=provider_id)
            canonical = await _read_known(connection, _APPLY["get_known_canonical_models"])
            release_dates = await fetch_all(connection, _MODELS["list_release_dates"])
        return KnownState(
            models=models.listed,
            removed_models=models.removed,
            providers=providers.listed,
            removed_providers=frozenset(providers.removed),
            canonical_models=canonical.listed,
            removed_canonical_models=frozenset(canonical.removed),
            release_dates={row["id"]: row["release_date"] for row in release_dates},
            source_hashes={
                RecordKind.PROVIDER: providers.source_hashes,
                RecordKind.MODEL: models.source_hashes,
                RecordKind.CANONICAL_MODEL: canonical.source_hashes,
            },
        )

    async def get_prices(self, model_ids: Sequence[str]) -> Mapping[str, Prices]:
        """Return the base prices now of the models that exist among the ids, removed ones too."""
        prices: dict[str, Prices] = {}
        for start in range(0, len(model_ids), _PRICES_AT_ONCE):
            ids = staging.text_array(model_ids[start : start + _PRICES_AT_ONCE])
            async with self._pools.asking() as connection:
                rows = await fetch_all(connection, _APPLY["get_prices"], model_ids=ids)
            prices |= {row.pop("model_id"): Prices(**row) for row in rows}
            await rest()
        return prices

    def writing(self) -> PostgresWrite:
        """Return what writes the catalog, once."""
        return PostgresWrite(self._pools)

    async def finish_not_modified(self, refresh: Refresh, *, message: str) -> Refresh:
        """Write that upstream still says what it said, and the run's end."""
        finished = replace(refresh, not_modified=True)
        # All but the COMMIT is one round trip.
        async with self._pools.writing() as connection, connection.pipeline():
            await connection.execute(_APPLY["set_checked"])
            return await record_event(connection, finished, EventKind.TERMINAL, message=message)


class PostgresWrite:
    """Port ``CatalogWrite``: a transaction that begins when something is staged or applied."""

    def __init__(self, pools: Pools) -> None:
        self._pools = pools
        self._transaction = AsyncExitStack()
        self._copying = AsyncExitStack()
        self._connection: Connection | None = None
        self._copy: staging.RowCopy | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        await self._transaction.__aexit__(*exc_info)

    async def stage(self, models: Sequence[tuple[ModelRecord, bytes]]) -> None:
        """Write models to the staging table, before anything is locked."""
        if self._copy is None:
            connection = await self._open()
            await connection.execute(_APPLY["create_staged_models"])
            copying = staging.RowCopy(connection, _APPLY["copy_staged_models"])
            self._copy = await self._copying.enter_async_context(copying)
        await self._copy.write(itertools.starmap(staging.model_row, models))

    async def apply(self, refresh: Refresh, difference: Difference, payload: Payload, *, message: str) -> Refresh:
        """Write the difference, the run's end and its TERMINAL event, and commit."""
        connection = await self._open()
        await self._copying.aclose()
        await _stage_others(connection, difference)
        ended = await _apply(connection, refresh, difference, payload, message=message)
        await self._transaction.aclose()
        return ended

    async def _open(self) -> Connection:
        if self._connection is None:
            self._connection = await self._transaction.enter_async_context(self._pools.writing())
            await self._transaction.enter_async_context(self._copying)  # so that it ends before the transaction does
        return self._connection


async def _apply(
    connection: Connection, refresh: Refresh, difference: Difference, payload: Payload, *, message: str
) -> Refresh:
    # Also when no revision comes of it: a full run rewrites rows that a change of policy may want.
    await connection.execute(_APPLY["lock_state"])
    before = await read_state(connection)
    at = await _now(connection)
    revision = before.revision if difference.is_empty else before.revision + 1
    parameters: dict[str, Any] = {
        "full": refresh.request.type is RefreshType.FULL,
        "revision": revision,
        "at": at,
        "source_url": payload.source.url,
        "source_snapshot": payload.source.snapshot,
    }
    derived_ids = await _list_models_to_derive(connection, difference)
    await _merge(connection, difference, parameters)
    parameters |= {
        "revision": before.revision + 1,
        **_touched(difference),
        "derived_ids": staging.text_array(derived_ids),
    }
    scored = await _write_scores(connection, difference, parameters)
    is_changed = scored > 0 or not difference.is_empty
    if is_changed:
        revision = await _bump_revision(connection, at)
        await _write_versions(connection, parameters)
        await _write_search(connection, parameters)
        await connection.execute(_APPLY["append_revision"], {**parameters, "refresh_id": refresh.id})
    if before.revision == 0:
        await connection.execute(_APPLY["analyze_catalog"])
    if refresh.request.provider_id is None:
        await _set_source(connection, payload, at)
    elif is_changed:
        # What the catalog holds now is no document that upstream ever had: "not modified" would be no answer.
        await connection.execute(_APPLY["remove_etag"])
    finished = replace(refresh, base_revision=before.revision, result_revision=revision)
    return await record_event(connection, finished, EventKind.TERMINAL, message=message)


async def _stage_others(connection: Connection, difference: Difference) -> None:
    """Fill the other staging tables. What there is nothing of has no table."""
    canonical = difference.canonical_models
    if difference.providers:
        await _fill(connection, "providers", map(staging.provider_row, difference.providers))
    if canonical:
        await _fill(connection, "canonical_models", map(staging.canonical_row, canonical))
    if canonical or difference.removed_canonical_models:
        await _fill(connection, "benchmarks", staging.benchmark_rows(canonical))
    if any(difference.source_hashes.values()):
        await _fill(connection, "source_hashes", staging.source_hash_rows(difference.source_hashes))


async def _fill(connection: Connection, table: str, rows: Iterable[staging.Row]) -> None:
    await connection.execute(_APPLY[f"create_staged_{table}"])
    async with staging.RowCopy(connection, _APPLY[f"copy_staged_{table}"]) as copy:
        await copy.write(rows)


async def _list_models_to_derive(connection: Connection, difference: Difference) -> list[str]:
    """Return the models of which more than their own row is made, among those that are written or removed."""
    if not difference.models:
        return list(difference.removed_models)
    rows = await fetch_all(connection, _APPLY["list_models_to_derive"])
    return [*(row["model_id"] for row in rows), *difference.removed_models]


async def _merge(connection: Connection, difference: Difference, parameters: dict[str, Any]) -> None:
    """Bring the current rows to what the payload says. Providers first: models refer to them."""
    removed_canonical_ids = list(difference.removed_canonical_models)
    canonical_ids = [record.id for record in difference.canonical_models] + removed_canonical_ids
    hashes = any(difference.source_hashes.values())
    steps: list[tuple[str, object, dict[str, Any]]] = [
        ("merge_providers", difference.providers, {}),
        ("merge_models", difference.models, {}),
        ("merge_canonical_models", difference.canonical_models, {}),
        ("remove_providers", difference.removed_providers, {"ids": list(difference.removed_providers)}),
        ("remove_models", difference.removed_models, {"ids": list(difference.removed_models)}),
        ("remove_canonical_models", removed_canonical_ids, {"ids": removed_canonical_ids}),
        ("remove_benchmarks", canonical_ids, {"canonical_ids": canonical_ids}),
        ("merge_benchmarks", canonical_ids, {}),
        ("merge_source_hashes", hashes, {}),
        ("delete_source_hashes", hashes, {}),
    ]
    for name, is_needed, extra in steps:
        if is_needed:
            await connection.execute(_APPLY[name], {**parameters, **extra})


def _touched(difference: Difference) -> dict[str, Any]:
    """Return the models that get a new version, and whose they are."""
    model_ids = [*difference.touched_models, *difference.removed_models]
    provider_ids = {id_.partition("/")[0] for id_ in model_ids}
    return {"model_ids": staging.text_array(model_ids), "provider_ids": staging.text_array(provider_ids)}


async def _write_scores(connection: Connection, difference: Difference, parameters: dict[str, Any]) -> int:
    """Derive what compares models with each other, before the versions that it is part of; return the rows changed.

    A full run derives everything, also where nothing differs: a rule may have become another since.
    """
    full = parameters["full"]
    parameters = {
        **parameters,
        "min_ranked_models": MIN_RANKED_MODELS,
        "min_scored_models": MIN_SCORED_MODELS,
        "min_scored_benchmarks": MIN_SCORED_BENCHMARKS,
    }
    has_benchmarks = bool(difference.canonical_models or difference.removed_canonical_models)
    steps = {
        "rank_benchmarks": full or has_benchmarks,
        "score_canonical_models": full or has_benchmarks,
        "count_canonical_providers": full or not difference.is_empty,
    }
    names = [name for name, is_needed in steps.items() if is_needed]
    return sum([(await connection.execute(_APPLY[name], parameters)).rowcount for name in names])


async def _write_versions(connection: Connection, parameters: dict[str, Any]) -> None:
    """Count what providers list, then close and append the versions of all that this revision touched."""
    await connection.execute(_APPLY["count_provider_models"], parameters)
    for table in ("provider_versions", "model_versions", "canonical_model_versions"):
        await connection.execute(_APPLY[f"close_{table}"], parameters)
        await connection.execute(_APPLY[f"append_{table}"], parameters)


async def _write_search(connection: Connection, parameters: dict[str, Any]) -> None:
    """Bring what is searched to what the catalog says, where it differs."""
    for name in (
        "close_search_documents",
        "append_search_documents",
        "append_search_vocabulary",
        "merge_search_words",
    ):
        await connection.execute(_SEARCH[name], parameters)


async def _bump_revision(connection: Connection, at: datetime) -> int:
    row = await fetch_one(connection, _APPLY["bump_revision"], at=at)
    assert row is not None, "catalog_state always has its row"  # noqa: S101 - a broken invariant, not a check
    return int(row["revision"])


async def _set_source(connection: Connection, payload: Payload, at: datetime) -> None:
    await connection.execute(
        _APPLY["set_source"],
        {
            "checked_at": None if payload.is_bundled else at,
            "source_url": payload.source.url,
            "source_etag": payload.etag,
            "source_snapshot": payload.source.snapshot,
        },
    )


async def _now(connection: Connection) -> datetime:
    """Return the time to write: one clock, the database's, read once everything is staged."""
    row = await fetch_one(connection, "SELECT clock_timestamp() AS at")
    assert row is not None, "SELECT without FROM gives one row"  # noqa: S101 - a broken invariant, not a check
    at: datetime = row["at"]
    return at


@dataclass(slots=True)
class _Known:
    """Hashes of the records of one kind, by id."""

    listed: dict[str, str] = field(default_factory=dict)
    removed: dict[str, str] = field(default_factory=dict)
    source_hashes: dict[str, bytes] = field(default_factory=dict)


async def _read_known(connection: Connection, statement: LiteralString, **parameters: Any) -> _Known:
    known = _Known()
    rows = await fetch_all(connection, statement, **parameters)
    await rest()
    for row in rows:
        await run_in_slices(_note_known(known, row))
    return known


def _note_known(known: _Known, row: DictRow) -> Iterator[None]:
    content_hashes = known.removed if row["removed"] else known.listed
    columns = []
    for name in ("ids", "content_hashes", "source_hashes"):
        columns.append(row[name].split("\n"))
        yield
    for id_, content_hash, source_hash in zip(*columns, strict=True):
        content_hashes[id_] = content_hash
        if source_hash and not row["removed"]:
            known.source_hashes[id_] = bytes.fromhex(source_hash)
        yield
