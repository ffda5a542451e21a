"""How PostgreSQL finds what is asked for most, in today's catalog and in one of a hundred times the size."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from typing import Any, LiteralString

import psycopg
import pytest

from cloned_catalog import clone_providers
from conftest import Services
from modelcatalog_server.catalog.fields import MODEL_FIELDS
from modelcatalog_server.catalog.filtering import parse_filter
from modelcatalog_server.catalog.ordering import parse_order_by
from modelcatalog_server.catalog.search_words import read_query
from modelcatalog_server.domain.query import Expression, Selection
from modelcatalog_server.storage import queries
from modelcatalog_server.storage.composition import (
    MODEL_COLUMNS,
    Composition,
    compose,
    compose_offers,
    compose_search,
)
from modelcatalog_server.storage.search_rows import compile_text
from plans import explain, nodes_of

# Making the large catalog takes the better part of a minute on a machine that has other things to do.
pytestmark = pytest.mark.timeout(300)

TIMES = {"loaded": 1, "hundredfold": 100}
PAGE: dict[str, Any] = {"limit": 21, "offset": 0, "show_removed": False, "with_raw": False, "revision": 1}
FIRST_OFFERS = {**PAGE, "ratio": Decimal(3), "after_id": "", "after_mix": None}
#: Served by 50 providers of 2026-07-02.
OFFERED = "canonical_id = 'openai/gpt-oss-120b'"


def select(filter_text: str, order_by: str = "") -> Composition:
    order = parse_order_by(order_by, MODEL_FIELDS)
    return compose(Selection(filter=parse_filter(filter_text, MODEL_FIELDS), order=order), MODEL_COLUMNS)


def offers_of(filter_text: str) -> Composition:
    offered: Expression | None = parse_filter(filter_text, MODEL_FIELDS)
    assert offered is not None
    return compose_offers(offered)


@pytest.fixture(scope="module")
def loaded(templates: Services) -> Iterator[str]:
    url = templates.clone("mc_loaded")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
    yield url
    templates.drop(url)


@pytest.fixture(scope="module")
def hundredfold_database(templates: Services) -> Iterator[str]:
    """The full catalog a hundred times over, for plans and not for answers: what it stores encoded is left out.

    So are the versions, and the one index that takes long to make and that nobody here asks by.
    """
    url = templates.clone("mc_loaded")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP INDEX search_documents_near_id")
        tables = ("llm_providers", "models_metadata", "search_documents")
        assert clone_providers(connection, 100, tables=tables, trimmed=True) == 527_600
    yield url
    templates.drop(url)


@pytest.fixture(params=TIMES)
def size(request: pytest.FixtureRequest, loaded: str) -> tuple[int, str]:
    """How many times today's catalog it is, and where."""
    times = TIMES[request.param]
    return times, loaded if times == 1 else request.getfixturevalue("hundredfold_database")


@pytest.fixture
async def sized(size: tuple[int, str]) -> AsyncIterator[tuple[int, psycopg.AsyncConnection[tuple[Any, ...]]]]:
    """The same with a connection to it."""
    times, url = size
    async with await psycopg.AsyncConnection.connect(url) as connection:
        yield times, connection
        await connection.rollback()


PAST = "offers of the past"
# Rows that a plan may look at: those that fit, a page of them, or as many as it takes to find a page.
PLANS: dict[str, tuple[str, str, Composition, str, int, int]] = {
    "of a provider": ("listings", "list_selected_models", select("provider_id = openai name:gpt"), "provider", 60, 1),
    "by price": ("listings", "list_selected_models", select("", "pricing.input"), "price", 30, 1),
    "a range of prices, by price": (
        *("listings", "list_selected_models"),
        *(select("pricing.input >= 0.5 pricing.input <= 0.55", "pricing.input"), "price", 30, 1),
    ),
    "how many in a range of prices": (
        *("listings", "count_selected_models"),
        *(select("pricing.input >= 0.5 pricing.input <= 0.55"), "price", 500, 100),
    ),
    "how many in a wider range, with flags and limits": (
        *("listings", "count_selected_models"),
        *(
            select("capabilities.vision = true pricing.input <= 1.25 limits.context_window >= 200000"),
            "price",
            5276,
            100,
        ),
    ),
    "offers": ("offers", "list_offers", offers_of(OFFERED), "canonical", 60, 100),
    "all offers together": ("offers", "summarize_offers", offers_of(OFFERED), "canonical", 60, 100),
    PAST: ("offers", "list_offers_at_revision", offers_of(OFFERED), "canonical", 60, 100),
}


@pytest.mark.parametrize("name", [name for name in PLANS if name != PAST])
async def test_what_is_asked_for_most_is_found_through_an_index(
    sized: tuple[int, psycopg.AsyncConnection[tuple[Any, ...]]], name: str
) -> None:
    """``growth``: how many times the rows may be that are read in a catalog of a hundred times the size."""
    await assert_indexed(*sized, name)


async def test_the_past_is_found_through_an_index_too(loaded: str) -> None:
    async with await psycopg.AsyncConnection.connect(loaded) as connection:
        await assert_indexed(1, connection, PAST)


async def assert_indexed(times: int, connection: psycopg.AsyncConnection[tuple[Any, ...]], name: str) -> None:
    aggregate, statement, composition, index, rows, growth = PLANS[name]
    text: LiteralString = queries.load(aggregate)[statement]
    filled = composition.fill(text).as_string(connection)
    parameters = {**FIRST_OFFERS, **composition.parameters}
    plan = await explain(connection, filled, parameters, "force_custom_plan")
    scans = [node for node in nodes_of(plan) if node.get("Relation Name") in ("models_metadata", "model_versions")]
    used = {node["Index Name"] for node in nodes_of(plan) if node.get("Index Name", "").startswith("model")}
    assert {name.rpartition("_")[2] for name in used} == {index}
    assert "Seq Scan" not in {node["Node Type"] for node in scans}
    if statement == "count_selected_models":  # the index tells it all: no row is looked at
        assert [node["Heap Fetches"] for node in scans] == [0]
    read = sum(node["Actual Rows"] + node.get("Rows Removed by Filter", 0) for node in scans)
    assert read <= rows * (growth if times > 1 else 1)


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("filter_text", ["", "pricing.input <= 3"])
@pytest.mark.parametrize("query", ["claude sonnet 4.5", "groq llama 70b", "gpt-4o-2024-11-20", "zymurgy"])
async def test_a_search_finds_its_models_through_its_indexes(
    sized: tuple[int, psycopg.AsyncConnection[tuple[Any, ...]]], query: str, filter_text: str, mode: str
) -> None:
    _, connection = sized
    composition = compose_search(parse_filter(filter_text, MODEL_FIELDS), is_past=False)
    parameters = {
        **PAGE,
        **composition.parameters,
        **compile_text(read_query(query)),
        "after_id": "",
        "after_score": None,
    }
    statement = composition.fill(queries.load("search")["search_models"]).as_string(connection)
    plan = await explain(connection, statement, parameters, mode)
    used = {node["Index Name"] for node in nodes_of(plan) if "Index Name" in node}
    scanned = {node["Relation Name"] for node in nodes_of(plan) if node["Node Type"] == "Seq Scan"}
    assert "search_documents_words" in used
    assert not scanned & {"search_documents", "models_metadata"}
