"""Unary calls of both clients against a server that misbehaves on request."""

# ruff: noqa: S106 -- page and resume tokens, and one that opens nothing

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from contract.client_peer import DRIVER_IDS, DRIVERS, RPCS, AsyncDriver, Peer, answer, fail, hang, serving
from modelcatalog.v1.model_catalog_service_pb2 import (
    GetModelResponse,
    ListModelsRequest,
    ListModelsResponse,
    SearchModelsResponse,
    SearchResult,
)
from modelcatalog.v1.refresh_service_pb2 import GetRefreshResponse
from modelcatalog_client import (
    DEFAULT_TIMEOUTS,
    AsyncModelCatalogClient,
    CallCancelledError,
    DeadlineExceededError,
    InternalError,
    Model,
    ModelCatalogClient,
    ModelNotFoundError,
    PriceChange,
    Pricing,
    QuarantinedRecord,
    RefreshReport,
    ServerDrainingError,
    Tls,
    UnavailableError,
    Workload,
)
from modelcatalog_client._config import package_version

LISTS = {"ListModels", "SearchModels", "ListModelOffers", "ListProviders", "ListRefreshes", "ListAuditEvents"}
UNARY = sorted(RPCS.keys() - LISTS - {"WatchRefreshStatus"})

# For these tests only; valid until 2120.
CERTIFICATE = b"""-----BEGIN CERTIFICATE-----
MIIBeTCCAR+gAwIBAgIBATAKBggqhkjOPQQDAjAcMRowGAYDVQQDDBFtb2RlbGNh
dGFsb2cudGVzdDAgFw0yMDAxMDEwMDAwMDBaGA8yMTIwMDEwMTAwMDAwMFowHDEa
MBgGA1UEAwwRbW9kZWxjYXRhbG9nLnRlc3QwWTATBgcqhkjOPQIBBggqhkjOPQMB
BwNCAAQj+Qi4Xr14hPn9vu9j0fbBODVoeiuupP0LWtbO/8+wVpBCJxaFiqzudSnU
9eVNxsSwPYnVVCDQhM9qswByo2cZo1AwTjAPBgNVHRMBAf8EBTADAQH/MBwGA1Ud
EQQVMBOCEW1vZGVsY2F0YWxvZy50ZXN0MB0GA1UdDgQWBBTeVeCoJK0SuUaXbc49
ImUpPv/UKzAKBggqhkjOPQQDAgNIADBFAiEAhYBdBBiZ683yMecLlNfPxF+s5lzo
sV1KN3rLxKbflHUCIBPnzTfSqathyCOttZizZw2IFOntRagw0PdbxMsAWnQH
-----END CERTIFICATE-----
"""
KEY = b"""-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg41WVUw1wiAzinTdO
xKNqVhxSU2OHdbwHoxrepGZtd4ShRANCAAQj+Qi4Xr14hPn9vu9j0fbBODVoeiuu
pP0LWtbO/8+wVpBCJxaFiqzudSnU9eVNxsSwPYnVVCDQhM9qswByo2cZ
-----END PRIVATE KEY-----
"""


@pytest.fixture(params=DRIVERS, ids=DRIVER_IDS)
def driver(request: pytest.FixtureRequest) -> AsyncDriver:
    made: AsyncDriver = request.param
    return made


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    async with serving(Peer()) as serving_peer:
        yield serving_peer


@pytest.fixture
async def client(driver: AsyncDriver, peer: Peer) -> AsyncIterator[Any]:
    async with driver.client(peer.target) as made:
        yield made


def method_of(client: Any, rpc: str) -> Any:
    return getattr(client, re.sub(r"(?<!^)(?=[A-Z])", "_", rpc).lower())


def argument(field: Any) -> Any:
    """A value that is not the field's default."""
    if field.message_type is not None:
        return {"google.protobuf.FieldMask": ["id"], "modelcatalog.v1.Workload": Workload(input_tokens=1)}[
            field.message_type.full_name
        ]
    if field.enum_type is not None:
        return field.enum_type.values[-1].number
    value = {field.CPPTYPE_STRING: "x", field.CPPTYPE_BOOL: True, field.CPPTYPE_DOUBLE: 0.5}.get(field.cpp_type, 3)
    return [value, value] if field.is_repeated else value


def left_of(timeout: float) -> Any:
    """What may be left of a timeout when the call arrives: on a machine that stalls, a small part of it."""
    return pytest.approx(0.55 * timeout, abs=0.46 * timeout)


@pytest.mark.parametrize("rpc", sorted(RPCS.keys() - {"WatchRefreshStatus"}))
async def test_every_argument_arrives(driver: AsyncDriver, peer: Peer, client: Any, rpc: str) -> None:
    arguments = {field.name: argument(field) for field in RPCS[rpc].input_type.fields}
    result = method_of(client, rpc)(**arguments) if rpc in LISTS else None
    if rpc in LISTS:
        assert await driver.read(result) == []
    else:
        response = await driver.call(method_of(client, rpc), **arguments)
        assert response.DESCRIPTOR is RPCS[rpc].output_type

    (call,) = peer.calls
    if "read_mask" in arguments:
        arguments["read_mask"] = FieldMask(paths=["id"])
    assert call.rpc == rpc
    assert call.request == RPCS[rpc].input_type._concrete_class(**arguments)
    assert call.seconds == left_of(DEFAULT_TIMEOUTS[rpc])


async def test_a_response_reads_as_the_readme_says(driver: AsyncDriver, peer: Peer, client: Any) -> None:
    peer.script["GetModel"].append(answer(GetModelResponse(model=Model(pricing=Pricing(input="1.25")))))
    response = await driver.call(client.get_model, "openai/gpt-5")
    assert response.model.pricing.input == "1.25"


async def test_a_report_is_what_get_refresh_has(driver: AsyncDriver, peer: Peer, client: Any) -> None:
    report = RefreshReport(
        added_model_ids=["openai/gpt-6"],
        price_changes=[PriceChange(model_id="openai/gpt-5", field="input", before="1.25")],
        quarantined_records=[QuarantinedRecord(pointer="/providers/p", reason="bad")],
    )
    peer.script["GetRefresh"].extend(
        [answer(GetRefreshResponse(report=report)), answer(GetRefreshResponse(report=RefreshReport()))]
    )
    assert await driver.call(client.get_refresh_report, "r", timeout=30) == report
    assert await driver.call(client.get_refresh_report, "r") == RefreshReport()
    assert await driver.call(client.get_refresh_report, "r") is None, "there is none yet"
    assert {call.rpc for call in peer.calls} == {"GetRefresh"}
    assert [call.request.refresh_id for call in peer.calls] == ["r", "r", "r"]
    assert [call.seconds for call in peer.calls] == pytest.approx([30, 5, 5], abs=2)


async def test_token_revision_and_user_agent_arrive(driver: AsyncDriver, peer: Peer) -> None:
    async with driver.client(peer.target, token="t0k", user_agent="billing/2.1") as client:
        await driver.call(client.get_catalog_info, min_revision=41)
    metadata = peer.calls[0].metadata
    assert metadata["authorization"] == "Bearer t0k"
    assert metadata["x-catalog-min-revision"] == "41"
    assert str(metadata["user-agent"]).startswith(f"billing/2.1 modelcatalog-python/{package_version()} ")


async def test_timeouts_reach_the_server(driver: AsyncDriver, peer: Peer) -> None:
    async with driver.client(peer.target, timeout=60) as client:
        await driver.call(client.get_catalog_info)
        await driver.call(client.get_catalog_info, timeout=10)
    assert [call.seconds for call in peer.calls] == [left_of(60), left_of(10)]


async def test_an_error_has_its_type_and_its_origin(driver: AsyncDriver, peer: Peer, client: Any) -> None:
    peer.script["GetModel"].append(fail("MODEL_NOT_FOUND", candidates="openai/gpt-5"))
    with pytest.raises(ModelNotFoundError, match=r"MODEL_NOT_FOUND from GetModel, request r-1") as caught:
        await driver.call(client.get_model, "openai/gpt-55")
    assert caught.value.candidates == ("openai/gpt-5",)
    assert isinstance(caught.value.__cause__, grpc.RpcError)


async def test_unavailable_is_retried(driver: AsyncDriver) -> None:
    """All at once, since each spends its time on waiting, and each with a peer of its own: retries share a budget."""

    async def call(rpc: str) -> None:
        arguments = {field.name: argument(field) for field in RPCS[rpc].input_type.fields}
        async with serving(Peer()) as peer, driver.client(peer.target) as client:
            peer.script[rpc].extend([fail("SERVER_DRAINING"), fail("OVERLOADED")])
            await driver.call(method_of(client, rpc), **arguments, timeout=60)
            assert [call.rpc for call in peer.calls] == [rpc] * 3

    await asyncio.gather(*map(call, UNARY))


async def test_all_that_a_server_had_not_yet_taken_on_when_it_went_away_is_retried(
    driver: AsyncDriver, peer: Peer, client: Any
) -> None:
    lost = 40

    async def lose_the_first_attempt(_request: Any, context: Any) -> GetModelResponse:
        if "grpc-previous-rpc-attempts" not in dict(context.invocation_metadata()):
            await context.abort(grpc.StatusCode.CANCELLED)
        return GetModelResponse()

    peer.script["GetModel"].extend([lose_the_first_attempt] * 2 * lost)
    await asyncio.gather(*(driver.call(client.get_model, "openai/gpt-5", timeout=60) for _ in range(lost)))
    assert len(peer.calls) == 2 * lost


async def test_retries_are_bounded(driver: AsyncDriver, peer: Peer, client: Any) -> None:
    peer.script["GetModel"].extend([fail("SERVER_DRAINING")] * 9)
    with pytest.raises(ServerDrainingError):
        await driver.call(client.get_model, "openai/gpt-5", timeout=30)
    assert len(peer.calls) == 4


async def test_no_other_code_is_retried(driver: AsyncDriver, peer: Peer, client: Any) -> None:
    peer.script["GetModel"].append(fail("INTERNAL"))
    with pytest.raises(InternalError):
        await driver.call(client.get_model, "openai/gpt-5")
    assert len(peer.calls) == 1


async def test_a_retried_start_is_the_same_start(driver: AsyncDriver, peer: Peer, client: Any) -> None:
    peer.script["StartRefresh"].append(fail("SERVER_DRAINING"))
    await driver.call(client.start_refresh)
    await driver.call(client.start_refresh)
    first, retried, second = (call.request.request_id for call in peer.calls)
    assert first == retried != second
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", first)


async def test_time_that_is_over_is_an_error_of_its_own(driver: AsyncDriver, peer: Peer, client: Any) -> None:
    peer.script["GetModel"].append(hang)
    with pytest.raises(DeadlineExceededError, match="timeout="):
        await driver.call(client.get_model, "openai/gpt-5", timeout=0.1)


async def test_nobody_there_says_where_it_looked(driver: AsyncDriver) -> None:
    async with driver.client("127.0.0.1:1") as client:
        with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1 .*modelcatalog serve"):
            await driver.call(client.get_model, "openai/gpt-5", timeout=30)


async def test_a_proxy_in_the_environment_gets_nothing(
    driver: AsyncDriver, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    async with driver.client(peer.target) as client:
        await driver.call(client.get_catalog_info)


def pages(*tokens: str) -> list[ListModelsResponse]:
    return [
        ListModelsResponse(models=[Model(id=f"m/{index}")], next_page_token=token, total_size=len(tokens))
        for index, token in enumerate(tokens)
    ]


async def test_a_listing_fetches_as_it_is_read(driver: AsyncDriver, peer: Peer, client: Any) -> None:
    listing = client.list_models(provider_id="m", filter="f", page_size=1, if_none_match="e")
    assert peer.calls == []

    peer.script["ListModels"].extend(map(answer, pages("t1", "t2", "")))
    assert [model.id for model in await driver.take(listing, 2)] == ["m/0", "m/1"]
    assert [call.request for call in peer.calls] == [
        ListModelsRequest(provider_id="m", filter="f", page_size=1, if_none_match="e"),
        ListModelsRequest(provider_id="m", filter="f", page_size=1, page_token="t1"),
    ]


async def test_a_listing_can_be_read_again(driver: AsyncDriver, peer: Peer, client: Any) -> None:
    listing = client.list_models()
    for _ in range(2):
        peer.script["ListModels"].extend(map(answer, pages("t1", "")))
        assert [model.id for model in await driver.read(listing)] == ["m/0", "m/1"]
    assert [call.request.page_token for call in peer.calls] == ["", "t1", "", "t1"]


async def test_pages_are_responses(driver: AsyncDriver, peer: Peer, client: Any) -> None:
    peer.script["ListModels"].extend(map(answer, pages("t1", "")))
    assert [page.total_size for page in await driver.read(client.list_models().pages())] == [2, 2]


async def test_a_page_by_number_is_that_page(driver: AsyncDriver, peer: Peer, client: Any) -> None:
    peer.script["ListModels"].extend(map(answer, pages("t1", "")))
    assert len(await driver.read(client.list_models(page=3))) == 1
    assert peer.calls[0].request.page == 3


async def test_a_search_yields_results(driver: AsyncDriver, peer: Peer, client: Any) -> None:
    peer.script["SearchModels"].append(answer(SearchModelsResponse(results=[SearchResult(score=0.5)])))
    assert [result.score for result in await driver.read(client.search_models("gpt"))] == [0.5]


async def test_a_closed_client_makes_no_calls(driver: AsyncDriver, peer: Peer, client: Any) -> None:
    await driver.call(client.get_catalog_info)
    await driver.call(client.close)
    await driver.call(client.close)
    with pytest.raises(RuntimeError, match="closed"):
        await driver.call(client.get_catalog_info)


async def test_closing_ends_the_calls_that_run(driver: AsyncDriver, peer: Peer, client: Any) -> None:
    peer.script["GetModel"].append(hang)
    running = asyncio.create_task(driver.call(client.get_model, "openai/gpt-5", timeout=60))
    await peer.until(lambda: len(peer.calls) == 1)
    await driver.call(client.close)
    with pytest.raises(CallCancelledError):
        await running


async def test_a_cancelled_task_stays_cancelled(peer: Peer) -> None:
    peer.script["GetModel"].append(hang)
    async with AsyncModelCatalogClient(peer.target) as client:
        running = asyncio.create_task(client.get_model("openai/gpt-5"))
        await peer.until(lambda: len(peer.calls) == 1)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running


async def test_threads_share_a_client(peer: Peer) -> None:
    def use() -> list[int]:
        with ModelCatalogClient(peer.target) as client:
            start = threading.Barrier(8)

            def call(_: int) -> int:
                start.wait()
                return client.get_catalog_info().catalog_revision

            with ThreadPoolExecutor(8) as pool:
                return list(pool.map(call, range(8)))

    assert await asyncio.to_thread(use) == [0] * 8


@pytest.mark.parametrize("mutual", [False, True])
async def test_tls_with_a_private_authority(driver: AsyncDriver, tmp_path: Path, mutual: bool) -> None:
    (tmp_path / "ca.pem").write_bytes(CERTIFICATE)
    own = {"certificate": CERTIFICATE, "key": KEY} if mutual else {}
    tls = Tls(ca=tmp_path / "ca.pem", server_name="modelcatalog.test", **own)
    credentials = grpc.ssl_server_credentials([(KEY, CERTIFICATE)], CERTIFICATE if mutual else None, mutual)

    async with serving(Peer(), credentials=credentials) as peer, driver.client(peer.target, tls=tls) as client:
        await driver.call(client.get_catalog_info)
        assert len(peer.calls) == 1


async def test_a_certificate_nobody_vouches_for_is_refused(driver: AsyncDriver) -> None:
    credentials = grpc.ssl_server_credentials([(KEY, CERTIFICATE)])
    async with serving(Peer(), credentials=credentials) as peer:
        async with driver.client(peer.target, tls=Tls(server_name="modelcatalog.test")) as client:
            with pytest.raises(UnavailableError, match="TLS"):
                await driver.call(client.get_catalog_info, timeout=30)
        assert peer.calls == []
