"""The writes of a refresh to the catalog, in one transaction, and what they are compared with before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, LiteralString

from modelcatalog_server.domain.models import Prices, RecordKind
from modelcatalog_server.domain.ports import CatalogState, Progress
from modelcatalog_server.domain.refresh import Difference, EventKind, KnownState, Payload, Refresh, RefreshType
from modelcatalog_server.domain.scores import MIN_RANKED_MODELS, MIN_SCORED_BENCHMARKS, MIN_SCORED_MODELS
from modelcatalog_server.storage import queries, staging
from modelcatalog_server.storage.catalog_store import read_state
from modelcatalog_server.storage.fetching import fetch_all, fetch_one
from modelcatalog_server.storage.pools import Connection, Pools
from modelcatalog_server.storage.refresh_events import record_event

_APPLY = queries.load("apply")
_MODELS = queries.load("models")
_SEARCH = queries.load("search")


class PostgresApply:
    """The part of ``RefreshStore`` that writes the catalog."""

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
        async with self._pools.asking() as connection:
            rows = await fetch_all(connection, _APPLY["get_prices"], model_ids=list(model_ids))
        return {row.pop("model_id"): Prices(**row) for row in rows}

    async def apply(
        self,
        refresh: Refresh,
        difference: Difference,
        payload: Payload,
        *,
        progress: Progress,
        message: str,
    ) -> Refresh:
        """Write the difference, the run's end and its TERMINAL event in one transaction."""
        async with self._pools.writing() as connection:
            await _stage(connection, difference, progress)
            # Also when no revision comes of it: a full run rewrites rows that a change of policy may want.
            await connection.execute(_APPLY["lock_state"])
            before = await read_state(connection)
            at = await _now(connection)
            revision = before.revision if difference.is_empty else before.revision + 1
            parameters: dict[str, Any] = {
                "revision": revision,
                "at": at,
                "source_url": payload.source.url,
                "source_snapshot": payload.source.snapshot,
            }
            await _merge(connection, difference, parameters)
            is_full = refresh.request.type is RefreshType.FULL
            parameters |= {"revision": before.revision + 1, **_touched(difference)}
            scored = await _write_scores(connection, difference, parameters, full=is_full)
            is_changed = scored > 0 or not difference.is_empty
            if is_changed:
                revision = await _bump_revision(connection, at)
                await _write_versions(connection, parameters)
                await _write_search(connection, parameters, everything=is_full)
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

    async def finish_not_modified(self, refresh: Refresh, *, message: str) -> Refresh:
        """Write that upstream still says what it said, and the run's end."""
        finished = replace(refresh, not_modified=True)
        # All but the COMMIT is one round trip.
        async with self._pools.writing() as connection, connection.pipeline():
            await connection.execute(_APPLY["set_checked"])
            return await record_event(connection, finished, EventKind.TERMINAL, message=message)


async def _stage(connection: Connection, difference: Difference, progress: Progress) -> None:
    """Fill the staging tables, before anything is locked. What there is nothing of has no table."""
    total = len(difference.models)
    canonical = difference.canonical_models
    if difference.providers:
        await _fill(connection, "providers", map(staging.provider_row, difference.providers))
    if difference.models:
        models = (staging.model_row(record, difference.messages[record.id]) for record in difference.models)
        await _fill(connection, "models", models, lambda done: progress(done, total))
    if canonical:
        await _fill(connection, "canonical_models", map(staging.canonical_row, canonical))
    if canonical or difference.removed_canonical_models:
        await _fill(connection, "benchmarks", staging.benchmark_rows(canonical))
    if any(difference.source_hashes.values()):
        await _fill(connection, "source_hashes", staging.source_hash_rows(difference.source_hashes))


async def _fill(
    connection: Connection, table: str, rows: Iterable[staging.Row], progress: Callable[[int], None] | None = None
) -> None:
    await connection.execute(_APPLY[f"create_staged_{table}"])
    await staging.copy_rows(connection, _APPLY[f"copy_staged_{table}"], rows, progress)


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
    return {"model_ids": model_ids, "provider_ids": list({id_.partition("/")[0] for id_ in model_ids})}


async def _write_scores(
    connection: Connection, difference: Difference, parameters: dict[str, Any], *, full: bool
) -> int:
    """Derive what compares models with each other, before the versions that it is part of; return the rows changed.

    A full run derives everything, also where nothing differs: a rule may have become another since.
    """
    parameters = {
        **parameters,
        "full": full,
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


async def _write_search(connection: Connection, parameters: dict[str, Any], *, everything: bool) -> None:
    """Bring what is searched to what the catalog says, where it differs."""
    for name in (
        "close_search_documents",
        "append_search_documents",
        "append_search_vocabulary",
        "merge_search_words",
    ):
        await connection.execute(_SEARCH[name], {**parameters, "everything": everything})


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
    for row in await fetch_all(connection, statement, **parameters):
        ids = row["ids"].split("\n")
        content_hashes = dict(zip(ids, row["content_hashes"].split("\n"), strict=True))
        if row["removed"]:
            known.removed = content_hashes
            continue
        known.listed = content_hashes
        sources = zip(ids, row["source_hashes"].split("\n"), strict=True)
        known.source_hashes = {id_: bytes.fromhex(hash_) for id_, hash_ in sources if hash_}
    return known
