"""What items have in a field, taken together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from modelcatalog_server.domain.query import Field

#: Values that are told of one field, the most frequent ones.
MAX_COUNTED = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class FacetRequest:
    """Of which fields the values are ``counted``, the smallest and largest ``ranged``, and of which neither."""

    counted: Sequence[Field]
    ranged: Sequence[Field]
    others: Sequence[Field]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """One field of all items. ``counts``: at most ``MAX_COUNTED`` values, most frequent first, then by their bytes."""

    unset: int
    counts: Sequence[tuple[str | bool, int]] = ()
    smallest: str | int | Decimal | datetime | None = None
    largest: str | int | Decimal | datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tallies:
    """All fields that were asked for, by path, of so many items."""

    total: int
    by_path: Mapping[str, Tally]
