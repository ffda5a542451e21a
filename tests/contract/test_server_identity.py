"""Who may call what: every RPC with every kind of caller, against a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
import structlog
from google.protobuf import json_format
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from structlog.testing import LogCapture, capture_logs

from conftest import Services, make_settings
from identities import TOKENS, bearer, token_entry, write_identities
from modelcatalog.v1 import catalog_admin_service_pb2, model_catalog_service_pb2, refresh_service_pb2
from modelcatalog_client import AsyncModelCatalogClient
from modelcatalog_client.errors import (
    InvalidTokenError,
    MissingTokenError,
    ModelNotFoundError,
    RoleRequiredError,
)
from modelcatalog_server import app
from modelcatalog_server.rpc.roles import ROLES
from small_catalog import clone_small, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

FILES = (
    model_catalog_service_pb2,
    refresh_service_pb2,
    catalog_admin_service_pb2,
    health_pb2,
    reflection_pb2,
)
METHODS = {
    f"/{service.full_name}/{method.name}": method
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
#: No message of any method.
GARBAGE = b"\xff\xff"
#: Callers and the highest role of theirs; "": none.
CALLERS = {
    "none": "",
    "bad": "",
    "expired": "",
    "no bearer": "",
    "reader": "reader",
    "operator": "operator",
    "admin": "admin",
}
LEVELS = ("", "reader", "operator", "admin")
#: The contract's, in its own words. "": open.
TAKES = {
    **dict.fromkeys(METHODS, "reader"),
    "/modelcatalog.v1.RefreshService/StartRefresh": "operator",
    "/modelcatalog.v1.RefreshService/CancelRefresh": "operator",
    **{method: "admin" for method in METHODS if "CatalogAdmin" in method},
    **{method: "" for method in METHODS if "grpc.health" in method},
}


@pytest.fixture(scope="module")
def database(templates: Services) -> Iterator[str]:
    yield from clone_small(templates)


@pytest.fixture(scope="module")
def identities_file(work_dir: Path) -> Path:
    return write_identities(work_dir / "identities.toml")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(templates: Services, database: str, identities_file: Path) -> AsyncIterator[app.App]:
    settings = make_settings(
        templates,
        database,
        offline=True,
        tokens_file=identities_file,
        rate_limit_failures="off",  # or the first few bad tokens would be all
        access_log_percent=100,
        log_level="warning",
    )
    async with app.start(settings) as running:
        running.server.set_serving(True)
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def channel(running: app.App) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(running.server.address) as channel:
        yield channel


def client_of(running: app.App, token: str | None) -> AsyncModelCatalogClient:
    return AsyncModelCatalogClient(running.server.address, token=token, options=[("grpc.enable_retries", 0)])


def metadata_of(caller: str) -> tuple[tuple[str, str], ...]:
    match caller:
        case "none":
            return ()
        case "bad":
            return bearer("mcat_nobody-has-this-one")
        case "no bearer":
            return (("authorization", f"Basic {TOKENS['admin']}"),)
        case _:
            return bearer(TOKENS[caller])


async def call(channel: Any, method: str, request: bytes, metadata: Any) -> grpc.aio.AioRpcError | None:
    """Make a call as far as its first answer; return how it failed."""
    described = METHODS[method]
    try:
        if described.client_streaming:
            stream = channel.stream_stream(method)(iter([request]), metadata=metadata, timeout=10)
            await stream.read()
        elif described.server_streaming:
            stream = channel.unary_stream(method)(request, metadata=metadata, timeout=10)
            await stream.read()
            stream.cancel()
        else:
            await channel.unary_unary(method)(request, metadata=metadata, timeout=10)
    except grpc.aio.AioRpcError as error:
        return error
    return None


def reason_of(error: grpc.aio.AioRpcError) -> str:
    details = dict(error.trailing_metadata())["grpc-status-details-bin"]
    info = error_details_pb2.ErrorInfo()
    status_pb2.Status.FromString(details).details[0].Unpack(info)
    return str(info.reason)


async def test_every_rpc_that_the_server_has_is_walked(channel: Any) -> None:
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    method = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    stream = channel.stream_stream(
        method,
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )(iter([request]), metadata=bearer(TOKENS["reader"]), timeout=10)
    answer = await stream.read()
    services = {service.name for service in answer.list_services_response.service}
    assert services == {method.split("/")[1] for method in METHODS}
    assert set(ROLES) == {method for method in METHODS if method.startswith("/modelcatalog.")}


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("method", METHODS)
async def test_who_may_call_what(channel: grpc.aio.Channel, method: str, caller: str) -> None:
    """With arguments that nobody can read: who may not call must not learn that."""
    is_ours = method.startswith("/modelcatalog.")
    error = await call(channel, method, GARBAGE if is_ours else b"", metadata_of(caller))
    role, takes = CALLERS[caller], TAKES[method]
    if LEVELS.index(role) >= LEVELS.index(takes):
        if is_ours:
            assert error is not None
            assert (error.code(), reason_of(error)) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_QUERY")
        else:
            assert error is None or method.endswith("Health/List")  # which grpc's own servicer does not have
    elif role:
        assert error is not None
        assert (error.code(), reason_of(error)) == (grpc.StatusCode.PERMISSION_DENIED, "ROLE_REQUIRED")
        assert error.details() == f"{method.rpartition('/')[2]} takes the role {takes}"
    else:
        assert error is not None
        reason = "MISSING_TOKEN" if caller == "none" else "INVALID_TOKEN"
        assert (error.code(), reason_of(error)) == (grpc.StatusCode.UNAUTHENTICATED, reason)


async def test_what_is_at_hand_is_given_to_nobody_who_may_not_have_it(running: app.App) -> None:
    async def near_hits() -> int:
        (near,) = [layer for layer in (await admin.get_cache_stats()).layers if layer.name == "near"]
        return near.hits

    async with client_of(running, TOKENS["admin"]) as admin, client_of(running, TOKENS["reader"]) as reader:
        await reader.get_model("openai/gpt-5")
        hits = await near_hits()
        await reader.get_model("openai/gpt-5")
        assert await near_hits() == hits + 1, "it is at hand"
        for token, refusal in (
            (None, MissingTokenError),
            ("x", InvalidTokenError),
            (TOKENS["expired"], InvalidTokenError),
        ):
            async with client_of(running, token) as stranger:
                with pytest.raises(refusal) as caught:
                    await stranger.get_model("openai/gpt-5")
            assert len(caught.value.request_id) == 32


async def test_of_two_tokens_the_first_counts_at_hand_or_not(channel: grpc.aio.Channel) -> None:
    requests = {"GetModel": b"\n\x0copenai/gpt-5", "GetCatalogInfo": b""}

    async def reason(method: str, *callers: str) -> str | None:
        metadata = [each for caller in callers for each in metadata_of(caller)]
        error = await call(channel, f"/modelcatalog.v1.ModelCatalog/{method}", requests[method], metadata)
        return reason_of(error) if error else None

    assert await reason("GetModel", "reader") is None, "it is at hand from here on"
    for method in requests:
        assert await reason(method, "reader", "bad") is None
        assert await reason(method, "bad", "reader") == "INVALID_TOKEN"


async def test_an_unknown_token_and_an_expired_one_get_the_same_answer(channel: grpc.aio.Channel) -> None:
    method = "/modelcatalog.v1.ModelCatalog/GetModel"
    errors = [await call(channel, method, GARBAGE, metadata_of(caller)) for caller in ("bad", "expired", "no bearer")]
    assert len({(error.code(), error.details(), reason_of(error)) for error in errors if error}) == 1


async def test_a_change_is_told_by_the_name_of_who_made_it(running: app.App) -> None:
    async with client_of(running, TOKENS["admin"]) as admin, client_of(running, TOKENS["operator"]) as operator:
        started = await operator.start_refresh()
        # To its end: its revision must not come amid another test.
        _ = [status async for status in operator.watch_refresh_status(started.refresh.id, timeout=60)]
        assert started.refresh.requested_by == "operator-person"
        with pytest.raises(RoleRequiredError):
            await operator.update_provider("zeldoc", enabled=False)
        await admin.update_provider("zeldoc", enabled=True)
        events = [event async for event in admin.list_audit_events()]
    told = [(event.principal, event.method.rpartition("/")[2], event.target, event.code) for event in events]
    assert told[:3] == [
        ("admin-person", "UpdateProvider", "zeldoc", "OK"),
        ("operator-person", "UpdateProvider", "zeldoc", "PERMISSION_DENIED"),
        ("operator-person", "StartRefresh", "", "OK"),
    ]
    assert json_format.MessageToDict(events[1].details)["arguments"]["provider_id"] == "zeldoc"


async def test_each_line_of_the_log_names_who_called(running: app.App, monkeypatch: pytest.MonkeyPatch) -> None:
    capture = LogCapture()  # the tests' own log is of warnings
    logger = structlog.wrap_logger(None, processors=[capture], wrapper_class=structlog.BoundLogger)
    monkeypatch.setattr(running.server._calls._log, "_log", logger)
    async with client_of(running, TOKENS["reader"]) as reader:
        for _ in range(2):
            await reader.get_model("openai/gpt-5")
        with pytest.raises(ModelNotFoundError):
            await reader.get_model("nobody/nothing")
        with pytest.raises(RoleRequiredError):
            await reader.get_cache_stats()
    async with client_of(running, "mcat_secret-of-nobody") as stranger:
        with pytest.raises(InvalidTokenError):
            await stranger.get_model("openai/gpt-5")
    await until(lambda: len(capture.entries) == 5)  # a line comes after its answer
    told = [(line.get("principal"), line["code"]) for line in capture.entries]
    person = "reader-person"
    assert told == [
        (person, "OK"),
        (person, "OK"),
        (person, "NOT_FOUND"),
        (person, "PERMISSION_DENIED"),
        (None, "UNAUTHENTICATED"),
    ]
    assert capture.entries[-1]["peer"].startswith("ipv4:127.0.0.1:")
    assert "mcat_" not in repr(capture.entries)


async def test_the_file_is_followed(running: app.App, identities_file: Path) -> None:
    new = "mcat_new-token"
    expiring = "mcat_expiring-token"

    async def admits(token: str) -> bool:
        async with client_of(running, token) as client:
            with suppress(InvalidTokenError):
                await client.get_model("openai/gpt-5")
                return True
        return False

    assert not await admits(new)
    soon = datetime.now(UTC) + timedelta(seconds=8)
    write_identities(
        identities_file, token_entry("new", new, "reader"), token_entry("soon", expiring, "reader", expires=soon)
    )
    await until(lambda: admits(new))
    assert await admits(expiring)

    with capture_logs() as lines:
        write(identities_file, "[[tokens]]\nid = 3\n")
        await until(lambda: _said(lines, "a changed file is bad"))
    assert await admits(new), "what was there before holds"
    await until(lambda: _not(admits(expiring)))
    assert datetime.now(UTC) >= soon

    write_identities(identities_file)
    await until(lambda: _not(admits(new)))
    assert await admits(TOKENS["reader"])


def write(path: Path, text: str) -> None:
    path.write_text(text)


async def _said(lines: Any, words: str) -> bool:
    return any(words in line["event"] for line in lines)


async def _not(condition: Any) -> bool:
    return not await condition


async def test_reflection_can_be_opened(templates: Services, database: str, identities_file: Path) -> None:
    settings = make_settings(templates, database, offline=True, tokens_file=identities_file, reflection_open=True)
    async with app.start(settings) as running, grpc.aio.insecure_channel(running.server.address) as channel:
        reflection = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
        assert await call(channel, reflection, b"", ()) is None
        refused = await call(channel, "/modelcatalog.v1.ModelCatalog/GetModel", b"", ())
        assert refused is not None
        assert reason_of(refused) == "MISSING_TOKEN"


async def test_the_ready_line_shows_a_call_with_a_token(running: app.App) -> None:
    line = await app._ready_line(running)
    assert ' -plaintext -H "authorization: Bearer $MODELCATALOG_TOKEN" -d ' in line


async def test_a_watch_is_refused_before_its_first_message(running: app.App) -> None:
    async with client_of(running, None) as stranger:
        with pytest.raises(MissingTokenError):
            async with asyncio.timeout(10), stranger.watch_refresh_status() as watch:
                await anext(aiter(watch))
