"""Comparisons by a real server, against what they are by the messages of the models."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from fractions import Fraction
from typing import Any

import pytest
import pytest_asyncio

from conftest import Services, StartApp, make_settings
from modelcatalog.v1.model_pb2 import Model
from modelcatalog_client import AsyncModelCatalogClient, Workload
from modelcatalog_client.errors import (
    InvalidArgumentError,
    InvalidModelIdError,
    InvalidQueryError,
    ModelNotFoundError,
    TooManyIdsError,
)
from modelcatalog_server import app
from modelcatalog_server.catalog.fields import MODEL_FIELDS
from small_catalog import Stage, clone_small, follow

pytestmark = pytest.mark.asyncio(loop_scope="module")

GPT_5, OPUS, GEMINI = "openai/gpt-5", "anthropic/claude-opus-4-6", "google/gemini-2.5-pro"


@pytest.fixture(scope="module")
def url(templates: Services) -> Iterator[str]:
    url = templates.clone("mc_loaded")
    yield url
    templates.drop(url)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(templates: Services, url: str) -> AsyncIterator[AsyncModelCatalogClient]:
    """A client of a server with the full catalog, which these tests only read."""
    async with (
        app.start(make_settings(templates, url, offline=True)) as running,
        AsyncModelCatalogClient(running.server.address) as client,
    ):
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def models(client: AsyncModelCatalogClient) -> list[Model]:
    return [model async for model in client.list_models(page_size=1000)]


@pytest.fixture
def small_database(templates: Services) -> Iterator[str]:
    yield from clone_small(templates)


@pytest_asyncio.fixture(loop_scope="module")
async def stage(start_app: StartApp, small_database: str) -> AsyncIterator[Stage]:
    """A server whose catalog changes."""
    async with follow(start_app, small_database) as stage:
        yield stage


@pytest_asyncio.fixture(loop_scope="module")
async def moving(stage: Stage) -> AsyncIterator[AsyncModelCatalogClient]:
    async with AsyncModelCatalogClient(stage.running.server.address) as client:
        yield client


def rows_of(response: Any) -> dict[str, Any]:
    return {row.field: row for row in response.rows}


def values_of(row: Any) -> list[str | None]:
    return [value.value if value.HasField("value") else None for value in row.values]


async def test_models_come_in_the_order_of_the_request_as_they_are_read_singly(client: AsyncModelCatalogClient) -> None:
    ids = [OPUS, GPT_5, "openrouter/openai/gpt-5", GEMINI]
    response = await client.compare_models(ids)
    assert list(response.models) == [(await client.get_model(id_)).model for id_ in ids]
    assert response.catalog_revision == 1
    assert not response.costs
    assert not response.resolutions


async def test_there_is_a_row_for_each_field_that_models_are_compared_in(client: AsyncModelCatalogClient) -> None:
    rows = rows_of(await client.compare_models([GPT_5, OPUS]))
    left_out = {"id", "revision", "first_seen_time", "last_changed_time", "removed_time"}
    assert set(rows) == set(MODEL_FIELDS.fields) - left_out | {"pricing.tiers", "pricing.modes", "reasoning_options"}


async def test_values_are_texts_and_what_is_unknown_is_unset(client: AsyncModelCatalogClient) -> None:
    rows = rows_of(await client.compare_models([GPT_5, OPUS, GEMINI]))
    assert values_of(rows["pricing.input"]) == ["1.25", "5", "1.25"]
    assert values_of(rows["limits.max_input_tokens"]) == ["272000", None, None]
    assert values_of(rows["capabilities.structured_output"]) == ["true", None, "true"]
    assert values_of(rows["modalities.input"]) == ["text, image", "text, image, pdf", "text, image, audio, video, pdf"]
    assert values_of(rows["status"]) == ["ACTIVE"] * 3
    assert values_of(rows["pricing.tiers"]) == ["", "", "above 200000: input 2.5, output 15, cache_read 0.25"]
    assert values_of(rows["pricing.modes"])[1] == "fast: input 30, output 150, cache_read 3, cache_write 37.5"
    assert values_of(rows["reasoning_options"])[0] == "effort minimal/low/medium/high"


async def test_best_is_the_lower_price_and_the_larger_limit_of_those_known(client: AsyncModelCatalogClient) -> None:
    rows = rows_of(await client.compare_models([GPT_5, OPUS, GEMINI, "anyapi/openai/gpt-5"]))
    assert list(rows["pricing.input"].best) == [GPT_5, GEMINI]
    assert list(rows["limits.context_window"].best) == [GEMINI]
    assert list(rows["limits.max_input_tokens"].best) == []  # nobody knows of the others
    assert list(rows["pricing.reasoning"].best) == []
    assert {field for field, row in rows.items() if row.best} <= {
        field for field in rows if field.startswith(("pricing.", "limits.", "performance."))
    }


async def test_what_differs_is_what_is_not_equal_and_unknown_is_equal_to_nothing_else(
    client: AsyncModelCatalogClient,
) -> None:
    response = await client.compare_models([GPT_5, "openrouter/openai/gpt-5", "anyapi/openai/gpt-5"])
    for row in response.rows:
        assert row.differs is (len(set(values_of(row))) > 1)
    rows = rows_of(response)
    assert rows["pricing.input"].differs
    assert values_of(rows["pricing.input"]) == ["1.25", "1.25", None]
    assert not rows["canonical_id"].differs


def cost_of(model: Model, input_tokens: int, output_tokens: int, cached_tokens: int) -> Fraction | None:
    """Return the exact cost, None when a price that it takes is unknown."""
    reached = [tier for tier in model.pricing.tiers if tier.min_context_tokens < input_tokens]
    prices: Any = max(reached, key=lambda tier: tier.min_context_tokens) if reached else model.pricing
    total = Fraction(0)
    for name, tokens in (
        ("input", input_tokens - cached_tokens),
        ("cache_read", cached_tokens),
        ("output", output_tokens),
    ):
        if tokens and not prices.HasField(name):
            return None
        total += tokens * Fraction(getattr(prices, name) or 0) / 10**6
    return total


@pytest.mark.parametrize(
    ("input_tokens", "output_tokens", "cached_tokens"),
    [(30_000, 2_000, 0), (200_000, 1, 0), (200_001, 1, 0), (300_000, 7, 299_999), (0, 5, 0), (10**12, 10**12, 10**12)],
)
async def test_costs_are_exact_over_the_whole_catalog(
    client: AsyncModelCatalogClient, models: list[Model], input_tokens: int, output_tokens: int, cached_tokens: int
) -> None:
    """All that have tiers, and as many of the others."""
    tiered = [model for model in models if model.pricing.tiers]
    assert len(tiered) > 100
    others = [model for model in models if not model.pricing.tiers][:: len(models) // len(tiered)]
    workload = Workload(input_tokens=input_tokens, output_tokens=output_tokens, cached_tokens=cached_tokens)
    chosen = [*tiered, *others]
    for start in range(0, len(chosen) - 1, 10):
        compared = chosen[start : start + 10]
        if len(compared) < 2:
            break
        response = await client.compare_models([model.id for model in compared], workload=workload)
        assert [cost.model_id for cost in response.costs] == [model.id for model in compared]
        for model, cost in zip(compared, response.costs, strict=True):
            expected = cost_of(model, input_tokens, output_tokens, cached_tokens)
            assert (Fraction(cost.total) if cost.HasField("total") else None) == expected
            assert cost.currency == "USD"
            assert "E" not in cost.total
            assert cost.explanation


async def test_a_tier_holds_above_its_threshold_only(client: AsyncModelCatalogClient) -> None:
    at = await client.compare_models([GPT_5, GEMINI], workload=Workload(input_tokens=200_000, output_tokens=1000))
    above = await client.compare_models([GPT_5, GEMINI], workload=Workload(input_tokens=200_001, output_tokens=1000))
    assert [cost.HasField("tier_min_context_tokens") for cost in at.costs] == [False, False]
    assert at.costs[1].total == "0.26"  # 200,000 at 1.25 and 1,000 at 10
    assert not above.costs[0].HasField("tier_min_context_tokens")
    assert above.costs[1].tier_min_context_tokens == 200_000
    assert above.costs[1].total == "0.5150025"  # 200,001 at 2.5 and 1,000 at 15


async def test_an_unknown_price_is_named_and_nothing_is_put_in_its_place(client: AsyncModelCatalogClient) -> None:
    workload = Workload(input_tokens=1000, output_tokens=10, cached_tokens=500)
    uncached = "openai/gpt-4"
    ids = ["anyapi/openai/gpt-5", uncached, "nvidia/openai/gpt-oss-120b"]
    response = await client.compare_models(ids, workload=workload)
    unpriced, without_cache_read, free = response.costs
    assert not unpriced.HasField("total")
    assert unpriced.explanation == "no price is known"
    assert not without_cache_read.HasField("total")
    assert without_cache_read.explanation == "not known: the price of cache_read"
    assert free.HasField("total") is response.models[2].pricing.HasField("cache_read")
    again = await client.compare_models([uncached, GPT_5], workload=Workload(input_tokens=1000, output_tokens=10))
    assert again.costs[0].HasField("total"), "no cached tokens take no price of them"


async def test_an_empty_workload_costs_nothing(client: AsyncModelCatalogClient) -> None:
    response = await client.compare_models([GPT_5, OPUS], workload=Workload())
    assert [cost.total for cost in response.costs] == ["0", "0"]


async def test_benchmarks_are_those_that_all_have_a_result_in(client: AsyncModelCatalogClient) -> None:
    ids = [GPT_5, "openrouter/openai/gpt-5"]
    response = await client.compare_models(ids)
    results = (await client.list_model_benchmarks(GPT_5)).benchmarks
    assert {row.name for row in response.benchmarks} == {result.canonical_name for result in results}
    assert not any(row.differs for row in response.benchmarks)
    with_another = await client.compare_models([*ids, "mistral/mistral-large-2411"])
    assert not with_another.benchmarks


async def test_a_benchmark_is_shared_in_the_same_series_only(client: AsyncModelCatalogClient) -> None:
    def series(result: Any) -> tuple[str, ...]:
        name = result.canonical_name if hasattr(result, "canonical_name") else result.name
        return (name, result.version, result.dataset, result.metric, result.harness, result.variant)

    models = [model async for model in client.list_models(filter="provider_id = openai OR provider_id = anthropic")]
    by_model = {}
    for model in models:
        if results := (await client.list_model_benchmarks(model.id)).benchmarks:
            by_model[model.id] = {series(result): result.score_text for result in results}
    pairs = [(a, b) for a in by_model for b in by_model if a < b and by_model[a].keys() & by_model[b].keys()]
    assert pairs
    for first, second in pairs[:20]:
        response = await client.compare_models([first, second])
        assert [series(row) for row in response.benchmarks] == sorted(by_model[first].keys() & by_model[second].keys())
        for row in response.benchmarks:
            assert row.values[0].value == by_model[first][series(row)]


async def test_what_people_write_is_compared_too(client: AsyncModelCatalogClient) -> None:
    response = await client.compare_models(["gpt-5", OPUS])
    assert [model.id for model in response.models] == [GPT_5, OPUS]
    (resolution,) = response.resolutions
    assert (resolution.reference, resolution.model_id) == ("gpt-5", GPT_5)


@pytest.mark.parametrize(
    ("ids", "workload", "error", "field"),
    [
        ([], {}, TooManyIdsError, "model_ids"),
        ([GPT_5], {}, TooManyIdsError, "model_ids"),
        ([GPT_5] * 11, {}, TooManyIdsError, "model_ids"),
        ([GPT_5, OPUS, GPT_5], {}, InvalidQueryError, "model_ids[2]"),
        ([GPT_5, "gpt-5"], {}, InvalidQueryError, "model_ids[1]"),
        ([GPT_5, ""], {}, InvalidModelIdError, "model_ids[1]"),
        ([GPT_5, OPUS], {"input_tokens": -1}, InvalidQueryError, "workload.input_tokens"),
        ([GPT_5, OPUS], {"output_tokens": 10**12 + 1}, InvalidQueryError, "workload.output_tokens"),
        ([GPT_5, OPUS], {"input_tokens": 5, "cached_tokens": 6}, InvalidQueryError, "workload.cached_tokens"),
    ],
    ids=str,
)
async def test_a_bad_argument_is_named(
    client: AsyncModelCatalogClient,
    ids: list[str],
    workload: dict[str, int],
    error: type[InvalidArgumentError],
    field: str,
) -> None:
    with pytest.raises(error) as raised:
        await client.compare_models(ids, workload=Workload(**workload))
    assert [violation.field for violation in raised.value.field_violations] == [field]


async def test_a_model_that_does_not_exist_is_told_with_near_ones(client: AsyncModelCatalogClient) -> None:
    with pytest.raises(ModelNotFoundError) as raised:
        await client.compare_models([GPT_5, "anthropic/claude-sonet-4-5"])
    assert "anthropic/claude-sonnet-4-5" in raised.value.candidates


async def test_a_removed_model_is_compared_and_says_so(stage: Stage, moving: AsyncModelCatalogClient) -> None:
    stage.catalog.remove("openai/gpt-5-mini")
    await stage.refresh()
    response = await moving.compare_models([GPT_5, "openai/gpt-5-mini"])
    assert values_of(rows_of(response)["status"]) == ["ACTIVE", "REMOVED"]
    assert response.catalog_revision == 2
