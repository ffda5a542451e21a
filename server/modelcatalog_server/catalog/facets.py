"""What a query can be built from: each field that a filter takes, its operators, and what models have in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial

from modelcatalog_server.catalog.fields import MODEL_FIELDS
from modelcatalog_server.catalog.filtering import parse_filter
from modelcatalog_server.catalog.literals import write_text
from modelcatalog_server.catalog.per_revision import PerRevision
from modelcatalog_server.catalog.snapshots import ANY_REVISION, AtLeast, Read, Snapshots
from modelcatalog_server.domain.facets import FacetRequest, Tally
from modelcatalog_server.domain.money import format_decimal
from modelcatalog_server.domain.ports.catalog import CatalogSnapshot
from modelcatalog_server.domain.query import Expression, Field, FieldType

#: Fields whose values are next to as many as there are models: to list a hundred of them would say nothing.
UNCOUNTED = {"id", "upstream_id", "name", "description"}
_RANGED = {FieldType.INTEGER, FieldType.DECIMAL, FieldType.DATE, FieldType.TIME}
_TYPES = {
    FieldType.STRING: "string",
    FieldType.ENUM: "string",
    FieldType.DATE: "string",
    FieldType.BOOL: "bool",
    FieldType.INTEGER: "number",
    FieldType.DECIMAL: "number",
    FieldType.LIST: "list",
    FieldType.TIME: "time",
}
_FIELDS = MODEL_FIELDS.fields.values()
REQUEST = FacetRequest(
    counted=[field for field in _FIELDS if field.type not in _RANGED and field.path not in UNCOUNTED],
    ranged=[field for field in _FIELDS if field.type in _RANGED],
    others=[field for field in _FIELDS if field.path in UNCOUNTED],
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facet:
    """One field. Values are written as a filter takes them."""

    path: str
    type: str
    operators: Sequence[str]
    values: Sequence[tuple[str, int]]
    smallest: str | None
    largest: str | None
    unset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Facets:
    """All fields, of so many models that fit."""

    total: int
    items: Sequence[Facet]


class FacetReader:
    """Answers questions for facets from the store. Those of the whole catalog are asked for once in a revision."""

    def __init__(self, snapshots: Snapshots) -> None:
        self._snapshots = snapshots
        self._of_all: PerRevision[Facets] = PerRevision()

    async def list_model_facets(self, filter_text: str, *, at_least: AtLeast = ANY_REVISION) -> Read[Facets]:
        """Return the facets of the listed models that fit a filter.

        Raises:
            InvalidFilterError: with the column of the mistake.
        """
        matching = parse_filter(filter_text, MODEL_FIELDS)
        async with self._snapshots.open(at_least) as snapshot:
            tally = partial(_tally, snapshot, matching)
            facets = await (tally() if matching else self._of_all.get(snapshot.state, tally))
            return Read(state=snapshot.state, value=facets)


async def _tally(snapshot: CatalogSnapshot, matching: Expression | None) -> Facets:
    tallies = await snapshot.tally_models(matching, REQUEST)
    items = [_to_facet(field, tallies.by_path[field.path]) for field in _FIELDS]
    return Facets(total=tallies.total, items=items)


def _to_facet(field: Field, tally: Tally) -> Facet:
    return Facet(
        path=field.path,
        type=_TYPES[field.type],
        operators=field.operators,
        values=[(_write(value), count) for value, count in tally.counts],
        smallest=None if tally.smallest is None else _write(tally.smallest),
        largest=None if tally.largest is None else _write(tally.largest),
        unset=tally.unset,
    )


def _write(value: str | bool | int | Decimal | datetime) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case Decimal():
            return format_decimal(value)
        case int():
            return str(value)
        case str():
            return write_text(value)
