"""The language of filters: what it means, and what it says of mistakes."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import pytest

from modelcatalog.v1 import catalog_admin_service_pb2, model_pb2, provider_pb2, refresh_pb2
from modelcatalog_server.catalog import fields
from modelcatalog_server.catalog.fields import AUDIT_EVENT_FIELDS, MODEL_FIELDS, PROVIDER_FIELDS, REFRESH_FIELDS
from modelcatalog_server.catalog.filtering import MAX_DEPTH, MAX_TERMS, parse_filter
from modelcatalog_server.catalog.ordering import MAX_KEYS, parse_order_by
from modelcatalog_server.domain.errors import InvalidFilterError, InvalidOrderByError
from modelcatalog_server.domain.query import (
    OPERATORS,
    And,
    Comparison,
    Expression,
    FieldCatalogue,
    FieldType,
    Not,
    Operator,
    Or,
    Pattern,
    Presence,
    SortKey,
    Value,
)
from modelcatalog_server.storage import composition


def parse(text: str) -> Expression | None:
    return parse_filter(text, MODEL_FIELDS)


def compare(path: str, operator: str, value: Value) -> Comparison:
    return Comparison(field=MODEL_FIELDS.fields[path], operator=Operator(operator), value=value)


A, B, C, D = (compare("family", "=", letter) for letter in "abcd")
LETTERS = {f" {letter} ": f" family = {letter} " for letter in "abcd"}


def spell(text: str) -> str:
    """Write conditions in the place of single letters."""
    text = f" {text} ".replace("(", "( ").replace(")", " )").replace("-", "- ")
    for letter, condition in LETTERS.items():
        text = text.replace(letter, condition)
    return text


# --- structure -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("a", A),
        ("( a )", A),
        ("a AND b", And(terms=(A, B))),
        ("a b", And(terms=(A, B))),
        ("a OR b", Or(terms=(A, B))),
        ("a AND b OR c", And(terms=(A, Or(terms=(B, C))))),
        ("a OR b AND c", And(terms=(Or(terms=(A, B)), C))),
        ("a OR b AND c OR d", And(terms=(Or(terms=(A, B)), Or(terms=(C, D))))),
        ("a b OR c", And(terms=(A, Or(terms=(B, C))))),
        ("a b AND c d", And(terms=(A, B, C, D))),
        ("(a AND b) OR c", Or(terms=(And(terms=(A, B)), C))),
        ("(a OR b) OR c", Or(terms=(A, B, C))),
        ("a AND (b AND (c AND d))", And(terms=(A, B, C, D))),
        ("NOT a", Not(term=A)),
        ("-a", Not(term=A)),
        ("NOT a OR b", Or(terms=(Not(term=A), B))),
        ("NOT (a OR b)", Not(term=Or(terms=(A, B)))),
        ("NOT(a) AND b", And(terms=(Not(term=A), B))),
        ("-(a b)", Not(term=And(terms=(A, B)))),
        ("a -b", And(terms=(A, Not(term=B)))),
        ("NOT (NOT a)", Not(term=Not(term=A))),
    ],
)
def test_or_binds_tighter_than_and_as_in_aip_160(text: str, meaning: Expression) -> None:
    assert parse(spell(text)) == meaning


@pytest.mark.parametrize("text", ["", " ", "\t\r\n "])
def test_a_blank_filter_is_everything(text: str) -> None:
    assert parse(text) is None


def test_the_example_of_the_contract() -> None:
    text = (
        'provider_id = "openai" AND capabilities.vision = true AND pricing.input <= 1.25 AND'
        " limits.context_window >= 200000 AND NOT tags:deprecated"
    )
    assert parse(text) == And(
        terms=(
            compare("provider_id", "=", "openai"),
            compare("capabilities.vision", "=", True),
            compare("pricing.input", "<=", Decimal("1.25")),
            compare("limits.context_window", ">=", 200_000),
            Not(term=compare("tags", ":", "deprecated")),
        )
    )


# --- values --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "path", "operator", "value"),
    [
        ("id=openai/gpt-5", "id", "=", "openai/gpt-5"),
        ("id = us.anthropic.claude-v1:0", "id", "=", "us.anthropic.claude-v1:0"),
        ("id = @cf/meta/llama", "id", "=", "@cf/meta/llama"),
        ("id != 'a b'", "id", "!=", "a b"),
        (r'name = "say \"hi\" \\ \' it"', "name", "=", 'say "hi" \\ \' it'),
        ("name = 'a\t(b) AND c'", "name", "=", "a\t(b) AND c"),
        ('name = "AND"', "name", "=", "AND"),
        ('name = "null"', "name", "=", "null"),
        ('name = ""', "name", "=", ""),
        ("name:模型", "name", ":", "模型"),
        ("name:100%_", "name", ":", "100%_"),
        ("name = gpt*", "name", "=", Pattern(text="gpt", open_start=False, open_end=True)),
        ("name = *gpt", "name", "=", Pattern(text="gpt", open_start=True, open_end=False)),
        ('name != "*a b*"', "name", "!=", Pattern(text="a b", open_start=True, open_end=True)),
        ("name = *", "name", "=", Pattern(text="", open_start=True, open_end=True)),
        ("name = **", "name", "=", Pattern(text="", open_start=True, open_end=True)),
        (r'name = "a\*"', "name", "=", "a*"),
        (r'name = "\**"', "name", "=", Pattern(text="*", open_start=False, open_end=True)),
        (r'name:"\*"', "name", ":", "*"),
        ("name < b", "name", "<", "b"),
        ("type = chat", "type", "=", "CHAT"),
        ("status != Deprecated", "status", "!=", "DEPRECATED"),
        ("capabilities.vision = TRUE", "capabilities.vision", "=", True),
        ('capabilities.vision != "false"', "capabilities.vision", "!=", False),
        ("revision = 7", "revision", "=", 7),
        ("revision > -1", "revision", ">", -1),
        ("limits.context_window >= 2e5", "limits.context_window", ">=", 200_000),
        ("limits.context_window < 1000.0", "limits.context_window", "<", 1000),
        ("revision = 9223372036854775807", "revision", "=", 2**63 - 1),
        ("pricing.input = .5", "pricing.input", "=", Decimal("0.5")),
        ("pricing.input = 1.", "pricing.input", "=", Decimal(1)),
        ("pricing.input >= +1.25E-3", "pricing.input", ">=", Decimal("0.00125")),
        ("pricing.input = 0e9999", "pricing.input", "=", Decimal(0)),
        ("tags:open-weights", "tags", ":", "open-weights"),
        ("modalities.input:image", "modalities.input", ":", "image"),
        ("release_date >= 2025", "release_date", ">=", "2025"),
        ("release_date = 2025-08-07", "release_date", "=", "2025-08-07"),
        ("release_date = 2025-*", "release_date", "=", Pattern(text="2025-", open_start=False, open_end=True)),
        ("release_date:-08-", "release_date", ":", "-08-"),
        ("removed_time < 2026-07-02", "removed_time", "<", datetime(2026, 7, 2, tzinfo=UTC)),
        (
            "first_seen_time >= 2026-07-02T09:30:00.25Z",
            "first_seen_time",
            ">=",
            datetime(2026, 7, 2, 9, 30, 0, 250_000, tzinfo=UTC),
        ),
        (
            'first_seen_time = "2026-07-02 09:30:00+02:00"',
            "first_seen_time",
            "=",
            datetime(2026, 7, 2, 9, 30, tzinfo=timezone(timedelta(hours=2))),
        ),
    ],
)
def test_a_value_is_read_as_its_field(text: str, path: str, operator: str, value: Value) -> None:
    read = parse(text)
    assert read == compare(path, operator, value)
    assert isinstance(read, Comparison)
    assert type(read.value) is type(value)


@pytest.mark.parametrize("path", MODEL_FIELDS.fields)
def test_every_field_is_asked_for_its_presence(path: str) -> None:
    assert parse(f"{path}:*") == Presence(field=MODEL_FIELDS.fields[path])
    assert parse(f"NOT {path} : *") == Not(term=Presence(field=MODEL_FIELDS.fields[path]))


# --- mistakes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "column", "complaint"),
    [
        ("a", 2, "expected an operator"),
        ("family", 7, "expected an operator (= != < <= > >= :), got the end"),
        ("family =", 9, "expected a value, got the end"),
        ("family = ", 9, "expected a value, got the end"),
        ("= x", 1, "expected a field, NOT or an opening parenthesis, got '='"),
        ("family == x", 9, "expected a value, got '='"),
        ("family = (a OR b)", 10, "expected a value, got '('"),
        ("family = AND", 10, "expected a value, got AND: put it in quotes"),
        ("family = a AND", 15, "expected a field, NOT or an opening parenthesis, got the end"),
        (
            "family = a and family = b",
            16,
            "expected an operator (= != < <= > >= :), got 'family': AND is written in cap",
        ),
        ("not family = a", 5, "got 'family': NOT is written in capitals"),
        ("NOT NOT family = a", 5, "expected a field or an opening parenthesis, got 'NOT'"),
        ("(family = a", 12, "expected AND, OR, another condition or a closing parenthesis, got the end"),
        ("family = a)", 11, "expected AND, OR, another condition or the end, got ')'"),
        ("family = a, family = b", 11, "expected AND, OR, another condition or the end, got ','"),
        ("()", 2, "expected a field, NOT or an opening parenthesis, got ')'"),
        ('family = "a', 10, "expected a value, got a quote that is not closed"),
        (r'family = "a\"', 10, "expected a value, got a quote that is not closed"),
        (r'family = "a\n"', 10, "a backslash stands before"),
        (r"family = a\b", 11, "expected AND, OR"),
        ("family\n=\n\0", 10, "a character that no value has"),
        ("family = \ud800", 10, "a character that no value has"),
        ("fmily = a", 1, "'fmily' is no field of Model that can be asked for: did you mean family?"),
        ("family = a AND vision = true", 16, "did you mean capabilities.vision?"),
        ("pricing.imput < 1", 1, "did you mean pricing.input"),
        ("capabilities:*", 1, "did you mean capabilities.vision, capabilities.function_calling, "),
        ("raw.cost = 1", 1, "'raw.cost' is no field of Model"),
        ("x" * 200 + " = 1", 1, "…' is no field of Model"),
        ("tags = a", 6, "tags is a list: expected : and one of its elements, or :*"),
        ("tags:a*", 6, "without wildcards"),
        ("type < chat", 6, "type takes = != and :*"),
        ("capabilities.vision:true", 20, "capabilities.vision takes = != and :*"),
        ("pricing.input:1", 14, "pricing.input takes = != < <= > >= and :*"),
        ("type = chats", 8, "type is compared with one of CHAT, EMBEDDING, "),
        ("type = TYPE_CHAT", 8, "one of CHAT"),
        ("type = *", 8, "one of CHAT"),
        ("type = \u017fpeech", 8, "one of CHAT"),
        ("capabilities.vision = yes", 23, "true or false; got 'yes'"),
        ("pricing.input = free", 17, "pricing.input is compared with a number; got 'free'"),
        ("pricing.input = 1,5", 18, "expected AND, OR"),
        ("pricing.input = NaN", 17, "a number"),
        ("pricing.input = Infinity", 17, "a number"),
        ("pricing.input = \u0661", 17, "a number"),
        ("pricing.input = 1_000", 17, "a number"),
        ("pricing.input = 1e31", 17, "a number between 1e-30 and 1e30"),
        ("pricing.input = 1e-31", 17, "a number between"),
        ("pricing.input = 1e99999999999", 17, "a number"),
        ("pricing.input = " + "9" * 61, 17, "a number"),
        ("limits.context_window >= 1.5", 26, "a whole number; got '1.5'"),
        ("limits.context_window >= 200k", 26, "a whole number; got '200k'"),
        ("revision = 9223372036854775808", 12, "a whole number of 64 bits"),
        ("release_date = yesterday", 16, "a date: YYYY-MM-DD, YYYY-MM or YYYY; got 'yesterday'"),
        ("release_date = 2025-8", 16, "a date"),
        ("release_date = aug*", 16, "part of a date"),
        ("first_seen_time > now", 19, "a time such as 2026-07-02T09:30:00Z"),
        ("first_seen_time > 2026-07-02T09:30:00", 19, "a time such as"),
        ("first_seen_time > 2026-02-30", 19, "a time such as"),
        ("first_seen_time > 0000-01-01", 19, "a time such as"),
        ("family = null", 10, "there is no null: `family:*` is what is known, `NOT family:*` what is not"),
        ("name = a*b", 8, "a wildcard stands at either end"),
        ("name < a*", 8, "wildcards go with = and !="),
        ("name:a*", 6, "wildcards go with = and !="),
    ],
)
def test_a_mistake_is_named_with_its_column(text: str, column: int, complaint: str) -> None:
    with pytest.raises(InvalidFilterError) as caught:
        parse(text)
    assert caught.value.message.startswith(f"column {column}: ")
    assert complaint in caught.value.message
    assert (caught.value.field, caught.value.column) == ("filter", column)
    assert len(caught.value.message) < 400, "what was sent is not sent back at full length"
    assert caught.value.message.isprintable()


def test_a_filter_has_bounds() -> None:
    deepest = "(" * MAX_DEPTH + "name = x" + ")" * MAX_DEPTH
    assert parse(deepest)
    assert parse(f'{deepest} AND name = "((((((((("')
    with pytest.raises(InvalidFilterError, match=f"column 1[0-9]: more than {MAX_DEPTH} parentheses"):
        parse(f"name = x ({deepest})")
    most = " OR ".join(["id = x"] * MAX_TERMS)
    assert parse(most)
    with pytest.raises(InvalidFilterError, match=f"column {len(most) + 5}: more than {MAX_TERMS} conditions"):
        parse(f"{most} OR id = x")
    with pytest.raises(InvalidFilterError, match="more than 8 parentheses"):
        parse("(" * 2000)
    with pytest.raises(InvalidFilterError, match="conditions"):
        parse("id:a " * 400)


# --- orders --------------------------------------------------------------------------------------------------------


def test_an_order_is_fields_with_directions() -> None:
    family, price = MODEL_FIELDS.fields["family"], MODEL_FIELDS.fields["pricing.input"]
    assert parse_order_by(" family ,pricing.input  DESC", MODEL_FIELDS) == (
        SortKey(field=family),
        SortKey(field=price, descending=True),
    )
    assert parse_order_by("family asc", MODEL_FIELDS) == (SortKey(field=family),)
    assert parse_order_by(" ", MODEL_FIELDS) == ()


@pytest.mark.parametrize(
    ("text", "column", "complaint"),
    [
        ("nome", 1, "'nome' is no field of Model that can be asked for: did you mean name?"),
        ("name, nome", 7, "is no field"),
        ("name,", 6, "expected a field"),
        (",name", 1, "expected a field"),
        ("name,,id", 6, "expected a field"),
        ("name, family up", 14, "expected asc, desc or a comma; got 'up'"),
        ("name family id", 1, "expected a field, then perhaps asc or desc"),
        ("-name", 1, "expected a field"),
        ("name desc, name", 12, "name comes twice"),
        ("tags", 1, "tags is a list, which gives no order"),
        ("name; DROP TABLE", 1, "expected a field"),
        ("\0", 1, "expected a field"),
        ("\ud800", 1, "expected a field"),
        (",".join(list(MODEL_FIELDS.fields)[: MAX_KEYS + 1]), 1, f"at most {MAX_KEYS} are allowed"),
    ],
)
def test_a_mistake_in_an_order_is_named_with_its_column(text: str, column: int, complaint: str) -> None:
    with pytest.raises(InvalidOrderByError) as caught:
        parse_order_by(text, MODEL_FIELDS)
    assert caught.value.message.startswith(f"column {column}: ")
    assert complaint in caught.value.message
    assert caught.value.field == "order_by"
    assert caught.value.message.isprintable()


# --- the tables of fields ------------------------------------------------------------------------------------------

CATALOGUES = [
    (MODEL_FIELDS, model_pb2.Model, composition.MODEL_COLUMNS),
    (PROVIDER_FIELDS, provider_pb2.Provider, composition.PROVIDER_COLUMNS),
    (REFRESH_FIELDS, refresh_pb2.Refresh, composition.REFRESH_COLUMNS),
    (AUDIT_EVENT_FIELDS, catalog_admin_service_pb2.AuditEvent, composition.AUDIT_EVENT_COLUMNS),
]
#: Fields that no column has, or that are no single values.
LEFT_OUT = {
    "Model": {
        "derived",
        "etag",
        "raw",
        "source.key",
        "source.snapshot",
        "source.url",
        "reasoning_options.options",
        "pricing.unit",
        "pricing.tiers",
        "pricing.modes",
        "performance.benchmark_score_rule",
        "performance.popularity_score_rule",
        "performance.reliability_score_rule",
    },
    "Provider": {"etag"},
    "Refresh": {"error", "duration", "attempts"},
    "AuditEvent": {"details"},
}


@pytest.mark.parametrize(("catalogue", "message", "columns"), CATALOGUES, ids=lambda each: getattr(each, "message", ""))
def test_every_field_of_the_message_can_be_asked_for_or_is_known_not_to(
    catalogue: FieldCatalogue, message: type, columns: composition.Columns
) -> None:
    assert set(catalogue.fields) == paths_of(message) - LEFT_OUT[catalogue.message]
    assert set(columns) == set(catalogue.fields), "every field has its column"


def paths_of(message: type) -> set[str]:
    """Return the paths of a message's fields, those of the messages of our own in it too."""
    paths = set()
    for field in message.DESCRIPTOR.fields:  # type: ignore[attr-defined]  # a type of message
        inner = field.message_type
        own = inner is not None and inner.full_name.startswith("modelcatalog.v1.") and not field.is_repeated
        paths |= {f"{field.name}.{below.name}" for below in inner.fields} if own else {field.name}
    return paths


@pytest.mark.parametrize("catalogue", [each for each, _, _ in CATALOGUES], ids=lambda each: each.message)
def test_the_page_has_every_field_with_its_type(catalogue: FieldCatalogue) -> None:
    page = (Path(__file__).parents[2] / "docs" / "filtering.md").read_text()
    section = page.partition(f"\n### {catalogue.message}\n")[2].partition("\n### ")[0]
    said = {
        (type_, path, nullable)
        for type_, *cells in re.findall(r"^\| (\w+) \|(.*)\|(.*)\|$", section, re.MULTILINE)
        for nullable, cell in enumerate(cells)
        for path in re.findall(r"`([\w.]+)`", cell)
    }
    assert said == {(field.type, field.path, field.nullable) for field in catalogue.fields.values()}
    page_operators = {
        match[1]: tuple(re.findall(r"`(\S+)`", match[2]))
        for match in re.finditer(r"^\| (\w+) \| [^|]+ \| (`.*`) \|$", page.partition("\n## Fields\n")[0], re.MULTILINE)
    }
    assert {name: page_operators[name] for name in FieldType} == OPERATORS


@pytest.mark.parametrize(
    ("values", "enum"),
    [
        (fields.MODEL_TYPES, model_pb2.Model.Type),
        (fields.MODEL_STATUSES, model_pb2.Model.Status),
        (fields.PROVIDER_STATUSES, provider_pb2.Provider.Status),
        (fields.REFRESH_STATES, refresh_pb2.Refresh.State),
        (fields.REFRESH_TYPES, refresh_pb2.Refresh.Type),
        (fields.REFRESH_TRIGGERS, refresh_pb2.Refresh.Trigger),
    ],
)
def test_the_names_of_values_are_those_of_the_contract(values: tuple[str, ...], enum: type) -> None:
    names = [name.partition("_")[2] for name in enum.keys()]  # type: ignore[attr-defined] # noqa: SIM118
    assert ("UNSPECIFIED", *values) == tuple(names)


@pytest.mark.parametrize(("catalogue", "message", "columns"), CATALOGUES, ids=lambda each: getattr(each, "message", ""))
def test_a_field_is_of_the_type_that_the_message_says(
    catalogue: FieldCatalogue, message: type, columns: composition.Columns
) -> None:
    for field in catalogue.fields.values():
        assert bool(field.values) is (field.type is FieldType.ENUM)
        descriptor = message.DESCRIPTOR  # type: ignore[attr-defined]  # as above
        for name in field.path.split(".")[:-1]:
            descriptor = descriptor.fields_by_name[name].message_type
        found = descriptor.fields_by_name[field.path.rpartition(".")[2]]
        kinds = {
            found.TYPE_STRING: {FieldType.STRING, FieldType.DATE, FieldType.DECIMAL},
            found.TYPE_BOOL: {FieldType.BOOL},
            found.TYPE_INT32: {FieldType.INTEGER},
            found.TYPE_INT64: {FieldType.INTEGER},
            found.TYPE_DOUBLE: {FieldType.DECIMAL},
            found.TYPE_ENUM: {FieldType.ENUM},
            found.TYPE_MESSAGE: {FieldType.TIME},
        }
        assert field.type in ({FieldType.LIST} if found.is_repeated else kinds[found.type]), field.path
