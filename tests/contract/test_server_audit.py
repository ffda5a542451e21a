"""The audit log of a real server: every call that may change something, however it ended."""

# ruff: noqa: S106 -- planted secrets that open nothing, and page tokens

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import grpc
import psycopg
import pytest
from google.protobuf import json_format
from structlog.testing import capture_logs

from aged_tokens import DAY_S, sealed_ago
from conftest import Services, StartApp
from contract.client_peer import RPCS
from identities import TOKENS, write_identities
from modelcatalog.v1 import catalog_admin_service_pb2 as pb
from modelcatalog.v1 import refresh_service_pb2
from modelcatalog.v1.catalog_admin_service_pb2_grpc import CatalogAdminStub
from modelcatalog.v1.refresh_service_pb2_grpc import RefreshServiceStub
from modelcatalog_client import AsyncModelCatalogClient
from modelcatalog_client.errors import (
    DeadlineExceededError,
    InvalidFilterError,
    InvalidPageTokenError,
    InvalidQueryError,
    PageTokenExpiredError,
    ProviderNotFoundError,
    RoleRequiredError,
)
from modelcatalog_server.domain.audit import AuditEntry
from modelcatalog_server.domain.errors import RoleRequiredError as RoleRequiredFailure
from modelcatalog_server.rpc import audit
from modelcatalog_server.rpc.audit import AUDITED, AuditTrail
from small_catalog import Stage, clone_small, fetch, follow, locked, until

ADMIN = "modelcatalog.v1.CatalogAdmin"
REFRESHES = "modelcatalog.v1.RefreshService"


@pytest.fixture
def database(templates: Services) -> Iterator[str]:
    yield from clone_small(templates)


@pytest.fixture
async def stage(start_app: StartApp, database: str) -> AsyncIterator[Stage]:
    async with follow(start_app, database) as stage:
        yield stage


@pytest.fixture
async def channel(stage: Stage) -> AsyncIterator[grpc.aio.Channel]:
    options = [("grpc.enable_retries", 0)]
    async with grpc.aio.insecure_channel(stage.running.server.address, options=options) as channel:
        yield channel


@pytest.fixture
async def client(stage: Stage) -> AsyncIterator[AsyncModelCatalogClient]:
    """A client without retries: each call is one."""
    options = [("grpc.enable_retries", 0)]
    async with AsyncModelCatalogClient(stage.running.server.address, options=options) as client:
        yield client


async def rows(stage: Stage) -> list[tuple[str, str, str, dict[str, Any]]]:
    return await stage.fetch("SELECT method, target, code, details FROM audit_log ORDER BY id")


async def events_of(client: AsyncModelCatalogClient, **listing: Any) -> list[pb.AuditEvent]:
    return [event async for event in client.list_audit_events(**listing)]


async def fill(stage: Stage, count: int) -> None:
    await stage.fetch(
        "INSERT INTO audit_log (principal, method, target, code, details)"
        " SELECT 'anonymous', 'modelcatalog.v1.CatalogAdmin/UpdateProvider', number::text, 'OK', '{}'"
        f" FROM generate_series(1, {count}) AS number"
    )


# --- what is written -----------------------------------------------------------------------------------------------


def test_all_and_only_what_may_change_something_is_audited() -> None:
    changing = {"StartRefresh", "CancelRefresh", "UpdateProvider", "InvalidateCache"}
    assert {f"{RPCS[name].containing_service.full_name}/{name}" for name in changing} == AUDITED


async def test_a_call_that_went_well_says_who_what_and_how(stage: Stage, channel: grpc.aio.Channel) -> None:
    before = datetime.now(UTC) - timedelta(minutes=1)
    call = CatalogAdminStub(channel).UpdateProvider(pb.UpdateProviderRequest(provider_id="zeldoc", enabled=False))
    assert (await call).catalog_revision == 2
    trailers = dict(await call.trailing_metadata())
    listed = await CatalogAdminStub(channel).ListAuditEvents(pb.ListAuditEventsRequest())
    (event,) = listed.audit_events
    assert (event.principal, event.method, event.target) == ("anonymous", f"{ADMIN}/UpdateProvider", "zeldoc")
    assert event.code == "OK"
    assert before < event.event_time.ToDatetime(UTC) < datetime.now(UTC) + timedelta(minutes=1)
    details = json_format.MessageToDict(event.details)
    assert details.pop("peer").startswith("ipv4:127.0.0.1:")
    assert details == {
        "arguments": {"provider_id": "zeldoc", "enabled": False},
        "request_id": trailers["x-request-id"],
        "result": {"catalog_revision": 2},
    }
    assert (listed.catalog_revision, listed.next_page_token) == (2, "")


async def test_it_is_there_before_the_answer_is(stage: Stage, client: AsyncModelCatalogClient) -> None:
    for number in range(1, 11):
        await client.update_provider("zeldoc", enabled=number % 2 == 0)
        assert len(await rows(stage)) == number


async def test_a_call_that_changes_nothing_is_one_too(stage: Stage, client: AsyncModelCatalogClient) -> None:
    await client.update_provider("openai", enabled=True)
    await client.update_provider("openai")
    assert [(target, code, details["arguments"]) for _, target, code, details in await rows(stage)] == [
        ("openai", "OK", {"provider_id": "openai", "enabled": True}),
        ("openai", "OK", {"provider_id": "openai"}),
    ]


async def test_a_refresh_is_tied_to_its_run(stage: Stage, client: AsyncModelCatalogClient) -> None:
    request_id = str(uuid4())
    started = await client.start_refresh(type="full", validate_only=True, request_id=request_id, provider_id="openai")
    ((method, target, code, details),) = await rows(stage)
    assert (method, target, code) == (f"{REFRESHES}/StartRefresh", "openai", "OK")
    assert details["arguments"] == {
        "type": "TYPE_FULL",
        "provider_id": "openai",
        "request_id": request_id,
        "validate_only": True,
    }
    assert details["result"]["refresh_id"] == started.refresh.id
    assert details["request_id"] != request_id


async def test_calls_that_were_refused_or_failed_say_why(stage: Stage, channel: grpc.aio.Channel) -> None:
    refreshes, admin = RefreshServiceStub(channel), CatalogAdminStub(channel)
    unknown = pb.UpdateProviderRequest(provider_id="opnai", enabled=False)
    no_uuid = refresh_service_pb2.StartRefreshRequest(request_id="no UUID")
    two = pb.InvalidateCacheRequest(model_id="openai/gpt-5", provider_id="openai")
    update, invalidate, start = f"{ADMIN}/UpdateProvider", f"{ADMIN}/InvalidateCache", f"{REFRESHES}/StartRefresh"
    refused: list[tuple[Any, Any, tuple[str, str, str], str]] = [
        (admin.UpdateProvider, unknown, (update, "opnai", "NOT_FOUND"), "PROVIDER_NOT_FOUND"),
        (admin.UpdateProvider, pb.UpdateProviderRequest(), (update, "", "INVALID_ARGUMENT"), "INVALID_QUERY"),
        (refreshes.StartRefresh, no_uuid, (start, "", "INVALID_ARGUMENT"), "INVALID_QUERY"),
        (admin.InvalidateCache, two, (invalidate, "openai", "INVALID_ARGUMENT"), "INVALID_QUERY"),
    ]
    for method, request, expected, reason in refused:
        call = method(request)
        assert (await call.code()).name == expected[2]
        row = (await rows(stage))[-1]
        assert (row[:3], row[3]["reason"]) == (expected, reason)
        assert row[3]["request_id"] == dict(await call.trailing_metadata())["x-request-id"]
        assert "result" not in row[3]
    assert len(await rows(stage)) == len(refused)


async def test_a_cancelling_call_is_about_its_run(stage: Stage, channel: grpc.aio.Channel) -> None:
    refresh_id = str(uuid4())
    request = refresh_service_pb2.CancelRefreshRequest(refresh_id=refresh_id)
    assert await RefreshServiceStub(channel).CancelRefresh(request).code() is not grpc.StatusCode.OK
    ((method, target, _, _),) = await rows(stage)
    assert (method, target) == (f"{REFRESHES}/CancelRefresh", refresh_id)


async def test_reads_are_not_written_down(stage: Stage, client: AsyncModelCatalogClient) -> None:
    await client.get_model("openai/gpt-5")
    await client.batch_get_models(["openai/gpt-5"])
    await client.get_refresh_status()
    assert await events_of(client) == []
    with pytest.raises(ProviderNotFoundError):
        await client.get_provider("opnai")
    assert await rows(stage) == []


# --- what is not written, and how much -----------------------------------------------------------------------------


async def test_no_secret_of_the_caller_is_in_it(stage: Stage) -> None:
    async with AsyncModelCatalogClient(stage.running.server.address, token="hunter2-token") as client:
        await client.update_provider("zeldoc", enabled=False)
        with pytest.raises(ProviderNotFoundError):
            await client.update_provider("nobody", enabled=False)
        assert "hunter2" not in str(await events_of(client))
    (text,) = await stage.fetch("SELECT string_agg(to_jsonb(a)::text, ' ') FROM audit_log AS a")
    assert "hunter2" not in text


async def test_long_arguments_are_cut(stage: Stage, channel: grpc.aio.Channel) -> None:
    admin = CatalogAdminStub(channel)
    call = admin.UpdateProvider(pb.UpdateProviderRequest(provider_id="x" * 500_000, enabled=False))
    assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
    ((_, target, _, details),) = await rows(stage)
    assert details["arguments"] == {"provider_id": "x" * 999 + "…", "enabled": False}
    assert target == "x" * 511 + "…"


@pytest.mark.parametrize("letter", ["🦆", "\1", '"', "\0"], ids=ascii)
async def test_all_of_an_entry_is_bounded(stage: Stage, channel: grpc.aio.Channel, letter: str) -> None:
    many = letter * 50_000
    request = refresh_service_pb2.StartRefreshRequest(provider_id=many, request_id=many, override_gate=many)
    assert await RefreshServiceStub(channel).StartRefresh(request).code() is not grpc.StatusCode.OK
    ((_, target, _, details),) = await rows(stage)
    assert len(json.dumps(details, ensure_ascii=False).encode()) <= audit.MAX_DETAILS_BYTES
    assert details["arguments"].keys() == {"provider_id", "request_id", "override_gate"}
    assert target.startswith(letter.replace("\0", "\ufffd") * 500)
    (stored,) = await stage.fetch("SELECT octet_length(details::text) FROM audit_log")
    assert stored <= 6 * audit.MAX_DETAILS_BYTES


# --- calls that nobody waits for any more --------------------------------------------------------------------------


@asynccontextmanager
async def held_catalog(stage: Stage) -> AsyncIterator[Any]:
    """Nobody can write the catalog, until ``rollback`` of what is yielded."""
    async with await psycopg.AsyncConnection.connect(stage.database_url) as other:
        await other.execute("SELECT FROM catalog_state FOR UPDATE")
        yield other
        await other.rollback()


async def a_writer_waits(stage: Stage) -> bool:
    return await stage.fetch(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND wait_event_type = 'Lock' AND application_name = 'modelcatalog-write'"
    ) == [1]


async def test_a_call_whose_caller_went_away_is_written_down(stage: Stage, channel: grpc.aio.Channel) -> None:
    async with held_catalog(stage):
        call = CatalogAdminStub(channel).UpdateProvider(pb.UpdateProviderRequest(provider_id="zeldoc", enabled=False))
        await until(lambda: a_writer_waits(stage))
        call.cancel()
        await until(lambda: rows(stage))
    ((_, target, code, details),) = await rows(stage)
    assert (target, code, details["arguments"]["enabled"]) == ("zeldoc", "CANCELLED", False)
    assert await stage.fetch("SELECT enabled FROM llm_providers WHERE id = 'zeldoc'") == [True]


async def test_a_call_whose_time_was_over_is_written_down(stage: Stage, client: AsyncModelCatalogClient) -> None:
    await client.get_provider("zeldoc")  # so that to connect takes nothing of the time of the call
    async with held_catalog(stage):
        with pytest.raises(DeadlineExceededError):
            await client.update_provider("zeldoc", enabled=False, timeout=2)
        await until(lambda: rows(stage))
    ((_, target, code, details),) = await rows(stage)
    assert target == "zeldoc"
    # A caller that hears of its deadline first goes away.
    assert (code, details.get("reason")) in {("DEADLINE_EXCEEDED", "DEADLINE"), ("CANCELLED", None)}


async def test_a_call_that_stopping_ends_is_written_down(start_app: StartApp, database: str) -> None:
    async with follow(start_app, database) as stage, held_catalog(stage):
        options = [("grpc.enable_retries", 0)]
        async with grpc.aio.insecure_channel(stage.running.server.address, options=options) as channel:
            request = pb.UpdateProviderRequest(provider_id="zeldoc", enabled=False)
            call = CatalogAdminStub(channel).UpdateProvider(request)
            await until(lambda: a_writer_waits(stage))
            async with asyncio.timeout(10):
                await stage.running.server.drain(0.1)
            assert await call.code() is not grpc.StatusCode.OK
    ((target, code),) = await fetch(database, "SELECT target, code FROM audit_log")
    assert (target, code) == ("zeldoc", "UNAVAILABLE")


# --- a log that cannot be written ----------------------------------------------------------------------------------


async def test_an_entry_that_cannot_be_written_goes_to_the_log_and_the_answer_stays(
    stage: Stage, client: AsyncModelCatalogClient
) -> None:
    await stage.fetch("ALTER TABLE audit_log RENAME TO gone")
    with capture_logs() as logs:
        response = await client.update_provider("zeldoc", enabled=False)
    assert (response.catalog_revision, response.provider.enabled) == (2, False)
    (lost,) = [line for line in logs if line["event"] == "an audit entry could not be written"]
    assert (lost["log_level"], lost["code"], lost["target"]) == ("error", "OK", "zeldoc")
    assert lost["method"] == f"{ADMIN}/UpdateProvider"
    assert lost["details"]["arguments"] == {"provider_id": "zeldoc", "enabled": False}


async def test_an_entry_that_has_to_wait_holds_an_answer_up_only_briefly(
    stage: Stage, client: AsyncModelCatalogClient
) -> None:
    async with await psycopg.AsyncConnection.connect(stage.database_url) as other:
        await other.execute("LOCK TABLE audit_log IN ACCESS EXCLUSIVE MODE")
        assert (await client.update_provider("zeldoc", enabled=False, timeout=20)).catalog_revision == 2
        await other.rollback()
    await until(lambda: rows(stage))
    assert [code for _, _, code, _ in await rows(stage)] == ["OK"]


class Stuck:
    """A log that never answers."""

    async def append(self, entry: AuditEntry) -> None:
        await asyncio.Event().wait()

    async def list_events(self, matching: Any = None, *, before_id: int | None, limit: int) -> list[Any]:
        return []

    async def prune(self, *, before: datetime) -> int:
        return 0


async def test_stopping_does_not_wait_for_a_log_that_never_answers() -> None:
    entry = AuditEntry(principal="anonymous", method="a/B", target="", code="OK", details={})
    with capture_logs() as logs:
        async with asyncio.timeout(30), AuditTrail(Stuck()) as trail:
            trail._begin(entry)
    assert [line["event"] for line in logs] == ["an audit entry could not be written"]


async def test_refused_calls_take_one_connection_however_many_they_are(
    start_app: StartApp, database: str, tmp_path: Path
) -> None:
    async def is_written() -> bool:
        return await fetch(database, "SELECT revision FROM catalog_state") == [2]

    async def are_in_the_log() -> bool:
        return await fetch(database, "SELECT count(*) FROM audit_log") == [41]

    async with follow(start_app, database, tokens_file=write_identities(tmp_path / "identities.toml")) as stage:
        address, options = stage.running.server.address, [("grpc.enable_retries", 0)]
        trail = stage.running.server._calls._audit
        async with (
            AsyncModelCatalogClient(address, token=TOKENS["reader"], options=options) as reader,
            AsyncModelCatalogClient(address, token=TOKENS["admin"], options=options) as admin,
        ):
            async with locked(database, "audit_log IN ACCESS EXCLUSIVE"):
                refused = [asyncio.create_task(reader.start_refresh()) for _ in range(40)]
                await until(lambda: trail is not None and len(trail._writing) == 40)
                writing = asyncio.create_task(admin.update_provider("openai", enabled=False))
                await until(is_written)
            await writing
            assert {type(error) for error in await asyncio.gather(*refused, return_exceptions=True)} == {
                RoleRequiredError
            }
        await until(are_in_the_log)


async def test_beyond_what_can_be_written_refused_calls_are_in_the_log_of_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(audit, "MAX_WRITING", 2)
    monkeypatch.setattr(audit, "ANSWER_WAIT_S", 0.05)
    monkeypatch.setattr(audit, "_CLOSE_TIMEOUT_S", 0.05)
    context: Any = SimpleNamespace(peer=lambda: "ipv4:10.0.0.1:1", trailing_metadata=lambda: (("x-request-id", "r"),))
    with capture_logs() as logs:
        async with asyncio.timeout(30), AuditTrail(Stuck()) as trail:
            refuse = trail.refusing(f"/{REFRESHES}/StartRefresh", refresh_service_pb2.StartRefreshRequest.FromString)
            for _ in range(3):
                await refuse(b"", context, RoleRequiredFailure("", "ann"))
            (lost,) = logs
            assert (lost["principal"], lost["why"]) == ("anonymous", "there are too many at once")


# --- listing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "pages"), [(0, 3), (50, 3), (7, 18), (120, 1), (119, 2), (1000, 1), (5000, 1)])
async def test_events_come_newest_first_page_by_page(
    stage: Stage, client: AsyncModelCatalogClient, size: int, pages: int
) -> None:
    await fill(stage, 120)
    read = [page async for page in client.list_audit_events(page_size=size).pages()]
    assert len(read) == pages
    assert [event.target for page in read for event in page.audit_events] == [str(n) for n in range(120, 0, -1)]
    ids = [event.id for page in read for event in page.audit_events]
    assert ids == sorted(ids, reverse=True)
    assert {page.catalog_revision for page in read} == {1}


async def test_more_than_a_thousand_is_a_thousand(stage: Stage, client: AsyncModelCatalogClient) -> None:
    await fill(stage, 1001)
    read = [len(page.audit_events) async for page in client.list_audit_events(page_size=5000).pages()]
    assert read == [1000, 1]


async def test_events_that_come_meanwhile_are_not_on_later_pages(stage: Stage, client: AsyncModelCatalogClient) -> None:
    await fill(stage, 20)
    pages = client.list_audit_events(page_size=10).pages()
    first = await anext(pages)
    await client.update_provider("zeldoc", enabled=False)
    rest = [event.target async for page in pages for event in page.audit_events]
    assert [event.target for event in first.audit_events] + rest == [str(n) for n in range(20, 0, -1)]


async def test_a_filter_picks_events_and_binds_the_token(stage: Stage, client: AsyncModelCatalogClient) -> None:
    await fill(stage, 5)
    await client.update_provider("zeldoc", enabled=False)
    assert [event.target for event in await events_of(client, filter="target:ZEL")] == ["zeldoc"]
    listing = client.list_audit_events(filter="id <= 4 NOT target = 3", page_size=1).pages()
    first = await anext(listing)
    rest = [event async for page in listing for event in page.audit_events]
    assert [event.target for event in [*first.audit_events, *rest]] == ["4", "2", "1"]
    for other in ("", "id <= 4"):
        with pytest.raises(InvalidPageTokenError):
            await events_of(client, filter=other, page_token=first.next_page_token)


async def test_what_is_wrong_with_a_listing_is_refused(stage: Stage, client: AsyncModelCatalogClient) -> None:
    await fill(stage, 3)
    with pytest.raises(InvalidQueryError) as raised:
        await events_of(client, page_size=-1)
    assert [each.field for each in raised.value.field_violations] == ["page_size"]
    with pytest.raises(InvalidFilterError, match="column 1: 'codes' is no field of AuditEvent"):
        await events_of(client, filter='codes = "OK"')
    page = await anext(client.list_audit_events(page_size=1).pages())
    of_providers = await anext(client.list_providers(page_size=1).pages())
    for token in ("x", page.next_page_token[:-1], of_providers.next_page_token):
        with pytest.raises(InvalidPageTokenError):
            await events_of(client, page_token=token)
    with pytest.raises(InvalidPageTokenError):
        await anext(client.list_providers(page_token=page.next_page_token).pages())
    (key,) = await stage.fetch("SELECT token_key FROM catalog_state")
    for value in (["x"], [1, 2], 7):
        with pytest.raises(InvalidPageTokenError):
            await events_of(client, page_token=sealed_ago(0, key, "audit", value))
    assert len(await events_of(client, page_token=sealed_ago(DAY_S - 60, key, "audit", [3]))) == 2
    with pytest.raises(PageTokenExpiredError):
        await events_of(client, page_token=sealed_ago(DAY_S + 60, key, "audit", [3]))


async def test_a_token_is_good_on_every_replica_and_after_a_restart(
    stage: Stage, start_app: StartApp, client: AsyncModelCatalogClient
) -> None:
    await fill(stage, 3)
    page = await anext(client.list_audit_events(page_size=1).pages())
    async with (
        start_app(stage.database_url, offline=True) as other,
        AsyncModelCatalogClient(other.server.address) as there,
    ):
        events = await events_of(there, page_token=page.next_page_token)
        assert [event.target for event in events] == ["2", "1"]
