"""Facets of the listed models: part of port ``CatalogSnapshot`` over PostgreSQL. Two passes over what fits."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from psycopg.rows import DictRow

from modelcatalog_server.domain.facets import MAX_COUNTED, FacetRequest, Tallies, Tally
from modelcatalog_server.domain.query import Expression, Field, FieldType
from modelcatalog_server.storage import queries
from modelcatalog_server.storage.composition import compose_measures, compose_value_counts
from modelcatalog_server.storage.pools import Statements

_FACETS = queries.load("facets")

Counts = Sequence[tuple[str | bool, int]]


async def tally_models(connection: Statements, matching: Expression | None, request: FacetRequest) -> Tallies:
    """Return what the listed models that match have in these fields."""
    fields = [*request.counted, *request.ranged, *request.others]
    measures = compose_measures(fields, request.ranged, matching)
    (row,) = await _fetch(connection, measures.fill(_FACETS["measure_models"]), measures.parameters)
    grouped = [field for field in request.counted if field.type is not FieldType.BOOL]
    counting = compose_value_counts(grouped, matching)
    parameters = {**counting.parameters, "limit": MAX_COUNTED}
    counts = _read_counts(grouped, await _fetch(connection, counting.fill(_FACETS["count_model_values"]), parameters))
    tallies = {field.path: _read_tally(row, number, counts.get(field.path, ())) for number, field in enumerate(fields)}
    return Tallies(total=row["total"], by_path=tallies)


async def _fetch(connection: Statements, statement: Any, parameters: Mapping[str, Any]) -> list[DictRow]:
    return await (await connection.execute(statement, parameters)).fetchall()


def _read_tally(row: DictRow, number: int, counts: Counts) -> Tally:
    known = row.get(f"known_{number}", row["total"])  # what is always known is not counted
    if f"true_{number}" in row:
        true = row[f"true_{number}"]
        counts = _most_frequent([(True, true), (False, known - true)])
    return Tally(
        unset=row["total"] - known,
        counts=counts,
        smallest=row.get(f"min_{number}"),
        largest=row.get(f"max_{number}"),
    )


def _read_counts(grouped: Sequence[Field], rows: Iterable[DictRow]) -> Mapping[str, Counts]:
    """Return the counts by path. ``absent`` has a bit for each field, the first one's highest: all but one are set."""
    paths = {_all_but(number, len(grouped)): field.path for number, field in enumerate(grouped)}
    counters: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        path = paths[row["absent"]]
        for value in [row["value"]] if row["elements"] is None else set(row["elements"]):
            counters[path][value] += row["models"]
    return {path: _most_frequent(counter.items()) for path, counter in counters.items()}


def _all_but(number: int, size: int) -> int:
    return (1 << size) - 1 - (1 << (size - 1 - number))


def _most_frequent(counts: Iterable[tuple[str | bool, int]]) -> Counts:
    there = sorted(((value, count) for value, count in counts if count), key=lambda each: (-each[1], str(each[0])))
    return there[:MAX_COUNTED]
