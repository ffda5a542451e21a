"""Reads of a real server: views, masks, etags, and the revision that every answer belongs to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf import json_format
from google.protobuf.field_mask_pb2 import FieldMask

from conftest import Services, StartApp, make_settings
from modelcatalog.v1 import model_catalog_service_pb2 as pb
from modelcatalog.v1.model_catalog_service_pb2_grpc import ModelCatalogStub
from modelcatalog.v1.model_pb2 import Model
from modelcatalog_client import AsyncModelCatalogClient
from modelcatalog_client.errors import (
    DeadlineExceededError,
    InvalidFieldMaskError,
    InvalidModelIdError,
    InvalidQueryError,
    ModelNotFoundError,
    ProviderNotFoundError,
    RevisionNotAvailableError,
    TooManyIdsError,
)
from modelcatalog_server import app
from modelcatalog_server.storage.migrations import load_migrations
from small_catalog import SmallCatalog, Stage, clone_small, fetch, follow, until, wait_in_vain
from upstream_server import recorded

pytestmark = pytest.mark.asyncio(loop_scope="module")

RAW = SmallCatalog().model("openai/gpt-5")


@pytest.fixture(scope="module")
def url(templates: Services) -> Iterator[str]:
    url = templates.clone("mc_loaded")
    yield url
    templates.drop(url)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(templates: Services, url: str) -> AsyncIterator[app.App]:
    async with app.start(make_settings(templates, url, offline=True)) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(running: app.App) -> AsyncIterator[AsyncModelCatalogClient]:
    """A client of a server with the full catalog, which these tests only read."""
    async with AsyncModelCatalogClient(running.server.address) as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stub(running: app.App) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(running.server.address) as channel:
        yield ModelCatalogStub(channel)


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


# --- views and masks -----------------------------------------------------------------------------------------------


async def test_the_basic_view_leaves_out_the_raw_record(client: AsyncModelCatalogClient) -> None:
    basic = (await client.get_model("openai/gpt-5")).model
    full = (await client.get_model("openai/gpt-5", view="full")).model
    assert not basic.HasField("raw")
    assert json_format.MessageToDict(full.raw) == RAW
    full.ClearField("raw")
    assert full == basic


async def test_a_model_says_where_it_comes_from_and_since_when(client: AsyncModelCatalogClient) -> None:
    model = (await client.get_model("openrouter/openai/gpt-5")).model
    assert (model.provider_id, model.upstream_id, model.provider_name) == ("openrouter", "openai/gpt-5", "OpenRouter")
    assert model.source.key == "/providers/openrouter/models/openai~1gpt-5"
    assert len(model.source.snapshot) == 64
    assert model.revision == 1
    assert model.first_seen_time == model.last_changed_time
    assert not model.HasField("removed_time")
    assert model.etag


@pytest.mark.parametrize(
    "mask",
    [
        ["id"],
        ["pricing"],
        ["pricing.input", "pricing.tiers", "limits.context_window"],
        ["raw"],
        ["raw.fields"],
        ["etag", "provider_name", "source.url"],
        ["id", "id"],
        ["capabilities.vision", "capabilities"],
    ],
    ids=str,
)
async def test_a_mask_gives_just_its_fields(client: AsyncModelCatalogClient, mask: list[str]) -> None:
    whole = (await client.get_model("openai/gpt-5", view="full")).model
    expected = Model()
    FieldMask(paths=mask).MergeMessage(whole, expected)
    answers = [
        (await client.get_model("openai/gpt-5", read_mask=mask)).model,
        (await client.batch_get_models(["openai/gpt-5"], read_mask=mask)).models[0],
        next(
            model
            for model in (
                await anext(client.list_models(provider_id="openai", read_mask=mask, page_size=60).pages())
            ).models
            if model == expected
        ),
    ]
    assert answers == [expected] * 3
    assert {field.name for field, _ in answers[0].ListFields()} == {path.partition(".")[0] for path in mask}


async def test_a_mask_wins_over_a_view(client: AsyncModelCatalogClient) -> None:
    model = (await client.get_model("openai/gpt-5", view="full", read_mask=["name"])).model
    assert model == Model(name=model.name)


async def test_a_mask_of_everything_is_the_full_view(client: AsyncModelCatalogClient) -> None:
    model = (await client.get_model("openai/gpt-5", read_mask=["*"])).model
    assert model == (await client.get_model("openai/gpt-5", view="full")).model


@pytest.mark.parametrize(
    "path",
    ["nme", "pricing.inputs", "pricing.tiers.min_context_tokens", "raw.fields.cost", "", "name.", "*.id", "Name"],
)
async def test_a_mask_of_what_is_no_field_is_refused(client: AsyncModelCatalogClient, path: str) -> None:
    for call in (
        client.get_model("openai/gpt-5", read_mask=["id", path]),
        client.batch_get_models(["openai/gpt-5"], read_mask=["id", path]),
        anext(client.list_models(read_mask=["id", path]).pages()),
    ):
        with pytest.raises(InvalidFieldMaskError) as raised:
            await call
        assert [each.field for each in raised.value.field_violations] == ["read_mask"]


async def test_a_mask_has_a_bound(client: AsyncModelCatalogClient) -> None:
    with pytest.raises(InvalidFieldMaskError, match="at most 100"):
        await client.get_model("openai/gpt-5", read_mask=["id"] * 101)
    with pytest.raises(InvalidFieldMaskError):
        await client.get_model("openai/gpt-5", read_mask=["x" * 100_000])


# --- several models ------------------------------------------------------------------------------------------------


async def test_a_batch_comes_in_the_order_of_the_request(client: AsyncModelCatalogClient) -> None:
    ids = ["zeldoc/none", "openai/gpt-5", "anthropic/claude-opus-4-5", "a/b", "openai/gpt-5"]
    response = await client.batch_get_models(ids)
    assert [model.id for model in response.models] == [ids[1], ids[2], ids[4]]
    assert list(response.missing_model_ids) == [ids[0], ids[3]]
    assert response.models[0] == response.models[2]
    assert response.models[0] == (await client.get_model("openai/gpt-5")).model


async def test_a_batch_of_a_hundred_is_answered_and_one_more_is_not(client: AsyncModelCatalogClient) -> None:
    ids = [model.id async for model in client.list_models(provider_id="openrouter", page_size=100, page=1)]
    assert [model.id for model in (await client.batch_get_models(ids)).models] == ids
    for count in (0, 101, 10_000):
        with pytest.raises(TooManyIdsError) as raised:
            await client.batch_get_models(["openai/gpt-5"] * count)
        assert ("at least 1 " if count == 0 else "no more than 100 ") in raised.value.message
        assert [each.field for each in raised.value.field_violations] == ["model_ids"]


# --- ids that are none ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", ["", "x" * 513, "ü" * 257, "a\0b", "a\nb", "\u202egpt", "\u2028"], ids=ascii)
async def test_what_cannot_be_an_id_is_refused_before_anybody_looks(client: AsyncModelCatalogClient, bad: str) -> None:
    for call, field in (
        (client.get_model(bad), "model_id"),
        (client.batch_get_models(["openai/gpt-5", bad]), "model_ids[1]"),
        (client.list_model_benchmarks(bad), "model_id"),
    ):
        with pytest.raises(InvalidModelIdError) as raised:
            await call
        assert [each.field for each in raised.value.field_violations] == [field]


@pytest.mark.parametrize(
    ("asked", "near"),
    [
        ("openai/gtp-5", "openai/gpt-5"),
        ("anthropic/claude-sonet-4-5", "anthropic/claude-sonnet-4-5"),
        ("gpt-5-micro", "openai/gpt-5"),
        ("zzgpt-5zz", "openai/gpt-5"),
    ],
)
async def test_an_id_that_no_model_has_comes_with_near_ones(
    client: AsyncModelCatalogClient, asked: str, near: str
) -> None:
    for call in (client.get_model(asked), client.list_model_benchmarks(asked)):
        with pytest.raises(ModelNotFoundError) as raised:
            await call
        assert 1 <= len(raised.value.candidates) <= 10
        assert near in raised.value.candidates
        assert asked in raised.value.message


@pytest.mark.parametrize("asked", ["🦆" * 128, "'" * 512, "%" * 512, "\\" * 512, "a b/c d (1+1)", "' OR true --"])
async def test_an_odd_id_is_just_not_found(client: AsyncModelCatalogClient, asked: str) -> None:
    with pytest.raises(ModelNotFoundError) as raised:
        await client.get_model(asked)
    assert asked[:100] in raised.value.message or repr(asked)[1:100] in raised.value.message
    assert (await client.batch_get_models([asked])).missing_model_ids == [asked]


async def test_a_provider_that_does_not_exist_comes_with_near_ones(client: AsyncModelCatalogClient) -> None:
    with pytest.raises(ProviderNotFoundError) as raised:
        await client.get_provider("opnai")
    assert raised.value.candidates[0] == "openai"
    for bad in ("", "a/b", "x" * 200):
        with pytest.raises(InvalidQueryError):
            await client.get_provider(bad)


# --- benchmarks ----------------------------------------------------------------------------------------------------


async def test_benchmarks_hang_on_the_canonical_model_whoever_serves_it(client: AsyncModelCatalogClient) -> None:
    published = json.loads(recorded("catalog-2026-07-02"))["models"]["openai/gpt-5.5"]["benchmarks"]
    own = await client.list_model_benchmarks("openai/gpt-5.5")
    offered = await client.list_model_benchmarks("openrouter/openai/gpt-5.5")
    assert own == offered
    assert own.canonical_id == "openai/gpt-5.5"
    assert sorted((each.name, each.score) for each in own.benchmarks) == sorted(
        (each["name"], float(each["score"])) for each in published
    )
    assert all(each.HasField("rank") == each.HasField("series_size") for each in own.benchmarks)
    assert any(each.HasField("rank") for each in own.benchmarks)
    without = await client.list_model_benchmarks("zeldoc/z-code")
    assert (list(without.benchmarks), without.canonical_id) == ([], "")


# --- etags ---------------------------------------------------------------------------------------------------------


async def test_an_etag_that_is_still_right_saves_the_model(client: AsyncModelCatalogClient) -> None:
    etag = (await client.get_model("openai/gpt-5")).model.etag
    again = await client.get_model("openai/gpt-5", if_none_match=etag)
    assert (again.not_modified, again.HasField("model"), again.catalog_revision) == (True, False, 1)
    for other in ("x", etag[:-1], etag.upper()):
        assert not (await client.get_model("openai/gpt-5", if_none_match=other)).not_modified
    assert not (await client.get_model("openai/gpt-5-mini", if_none_match=etag)).not_modified


async def test_every_model_and_provider_has_an_etag_of_its_own(client: AsyncModelCatalogClient) -> None:
    etags = [model.etag async for model in client.list_models(page_size=1000, read_mask=["etag"])]
    etags += [provider.etag async for provider in client.list_providers(page_size=1000)]
    assert all(etags)
    assert len(set(etags)) == len(etags)


async def test_an_etag_changes_with_what_the_message_says(stage: Stage, moving: AsyncModelCatalogClient) -> None:
    async def etags() -> dict[str, str]:
        models = {model.id: model.etag async for model in moving.list_models(page_size=1000, show_removed=True)}
        return models | {provider.id: provider.etag async for provider in moving.list_providers()}

    before = await etags()
    stage.catalog.model("openai/gpt-5")["name"] = "new"
    await stage.refresh()
    changed = await etags()
    assert {id_ for id_ in before if before[id_] != changed[id_]} == {"openai/gpt-5", "openai"}

    stage.catalog.providers["anthropic"]["name"] = "Anthropic (new)"
    await stage.refresh()
    renamed = await etags()
    of_anthropic = {id_ for id_ in before if id_.partition("/")[0] == "anthropic"}
    assert {id_ for id_ in before if changed[id_] != renamed[id_]} == of_anthropic, "provider_name is in the message"

    stage.catalog.remove("openai/gpt-5")
    await stage.refresh()
    removed = await etags()
    assert {id_ for id_ in before if renamed[id_] != removed[id_]} == {"openai/gpt-5", "openai"}


async def test_a_page_that_is_still_right_is_not_sent_again(stage: Stage, moving: AsyncModelCatalogClient) -> None:
    async def first_page(**listing: Any) -> pb.ListModelsResponse:
        return await anext(moving.list_models(page_size=20, **listing).pages())

    etag = (await first_page(provider_id="openai")).etag
    again = await first_page(provider_id="openai", if_none_match=etag)
    assert (again.not_modified, list(again.models), again.etag) == (True, [], etag)
    assert not (await first_page(provider_id="anthropic", if_none_match=etag)).not_modified

    stage.catalog.model("anthropic/claude-opus-4-5")["name"] = "new"
    await stage.refresh()
    still = await first_page(provider_id="openai", if_none_match=etag, min_revision=2)
    assert (still.not_modified, still.catalog_revision) == (True, 2), "another provider's model is not on this page"
    stage.catalog.add("openai/zzz")
    await stage.refresh()
    changed = await first_page(provider_id="openai", if_none_match=etag, min_revision=3)
    assert (changed.not_modified, changed.total_size) == (False, 52), "the total is on the page"


# --- the revision of an answer -------------------------------------------------------------------------------------

READS: dict[str, Any] = {
    "GetModel": pb.GetModelRequest(model_id="openai/gpt-5"),
    "BatchGetModels": pb.BatchGetModelsRequest(model_ids=["openai/gpt-5"]),
    "ListModels": pb.ListModelsRequest(page_size=1),
    "ListModelBenchmarks": pb.ListModelBenchmarksRequest(model_id="openai/gpt-5"),
    "ListProviders": pb.ListProvidersRequest(page_size=1),
    "GetProvider": pb.GetProviderRequest(provider_id="openai"),
    "GetCatalogInfo": pb.GetCatalogInfoRequest(),
}


@pytest.mark.parametrize("rpc", READS)
async def test_every_read_says_which_revision_it_read_and_how_fresh_that_is(stub: Any, url: str, rpc: str) -> None:
    call = getattr(stub, rpc)(READS[rpc])
    response = await call
    trailers = dict(await call.trailing_metadata())
    assert response.catalog_revision == 1
    assert trailers["x-catalog-revision"] == "1"
    (checked_at,) = await fetch(url, "SELECT checked_at FROM catalog_state")
    assert trailers["x-catalog-checked-at"].endswith("Z")
    assert datetime.fromisoformat(trailers["x-catalog-checked-at"]) == checked_at
    assert len(trailers["x-request-id"]) == 32


async def test_every_call_has_a_request_id_of_its_own(stub: Any) -> None:
    calls = [stub.GetCatalogInfo(pb.GetCatalogInfoRequest()) for _ in range(20)]
    ids = {dict(await call.trailing_metadata())["x-request-id"] for call in calls}
    assert len(ids) == 20


@pytest.mark.parametrize("rpc", READS)
async def test_every_read_takes_a_least_revision(stub: Any, rpc: str) -> None:
    metadata = (("x-catalog-min-revision", "1"),)
    assert (await getattr(stub, rpc)(READS[rpc], metadata=metadata)).catalog_revision == 1

    async def is_refused() -> bool:
        call = getattr(stub, rpc)(READS[rpc], metadata=(("x-catalog-min-revision", "2"),), timeout=1)
        code = await call.code()
        assert code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
        return code is grpc.StatusCode.UNAVAILABLE  # the other one where the machine stands still for half a second

    await until(is_refused)


@pytest.mark.parametrize("asked", [("1", "2"), ("2", "1"), ("1", "2, 1")])
async def test_of_several_least_revisions_the_largest_counts(stub: Any, asked: tuple[str, ...]) -> None:
    """A proxy may add its own to the caller's."""
    key = "x-catalog-min-revision"
    call = stub.GetCatalogInfo(pb.GetCatalogInfoRequest(), metadata=[(key, value) for value in asked], timeout=3)
    assert "revision 2 " in await call.details()
    there = [(key, value.replace("2", "1")) for value in asked]
    assert (await stub.GetCatalogInfo(pb.GetCatalogInfoRequest(), metadata=there)).catalog_revision == 1


@pytest.mark.parametrize("garbage", ["", "x", "-1", "1.5", "1e3", "1 2", "1,", ",1", "1,x", "9" * 19, "0x1"])
async def test_a_least_revision_that_is_no_number_is_refused(stub: Any, garbage: str) -> None:
    call = stub.GetCatalogInfo(pb.GetCatalogInfoRequest(), metadata=(("x-catalog-min-revision", garbage),))
    assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "x-catalog-min-revision" in await call.details()


async def test_a_revision_that_is_there_is_served_however_little_time_is_left(client: AsyncModelCatalogClient) -> None:

    async def is_served() -> bool:
        try:
            return (await client.get_model("openai/gpt-5", min_revision=1, timeout=0.4)).catalog_revision == 1
        except DeadlineExceededError:  # on a machine with too much to do
            return False

    await until(is_served)


async def test_a_revision_that_does_not_come_is_told_within_the_deadline(client: AsyncModelCatalogClient) -> None:
    """Although the client tries again on UNAVAILABLE: the server tells it not to."""
    with pytest.raises(RevisionNotAvailableError, match="revision 2 did not arrive in time"):
        await wait_in_vain(client, revision=2)


async def test_a_reader_waits_for_the_revision_of_its_own_refresh(
    stage: Stage, moving: AsyncModelCatalogClient, start_app: StartApp
) -> None:
    async with (
        start_app(stage.database_url, offline=True) as other,
        AsyncModelCatalogClient(other.server.address) as client,
    ):
        waiting = asyncio.create_task(client.get_model("openai/gpt-6", min_revision=2, timeout=20))
        stage.catalog.add("openai/gpt-6")
        await stage.refresh()
        response = await waiting
        assert (response.model.id, response.catalog_revision) == ("openai/gpt-6", 2)


# --- the catalog itself --------------------------------------------------------------------------------------------


async def test_the_catalog_tells_what_it_holds(client: AsyncModelCatalogClient) -> None:
    info = await client.get_catalog_info()
    assert (info.counts.providers, info.counts.models, info.counts.enabled_models) == (147, 5276, 5276)
    assert (info.counts.removed_models, info.counts.canonical_models, info.counts.benchmarks) == (0, 231, 288)
    assert info.catalog_revision == 1
    assert info.schema_version == load_migrations()[-1].version
    assert info.server_version
    assert info.upstream_etag
    assert len(info.upstream_snapshot) == 64
    assert timedelta(0) <= info.age.ToTimedelta() < timedelta(hours=1)
    assert not info.stale
    assert info.checked_time.ToDatetime(tzinfo=UTC) >= info.changed_time.ToDatetime(tzinfo=UTC)


async def test_before_the_first_load_the_catalog_tells_that_it_is_empty(
    start_app: StartApp, empty_database: str
) -> None:
    async with (
        start_app(empty_database, offline=True) as running,
        AsyncModelCatalogClient(running.server.address) as client,
    ):
        info = await client.get_catalog_info()
        assert (info.catalog_revision, info.counts.models, info.stale) == (0, 0, True)
        assert not info.HasField("age")
        async with grpc.aio.insecure_channel(running.server.address) as channel:
            for rpc, request in READS.items():
                call = getattr(ModelCatalogStub(channel), rpc)(request)
                code = await call.code()
                assert code is (grpc.StatusCode.OK if rpc == "GetCatalogInfo" else grpc.StatusCode.UNAVAILABLE), rpc
                if rpc == "GetCatalogInfo":
                    assert "x-catalog-checked-at" not in dict(await call.trailing_metadata())
