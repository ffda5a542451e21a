"""Every statement against the real schema, and the plans of the hot ones at real size."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, LiteralString
from uuid import UUID

import psycopg
import pytest
from psycopg.types.json import Jsonb

from conftest import Services
from modelcatalog_server.catalog.facets import REQUEST
from modelcatalog_server.catalog.fields import MODEL_FIELDS
from modelcatalog_server.catalog.filtering import parse_filter
from modelcatalog_server.catalog.search_words import read_query
from modelcatalog_server.domain.query import EVERYTHING, FieldType, Presence
from modelcatalog_server.storage import queries
from modelcatalog_server.storage.composition import (
    AUDIT_EVENT_COLUMNS,
    MODEL_COLUMNS,
    PROVIDER_COLUMNS,
    REFRESH_COLUMNS,
    compose,
    compose_measures,
    compose_offers,
    compose_search,
    compose_value_counts,
)
from modelcatalog_server.storage.search_rows import compile_text
from plans import PLACEHOLDER, explain, nodes_of

NOW = datetime.now(UTC)

#: What the code makes of a query.
SEARCHED = dict(compile_text(read_query("claude sonnet 4.5")))

#: A value of the type that the code passes, for every parameter that any statement has.
PARAMETERS: dict[str, Any] = {
    "after_id": "openai/gpt-5",
    "after_score": "17520250807",
    "anyway": False,
    "after_mix": Decimal("1.25"),
    "arguments": Jsonb({}),
    "at": NOW,
    "at_id": 1,
    "attempt": 1,
    "attempts": Jsonb([]),
    "base_revision": 1,
    "before": NOW,
    "before_id": UUID(int=1),
    "before_started_at": NOW,
    "canonical_id": "openai/gpt-5",
    "canonical_ids": ["openai/gpt-5"],
    "checked_at": NOW,
    "code": "OK",
    "details": Jsonb({}),
    "derived_ids": ["openai/gpt-5"],
    "done": 1,
    "enabled": False,
    "error_message": "text",
    "error_metadata": Jsonb({}),
    "error_reason": "INTERNAL",
    "fallback_of": UUID(int=1),
    "force": False,
    "full": True,
    "id": UUID(int=1),
    "ids": ["openai/gpt-5"],
    **SEARCHED,
    "is_over": True,
    "joined": False,
    "kind": "STATE",
    "lease": timedelta(seconds=20),
    "limit": 51,
    "lock": 1,
    "lock_timeout": "5000ms",
    "message": "text",
    "min_ranked_models": 3,
    "min_scored_benchmarks": 3,
    "min_scored_models": 10,
    "method": "modelcatalog.v1.CatalogAdmin/UpdateProvider",
    "model_id": "openai/gpt-5",
    "model_ids": ["openai/gpt-5"],
    "models_added": 1,
    "models_changed": 1,
    "models_failed": 1,
    "models_removed": 1,
    "models_revived": 1,
    "models_seen": 1,
    "models_unchanged": 1,
    "not_modified": False,
    "offset": 0,
    "only_success": False,
    "override_gate": "removed_models",
    "owner": "host:1",
    "phase": "FETCH",
    "principal": "anonymous",
    "provider_id": "openai",
    "provider_ids": ["openai"],
    "ratio": Decimal(3),
    "refresh_id": UUID(int=1),
    "refresh_ids": [UUID(int=1)],
    "refresh_type": "FULL",
    "report": Jsonb({}),
    "request_id": UUID(int=2),
    "requested_by": None,
    "result_revision": 2,
    "revision": 1,
    "show_removed": False,
    "slot": NOW,
    "now": NOW,
    "source_etag": '"etag"',
    "source_snapshot": "0" * 64,
    "source_url": "https://models.dev/catalog.json",
    "started_at": NOW,
    "status": "RUNNING",
    "target": "openai",
    "timer": "FULL",
    "total": None,
    "trigger": "MANUAL",
    "validate_only": False,
    "warnings": ["text"],
    "with_raw": True,
    "c_0": "CHAT",
}

#: Where a parameter of this name is of another type.
OVERRIDES: dict[str, dict[str, Any]] = {
    "list_events": {"after_id": 1},
    "list_audit_events": {"before_id": 1},
    "find_near_words": {"words": ["sonet"]},
}

AGGREGATES = (
    "state",
    "models",
    "providers",
    "refreshes",
    "apply",
    "policy",
    "audit",
    "listings",
    "offers",
    "facets",
    "search",
)

#: What the listings are about.
LISTED = {
    "models": MODEL_COLUMNS,
    "providers": PROVIDER_COLUMNS,
    "refreshes": REFRESH_COLUMNS,
    "audit_events": AUDIT_EVENT_COLUMNS,
}


def statements_of(aggregate: str) -> dict[str, str]:
    """Return the statements of a file; what is composed into listings is in a test of its own."""
    statements = {name: fill(aggregate, name, text) for name, text in queries.load(aggregate).items()}
    if aggregate == "search":
        for is_past in (False, True):
            composition = compose_search(parse_filter("type = chat", MODEL_FIELDS), is_past=is_past)
            filled = composition.fill(queries.load("search")["search_models"]).as_string()
            statements[f"search_models, past: {is_past}"] = filled
        del statements["search_models"]
    return statements


def fill(aggregate: str, name: str, text: LiteralString) -> str:
    match aggregate:
        case "listings":
            (columns,) = [columns for noun, columns in LISTED.items() if noun in name]
            return compose(EVERYTHING, columns).fill(text).as_string()
        case "offers":
            known = Presence(field=MODEL_FIELDS.fields["canonical_id"])
            return compose_offers(known).fill(text).as_string()
        case "facets" if name == "measure_models":
            measures = compose_measures([*REQUEST.counted, *REQUEST.ranged], REQUEST.ranged, None)
            return measures.fill(text).as_string()
        case "facets":
            grouped = [field for field in REQUEST.counted if field.type is not FieldType.BOOL]
            return compose_value_counts(grouped, None).fill(text).as_string()
        case _:
            return text


@pytest.fixture(scope="module")
def database(templates: Services) -> Iterator[str]:
    """The full catalog, as the first load left it; the tests only look."""
    url = templates.clone("mc_loaded")
    yield url
    templates.drop(url)


@pytest.fixture
async def connection(database: str) -> AsyncIterator[psycopg.AsyncConnection[tuple[Any, ...]]]:
    """A transaction that is undone."""
    async with await psycopg.AsyncConnection.connect(database) as connection:
        yield connection
        await connection.rollback()


@pytest.fixture(params=["as loaded", "analyzed"])
async def settled(
    connection: psycopg.AsyncConnection[tuple[Any, ...]], request: pytest.FixtureRequest
) -> psycopg.AsyncConnection[tuple[Any, ...]]:
    """The same, right after the first load and once autovacuum has come by."""
    if request.param == "analyzed":
        await connection.execute("ANALYZE models_metadata, llm_providers")
    return connection


async def test_postgresql_takes_every_statement(connection: psycopg.AsyncConnection[tuple[Any, ...]]) -> None:
    statements = {name: text for aggregate in AGGREGATES for name, text in statements_of(aggregate).items()}
    for name in sorted(statements, key=lambda name: not name.startswith("create_staged")):
        if name.startswith(("create_staged", "analyze")):
            await connection.execute(statements[name].encode())
        elif name.startswith("copy_"):
            async with connection.cursor().copy(statements[name].encode()):
                pass
        else:
            values = PARAMETERS | OVERRIDES.get(name, {})
            used = {parameter: values[parameter] for parameter in PLACEHOLDER.findall(statements[name])}
            await connection.execute(f"EXPLAIN {statements[name]}".encode(), used)


def test_no_parameter_here_is_left_over() -> None:
    used = {
        parameter
        for aggregate in AGGREGATES
        for text in statements_of(aggregate).values()
        for parameter in PLACEHOLDER.findall(text)
    }
    assert used == PARAMETERS.keys()


LISTING = {"after_id": "", "limit": 51, "offset": 0, "show_removed": False, "with_raw": False}
HOT: dict[str, tuple[dict[str, Any], str]] = {
    "get_models": ({"model_ids": ["openai/gpt-5"], "with_raw": False}, "models_metadata_pkey"),
    "list_models": (LISTING, "models_metadata_pkey"),
    "list_models_of_provider": ({**LISTING, "provider_id": "openai"}, "models_metadata_provider"),
    "find_near_model_ids": ({"model_id": "openai/gpt-55"}, "search_documents_near_id"),
}


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("name", HOT)
async def test_a_hot_statement_finds_its_models_through_its_index(
    settled: psycopg.AsyncConnection[tuple[Any, ...]], name: str, mode: str
) -> None:
    """Both kinds of plan: PostgreSQL chooses by itself once a connection has prepared the statement."""
    parameters, index = HOT[name]
    plan = await explain(settled, queries.load("models")[name], parameters, mode)
    table = "search_documents" if index.startswith("search_documents") else "models_metadata"
    scans = [node for node in nodes_of(plan) if node.get("Relation Name") == table]
    used = {node["Index Name"] for node in nodes_of(plan) if node.get("Index Name", "").startswith(table)}
    assert used == {index}
    assert "Seq Scan" not in {node["Node Type"] for node in scans}
    assert all(node["Actual Rows"] * node["Actual Loops"] <= 60 for node in scans), "reads far more than it gives"


async def test_a_page_in_the_middle_reads_no_more_than_the_first(
    settled: psycopg.AsyncConnection[tuple[Any, ...]],
) -> None:
    parameters = {**LISTING, "after_id": "nano-gpt/"}
    plan = await explain(settled, queries.load("models")["list_models"], parameters, "force_generic_plan")
    (scan,) = [node for node in nodes_of(plan) if node.get("Relation Name") == "models_metadata"]
    assert scan["Actual Rows"] == 51


async def test_the_longest_texts_and_numbers_fit_into_every_index(
    connection: psycopg.AsyncConnection[tuple[Any, ...]],
) -> None:
    """What upstream may say must never make a refresh fail: characters of four bytes, in no order to be compressed."""
    words = iter(
        "".join(chr(0x20000 + number * 7919 % 0xA000) for number in range(start, start + 128))
        for start in range(0, 900, 128)
    )
    await connection.execute(
        """
        UPDATE models_metadata
        SET
            model_id = provider_id || '/' || %(id)s,
            modelsdev_id = %(id)s,
            canonical_id = %(canonical_id)s,
            model_family = %(family)s,
            model_type = %(type)s,
            status = %(status)s,
            release_date = %(date)s,
            pricing_input = 1e308::numeric - 1,
            pricing_output = 1e308::numeric - 1,
            pricing_cache_read = 1e308::numeric - 1,
            pricing_cache_write = 1e308::numeric - 1
        WHERE model_id = 'openai/gpt-5'
        """,
        {
            "id": next(words)[:64],
            "canonical_id": next(words)[:64],
            "family": next(words),
            "type": next(words),
            "status": next(words),
            "date": next(words),
        },
    )
    indexed = await (
        await connection.execute("SELECT count(*) FROM models_metadata WHERE pricing_input > 1e300")
    ).fetchone()
    assert indexed == (1,)
