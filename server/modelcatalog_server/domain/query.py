"""What a listing is asked for: which items, in which order, from where on.

Fields go by their paths in the contract's message (``pricing.input``). To compare with an unknown value is neither
true nor false, and neither is its negation; an item is listed when the whole is true. Presence is always one of both,
and so is what a list holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Generic, TypeVar

T = TypeVar("T")


class FieldType(StrEnum):
    """What a field's values are. DATE is text as upstream wrote it: a year, a month or a day; LIST is one of words."""

    STRING = "string"
    ENUM = "enum"
    BOOL = "bool"
    INTEGER = "integer"
    DECIMAL = "decimal"
    DATE = "date"
    LIST = "list"
    TIME = "time"


class Operator(StrEnum):
    """How a field is compared. HAS: a text holds another, whatever the case of ASCII letters; a list has an element."""

    EQUAL = "="
    NOT_EQUAL = "!="
    LESS = "<"
    LESS_EQUAL = "<="
    GREATER = ">"
    GREATER_EQUAL = ">="
    HAS = ":"


_EQUALITY = (Operator.EQUAL, Operator.NOT_EQUAL)
_ORDER = (*_EQUALITY, Operator.LESS, Operator.LESS_EQUAL, Operator.GREATER, Operator.GREATER_EQUAL)

#: The operators that the values of a type allow. Every field is asked for its presence by ``:*``.
OPERATORS: Mapping[FieldType, tuple[Operator, ...]] = {
    FieldType.STRING: (*_ORDER, Operator.HAS),
    FieldType.ENUM: _EQUALITY,
    FieldType.BOOL: _EQUALITY,
    FieldType.INTEGER: _ORDER,
    FieldType.DECIMAL: _ORDER,
    FieldType.DATE: (*_ORDER, Operator.HAS),
    FieldType.LIST: (Operator.HAS,),
    FieldType.TIME: _ORDER,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field that a filter may name. ``nullable``: it may be unknown. ``values``: of an enum, without the prefix."""

    path: str
    type: FieldType
    nullable: bool = False
    values: tuple[str, ...] = ()

    @property
    def operators(self) -> tuple[Operator, ...]:
        """The operators that the field takes, presence aside."""
        return OPERATORS[self.type]

    @property
    def is_orderable(self) -> bool:
        """Whether items can be put in the order of the field."""
        return self.type is not FieldType.LIST


@dataclass(frozen=True, slots=True)
class FieldCatalogue:
    """The fields of one message of the contract that a filter and an order may name, by path."""

    message: str
    fields: Mapping[str, Field]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """A text that may go on before (``*text``), after (``text*``) or on both sides."""

    text: str
    open_start: bool
    open_end: bool


#: What a field is compared with: of its type; times are aware.
Value = str | bool | int | Decimal | datetime | Pattern


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A field against a value of its type. Unknown when the field is."""

    field: Field
    operator: Operator
    value: Value


@dataclass(frozen=True, slots=True, kw_only=True)
class Presence:
    """Whether a field is known, and not empty if it is a text or a list."""

    field: Field


@dataclass(frozen=True, slots=True, kw_only=True)
class Not:
    """True when the term is false; unknown when it is unknown."""

    term: Expression


@dataclass(frozen=True, slots=True, kw_only=True)
class And:
    """True when all terms are."""

    terms: tuple[Expression, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Or:
    """True when any term is."""

    terms: tuple[Expression, ...]


Expression = Comparison | Presence | Not | And | Or


@dataclass(frozen=True, slots=True, kw_only=True)
class SortKey:
    """One field to order by. Unknown values come last, whichever the direction."""

    field: Field
    descending: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which items a listing has (``None``: all of them) and in which order; the id, ascending, decides ties."""

    filter: Expression | None = None
    order: Sequence[SortKey] = ()

    @property
    def is_plain(self) -> bool:
        """Whether it is all items by id."""
        return self.filter is None and not self.order


EVERYTHING = Selection()


@dataclass(frozen=True, slots=True, kw_only=True)
class Boundary:
    """The item that a page begins behind: its id, and its sort keys as the store writes them, ``None`` for unknown.

    An empty id: from the first item.
    """

    id: str = ""
    keys: tuple[str | None, ...] = ()


START = Boundary()


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed(Generic[T]):
    """An item of a listing and where it stands in it."""

    item: T
    boundary: Boundary
