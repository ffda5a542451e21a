"""Random filters, and what they mean, worked out over the contract's messages without the service's own code.

A filter is a tree here; ``spell`` writes it in the language, ``Table.judge`` says of each message: true, false or
unknown (None).
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from operator import eq, ge, gt, le, lt, ne
from typing import Any

from modelcatalog_server.domain.query import Field, FieldCatalogue, FieldType, Operator

#: Texts that the contract sends empty when they are not known.
EMPTY_IS_UNKNOWN = {"canonical_id", "provider_id", "requested_by", "override_gate", "fallback_of", "target"}
_RELATIONS: dict[Operator, Callable[[Any, Any], bool]] = {
    Operator.EQUAL: eq,
    Operator.NOT_EQUAL: ne,
    Operator.LESS: lt,
    Operator.LESS_EQUAL: le,
    Operator.GREATER: gt,
    Operator.GREATER_EQUAL: ge,
}
_ASCII_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


@dataclass(frozen=True)
class Condition:
    """``wanted`` is the value as Python has it; ``before`` and ``after``: wildcards around it.

    Without an operator it asks for presence.
    """

    field: Field
    operator: Operator | None = None
    written: str = "*"
    wanted: Any = None
    before: bool = False
    after: bool = False


@dataclass(frozen=True)
class Joined:
    """``word``: AND, OR or NOT."""

    word: str
    parts: tuple[Filter, ...]


Filter = Condition | Joined


# --- what a message says -------------------------------------------------------------------------------------------


def read(message: Any, field: Field) -> Any:
    """Return a field of a message, None when it is unknown."""
    *path, name = field.path.split(".")
    for step in path:
        message = getattr(message, step)
    descriptor = message.DESCRIPTOR.fields_by_name[name]
    value = getattr(message, name)
    if descriptor.has_presence and not message.HasField(name):
        return None
    match field.type:
        case FieldType.LIST:
            return list(value)
        case FieldType.ENUM:
            return descriptor.enum_type.values_by_number[value].name.partition("_")[2]
        case FieldType.DECIMAL:
            return Decimal(str(value))
        case FieldType.TIME:
            return value.ToDatetime(UTC)
        case FieldType.STRING | FieldType.DATE:
            unknown = value == "" and (field.path in EMPTY_IS_UNKNOWN or field.path.startswith("pricing."))
            return None if unknown else value
        case _:
            return value


Verdict = bool | None


class Table:
    """Messages by field, each read once. Most values are those of many messages, and judged once."""

    def __init__(self, catalogue: FieldCatalogue, messages: Sequence[Any]) -> None:
        self.ids = [message.id for message in messages]
        self.columns = {
            path: [read(message, field) for message in messages] for path, field in catalogue.fields.items()
        }
        self._keys = {path: [repr(value) for value in column] for path, column in self.columns.items()}
        self._distinct = {
            path: dict(zip(self._keys[path], column, strict=True)) for path, column in self.columns.items()
        }

    def find(self, filter_: Filter) -> list[str]:
        """Return the ids of the messages that fit, in their order."""
        return [id_ for id_, verdict in zip(self.ids, self.judge(filter_), strict=True) if verdict]

    def judge(self, filter_: Filter) -> list[Verdict]:
        """Return for each message whether it fits."""
        if isinstance(filter_, Condition):
            path = filter_.field.path
            judged = {key: _judge_condition(filter_, value) for key, value in self._distinct[path].items()}
            return [judged[key] for key in self._keys[path]]
        verdicts = [self.judge(part) for part in filter_.parts]
        if filter_.word == "NOT":
            return [None if verdict is None else not verdict for verdict in verdicts[0]]
        decisive = filter_.word == "OR"
        return [_join(decisive, each) for each in zip(*verdicts, strict=True)]

    def sort(self, keys: Sequence[tuple[Field, bool]], ids: Collection[str]) -> list[str]:
        """Return these ids in an order of fields, each perhaps descending; unknown values last, then by id."""
        rows = [number for number, id_ in enumerate(self.ids) if id_ in ids]
        rows.sort(key=lambda row: self.ids[row].encode())
        for field, descending in reversed(keys):
            column = self.columns[field.path]
            known = [row for row in rows if column[row] is not None]
            unknown = [row for row in rows if column[row] is None]
            rows = sorted(known, key=lambda row: comparable(column[row]), reverse=descending) + unknown
        return [self.ids[row] for row in rows]


def _join(decisive: bool, verdicts: Sequence[Verdict]) -> Verdict:
    if decisive in verdicts:
        return decisive
    return None if None in verdicts else not decisive


def _judge_condition(condition: Condition, value: Any) -> Verdict:
    if condition.operator is None:
        return value is not None and value != "" and value != []
    if value is None:
        return None
    if condition.operator is Operator.HAS:
        if isinstance(value, list):
            return condition.wanted in value
        return condition.wanted.translate(_ASCII_LOWER) in value.translate(_ASCII_LOWER)
    if condition.before or condition.after:
        fits = _fits(condition, value)
        return fits if condition.operator is Operator.EQUAL else not fits
    return _RELATIONS[condition.operator](comparable(value), comparable(condition.wanted))


def _fits(condition: Condition, value: str) -> bool:
    if condition.before and condition.after:
        return bool(condition.wanted in value)
    return value.endswith(condition.wanted) if condition.before else value.startswith(condition.wanted)


def comparable(value: Any) -> Any:
    """Return what orders as the service orders: texts as bytes."""
    return value.encode() if isinstance(value, str) else value


# --- random filters ------------------------------------------------------------------------------------------------


class Inventor:
    """Makes up filters whose values are those of the messages, or near them."""

    def __init__(self, rng: random.Random, catalogue: FieldCatalogue, table: Table) -> None:
        self._rng = rng
        self._fields = list(catalogue.fields.values())
        self._table = table

    def invent(self, depth: int = 3) -> Filter:
        """Return a filter of at most this many levels."""
        kind = self._rng.choice(["condition", "NOT", "AND", "OR"]) if depth else "condition"
        if kind == "condition":
            field = self._rng.choice(self._fields)
            return self.invent_condition(field, self._rng.choice([*field.operators, None]))
        count = 1 if kind == "NOT" else self._rng.randint(2, 3)
        return Joined(kind, tuple(self.invent(depth - 1) for _ in range(count)))

    def invent_condition(self, field: Field, operator: Operator | None) -> Condition:
        """Return a condition on a field."""
        if operator is None:
            return Condition(field)
        value = self._invent_value(field)
        if operator is Operator.HAS and field.type is not FieldType.LIST:
            value = self._cut(value)
            value = self._rng.choice([value, value.swapcase()])
        if field.type is FieldType.STRING and operator in (Operator.EQUAL, Operator.NOT_EQUAL):
            return self._invent_pattern(field, operator, value)
        return Condition(field, operator, self._write(field, value), value)

    def _invent_value(self, field: Field) -> Any:
        known = [value for value in self._rng.sample(self._table.columns[field.path], 20) if value is not None]
        match field.type:
            case FieldType.LIST:
                words = [word for value in known for word in value]
                return self._rng.choice([*words, "nothing"])
            case FieldType.ENUM:
                return self._rng.choice(field.values)
            case FieldType.BOOL:
                return self._rng.choice([True, False])
            case FieldType.INTEGER:
                return self._rng.choice([*known, 0]) + self._rng.choice([-1, 0, 0, 1])
            case FieldType.DECIMAL:
                return self._rng.choice([*known, Decimal(0)]) + self._rng.choice([0, 0, Decimal("0.01")])
            case FieldType.TIME:
                return self._rng.choice([*known, datetime(2026, 7, 2, tzinfo=UTC)])
            case FieldType.DATE:
                return self._rng.choice([*known, "2025", "2025-06"])
            case FieldType.STRING:
                return self._rng.choice([*known, "gpt"])

    def _invent_pattern(self, field: Field, operator: Operator, value: str) -> Condition:
        before, after = self._rng.choice([(False, False), (False, True), (True, False), (True, True)])
        if before or after:
            value = self._cut(value)
        text = value.replace("\\", "\\\\").replace('"', '\\"').replace("*", "\\*")
        return Condition(field, operator, f'"{"*" * before}{text}{"*" * after}"', value, before, after)

    def _cut(self, value: str) -> str:
        start = self._rng.randrange(len(value) + 1)
        return value[start : start + self._rng.randint(1, 6)]

    def _write(self, field: Field, value: Any) -> str:
        match value:
            case bool():
                return self._rng.choice([str(value), str(value).lower()])
            case Decimal():
                return self._rng.choice([format(value, "f"), format(value, "e")])
            case int():
                return self._rng.choice([str(value), f'"{value}"', f"{value}.0"])
            case datetime():
                return self._rng.choice([value.isoformat(), f'"{value.isoformat()}"'])
            case _ if field.type is FieldType.ENUM:
                return str(self._rng.choice([value, value.lower()]))
            case _:
                text = value.replace("\\", "\\\\").replace('"', '\\"').replace("*", "\\*")
                return f'"{text}"'


def spell(filter_: Filter, rng: random.Random) -> str:
    """Write a filter with no more parentheses than it needs, most of the time."""
    match filter_:
        case Condition(operator=None):
            return f"{filter_.field.path}:*"
        case Condition(operator=operator) if operator:
            gap = rng.choice(["", " "])
            return f"{filter_.field.path}{gap}{operator}{gap}{filter_.written}"
        case Joined(word="NOT", parts=(part,)):
            sign = rng.choice(["NOT ", "-"])
            return sign + (spell(part, rng) if isinstance(part, Condition) else f"({spell(part, rng)})")
        case Joined(word="OR", parts=parts):
            return " OR ".join(
                f"({spell(part, rng)})" if isinstance(part, Joined) and part.word != "NOT" else spell(part, rng)
                for part in parts
            )
        case Joined(parts=parts):
            return rng.choice([" AND ", " "]).join(spell(part, rng) for part in parts)
    raise AssertionError(filter_)
