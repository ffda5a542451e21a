"""Offers and facets of a real server, against what they are by the messages of the whole real catalog."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
import pytest_asyncio

from conftest import Services, StartApp, make_settings
from filter_oracle import read
from modelcatalog.v1.model_pb2 import Capabilities, Limits, Model
from modelcatalog_client import AsyncModelCatalogClient
from modelcatalog_client.errors import (
    InvalidArgumentError,
    InvalidFilterError,
    InvalidModelIdError,
    InvalidPageTokenError,
    InvalidQueryError,
    ModelNotFoundError,
)
from modelcatalog_server import app
from modelcatalog_server.catalog.facets import UNCOUNTED
from modelcatalog_server.catalog.fields import MODEL_FIELDS
from modelcatalog_server.domain.query import FieldType
from small_catalog import Stage, clone_small, follow

pytestmark = pytest.mark.asyncio(loop_scope="module")

GPT_OSS = "openai/gpt-oss-120b"
COMPARED = [
    *(f"limits.{field.name}" for field in Limits.DESCRIPTOR.fields),
    *(f"capabilities.{field.name}" for field in Capabilities.DESCRIPTOR.fields),
]


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


def blend(model: Model, ratio: Fraction) -> Fraction | None:
    """Return the exact price of a mix, None when one of the two is unknown."""
    prices = model.pricing
    if not (prices.HasField("input") and prices.HasField("output")):
        return None
    return (ratio * Fraction(prices.input) + Fraction(prices.output)) / (ratio + 1)


def value_of(model: Model, path: str) -> str | None:
    group, _, name = path.partition(".")
    message = getattr(model, group)
    return str(getattr(message, name)).lower() if message.HasField(name) else None


def expected_offers(models: list[Model], canonical_id: str, ratio: Fraction) -> list[Model]:
    offers = [model for model in models if model.canonical_id == canonical_id]
    return sorted(offers, key=lambda model: (blend(model, ratio) is None, blend(model, ratio) or Fraction(0), model.id))


# --- offers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [None, 0, 0.1, 1, 10, 1e6])
async def test_offers_are_those_of_the_canonical_model_cheapest_first(
    client: AsyncModelCatalogClient, models: list[Model], ratio: float | None
) -> None:
    exact = Fraction(3) if ratio is None else Fraction(repr(ratio))
    served = Counter(model.canonical_id for model in models if model.canonical_id)
    for canonical_id, count in served.most_common(6):
        listing = client.list_model_offers(canonical_id=canonical_id, input_output_ratio=ratio)
        offers = [offer async for offer in listing]
        assert [offer.model for offer in offers] == expected_offers(models, canonical_id, exact)
        assert len(offers) == count
        for offer in offers:
            price = blend(offer.model, exact)
            assert offer.price_unknown is (price is None)
            assert offer.HasField("blended_price") is (price is not None)
            if price is not None:
                assert abs(Fraction(offer.blended_price) - price) <= Fraction(1, 2 * 10**12)


async def test_the_blended_price_is_exact_by_default_and_plain(client: AsyncModelCatalogClient) -> None:
    offers = {offer.model.id: offer async for offer in client.list_model_offers(model_id="openai/gpt-5")}
    assert offers["openai/gpt-5"].blended_price == "3.4375"  # (3 * 1.25 + 10) / 4
    assert offers["anyapi/openai/gpt-5"].price_unknown
    known = [offer.blended_price for offer in offers.values() if not offer.price_unknown]
    assert known == [f"{Decimal(price).normalize():f}" for price in known]


async def test_unknown_prices_come_last_and_free_ones_first(client: AsyncModelCatalogClient) -> None:
    offers = [offer async for offer in client.list_model_offers(canonical_id="openai/gpt-5")]
    unknown = [offer.price_unknown for offer in offers]
    assert unknown == sorted(unknown)
    assert unknown[-1]
    free = [offer async for offer in client.list_model_offers(canonical_id=GPT_OSS)]
    assert free[0].blended_price == "0"


async def test_what_differs_is_told_of_all_offers_on_every_page(
    client: AsyncModelCatalogClient, models: list[Model]
) -> None:
    offered = [model for model in models if model.canonical_id == GPT_OSS]
    differing = sorted(path for path in COMPARED if len({value_of(model, path) for model in offered}) > 1)
    assert "limits.context_window" in differing
    pages = [page async for page in client.list_model_offers(canonical_id=GPT_OSS, page_size=4).pages()]
    assert len(pages) == -(-len(offered) // 4) > 5
    for page in pages:
        assert list(page.differing_fields) == differing
        assert page.total_size == len(offered)
        assert page.canonical_id == GPT_OSS
        for offer in page.offers:
            told = {each.field: each.value if each.HasField("value") else None for each in offer.differences}
            assert list(told) == differing
            assert told == {path: value_of(offer.model, path) for path in differing}


@pytest.mark.parametrize("size", [1, 3, 50])
async def test_pages_are_the_whole_list(client: AsyncModelCatalogClient, models: list[Model], size: int) -> None:
    for canonical_id in (GPT_OSS, "openai/gpt-5"):
        offers = [offer.model async for offer in client.list_model_offers(canonical_id=canonical_id, page_size=size)]
        assert offers == expected_offers(models, canonical_id, Fraction(3))


async def test_a_served_model_stands_for_its_canonical_one(client: AsyncModelCatalogClient) -> None:
    page = await anext(client.list_model_offers(model_id="groq/openai/gpt-oss-120b").pages())
    assert page.canonical_id == GPT_OSS
    assert not page.HasField("resolution")
    assert page == await anext(client.list_model_offers(canonical_id=GPT_OSS).pages())


async def test_a_model_whose_canonical_one_is_not_known_has_its_own_offer(
    client: AsyncModelCatalogClient, models: list[Model]
) -> None:
    alone = next(model for model in models if not model.canonical_id)
    page = await anext(client.list_model_offers(model_id=alone.id).pages())
    assert page.canonical_id == ""
    assert [offer.model for offer in page.offers] == [alone]
    assert not page.differing_fields


async def test_several_providers_of_one_model_are_no_ambiguity(client: AsyncModelCatalogClient) -> None:
    page = await anext(client.list_model_offers(model_id="gpt-oss-120b:free").pages())
    assert page.canonical_id == GPT_OSS
    assert page.resolution.canonical_id == GPT_OSS
    assert page.resolution.reference == "gpt-oss-120b:free"


async def test_a_mask_and_a_view_shape_the_models(client: AsyncModelCatalogClient) -> None:
    masked = await anext(client.list_model_offers(canonical_id=GPT_OSS, read_mask=["id"]).pages())
    assert all(offer.model == Model(id=offer.model.id) for offer in masked.offers)
    full = await anext(client.list_model_offers(canonical_id=GPT_OSS, view="full").pages())
    assert all(offer.model.raw["id"] == offer.model.upstream_id for offer in full.offers)


@pytest.mark.parametrize(
    ("arguments", "error", "field"),
    [
        ({}, InvalidQueryError, "canonical_id"),
        ({"canonical_id": GPT_OSS, "model_id": "openai/gpt-5"}, InvalidQueryError, "canonical_id"),
        ({"canonical_id": "a\nb"}, InvalidModelIdError, "canonical_id"),
        ({"model_id": "x" * 600}, InvalidModelIdError, "model_id"),
        ({"canonical_id": GPT_OSS, "input_output_ratio": -0.5}, InvalidQueryError, "input_output_ratio"),
        ({"canonical_id": GPT_OSS, "input_output_ratio": 1e6 + 1}, InvalidQueryError, "input_output_ratio"),
        ({"canonical_id": GPT_OSS, "input_output_ratio": float("nan")}, InvalidQueryError, "input_output_ratio"),
        ({"canonical_id": GPT_OSS, "input_output_ratio": float("inf")}, InvalidQueryError, "input_output_ratio"),
        ({"canonical_id": GPT_OSS, "page_size": -1}, InvalidQueryError, "page_size"),
        ({"canonical_id": GPT_OSS, "page_token": "nonsense"}, InvalidPageTokenError, "page_token"),
    ],
    ids=str,
)
async def test_a_bad_argument_is_named(
    client: AsyncModelCatalogClient, arguments: dict[str, Any], error: type[InvalidArgumentError], field: str
) -> None:
    with pytest.raises(error) as raised:
        await anext(client.list_model_offers(**arguments).pages())
    assert [violation.field for violation in raised.value.field_violations] == [field]


async def test_the_smallest_ratio_is_taken_as_it_is(client: AsyncModelCatalogClient) -> None:
    listing = client.list_model_offers(canonical_id=GPT_OSS, input_output_ratio=5e-324, page_size=2)
    offers = [offer async for offer in listing]
    assert offers[1].blended_price == offers[1].model.pricing.output


async def test_an_unknown_id_is_told_with_near_ones(client: AsyncModelCatalogClient) -> None:
    with pytest.raises(ModelNotFoundError) as raised:
        await anext(client.list_model_offers(canonical_id="openai/gpt-os-120b").pages())
    assert GPT_OSS in raised.value.candidates
    with pytest.raises(ModelNotFoundError):
        await anext(client.list_model_offers(model_id="no-such-thing/at-all").pages())


async def test_a_token_belongs_to_its_offers(client: AsyncModelCatalogClient) -> None:
    page = await anext(client.list_model_offers(canonical_id=GPT_OSS, page_size=2).pages())
    for other in (
        {"canonical_id": "openai/gpt-5"},
        {"model_id": GPT_OSS},
        {"canonical_id": GPT_OSS, "input_output_ratio": 2.0},
    ):
        with pytest.raises(InvalidPageTokenError):
            await anext(client.list_model_offers(page_token=page.next_page_token, **other).pages())


async def test_offers_across_a_refresh_stay_in_its_revision(stage: Stage, moving: AsyncModelCatalogClient) -> None:
    canonical_id = "openai/gpt-5"
    stage.catalog.add("openrouter/openai/gpt-5-eu", canonical_model_id=canonical_id, cost={"input": 2, "output": 20})
    stage.catalog.add("openrouter/openai/gpt-5-us", canonical_model_id=canonical_id, cost={"input": 1, "output": 2})
    stage.catalog.add("zeldoc/gpt-5-x", canonical_model_id=canonical_id)
    del stage.catalog.model("zeldoc/gpt-5-x")["cost"]
    before = (await stage.refresh()).result_revision or 0
    expected = [offer async for offer in moving.list_model_offers(canonical_id=canonical_id)]
    assert len(expected) >= 4
    pages = []
    async for page in moving.list_model_offers(canonical_id=canonical_id, page_size=1).pages():
        pages.append(page)
        if len(pages) == 1:
            stage.catalog.remove("openrouter/openai/gpt-5-eu")
            stage.catalog.model("openai/gpt-5")["cost"] = {"input": 0, "output": 0}
            stage.catalog.model("openai/gpt-5")["limit"] = {"context": 7, "output": 7}
            assert (await stage.refresh()).result_revision == before + 1
    assert [offer for page in pages for offer in page.offers] == expected
    assert {page.catalog_revision for page in pages} == {before}
    assert {page.total_size for page in pages} == {len(expected)}
    assert len({tuple(page.differing_fields) for page in pages}) == 1
    now = await anext(moving.list_model_offers(canonical_id=canonical_id).pages())
    assert now.offers[0].model.id == "openai/gpt-5"
    assert "openrouter/openai/gpt-5-eu" not in [offer.model.id for offer in now.offers]
    assert "limits.context_window" in now.differing_fields


async def test_a_disabled_providers_offers_are_hidden(stage: Stage, moving: AsyncModelCatalogClient) -> None:
    before = [offer.model.provider_id async for offer in moving.list_model_offers(canonical_id="openai/gpt-5")]
    assert "openai" in before
    await moving.update_provider("openai", enabled=False)
    page = await anext(moving.list_model_offers(canonical_id="openai/gpt-5").pages())
    assert "openai" not in [offer.model.provider_id for offer in page.offers]
    assert page.total_size == len(before) - before.count("openai")
    facets = await moving.list_model_facets()
    (providers,) = [facet for facet in facets.facets if facet.field == "provider_id"]
    assert "openai" not in [value.value for value in providers.values]
    assert facets.total_size == 87 - 51
    with pytest.raises(ModelNotFoundError):
        await moving.compare_models(["openai/gpt-5", "openai/gpt-5-mini"])


# --- facets --------------------------------------------------------------------------------------------------------

TYPES = {
    FieldType.STRING: "string",
    FieldType.ENUM: "string",
    FieldType.DATE: "string",
    FieldType.BOOL: "bool",
    FieldType.INTEGER: "number",
    FieldType.DECIMAL: "number",
    FieldType.LIST: "list",
    FieldType.TIME: "time",
}
FILTERS = ["", "capabilities.vision = true AND pricing.input <= 1.25", "provider_id = mistral", "id = no-such-model"]


@pytest.mark.parametrize("filter_text", FILTERS)
async def test_facets_are_what_the_models_that_fit_have(client: AsyncModelCatalogClient, filter_text: str) -> None:
    fitting = [model async for model in client.list_models(filter=filter_text, page_size=1000)]
    response = await client.list_model_facets(filter=filter_text)
    assert response.total_size == len(fitting)
    assert [facet.field for facet in response.facets] == list(MODEL_FIELDS.fields)
    for facet in response.facets:
        field = MODEL_FIELDS.fields[facet.field]
        values = [read(model, field) for model in fitting]
        known = [value for value in values if value is not None]
        assert facet.type == TYPES[field.type]
        assert list(facet.operators) == [str(operator) for operator in field.operators]
        assert facet.unset_count == len(values) - len(known)
        if field.type in (FieldType.INTEGER, FieldType.DECIMAL):
            assert not facet.values
            told = [Decimal(text) for text in (facet.min, facet.max) if text]
            assert told == ([min(known), max(known)] if known else [])
        elif field.type is FieldType.DATE:
            assert [facet.min, facet.max] == ([min(known), max(known)] if known else ["", ""])
        elif facet.field in UNCOUNTED:
            assert not facet.values
        elif field.type is not FieldType.TIME:
            held = known if field.type is not FieldType.LIST else [each for value in known for each in set(value)]
            counts = Counter(held)
            assert not facet.HasField("min")
            assert [value.count for value in facet.values] == sorted(counts.values(), reverse=True)[:100]
            by_text = {str(value).lower(): count for value, count in counts.items()}
            assert all(by_text[value.value.strip('"').lower()] == value.count for value in facet.values)


async def test_a_facets_value_is_what_a_filter_takes(client: AsyncModelCatalogClient) -> None:
    """The counts add up, and each value pasted behind its field finds as many models as it says."""
    response = await client.list_model_facets(filter="provider_name:ai")
    sums: defaultdict[str, int] = defaultdict(int)
    for facet in response.facets:
        sums[facet.field] = sum(value.count for value in facet.values)
        operator = ":" if facet.type == "list" else "="
        for value in [*facet.values[:2], *facet.values[-1:]]:
            text = f"provider_name:ai AND {facet.field} {operator} {value.value}"
            page = await anext(client.list_models(filter=text, page_size=1).pages())
            assert page.total_size == value.count, text
    for facet in response.facets:
        if facet.type in ("bool", "string") and facet.values and len(facet.values) < 100:
            assert sums[facet.field] + facet.unset_count == response.total_size
        for bound, operator in ((facet.min, ">="), (facet.max, "<=")):
            if bound:
                text = f"provider_name:ai AND {facet.field} {operator} {bound}"
                page = await anext(client.list_models(filter=text, page_size=1).pages())
                assert page.total_size == response.total_size - facet.unset_count, text


async def test_values_of_equal_count_come_in_the_order_of_their_bytes(client: AsyncModelCatalogClient) -> None:
    response = await client.list_model_facets()
    (families,) = [facet for facet in response.facets if facet.field == "family"]
    told = [(-value.count, value.value.encode()) for value in families.values]
    assert told == sorted(told)
    assert len(told) == 100


async def test_a_mistake_in_the_filter_of_facets_is_named(client: AsyncModelCatalogClient) -> None:
    with pytest.raises(InvalidFilterError, match="column 1: 'vision' is no field of Model"):
        await client.list_model_facets(filter="vision = true")


async def test_removed_models_are_in_no_facet(stage: Stage, moving: AsyncModelCatalogClient) -> None:
    stage.catalog.remove("openai/gpt-5")
    await stage.refresh()
    response = await moving.list_model_facets()
    assert response.total_size == 86
    assert response.catalog_revision == 2
    statuses = {value.value for facet in response.facets if facet.field == "status" for value in facet.values}
    assert "REMOVED" not in statuses
