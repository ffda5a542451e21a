"""Listings of a real server: every page size, every way through, and a catalog that changes on the way."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from aged_tokens import DAY_S, sealed_ago
from conftest import Services, StartApp, make_settings
from modelcatalog.v1.model_catalog_service_pb2 import ListModelsRequest
from modelcatalog_client import AsyncModelCatalogClient
from modelcatalog_client.errors import (
    InvalidArgumentError,
    InvalidFilterError,
    InvalidOrderByError,
    InvalidPageTokenError,
    InvalidQueryError,
    PageTokenExpiredError,
    ProviderNotFoundError,
    TooManyIdsError,
)
from modelcatalog_server import app
from modelcatalog_server.domain.refresh import RefreshType
from small_catalog import SmallCatalog, Stage, clone_small, fetch, follow
from upstream_server import recorded

pytestmark = pytest.mark.asyncio(loop_scope="module")

ALL = 5276


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


@pytest.fixture(scope="module")
def expected_ids() -> list[str]:
    providers = json.loads(recorded("catalog-2026-07-02"))["providers"]
    ids = (f"{id_}/{model}" for id_, provider in providers.items() for model in provider["models"])
    return sorted(ids, key=str.encode)


async def pages_of(client: AsyncModelCatalogClient, **listing: Any) -> list[Any]:
    return [page async for page in client.list_models(read_mask=["id"], **listing).pages()]


def ids_on(pages: list[Any]) -> list[str]:
    return [model.id for page in pages for model in page.models]


# --- every page size -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("asked", "given"), [(0, 50), (999, 999), (5000, 1000)])
async def test_every_page_size_lists_each_model_once_in_the_order_of_ids(
    client: AsyncModelCatalogClient, expected_ids: list[str], asked: int, given: int
) -> None:
    pages = await pages_of(client, page_size=asked)
    assert ids_on(pages) == expected_ids
    assert {len(page.models) for page in pages[:-1]} == {given}
    assert 1 <= len(pages[-1].models) <= given
    assert {page.total_size for page in pages} == {ALL}
    assert [bool(page.next_page_token) for page in pages] == [*[True] * (len(pages) - 1), False]
    assert {page.catalog_revision for page in pages} == {1}


@pytest.mark.parametrize("size", [1, 7])
async def test_small_pages_list_each_model_once_too(stage: Stage, moving: AsyncModelCatalogClient, size: int) -> None:
    pages = await pages_of(moving, page_size=size)
    assert ids_on(pages) == stage.catalog.model_ids
    assert {len(page.models) for page in pages[:-1]} == {size}
    assert {page.total_size for page in pages} == {87}
    of_openai = await pages_of(moving, page_size=size, provider_id="openai")
    assert ids_on(of_openai) == [id_ for id_ in stage.catalog.model_ids if id_.startswith("openai/")]
    assert {page.total_size for page in of_openai} == {51}


@pytest.mark.parametrize("size", [51, 50, 52, 17])
async def test_a_last_page_that_is_just_full_has_no_token(client: AsyncModelCatalogClient, size: int) -> None:
    pages = await pages_of(client, page_size=size, provider_id="openai")
    assert len(ids_on(pages)) == 51
    assert len(pages) == -(-51 // size)


async def test_every_provider_lists_its_own(client: AsyncModelCatalogClient, expected_ids: list[str]) -> None:
    seen: list[str] = []
    async for provider in client.list_providers(page_size=1000):
        pages = await pages_of(client, page_size=1000, provider_id=provider.id)
        assert {page.total_size for page in pages} == {provider.model_count} == {len(ids_on(pages))}
        seen += ids_on(pages)
    assert sorted(seen, key=str.encode) == expected_ids


async def test_page_size_may_change_on_the_way(client: AsyncModelCatalogClient, expected_ids: list[str]) -> None:
    first = (await pages_of(client, page_size=3, page=1))[0]
    rest = await pages_of(client, page_size=1000, page_token=first.next_page_token)
    assert ids_on([first, *rest]) == expected_ids


async def test_the_largest_page_with_everything_fits_into_a_message(client: AsyncModelCatalogClient) -> None:
    sizes = [page.ByteSize() async for page in client.list_models(page_size=1000, view="full").pages()]
    assert max(sizes) < 4 * 1024 * 1024, "what a gRPC client takes by default"


# --- what one answer holds -------------------------------------------------------------------------------------------

_BIG = [f"zeldoc/big-{number}" for number in range(10, 40)]


@pytest_asyncio.fixture(loop_scope="module")
async def heavy(stage: Stage, moving: AsyncModelCatalogClient) -> AsyncModelCatalogClient:
    """A catalog with thirty offers of GPT-5 whose records are as large as records can be."""
    for model_id in _BIG:
        stage.catalog.add(model_id, name="Big", notes="n" * 250_000, canonical_model_id="openai/gpt-5")
    await stage.refresh()
    return moving


async def test_no_answer_holds_more_than_3_mib(heavy: AsyncModelCatalogClient) -> None:
    """Listings, searches and offers end a page before that and go on; a batch and a page by number are refused."""
    pages = [page async for page in heavy.list_models(provider_id="zeldoc", view="full").pages()]
    assert [model.id for page in pages for model in page.models if model.id in _BIG] == _BIG
    assert {page.total_size for page in pages} == {31}
    found = [page async for page in heavy.search_models("big", view="full").pages()]
    assert sorted(result.model.id for page in found for result in page.results) == _BIG
    offers = [page async for page in heavy.list_model_offers(canonical_id="openai/gpt-5", view="full").pages()]
    assert sorted(offer.model.id for page in offers for offer in page.offers if offer.model.id in _BIG) == _BIG
    for listed in (pages, found, offers):
        assert len(listed) == 3
        assert all(page.ByteSize() < 3.1 * 1024 * 1024 for page in listed)
        assert len({page.next_page_token for page in listed}) == 3
    for numbered in (
        heavy.list_models(view="full", page=1, page_size=1000),
        heavy.search_models("big", view="full", page=1),
    ):
        with pytest.raises(InvalidQueryError, match="fit in an answer: ask for fewer") as raised:
            _ = [page async for page in numbered.pages()]
        assert [each.field for each in raised.value.field_violations] == ["page_size"]
    with pytest.raises(TooManyIdsError, match="ask for the first 12, or for fewer fields"):
        await heavy.batch_get_models(_BIG, view="full")


async def test_what_is_not_asked_for_does_not_count(heavy: AsyncModelCatalogClient) -> None:
    (page,) = [page async for page in heavy.list_models(provider_id="zeldoc").pages()]
    assert len(page.models) == 31
    (page,) = [page async for page in heavy.list_models(read_mask=["id", "source"]).pages() if page.total_size > 50][:1]
    assert len(page.models) == 50
    assert len((await heavy.batch_get_models(_BIG)).models) == len(_BIG)


async def test_a_page_that_was_cut_has_its_own_etag(heavy: AsyncModelCatalogClient) -> None:
    request: dict[str, Any] = {"provider_id": "zeldoc", "view": "full"}
    (page,) = [page async for page in heavy.list_models(**request).pages()][:1]
    assert page.etag
    (again,) = [page async for page in heavy.list_models(**request, if_none_match=page.etag).pages()][:1]
    assert again.not_modified


# --- pages by number -----------------------------------------------------------------------------------------------


async def test_pages_by_number_are_those_by_token(client: AsyncModelCatalogClient, expected_ids: list[str]) -> None:
    by_number = [(await pages_of(client, page_size=1000, page=number))[0] for number in range(1, 7)]
    assert ids_on(by_number) == expected_ids
    assert [bool(page.next_page_token) for page in by_number] == [True] * 5 + [False]
    beyond = (await pages_of(client, page_size=1000, page=7))[0]
    assert (ids_on([beyond]), beyond.total_size, beyond.next_page_token) == ([], ALL, "")


async def test_from_a_numbered_page_one_may_go_on_by_token(
    client: AsyncModelCatalogClient, expected_ids: list[str]
) -> None:
    second = (await pages_of(client, page_size=1000, page=2))[0]
    rest = await pages_of(client, page_size=1000, page_token=second.next_page_token)
    assert ids_on([second, *rest]) == expected_ids[1000:]


async def test_a_page_number_beyond_reason_costs_no_time(client: AsyncModelCatalogClient) -> None:
    page = (await pages_of(client, page_size=1000, page=1_000_000))[0]
    assert ids_on([page]) == []


@pytest.mark.parametrize(
    ("listing", "field"),
    [
        ({"page_size": -1}, "page_size"),
        ({"page_size": -(2**31)}, "page_size"),
        ({"page": -1}, "page"),
        ({"page": 1_000_001}, "page"),
        ({"page": 2**31 - 1}, "page"),
        ({"provider_id": "open/ai"}, "provider_id"),
        ({"provider_id": "x" * 129}, "provider_id"),
        ({"provider_id": "open\0ai"}, "provider_id"),
    ],
    ids=str,
)
async def test_an_argument_out_of_bounds_names_its_field(
    client: AsyncModelCatalogClient, listing: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidQueryError) as raised:
        await pages_of(client, **listing)
    assert [each.field for each in raised.value.field_violations] == [field]
    assert raised.value.field_violations[0].description


async def test_number_and_token_exclude_each_other(client: AsyncModelCatalogClient) -> None:
    token = (await pages_of(client, page_size=1000, page=1))[0].next_page_token
    with pytest.raises(InvalidQueryError, match="cannot be combined"):
        await pages_of(client, page=2, page_token=token)


async def test_a_provider_that_does_not_exist_has_no_empty_listing(client: AsyncModelCatalogClient) -> None:
    with pytest.raises(ProviderNotFoundError) as raised:
        await pages_of(client, provider_id="OpenAI")
    assert raised.value.candidates[0] == "openai"


# --- filters and orders ------------------------------------------------------------------------------------------


async def test_a_filter_and_an_order_list_what_they_say(client: AsyncModelCatalogClient) -> None:
    """The example of the contract, in pages of three, against the whole list."""
    text = (
        'provider_id = "openai" AND capabilities.vision = true AND pricing.input <= 1.25 AND'
        " limits.context_window >= 200000 AND NOT tags:deprecated"
    )
    fitting = [
        model
        async for model in client.list_models(provider_id="openai", page_size=1000)
        if model.capabilities.vision
        and model.pricing.HasField("input")
        and float(model.pricing.input) <= 1.25
        and model.limits.context_window >= 200_000
    ]
    assert len(fitting) > 6
    expected = sorted(fitting, key=lambda model: (-model.limits.context_window, float(model.pricing.input), model.id))
    order = "limits.context_window desc, pricing.input"
    pages = await pages_of(client, filter=text, order_by=order, page_size=3)
    assert ids_on(pages) == [model.id for model in expected]
    assert {page.total_size for page in pages} == {len(expected)}
    second = await pages_of(client, filter=text, order_by=order, page_size=3, page=2)
    assert ids_on(second) == ids_on(pages)[3:6]
    rest = await pages_of(client, filter=text, order_by=order, page_size=9, page_token=second[0].next_page_token)
    assert ids_on(rest) == ids_on(pages)[6:]


async def test_an_order_puts_unknown_prices_last(client: AsyncModelCatalogClient) -> None:
    for direction in ("", " desc"):
        listing = client.list_models(order_by=f"pricing.output{direction}", page_size=1000)
        known = [model.pricing.HasField("output") async for model in listing]
        assert known == sorted(known, reverse=True)
        assert len(known) == ALL
        assert not all(known)


async def test_providers_take_both_too(client: AsyncModelCatalogClient) -> None:
    every = [provider async for provider in client.list_providers(page_size=1000)]
    fitting = [provider for provider in every if provider.model_count > 40]
    expected = sorted(fitting, key=lambda provider: (-provider.model_count, provider.id.encode()))
    listing = client.list_providers(filter="model_count > 40", order_by="model_count desc", page_size=7)
    pages = [page async for page in listing.pages()]
    assert [provider for page in pages for provider in page.providers] == expected
    assert {page.total_size for page in pages} == {len(expected)}


@pytest.mark.parametrize(
    ("listing", "error", "complaint"),
    [
        ({"filter": "vision = true"}, InvalidFilterError, "column 1: 'vision' is no field of Model"),
        ({"filter": "name = x)"}, InvalidFilterError, "column 9: expected AND, OR, another condition or the end"),
        ({"order_by": "name, tags"}, InvalidOrderByError, "column 7: tags is a list"),
    ],
    ids=str,
)
async def test_a_mistake_is_named_with_its_column(
    client: AsyncModelCatalogClient, listing: dict[str, Any], error: type[InvalidArgumentError], complaint: str
) -> None:
    with pytest.raises(error) as raised:
        await pages_of(client, **listing)
    (violation,) = raised.value.field_violations
    assert violation.field == next(iter(listing))
    assert violation.description.startswith(complaint)


async def test_a_token_belongs_to_its_filter_and_order(client: AsyncModelCatalogClient) -> None:
    listing: dict[str, Any] = {"filter": "family = gpt*", "order_by": "name desc"}
    token = (await pages_of(client, page_size=2, page=1, **listing))[0].next_page_token
    assert ids_on([await anext(client.list_models(page_token=token, page_size=2, **listing).pages())])
    for other in ({}, {"filter": "family = gpt*"}, {**listing, "order_by": "name"}, {**listing, "filter": "name:gpt"}):
        with pytest.raises(InvalidPageTokenError, match="other arguments"):
            await pages_of(client, page_token=token, **other)


@pytest.mark.parametrize("order_by", ["", "name desc", "pricing.cache_read, name"])
async def test_a_filtered_listing_across_refreshes_stays_in_its_revision(
    stage: Stage, moving: AsyncModelCatalogClient, order_by: str
) -> None:
    """What fits no longer, fits now, or moves in the order, is for the next listing."""
    listing: dict[str, Any] = {"filter": "pricing.input > 1 AND name:gpt", "order_by": order_by}
    expected = [model async for model in moving.list_models(page_size=1000, **listing)]
    assert len(expected) > 10
    pages = []
    async for page in moving.list_models(page_size=4, **listing).pages():
        pages.append(page)
        if len(pages) == 2:
            for model in expected[::3]:
                stage.catalog.model(model.id)["name"] = "another"
            for model in expected[1::3]:
                stage.catalog.model(model.id)["cost"] = {"input": 9, "output": 9}
            stage.catalog.remove(expected[-1].id)
            stage.catalog.add("openai/aaa", name="GPT zzz")
            assert (await stage.refresh()).result_revision == 2
    assert [model for page in pages for model in page.models] == expected
    assert {(page.total_size, page.catalog_revision) for page in pages} == {(len(expected), 1)}
    now = [model.id async for model in moving.list_models(page_size=4, **listing)]
    assert "openai/aaa" in now
    assert expected[0].id not in now


async def test_runs_are_filtered_too(stage: Stage, moving: AsyncModelCatalogClient) -> None:
    for number in range(3):
        stage.catalog.model("openai/gpt-5")["name"] = f"GPT-5 {number}"
        await stage.refresh()
    runs = [run async for run in moving.list_refreshes(filter="state = succeeded counts.changed = 1")]
    assert [run.result_revision for run in runs] == [4, 3, 2]
    listing = moving.list_refreshes(filter="trigger = MANUAL", page_size=2).pages()
    first = await anext(listing)
    assert len([*first.refreshes, *[run async for page in listing for run in page.refreshes]]) == 3
    with pytest.raises(InvalidPageTokenError):
        await anext(moving.list_refreshes(page_token=first.next_page_token).pages())
    with pytest.raises(InvalidFilterError, match="column 1: 'status' is no field of Refresh"):
        await anext(moving.list_refreshes(filter="status = succeeded").pages())


# --- tokens --------------------------------------------------------------------------------------------------------


async def test_a_token_belongs_to_its_arguments(client: AsyncModelCatalogClient) -> None:
    token = (await pages_of(client, page_size=1000, page=1))[0].next_page_token
    of_openai = (await pages_of(client, page_size=5, provider_id="openai", page=1))[0].next_page_token
    for listing in (
        {"page_token": token, "provider_id": "openai"},
        {"page_token": token, "show_removed": True},
        {"page_token": of_openai},
        {"page_token": of_openai, "provider_id": "anthropic"},
        {"page_token": token, "filter": "family = gpt"},
        {"page_token": token, "order_by": "id"},
    ):
        with pytest.raises(InvalidPageTokenError, match="other arguments"):
            await pages_of(client, **listing)
    with pytest.raises(InvalidPageTokenError):
        await anext(client.list_providers(page_token=token).pages())
    # What a page shows of its models is not what it lists.
    page = await anext(client.list_models(page_token=token, view="full", page_size=2).pages())
    assert page.models[0].HasField("raw")


async def test_a_token_that_nobody_made_is_refused(client: AsyncModelCatalogClient, url: str) -> None:
    (key,) = await fetch(url, "SELECT token_key FROM catalog_state")
    token = (await pages_of(client, page_size=1000, page=1))[0].next_page_token
    scope, half = ["models", None, False], len(token) // 2
    for bad in (
        "x",
        "x" * 100_000,
        token[:-5],
        token[:half] + ("B" if token[half] == "A" else "A") + token[half + 1 :],
        sealed_ago(0, bytes(32), "page", [scope, 1, "", 1]),
        sealed_ago(0, key, "resume", [scope, 1, "", 1]),
        sealed_ago(0, key, "page", [scope, 1]),
        sealed_ago(0, key, "page", 7),
    ):
        with pytest.raises(InvalidPageTokenError) as raised:
            await pages_of(client, page_token=bad)
        assert [each.field for each in raised.value.field_violations] == ["page_token"]


async def test_a_token_is_good_for_a_day(client: AsyncModelCatalogClient, url: str) -> None:
    (key,) = await fetch(url, "SELECT token_key FROM catalog_state")
    value = [["models", None, False], 1, "zzz", ALL]
    assert ids_on(await pages_of(client, page_token=sealed_ago(DAY_S - 60, key, "page", value))) == []
    with pytest.raises(PageTokenExpiredError):
        await pages_of(client, page_token=sealed_ago(DAY_S + 60, key, "page", value))


# --- a catalog that changes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "provider_id"), [(10, ""), (1, "openai")])
async def test_a_listing_across_refreshes_stays_in_its_revision(
    stage: Stage, moving: AsyncModelCatalogClient, size: int, provider_id: str
) -> None:
    """Before, at and behind the reader models come, go and change; it sees the catalog of its first page."""
    expected = [model async for model in moving.list_models(page_size=1000, provider_id=provider_id)]
    pages = []
    async for page in moving.list_models(page_size=size, provider_id=provider_id).pages():
        pages.append(page)
        if len(pages) == 2:
            for id_ in ("anthropic/aaa", "openai/aaa", "openai/zzz", "zeldoc/zzz"):
                stage.catalog.add(id_)
            for id_ in stage.catalog.model_ids[::7]:
                if not id_.endswith(("aaa", "zzz")) and not id_.startswith("zeldoc/"):
                    stage.catalog.remove(id_)
            for id_ in stage.catalog.model_ids[::5]:
                stage.catalog.model(id_)["name"] = "changed"
            stage.catalog.providers["openai"]["name"] = "OpenAI (new)"
            assert (await stage.refresh()).result_revision == 2
        if len(pages) == 3:
            stage.catalog.providers.pop("anthropic")
            assert (await stage.refresh()).result_revision == 3
    assert [model for page in pages for model in page.models] == expected
    assert {page.total_size for page in pages} == {len(expected)}
    assert {page.catalog_revision for page in pages} == {1}
    now = [model.id async for model in moving.list_models(page_size=1000)]
    assert now == stage.catalog.model_ids


async def test_a_new_listing_sees_the_new_revision(stage: Stage, moving: AsyncModelCatalogClient) -> None:
    stage.catalog.add("openai/aaa")
    await stage.refresh()
    pages = [page async for page in moving.list_models(page_size=40).pages()]
    assert {page.catalog_revision for page in pages} == {2}
    assert ids_on(pages) == stage.catalog.model_ids


async def test_a_listing_with_the_removed_ones_stays_in_its_revision_too(
    stage: Stage, moving: AsyncModelCatalogClient
) -> None:
    stage.catalog.remove("openai/gpt-4")
    await stage.refresh()
    expected = [model async for model in moving.list_models(page_size=1000, show_removed=True)]
    assert len(expected) == 87
    pages = []
    async for page in moving.list_models(page_size=20, show_removed=True).pages():
        pages.append(page)
        if len(pages) == 1:
            stage.catalog.remove("openai/gpt-5")
            stage.catalog.add("openai/zzz")
            await stage.refresh()
    assert [model for page in pages for model in page.models] == expected
    assert {page.total_size for page in pages} == {87}
    later = [model async for model in moving.list_models(page_size=1000, show_removed=True)]
    assert sum(model.status == model.STATUS_REMOVED for model in later) == 2
    assert len(later) == 88


async def test_a_full_refresh_in_between_changes_nothing_for_a_listing(
    stage: Stage, moving: AsyncModelCatalogClient
) -> None:
    listing = moving.list_models(page_size=30).pages()
    first = await anext(listing)
    await stage.refresh(type=RefreshType.FULL)
    assert ids_on([first, *[page async for page in listing]]) == SmallCatalog().model_ids


# --- providers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 50, 147, 5000])
async def test_every_page_size_lists_each_provider_once_in_the_order_of_ids(
    client: AsyncModelCatalogClient, size: int
) -> None:
    pages = [page async for page in client.list_providers(page_size=size).pages()]
    ids = [provider.id for page in pages for provider in page.providers]
    assert ids == sorted(ids, key=str.encode)
    assert len(set(ids)) == len(ids) == 147
    assert {page.total_size for page in pages} == {147}
    assert len(pages) == -(-147 // min(size, 1000))


async def test_a_listing_of_providers_stays_in_its_revision(stage: Stage, moving: AsyncModelCatalogClient) -> None:
    expected = [provider async for provider in moving.list_providers()]
    pages = []
    async for page in moving.list_providers(page_size=1).pages():
        pages.append(page)
        if len(pages) == 1:
            stage.catalog.providers.pop("openrouter")
            stage.catalog.providers["aaa"] = {**stage.catalog.providers["zeldoc"], "id": "aaa"}
            stage.catalog.providers["zeldoc"]["name"] = "new"
            await stage.refresh()
    assert [provider for page in pages for provider in page.providers] == expected
    assert {(page.total_size, page.catalog_revision) for page in pages} == {(4, 1)}
    now = [provider.id async for provider in moving.list_providers()]
    assert now == ["aaa", "anthropic", "openai", "zeldoc"]
    removed = [provider async for provider in moving.list_providers(show_removed=True)]
    assert [each.id for each in removed if each.status == each.STATUS_REMOVED] == ["openrouter"]


async def test_a_token_of_providers_belongs_to_its_arguments(client: AsyncModelCatalogClient) -> None:
    token = (await anext(client.list_providers(page_size=2).pages())).next_page_token
    with pytest.raises(InvalidPageTokenError):
        await anext(client.list_providers(page_token=token, show_removed=True).pages())
    with pytest.raises(InvalidPageTokenError):
        await pages_of(client, page_token=token)
    with pytest.raises(InvalidQueryError):
        await anext(client.list_providers(page_size=-1).pages())


async def test_the_request_names_no_other_argument_than_these() -> None:
    """A new argument of ListModels has to be bound into the page token, or to be named here as one that is not."""
    bound = {"provider_id", "filter", "order_by", "show_removed"}
    free = {"page_size", "page_token", "page", "view", "read_mask", "if_none_match"}
    assert {field.name for field in ListModelsRequest.DESCRIPTOR.fields} == bound | free
