"""Filters and orders in PostgreSQL, against what they mean over the messages of the whole real catalog."""

# ruff: noqa: S311 -- what is drawn here is no secret

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
import pytest_asyncio
from psycopg import sql

from conftest import Services
from filter_oracle import Inventor, Table, spell
from modelcatalog.v1 import model_pb2
from modelcatalog_server.catalog.fields import AUDIT_EVENT_FIELDS, MODEL_FIELDS, PROVIDER_FIELDS, REFRESH_FIELDS
from modelcatalog_server.catalog.filtering import parse_filter
from modelcatalog_server.catalog.ordering import parse_order_by
from modelcatalog_server.domain.query import (
    EVERYTHING,
    START,
    Boundary,
    Comparison,
    Field,
    FieldType,
    Operator,
    Pattern,
    Presence,
    Selection,
    SortKey,
)
from modelcatalog_server.rpc.model_messages import to_model, to_provider
from modelcatalog_server.storage import composition, queries
from modelcatalog_server.storage.catalog_store import PostgresCatalog, PostgresSnapshot
from modelcatalog_server.storage.composition import compile_filter, compose
from modelcatalog_server.storage.pools import Pools
from seeds import seed_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOW, PAST = 2, 1
ORDERABLE = [path for path, field in MODEL_FIELDS.fields.items() if field.is_orderable]
#: By these the whole catalog is paged through, one of each type, always known and not; by the others one provider is.
ONE_OF_EACH_KIND = {
    "id",
    "provider_name",
    "family",
    "status",
    "capabilities.structured_output",
    "limits.max_input_tokens",
    "pricing.cache_read",
    "knowledge_cutoff",
    "removed_time",
}
FILTERS = 240


@pytest.fixture(scope="module")
def url(templates: Services) -> Iterator[str]:
    """The full catalog with more in it than upstream says today, the same in its revisions 1 and 2."""
    url = templates.clone("mc_loaded")
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE catalog_state SET revision = %s", [NOW])
        connection.execute("ALTER TABLE model_versions DISABLE TRIGGER USER")
        enrich(connection, random.Random(4))
    yield url
    templates.drop(url)


def enrich(connection: psycopg.Connection[Any], rng: random.Random) -> None:
    """Give every ninth model tags, a type, a version, a description; every twentieth was removed."""
    ids = [row[0] for row in connection.execute("SELECT model_id FROM models_metadata ORDER BY model_id").fetchall()]
    tags = ["open-weights", "free", "vision", "long-context"]
    for table in ("models_metadata", "model_versions"):
        with connection.cursor() as cursor:
            cursor.executemany(
                f"UPDATE {table} SET removed_at = %s WHERE model_id = %s".encode(),
                [(datetime(2026, 7, 3, 12, number % 60, tzinfo=UTC), id_) for number, id_ in enumerate(ids[::20])],
            )
    for id_ in ids[::9]:
        type_ = rng.choice(["embedding", "rerank", "newfangled"])
        more = model_pb2.Model(
            type=getattr(model_pb2.Model, f"TYPE_{type_.upper()}", model_pb2.Model.TYPE_OTHER),
            version=rng.choice(["1", "1.5", "10", ""]),
            description=rng.choice(["50% \\off_all*", "Ünïcode", "plain"]),
            tags=sorted(rng.sample(tags, rng.randint(1, 3))),
        )
        for table in ("models_metadata", "model_versions"):
            # Encoded messages that follow each other are one that is merged.
            connection.execute(
                f"UPDATE {table} SET model_type = %s, version = %s, description = %s, tags = tags || %s,"
                " message = message || %s WHERE model_id = %s".encode(),
                [
                    type_,
                    more.version,
                    more.description,
                    list(more.tags),
                    more.SerializeToString(),
                    id_,
                ],
            )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def catalog(url: str) -> AsyncIterator[PostgresCatalog]:
    async with Pools(url) as pools:
        yield PostgresCatalog(pools)


@pytest_asyncio.fixture(loop_scope="module")
async def snapshot(catalog: PostgresCatalog) -> AsyncIterator[PostgresSnapshot]:
    async with catalog.snapshot() as snapshot:
        assert snapshot.state.revision == NOW
        yield snapshot


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def table(catalog: PostgresCatalog) -> Table:
    """Every model as callers get it."""
    async with catalog.snapshot() as snapshot:
        listed = await list_models(snapshot, EVERYTHING, limit=10_000)
    assert len(listed) == 5276
    return Table(MODEL_FIELDS, [to_model(each.item) for each in listed])


@pytest.fixture
def rng() -> random.Random:
    return random.Random(seed_of("SEED"))


async def list_models(snapshot: PostgresSnapshot, selection: Selection, **more: Any) -> list[Any]:
    arguments = {
        "revision": NOW,
        "provider_id": None,
        "after": START,
        "offset": 0,
        "limit": 1000,
        "show_removed": True,
        "with_raw": False,
        **more,
    }
    return await snapshot.list_models(selection, **arguments)


async def page_through(snapshot: PostgresSnapshot, selection: Selection, size: int, **more: Any) -> list[str]:
    """Return all ids, page by page, each behind the last one of the page before."""
    ids: list[str] = []
    after = START
    while True:
        listed = await list_models(snapshot, selection, after=after, limit=size, **more)
        ids += [each.item.model_id for each in listed]
        if len(listed) < size:
            return ids
        after = listed[-1].boundary


def filtered(text: str) -> Selection:
    return Selection(filter=parse_filter(text, MODEL_FIELDS))


# --- filters -------------------------------------------------------------------------------------------------------


async def find(snapshot: PostgresSnapshot, selection: Selection) -> list[str]:
    """Return the ids that fit, without their models."""
    condition, parameters = compile_filter(selection.filter, composition.MODEL_COLUMNS)
    statement = sql.SQL(
        "SELECT coalesce(string_agg(m.model_id, ' ' ORDER BY m.model_id), '') AS ids"
        " FROM models_metadata AS m JOIN llm_providers AS p ON p.id = m.provider_id"
        " LEFT JOIN canonical_models AS c ON c.id = m.canonical_id"
        " WHERE {}"
    ).format(condition)
    row = await (await snapshot.connection.execute(statement, parameters)).fetchone()
    assert row is not None
    return str(row["ids"]).split()


async def test_random_filters_find_what_they_mean(snapshot: PostgresSnapshot, table: Table, rng: random.Random) -> None:
    inventor = Inventor(rng, MODEL_FIELDS, table)
    telling = 0
    for _ in range(FILTERS):
        filter_ = inventor.invent()
        text = spell(filter_, rng)
        print(text)
        expected = table.find(filter_)
        assert await find(snapshot, filtered(text)) == expected
        telling += 0 < len(expected) < len(table.ids)
    assert telling > FILTERS / 4, "many of the filters tell models apart"


async def test_listings_and_counts_take_them_now_and_in_the_past(
    snapshot: PostgresSnapshot, table: Table, rng: random.Random
) -> None:
    inventor = Inventor(rng, MODEL_FIELDS, table)
    for _ in range(FILTERS // 20):
        filter_ = inventor.invent(2)
        text = spell(filter_, rng)
        print(text)
        expected = table.find(filter_)
        for revision in (NOW, PAST):
            listed = await list_models(snapshot, filtered(text), revision=revision, limit=9999)
            assert [each.item.model_id for each in listed] == expected
        assert await snapshot.count_models(filtered(text), provider_id=None, show_removed=True) == len(expected)


@pytest.mark.parametrize("path", MODEL_FIELDS.fields)
async def test_a_field_is_compared_by_each_of_its_operators(
    snapshot: PostgresSnapshot, table: Table, rng: random.Random, path: str
) -> None:
    inventor = Inventor(rng, MODEL_FIELDS, table)
    field = MODEL_FIELDS.fields[path]
    for operator in [*field.operators, None] * 2:
        condition = inventor.invent_condition(field, operator)
        text = spell(condition, rng)
        print(text)
        assert await find(snapshot, filtered(text)) == table.find(condition)


@pytest.mark.parametrize(
    ("known", "negated", "unknown"),
    [
        (
            "capabilities.structured_output = true",
            "NOT capabilities.structured_output = true",
            "capabilities.structured_output",
        ),
        ("family = gpt*", "family != gpt*", "family"),
        ("family:GPT", "-family:GPT", "family"),
        ("pricing.input < 1", "pricing.input >= 1", "pricing.input"),
        ("limits.max_input_tokens > 100000", "NOT (limits.max_input_tokens > 1e5)", "limits.max_input_tokens"),
        ("removed_time > 2026-07-03", "NOT removed_time > 2026-07-03", "removed_time"),
    ],
)
async def test_what_is_unknown_is_in_neither_half(
    snapshot: PostgresSnapshot, known: str, negated: str, unknown: str
) -> None:
    async def count(text: str) -> int:
        return await snapshot.count_models(filtered(text), provider_id=None, show_removed=True)

    fits, does_not, absent = await count(known), await count(negated), await count(f"NOT {unknown}:*")
    assert fits > 0
    assert absent > 0
    assert fits + does_not + absent == 5276
    assert await count(f"{unknown}:*") == fits + does_not


async def test_what_is_always_known_is_in_one_of_both(snapshot: PostgresSnapshot) -> None:
    async def count(text: str) -> int:
        return await snapshot.count_models(filtered(text), provider_id=None, show_removed=True)

    for text in ("tags:free", "modalities.input:image", "type = chat", "status = removed", "family:*"):
        assert 0 < await count(text) < 5276
        assert await count(text) + await count(f"NOT {text}") == 5276


async def test_a_filter_goes_with_the_other_arguments(snapshot: PostgresSnapshot, table: Table) -> None:
    rows = zip(
        table.ids, table.columns["name"], table.columns["provider_id"], table.columns["removed_time"], strict=True
    )
    named = [(id_, provider, removed) for id_, name, provider, removed in rows if "gpt" in name.lower()]
    for provider_id in (None, "openai"):
        for show_removed in (True, False):
            expected = [
                id_
                for id_, provider, removed in named
                if provider_id in (None, provider) and (show_removed or removed is None)
            ]
            arguments: dict[str, Any] = {"provider_id": provider_id, "show_removed": show_removed}
            for revision in (NOW, PAST):
                assert (
                    await page_through(snapshot, filtered("name:gpt"), 30, revision=revision, **arguments) == expected
                )
            assert await snapshot.count_models(filtered("name:gpt"), **arguments) == len(expected) > 0
            second = await list_models(snapshot, filtered("name:gpt"), offset=5, limit=5, **arguments)
            assert [each.item.model_id for each in second] == expected[5:10]


# --- orders --------------------------------------------------------------------------------------------------------


def ids_of(table: Table, *provider_ids: str) -> set[str]:
    return {id_ for id_ in table.ids if id_.partition("/")[0] in provider_ids}


@pytest.mark.parametrize("direction", ["", " desc"])
@pytest.mark.parametrize("path", ORDERABLE)
async def test_pages_in_any_order_are_the_sorted_list(
    snapshot: PostgresSnapshot, table: Table, path: str, direction: str
) -> None:
    order = parse_order_by(path + direction, MODEL_FIELDS)
    keys = [(MODEL_FIELDS.fields[path], bool(direction))]
    if path in ONE_OF_EACH_KIND:
        assert await page_through(snapshot, Selection(order=order), 1700) == table.sort(keys, set(table.ids))
    expected = table.sort(keys, ids_of(table, "llmgateway"))
    filter_ = parse_filter("provider_id = llmgateway", MODEL_FIELDS)
    assert await page_through(snapshot, Selection(filter=filter_, order=order), 37) == expected
    of_past: dict[str, Any] = {"provider_id": "llmgateway", "revision": PAST}
    assert await page_through(snapshot, Selection(order=order), 41, **of_past) == expected


async def test_an_order_of_several_fields(snapshot: PostgresSnapshot, table: Table, rng: random.Random) -> None:
    few = ids_of(table, "openrouter", "llmgateway")
    filter_ = parse_filter("provider_id = openrouter OR provider_id = llmgateway", MODEL_FIELDS)
    for _ in range(20):
        keys = [(MODEL_FIELDS.fields[path], rng.random() < 0.5) for path in rng.sample(ORDERABLE, rng.randint(2, 5))]
        text = ", ".join(f"{field.path}{' desc' if descending else ''}" for field, descending in keys)
        print(text)
        selection = Selection(filter=filter_, order=parse_order_by(text, MODEL_FIELDS))
        assert await page_through(snapshot, selection, rng.randint(20, 90)) == table.sort(keys, few)


async def test_single_items_are_a_page_too(snapshot: PostgresSnapshot, table: Table) -> None:
    """Every boundary there is, unknown values and ties among them."""
    keys = [(MODEL_FIELDS.fields["pricing.cache_read"], True), (MODEL_FIELDS.fields["family"], False)]
    order = parse_order_by("pricing.cache_read desc, family", MODEL_FIELDS)
    selection = Selection(filter=parse_filter("provider_id = mistral", MODEL_FIELDS), order=order)
    assert await page_through(snapshot, selection, 1) == table.sort(keys, ids_of(table, "mistral"))


# --- providers -----------------------------------------------------------------------------------------------------


async def test_providers_are_filtered_and_ordered_too(snapshot: PostgresSnapshot, rng: random.Random) -> None:
    async def list_providers(selection: Selection, **more: Any) -> list[Any]:
        arguments = {"revision": NOW, "after": START, "limit": 1000, "show_removed": True, **more}
        return await snapshot.list_providers(selection, **arguments)

    table = Table(PROVIDER_FIELDS, [to_provider(each.item) for each in await list_providers(EVERYTHING)])
    assert len(table.ids) == 147
    inventor = Inventor(rng, PROVIDER_FIELDS, table)
    for _ in range(FILTERS // 3):
        filter_ = inventor.invent()
        text = spell(filter_, rng)
        print(text)
        selection = Selection(filter=parse_filter(text, PROVIDER_FIELDS))
        expected = table.find(filter_)
        assert [each.item.record.id for each in await list_providers(selection)] == expected
        assert await snapshot.count_providers(selection, revision=NOW, show_removed=True) == len(expected)
    for field in PROVIDER_FIELDS.fields.values():
        for descending in (False, True) if field.is_orderable else ():
            selection = Selection(order=[SortKey(field=field, descending=descending)])
            after, ids = START, list[str]()
            while page := await list_providers(selection, after=after, limit=40):
                ids += [each.item.record.id for each in page]
                after = page[-1].boundary
            assert ids == table.sort([(field, descending)], set(table.ids))


# --- the statements ------------------------------------------------------------------------------------------------

ONE_OF_EACH: dict[FieldType, Any] = {
    FieldType.STRING: "x",
    FieldType.ENUM: "CHAT",
    FieldType.BOOL: True,
    FieldType.INTEGER: 2**40,
    FieldType.DECIMAL: 1,
    FieldType.DATE: "2025-01",
    FieldType.LIST: "x",
    FieldType.TIME: datetime(2026, 7, 2, tzinfo=UTC),
}
KEYS = {
    FieldType.BOOL: "true",
    FieldType.INTEGER: "7",
    FieldType.DECIMAL: "1.25",
    FieldType.TIME: "2026-07-02 00:00+00",
}
LISTINGS = [
    ("list_selected_models", MODEL_FIELDS, composition.MODEL_COLUMNS),
    ("list_selected_models_at_revision", MODEL_FIELDS, composition.MODEL_COLUMNS),
    ("count_selected_models", MODEL_FIELDS, composition.MODEL_COLUMNS),
    ("list_providers", PROVIDER_FIELDS, composition.PROVIDER_COLUMNS),
    ("count_providers", PROVIDER_FIELDS, composition.PROVIDER_COLUMNS),
    ("list_refreshes", REFRESH_FIELDS, composition.REFRESH_COLUMNS),
    ("list_audit_events", AUDIT_EVENT_FIELDS, composition.AUDIT_EVENT_COLUMNS),
]
ARGUMENTS = {
    "revision": 1,
    "limit": 51,
    "offset": 0,
    "show_removed": False,
    "with_raw": False,
    "before_started_at": None,
    "before_id": None,
}


def every_condition(field: Field) -> Iterator[Comparison | Presence]:
    yield Presence(field=field)
    for operator in field.operators:
        yield Comparison(field=field, operator=operator, value=ONE_OF_EACH[field.type])
        if field.type is FieldType.STRING and operator in (Operator.EQUAL, Operator.NOT_EQUAL):
            yield Comparison(field=field, operator=operator, value=Pattern(text="x", open_start=True, open_end=True))


@pytest.mark.parametrize(("name", "catalogue", "columns"), LISTINGS, ids=[name for name, _, _ in LISTINGS])
async def test_postgresql_takes_every_condition_and_boundary(
    url: str, name: str, catalogue: Any, columns: composition.Columns
) -> None:
    statement = queries.load("listings")[name]
    async with await psycopg.AsyncConnection.connect(url) as connection:
        for field in catalogue.fields.values():
            for condition in every_condition(field):
                await explain(connection, statement, compose(Selection(filter=condition), columns))
            # Refreshes and audit events have an order of their own.
            if field.is_orderable and catalogue in (MODEL_FIELDS, PROVIDER_FIELDS):
                for key in (None, KEYS.get(field.type, "x")):
                    for descending in (False, True):
                        order = [SortKey(field=field, descending=descending)]
                        after = Boundary(id="openai/gpt-5", keys=(key,))
                        await explain(connection, statement, compose(Selection(order=order), columns, after=after))


async def explain(connection: Any, statement: Any, composed: composition.Composition) -> None:
    filled = b"EXPLAIN " + composed.fill(statement).as_string(connection).encode()
    await connection.execute(filled, {**ARGUMENTS, **composed.parameters})


async def test_no_value_becomes_part_of_a_statement() -> None:
    evil = "'; DROP TABLE models_metadata; -- %(limit)s {order} %"
    escaped = evil.replace("'", "\\'")
    selection = Selection(
        filter=parse_filter(f"name = '{escaped}' OR name:'{escaped}' OR tags:'{escaped}'", MODEL_FIELDS),
        order=parse_order_by("name", MODEL_FIELDS),
    )
    composed = compose(selection, composition.MODEL_COLUMNS, after=Boundary(id=evil, keys=(evil,)), provider_id=evil)
    for statement in queries.load("listings").values():
        if "{sort_keys}" in statement:
            assert "DROP" not in composed.fill(statement).as_string()
    assert sum("DROP" in str(value).upper() for value in composed.parameters.values()) == 6
