"""Filters, orders and page boundaries as SQL: the one place where SQL is composed.

Columns come from the tables below, by the path of the field, and nothing else of a caller's becomes SQL: every value is
a parameter. Texts are compared as bytes (collation "C"), so that an order is the same whatever locale a database has.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, LiteralString

from psycopg import sql

from modelcatalog_server.domain.models import Capabilities, Prices
from modelcatalog_server.domain.offers import OFFER_FIELDS
from modelcatalog_server.domain.query import (
    START,
    And,
    Boundary,
    Comparison,
    Expression,
    Field,
    FieldType,
    Not,
    Operator,
    Or,
    Pattern,
    Presence,
    Selection,
    SortKey,
    Value,
)

#: What stands for each field of a message, by path. Of an enum it gives the contract's name, without the prefix.
Columns = Mapping[str, sql.Composable]

#: A statement out of a file, as it is or filled.
Statement = LiteralString | sql.Composed

_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_LIKE_SPECIAL = str.maketrans({character: f"\\{character}" for character in "\\%_"})


def _in_one_piece(part: sql.Composable) -> sql.SQL:
    """Return what is the same in every statement as one piece: putting hundreds together takes milliseconds."""
    return sql.SQL(part.as_string())  # composed of whitelists alone


def _column(alias: LiteralString, name: str) -> sql.SQL:
    return _in_one_piece(sql.SQL(".").join([sql.SQL(alias), sql.Identifier(name)]))


#: Of ``models_metadata`` or ``model_versions`` as m, with ``llm_providers`` or ``provider_versions`` as p, and with
#: ``canonical_models`` or ``canonical_model_versions`` as c where there is one.
MODEL_COLUMNS: Columns = {
    "id": sql.SQL("m.model_id"),
    "provider_id": sql.SQL("m.provider_id"),
    "provider_name": sql.SQL('p.name COLLATE "C"'),
    "upstream_id": sql.SQL("m.modelsdev_id"),
    "canonical_id": sql.SQL("m.canonical_id"),
    "name": sql.SQL('m.model_name COLLATE "C"'),
    "description": sql.SQL('m.description COLLATE "C"'),
    "family": sql.SQL('m.model_family COLLATE "C"'),
    "version": sql.SQL('m.version COLLATE "C"'),
    "type": sql.SQL(
        "CASE WHEN m.model_type IN ("
        "'chat', 'embedding', 'rerank', 'image', 'video', 'speech', 'transcription', 'moderation'"
        ") THEN upper(m.model_type COLLATE \"C\") ELSE 'OTHER' END"
    ),
    "status": sql.SQL(
        "CASE WHEN m.removed_at IS NOT NULL THEN 'REMOVED'"
        " WHEN m.status IN ('active', 'alpha', 'beta', 'deprecated') THEN upper(m.status COLLATE \"C\")"
        " ELSE 'OTHER' END"
    ),
    "limits.context_window": sql.SQL("m.context_window"),
    "limits.max_input_tokens": sql.SQL("m.max_input_tokens"),
    "limits.max_output_tokens": sql.SQL("m.max_tokens"),
    "pricing.currency": sql.SQL('m.pricing_currency COLLATE "C"'),
    **{f"pricing.{name}": _column("m", f"pricing_{name}") for name in Prices.__slots__},
    **{
        f"capabilities.{name}": _column("m", name if name == "open_weights" else f"supports_{name}")
        for name in Capabilities.__slots__
    },
    "modalities.input": sql.SQL("m.input_modalities"),
    "modalities.output": sql.SQL("m.output_modalities"),
    "performance.benchmark_score": sql.SQL("c.benchmark_score"),
    "performance.popularity_score": sql.SQL("c.popularity_score"),
    "performance.reliability_score": sql.SQL("m.reliability_score"),
    "tags": sql.SQL("m.tags"),
    "release_date": sql.SQL("nullif(m.release_date, '') COLLATE \"C\""),
    "last_updated": sql.SQL("nullif(m.last_updated, '') COLLATE \"C\""),
    "knowledge_cutoff": sql.SQL("nullif(m.knowledge_cutoff, '') COLLATE \"C\""),
    "revision": sql.SQL("m.revision"),
    "first_seen_time": sql.SQL("m.first_seen_at"),
    "last_changed_time": sql.SQL("m.last_changed_at"),
    "removed_time": sql.SQL("m.removed_at"),
}

#: Of ``llm_providers`` or ``provider_versions`` as p.
PROVIDER_COLUMNS: Columns = {
    "id": sql.SQL("p.id"),
    "name": sql.SQL('p.name COLLATE "C"'),
    "documentation_url": sql.SQL('p.documentation_url COLLATE "C"'),
    "api_base_url": sql.SQL('p.api_base_url COLLATE "C"'),
    "npm_package": sql.SQL('p.npm_package COLLATE "C"'),
    "env_vars": sql.SQL("p.env_vars"),
    "enabled": sql.SQL("p.enabled"),
    "model_count": sql.SQL("p.total_models"),
    "enabled_model_count": sql.SQL("p.enabled_models"),
    "status": sql.SQL("CASE WHEN p.removed_at IS NULL THEN 'ACTIVE' ELSE 'REMOVED' END COLLATE \"C\""),
    "last_sync_time": sql.SQL("p.last_models_sync"),
    "revision": sql.SQL("p.revision"),
}

#: Of ``models_refresh_history`` as h.
REFRESH_COLUMNS: Columns = {
    "id": sql.SQL('h.id::text COLLATE "C"'),
    "state": sql.SQL('h.status COLLATE "C"'),
    "type": sql.SQL('h.refresh_type COLLATE "C"'),
    "provider_id": sql.SQL("h.provider_id"),
    "trigger": sql.SQL('h.trigger COLLATE "C"'),
    "requested_by": sql.SQL('h.requested_by COLLATE "C"'),
    "counts.seen": sql.SQL("h.models_seen"),
    "counts.added": sql.SQL("h.models_added"),
    "counts.changed": sql.SQL("h.models_changed"),
    "counts.removed": sql.SQL("h.models_removed"),
    "counts.revived": sql.SQL("h.models_revived"),
    "counts.unchanged": sql.SQL("h.models_unchanged"),
    "counts.quarantined": sql.SQL("h.models_failed"),
    "attempt": sql.SQL("h.attempt"),
    "warnings": sql.SQL("h.warnings"),
    "start_time": sql.SQL("h.started_at"),
    "end_time": sql.SQL("h.completed_at"),
    "base_revision": sql.SQL("h.base_revision"),
    "result_revision": sql.SQL("h.result_revision"),
    "not_modified": sql.SQL("h.not_modified"),
    "validate_only": sql.SQL("h.validate_only"),
    "force": sql.SQL("h.force"),
    "override_gate": sql.SQL('h.override_gate COLLATE "C"'),
    "fallback_of": sql.SQL('h.fallback_of::text COLLATE "C"'),
}

#: Of ``audit_log`` as a.
AUDIT_EVENT_COLUMNS: Columns = {
    "id": sql.SQL("a.id"),
    "event_time": sql.SQL("a.happened_at"),
    "principal": sql.SQL('a.principal COLLATE "C"'),
    "method": sql.SQL('a.method COLLATE "C"'),
    "target": sql.SQL("nullif(a.target, '') COLLATE \"C\""),
    "code": sql.SQL('a.code COLLATE "C"'),
}

_OPERATORS: Mapping[Operator, LiteralString] = {
    Operator.EQUAL: "{column} = {value}",
    Operator.NOT_EQUAL: "{column} <> {value}",
    Operator.LESS: "{column} < {value}",
    Operator.LESS_EQUAL: "{column} <= {value}",
    Operator.GREATER: "{column} > {value}",
    Operator.GREATER_EQUAL: "{column} >= {value}",
}

#: What a sort key is read back as: it travels as text.
_CASTS: Mapping[FieldType, LiteralString] = {
    FieldType.STRING: "{value}::text",
    FieldType.ENUM: "{value}::text",
    FieldType.DATE: "{value}::text",
    FieldType.BOOL: "{value}::boolean",
    FieldType.INTEGER: "{value}::bigint",
    FieldType.DECIMAL: "{value}::numeric",
    FieldType.TIME: "{value}::timestamptz",
}


_CURRENT_MODELS: LiteralString = """
INNER JOIN models_metadata AS m ON m.model_id = {id}
INNER JOIN llm_providers AS p ON p.id = m.provider_id
LEFT JOIN canonical_models AS c ON c.id = m.canonical_id
"""
_PAST_MODELS: LiteralString = """
INNER JOIN model_versions AS m
    ON
        m.model_id = {id}
        AND m.revision <= %(revision)s
        AND (m.valid_to_revision IS NULL OR m.valid_to_revision > %(revision)s)
INNER JOIN provider_versions AS p
    ON
        p.id = m.provider_id
        AND p.revision <= %(revision)s
        AND (p.valid_to_revision IS NULL OR p.valid_to_revision > %(revision)s)
LEFT JOIN canonical_model_versions AS c
    ON
        c.id = m.canonical_id
        AND c.revision <= %(revision)s
        AND (c.valid_to_revision IS NULL OR c.valid_to_revision > %(revision)s)
"""


@dataclass(frozen=True, slots=True)
class Composition:
    """Parts of a statement, for its braces, and the parameters in them."""

    parts: Mapping[str, sql.Composable]
    parameters: Mapping[str, Any]

    def fill(self, statement: LiteralString) -> sql.Composed:
        """Return a statement of a file with its braces filled."""
        return sql.SQL(statement).format(**self.parts)


def compile_filter(expression: Expression | None, columns: Columns) -> tuple[sql.Composable, dict[str, Any]]:
    """Return the condition of a filter, "true" without one, and its parameters, whose names begin with ``c_``."""
    values = _Values("c")
    condition = _compile(expression, columns, values) if expression else sql.SQL("true")
    return condition, values.parameters


def compose(
    selection: Selection, columns: Columns, *, provider_id: str | None = None, after: Boundary = START
) -> Composition:
    """Return conditions, order and sort_keys of a listing whose page begins behind an item.

    With ``provider_id`` only what belongs to it: a parameter of that name.
    """
    condition, parameters = compile_filter(selection.filter, columns)
    conditions = [condition]
    if provider_id is not None:
        conditions.append(sql.SQL("{} = {}").format(columns["provider_id"], sql.Placeholder("provider_id")))
        parameters["provider_id"] = provider_id
    if after.id:
        behind, more = compile_boundary(selection.order, after, columns)
        conditions.append(behind)
        parameters |= more
    parts = {
        "conditions": sql.SQL(" AND ").join(conditions),
        "order": compile_order(selection.order, columns),
        "sort_keys": _compile_sort_keys(selection.order, columns),
    }
    return Composition(parts, parameters)


def compose_search(matching: Expression | None, *, is_past: bool) -> Composition:
    """Return the parts of ``search_models``: the models of now or those of a past revision, which must match."""
    condition, parameters = compile_filter(matching, MODEL_COLUMNS)
    parts = {
        "conditions": condition,
        "filtered_models": _join_models("d", is_past=is_past) if matching else sql.SQL(""),
        "page_models": _join_models("page", is_past=is_past),
    }
    return Composition(parts, parameters)


def _join_models(alias: LiteralString, *, is_past: bool) -> sql.Composable:
    """Return joins of the models of a table's ids as m, of their providers as p, of their canonical models as c."""
    joins = _PAST_MODELS if is_past else _CURRENT_MODELS
    return sql.SQL(joins).format(id=_column(alias, "model_id"))


def compile_order(order: Sequence[SortKey], columns: Columns) -> sql.Composable:
    """Return what goes after ORDER BY: the keys, unknown values last, then the id."""
    keys = [_compile_key(key, columns) for key in order]
    return sql.SQL(", ").join([*keys, columns["id"]])


def compile_boundary(
    order: Sequence[SortKey], after: Boundary, columns: Columns
) -> tuple[sql.Composable, dict[str, Any]]:
    """Return the condition of what comes behind an item in an order, and its parameters, whose names begin with ``k_``.

    Behind it is what is behind it by the first key, or equal by that and behind it by the second, and so on to the id.
    """
    values = _Values("k")
    behind: sql.Composable = sql.SQL("{} > {}").format(columns["id"], values.add(after.id))
    for key, text in reversed(list(zip(order, after.keys, strict=True))):
        column = columns[key.field.path]
        if text is None:  # the last there are by this key
            behind = sql.SQL("({column} IS NULL AND {behind})").format(column=column, behind=behind)
            continue
        value = sql.SQL(_CASTS[key.field.type]).format(value=values.add(text))
        later = sql.SQL("{column} < {value}" if key.descending else "{column} > {value}")
        behind = sql.SQL("({later}{or_unknown} OR ({column} = {value} AND {behind}))").format(
            later=later.format(column=column, value=value),
            or_unknown=sql.SQL(" OR {} IS NULL").format(column) if key.field.nullable else sql.SQL(""),
            column=column,
            value=value,
            behind=behind,
        )
    return behind, values.parameters


def compose_offers(offered: Expression) -> Composition:
    """Return the parts of a statement of ``offers.sql``."""
    condition, parameters = compile_filter(offered, MODEL_COLUMNS)
    return Composition({"offered": condition, **_offer_columns()}, parameters)


@cache
def _offer_columns() -> Mapping[str, sql.SQL]:
    texts = [sql.SQL("({})::text").format(MODEL_COLUMNS[path]) for path in OFFER_FIELDS]
    # Unknown is a text that none of them has.
    comparable = [sql.SQL("coalesce({}, 'unknown')").format(text) for text in texts]
    differs = [sql.SQL("min({text}) <> max({text})").format(text=text) for text in comparable]
    return {
        "values": _in_one_piece(sql.SQL("ARRAY[{}]::text[]").format(sql.SQL(", ").join(texts))),
        "differs": _in_one_piece(sql.SQL("ARRAY[{}]::boolean[]").format(sql.SQL(", ").join(differs))),
    }


def compose_measures(fields: Sequence[Field], ranged: Sequence[Field], matching: Expression | None) -> Composition:
    """Return the parts of ``measure_models``: its columns are named by the number of the field."""
    condition, parameters = compile_filter(matching, MODEL_COLUMNS)
    return Composition({"conditions": condition, "measures": _measures(tuple(fields), tuple(ranged))}, parameters)


@cache
def _measures(fields: Sequence[Field], ranged: Sequence[Field]) -> sql.SQL:
    measures = []
    for number, asked in enumerate(fields):
        wanted: list[LiteralString] = []
        if asked.nullable:
            wanted += ["count({column}) AS known_{number}"]
        if asked in ranged:
            wanted += ["min({column}) AS min_{number}", "max({column}) AS max_{number}"]
        if asked.type is FieldType.BOOL:
            wanted += ["count(*) FILTER (WHERE {column}) AS true_{number}"]
        values = {"column": MODEL_COLUMNS[asked.path], "number": sql.Literal(number)}
        measures += [sql.SQL(each).format(**values) for each in wanted]
    return _in_one_piece(sql.SQL(", ").join(measures))


def compose_value_counts(fields: Sequence[Field], matching: Expression | None) -> Composition:
    """Return the parts of ``count_model_values``, for at most 31 fields: ``absent`` has a bit for each."""
    condition, parameters = compile_filter(matching, MODEL_COLUMNS)
    return Composition({"conditions": condition, **_value_columns(tuple(fields))}, parameters)


@cache
def _value_columns(fields: Sequence[Field]) -> Mapping[str, sql.SQL]:
    columns = [MODEL_COLUMNS[asked.path] for asked in fields]
    texts = [MODEL_COLUMNS[asked.path] for asked in fields if asked.type is not FieldType.LIST]
    lists = [MODEL_COLUMNS[asked.path] for asked in fields if asked.type is FieldType.LIST]
    parts = {
        "absent": sql.SQL("grouping({})").format(sql.SQL(", ").join(columns)),
        "value": sql.SQL("coalesce({})").format(sql.SQL(", ").join(texts)),
        "elements": sql.SQL("coalesce({})").format(sql.SQL(", ").join(lists)),
        "sets": sql.SQL(", ").join([sql.SQL("({})").format(column) for column in columns]),
    }
    return {name: _in_one_piece(part) for name, part in parts.items()}


def _compile_key(key: SortKey, columns: Columns) -> sql.Composable:
    direction = sql.SQL("{} DESC NULLS LAST" if key.descending else "{} ASC NULLS LAST")
    return direction.format(columns[key.field.path])


def _compile_sort_keys(order: Iterable[SortKey], columns: Columns) -> sql.Composable:
    keys = [sql.SQL("({})::text").format(columns[key.field.path]) for key in order]
    return sql.SQL("ARRAY[{}]::text[]").format(sql.SQL(", ").join(keys))


@dataclass(slots=True)
class _Values:
    """Values on their way into parameters."""

    prefix: str
    parameters: dict[str, Any] = field(default_factory=dict)

    def add(self, value: Any) -> sql.Placeholder:
        name = f"{self.prefix}_{len(self.parameters)}"
        self.parameters[name] = value
        return sql.Placeholder(name)


def _compile(expression: Expression, columns: Columns, values: _Values) -> sql.Composable:
    match expression:
        case And(terms=terms):
            return _join(" AND ", terms, columns, values)
        case Or(terms=terms):
            return _join(" OR ", terms, columns, values)
        case Not(term=term):
            return sql.SQL("NOT ({})").format(_compile(term, columns, values))
        case Presence(field=asked):
            return _compile_presence(asked, columns[asked.path])
        case Comparison(field=asked, operator=Operator.HAS, value=value):
            return _compile_has(asked, columns[asked.path], value, values)
        case Comparison(field=asked, operator=operator, value=Pattern() as pattern):
            like = sql.SQL("{} NOT LIKE {}" if operator is Operator.NOT_EQUAL else "{} LIKE {}")
            return like.format(columns[asked.path], values.add(_to_like(pattern)))
        case Comparison(field=asked, operator=operator, value=value):
            comparison = sql.SQL(_OPERATORS[operator])
            return comparison.format(column=columns[asked.path], value=values.add(value))


def _join(word: LiteralString, terms: Iterable[Expression], columns: Columns, values: _Values) -> sql.Composable:
    return sql.SQL("({})").format(sql.SQL(word).join([_compile(term, columns, values) for term in terms]))


def _compile_presence(asked: Field, column: sql.Composable) -> sql.Composable:
    """Return a condition that is never unknown."""
    match asked.type:
        case FieldType.STRING | FieldType.DATE:
            return sql.SQL("({column} IS NOT NULL AND {column} <> '')").format(column=column)
        case FieldType.LIST:
            return sql.SQL("cardinality({}) > 0").format(column)
        case _:
            return sql.SQL("({}) IS NOT NULL").format(column)


def _compile_has(asked: Field, column: sql.Composable, value: Value, values: _Values) -> sql.Composable:
    text = str(value)
    if asked.type is FieldType.LIST:
        return sql.SQL("{} @> ARRAY[{}]::text[]").format(column, values.add(text))
    held = Pattern(text=text.translate(_LOWER), open_start=True, open_end=True)
    return sql.SQL("lower({}) LIKE {}").format(column, values.add(_to_like(held)))


def _to_like(pattern: Pattern) -> str:
    return f"{'%' * pattern.open_start}{pattern.text.translate(_LIKE_SPECIAL)}{'%' * pattern.open_end}"
