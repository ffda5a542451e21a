"""Errors there and back: what a servicer raises is what the typed client raises, and nothing else gets out."""

# ruff: noqa: S105 -- a planted secret that opens nothing

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import psycopg
import pytest
import pytest_asyncio
from google.rpc import status_pb2
from structlog.testing import capture_logs

from conftest import Services, make_settings
from contract.client_peer import RPCS
from modelcatalog.v1 import model_catalog_service_pb2 as pb
from modelcatalog.v1 import refresh_service_pb2
from modelcatalog.v1.error_reason_pb2 import ErrorReason
from modelcatalog.v1.model_catalog_service_pb2_grpc import ModelCatalogStub
from modelcatalog.v1.refresh_pb2 import Refresh
from modelcatalog.v1.refresh_service_pb2_grpc import RefreshServiceStub
from modelcatalog_client import AsyncModelCatalogClient
from modelcatalog_client import errors as client_errors
from modelcatalog_server import app
from modelcatalog_server.catalog.comparison import ComparisonReader
from modelcatalog_server.catalog.current import CurrentRevision
from modelcatalog_server.catalog.facets import FacetReader
from modelcatalog_server.catalog.indexing import ReferenceIndexes
from modelcatalog_server.catalog.offers import OfferReader
from modelcatalog_server.catalog.paging import PageTokens
from modelcatalog_server.catalog.reader import CatalogReader
from modelcatalog_server.catalog.references import References
from modelcatalog_server.catalog.search import ModelSearch
from modelcatalog_server.catalog.snapshots import Snapshots
from modelcatalog_server.domain import errors
from modelcatalog_server.domain.refresh import RefreshFailure
from modelcatalog_server.domain.signal import Signal
from modelcatalog_server.rpc import context
from modelcatalog_server.rpc.admin_servicer import AdminServicer
from modelcatalog_server.rpc.catalog_servicer import CatalogServicer
from modelcatalog_server.rpc.errors import TABLE
from modelcatalog_server.rpc.refresh_messages import to_status
from modelcatalog_server.rpc.refresh_servicer import RefreshServicer
from modelcatalog_server.rpc.server import RpcServer
from modelcatalog_server.storage.catalog_store import PostgresCatalog
from modelcatalog_server.storage.pools import Pools, PoolSettings
from modelcatalog_server.tokens import TokenSealer
from small_catalog import fetch, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = "postgresql://modelcatalog:hunter2@db.internal/models"

#: Reasons that only ``Refresh.error`` has.
IN_REFRESH = {"UPSTREAM_UNAVAILABLE", "UPSTREAM_INVALID", "GATE_REFUSED", "OWNER_LOST", "REFRESH_CANCELLED"}

Behaviour = Callable[[], Any]

#: Of servers whose admin is asked nothing.
NOBODY: Any = AdminServicer(None, None, None, None, None)  # type: ignore[arg-type]  # is not asked


class Misbehaving(CatalogServicer, RefreshServicer):
    """A servicer whose next call does what a test wants."""

    def __init__(self) -> None:
        self.behaviour: Behaviour = _nothing

    async def GetModel(self, request: pb.GetModelRequest, context: Any) -> pb.GetModelResponse:  # noqa: N802
        await self.behaviour()
        return pb.GetModelResponse()

    async def WatchRefreshStatus(  # type: ignore[override]  # noqa: N802 -- a coroutine that writes, as the real one
        self, request: Any, context: Any
    ) -> None:
        await context.write(refresh_service_pb2.WatchRefreshStatusResponse())
        await self.behaviour()


async def _nothing() -> None:
    pass


def raising(error: BaseException) -> Behaviour:
    async def behave() -> None:
        raise error

    return behave


async def hanging() -> None:
    await asyncio.Event().wait()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def servicer() -> Misbehaving:
    return Misbehaving()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def address(servicer: Misbehaving) -> AsyncIterator[str]:
    server = RpcServer("127.0.0.1:0", catalog=servicer, refresh=servicer, admin=NOBODY, with_reflection=False)
    await server.start()
    yield server.address
    await server.drain(0)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(address: str) -> AsyncIterator[AsyncModelCatalogClient]:
    """A client without retries: what is sent is what is seen."""
    async with AsyncModelCatalogClient(address, options=[("grpc.enable_retries", 0)]) as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def channel(address: str) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(address) as channel:
        yield channel


def make(cls: type[errors.CatalogError]) -> errors.CatalogError:
    if issubclass(cls, errors.InvalidArgumentError):
        return cls("some.field", "is not what it should be")
    if issubclass(cls, errors.NotFoundError | errors.AmbiguousModelError):
        return cls("opnai/x", ["openai/x", "openai/y"])
    if issubclass(cls, errors.RateLimitedError):
        return cls("principal:ann", "10 calls a second", retry_after_s=0.25)
    if issubclass(cls, errors.OverloadedError):
        return cls(retry_after_s=0.25)
    return cls("what went wrong, in words for the caller")


# --- the table -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", TABLE, ids=lambda cls: cls.__name__)
async def test_what_is_raised_here_is_raised_there(
    servicer: Misbehaving, client: AsyncModelCatalogClient, cls: type[errors.CatalogError]
) -> None:
    code, reason = TABLE[cls]
    raised = make(cls)
    servicer.behaviour = raising(raised)
    with pytest.raises(client_errors.CatalogError) as caught:
        await client.get_model("openai/x")
    error = caught.value
    assert type(error) is client_errors.CLASS_BY_REASON[reason]
    assert (error.code, error.reason, error.message) == (code, reason, str(raised))
    assert len(error.request_id) == 32
    if isinstance(raised, errors.InvalidArgumentError):
        assert error.field_violations == (client_errors.FieldViolation("some.field", "is not what it should be"),)
    if isinstance(raised, errors.NotFoundError | errors.AmbiguousModelError):
        assert error.metadata == {"candidates": "openai/x,openai/y"}


@pytest.mark.parametrize("cls", [errors.SlowConsumerError, errors.ServerDrainingError, errors.DatabaseUnavailableError])
async def test_what_a_stream_raises_is_raised_there_too(
    servicer: Misbehaving, channel: grpc.aio.Channel, cls: type[errors.CatalogError]
) -> None:
    servicer.behaviour = raising(make(cls))
    call = RefreshServiceStub(channel).WatchRefreshStatus(refresh_service_pb2.WatchRefreshStatusRequest())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in call:
            pass
    error = client_errors.from_rpc_error(caught.value)
    assert (error.code, error.reason) == TABLE[cls]
    assert error.request_id


async def test_every_reason_of_the_contract_is_raised_refused_or_known_to_come_later() -> None:
    contract = {name.removeprefix("ERROR_REASON_") for name in map(ErrorReason.Name, ErrorReason.values())} - {
        "UNSPECIFIED"
    }
    raised = {reason for _, reason in TABLE.values()} | {"INTERNAL"}
    assert raised.isdisjoint(IN_REFRESH)
    assert raised | IN_REFRESH == contract
    assert contract == set(client_errors.CLASS_BY_REASON)


async def test_every_error_of_the_domain_is_in_the_table() -> None:
    def leaves(cls: type[errors.CatalogError]) -> Iterator[type[errors.CatalogError]]:
        below = cls.__subclasses__()
        yield from (leaf for each in below for leaf in leaves(each)) if below else (cls,)

    of_runs = {cls for cls in leaves(errors.RefreshError) if cls.__module__ == errors.__name__}
    own = {cls for cls in leaves(errors.CatalogError) if cls.__module__ == errors.__name__}
    assert own - of_runs == set(TABLE)


async def test_a_code_is_that_of_the_clients_class() -> None:
    for code, reason in TABLE.values():
        assert client_errors.CLASS_BY_REASON[reason].code is code


@pytest.mark.parametrize("reason", sorted(IN_REFRESH | {"INTERNAL", "DATABASE_UNAVAILABLE"}))
async def test_the_error_of_a_run_is_typed_too(reason: str) -> None:
    failure = RefreshFailure(reason=reason, message="why", metadata={"gate": "shrinkage"})
    error = client_errors.refresh_error(Refresh(error=to_status(failure)))
    assert error is not None
    assert type(error) is client_errors.CLASS_BY_REASON[reason]
    assert (error.message, error.metadata["gate"]) == ("why", "shrinkage")
    assert error.code is not grpc.StatusCode.UNKNOWN


# --- what nobody thought of ----------------------------------------------------------------------------------------


async def test_an_unforeseen_fault_tells_the_caller_nothing_and_the_log_everything(
    servicer: Misbehaving, channel: grpc.aio.Channel
) -> None:
    servicer.behaviour = raising(RuntimeError(f"cannot connect to {SECRET}"))
    call = ModelCatalogStub(channel).GetModel(pb.GetModelRequest(model_id="x"))
    with capture_logs() as logs:
        code = await call.code()
        await until(lambda: logs)  # the line is written when the answer is on its way
    trailers = dict(await call.trailing_metadata())
    assert code is grpc.StatusCode.INTERNAL
    assert SECRET not in f"{await call.details()} {trailers}"
    assert "RuntimeError" not in f"{await call.details()} {trailers}"
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    assert SECRET.encode() not in status.SerializeToString()
    assert status.message == "a fault of the service; the x-request-id trailer finds it in the log"
    (line,) = [line for line in logs if line.get("request_id") == trailers["x-request-id"]]
    assert SECRET in str(line["exc_info"])
    assert line["log_level"] == "error"


@pytest.mark.parametrize(
    "error",
    [
        psycopg.OperationalError(f"connection to {SECRET} failed"),
        psycopg.errors.SyntaxError("at or near SELECT"),
        KeyError(SECRET),
        AssertionError(SECRET),
        errors.RefreshError(SECRET),
        ExceptionGroup(SECRET, [ValueError(SECRET)]),
        RecursionError(SECRET),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_no_kind_of_fault_gets_out(
    servicer: Misbehaving, client: AsyncModelCatalogClient, error: Exception
) -> None:
    servicer.behaviour = raising(error)
    with pytest.raises(client_errors.InternalError) as caught:
        await client.get_model("x")
    assert "hunter2" not in f"{caught.value} {caught.value.metadata} {caught.value.__cause__!r}"
    assert caught.value.reason == "INTERNAL"
    assert caught.value.request_id


async def test_a_fault_in_a_stream_gets_no_further(servicer: Misbehaving, channel: grpc.aio.Channel) -> None:
    servicer.behaviour = raising(RuntimeError(SECRET))
    call = RefreshServiceStub(channel).WatchRefreshStatus(refresh_service_pb2.WatchRefreshStatusRequest())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in call:
            pass
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "hunter2" not in f"{caught.value!r} {await call.trailing_metadata()}"


async def test_a_cancellation_from_inside_is_answered_and_does_not_let_the_caller_hang(
    servicer: Misbehaving, client: AsyncModelCatalogClient
) -> None:
    servicer.behaviour = raising(asyncio.CancelledError())
    with pytest.raises(client_errors.ServerDrainingError):
        await client.get_model("x", timeout=10)


async def test_a_call_without_a_deadline_ends_all_the_same(
    servicer: Misbehaving, channel: grpc.aio.Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "MAX_CALL_S", 0.1)
    servicer.behaviour = hanging
    call = ModelCatalogStub(channel).GetModel(pb.GetModelRequest(model_id="x"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert client_errors.from_rpc_error(caught.value).reason == "DEADLINE"
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_caller_that_goes_away_ends_its_call(servicer: Misbehaving, channel: grpc.aio.Channel) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def hang_and_tell() -> None:
        begun.set()
        try:
            await hanging()
        finally:
            ended.set()

    servicer.behaviour = hang_and_tell
    call = ModelCatalogStub(channel).GetModel(pb.GetModelRequest(model_id="x"))
    await asyncio.wait_for(begun.wait(), 5)
    call.cancel()
    await asyncio.wait_for(ended.wait(), 5)


@pytest.mark.parametrize(
    "error",
    [
        errors.ModelNotFoundError("🦆" * 128, ["🦆" * 128] * 10),
        errors.ModelNotFoundError("x" * 512, ["y" * 512] * 10),
        errors.AmbiguousModelError("🦆" * 128, ["🦆" * 128] * 10),
        errors.InvalidFieldMaskError("🦆" * 2000, "🦆" * 2000),
        errors.CatalogNotReadyError("ü" * 10_000),
    ],
    ids=["odd ids", "long ids", "odd candidates", "odd field", "long message"],
)
async def test_the_largest_error_fits_into_the_trailers(
    servicer: Misbehaving, channel: grpc.aio.Channel, error: errors.CatalogError
) -> None:
    """Above 8 KiB gRPC drops them at random, and the text travels in three bytes for one where it is no ASCII."""
    servicer.behaviour = raising(error)
    call = ModelCatalogStub(channel).GetModel(pb.GetModelRequest(model_id="x"))
    assert await call.code() is TABLE[type(error)][0]
    details = dict(await call.trailing_metadata())["grpc-status-details-bin"]
    message = (await call.details()).encode()
    assert len(details) + len(message) < 6 * 1024
    assert len(details) * 4 / 3 + len(message) * 3 < 8 * 1024
    assert (
        client_errors._from_status(
            await call.code(), await call.details(), status_pb2.Status.FromString(details)
        ).reason
        == TABLE[type(error)][1]
    )


# --- a real server -------------------------------------------------------------------------------------------------

NOT_THERE_YET: set[str] = set()


@pytest.fixture(scope="module")
def url(templates: Services) -> Iterator[str]:
    url = templates.clone("mc_loaded")
    yield url
    templates.drop(url)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def real(templates: Services, url: str) -> AsyncIterator[grpc.aio.Channel]:
    async with (
        app.start(make_settings(templates, url, offline=True)) as running,
        grpc.aio.insecure_channel(running.server.address) as channel,
    ):
        yield channel


async def error_of(work: Awaitable[object]) -> client_errors.CatalogError | None:
    try:
        await work
    except grpc.RpcError as error:
        return client_errors.from_rpc_error(error)
    return None


@pytest.mark.parametrize("name", RPCS)
async def test_every_rpc_is_there_or_says_that_it_is_not(real: grpc.aio.Channel, name: str) -> None:
    rpc = RPCS[name]
    method = f"/{rpc.containing_service.full_name}/{name}"
    request, answer = rpc.input_type._concrete_class, rpc.output_type._concrete_class
    open_call: Any = real.unary_stream if rpc.server_streaming else real.unary_unary
    call = open_call(method, request.SerializeToString, answer.FromString)(request(), timeout=20)
    error = await error_of(call.read() if rpc.server_streaming else call)
    call.cancel()
    if error is not None:
        assert error.code is not grpc.StatusCode.INTERNAL
        assert error.reason, "failed without a reason"
    is_missing = error is not None and error.reason == "NOT_IMPLEMENTED"
    assert is_missing is (name in NOT_THERE_YET)


async def test_a_method_that_no_service_has_is_unimplemented(real: grpc.aio.Channel) -> None:
    drop_models: Any = real.unary_unary("/modelcatalog.v1.ModelCatalog/DropModels")
    call = drop_models(b"")
    assert await call.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_request_that_is_no_message_is_refused_without_a_fault(real: grpc.aio.Channel) -> None:
    get_model: Any = real.unary_unary("/modelcatalog.v1.ModelCatalog/GetModel")
    call = get_model(b"\xff\xff\xff\xff")
    assert await call.code() is not grpc.StatusCode.OK
    assert "Traceback" not in (await call.details() or "")


async def test_a_request_beyond_all_bounds_is_refused(real: grpc.aio.Channel) -> None:
    call = ModelCatalogStub(real).BatchGetModels(pb.BatchGetModelsRequest(model_ids=["x" * 500] * 10_000))
    assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@asynccontextmanager
async def serving(url: str, settings: PoolSettings) -> AsyncIterator[AsyncModelCatalogClient]:
    """A server over pools with bounds of a test's own."""
    async with Pools(url, settings) as pools:
        catalog = PostgresCatalog(pools)
        snapshots = Snapshots(catalog, Signal(), CurrentRevision())
        references = References(ReferenceIndexes(snapshots, Signal()))
        page_tokens = PageTokens(TokenSealer(bytes(32), "page"))
        reads = (
            CatalogReader(snapshots, references, page_tokens),
            ModelSearch(snapshots, page_tokens),
            OfferReader(snapshots, references, page_tokens),
            ComparisonReader(snapshots, references),
            FacetReader(snapshots),
        )
        server = RpcServer(
            "127.0.0.1:0",
            catalog=CatalogServicer(*reads, None),  # type: ignore[arg-type]  # reads do not ask it
            refresh=Misbehaving(),
            admin=NOBODY,
            with_reflection=False,
        )
        await server.start()
        async with AsyncModelCatalogClient(server.address, options=[("grpc.enable_retries", 0)]) as client:
            yield client
        await server.drain(0)


async def test_a_database_that_takes_too_long_is_a_deadline(loaded_database: str) -> None:
    async with (
        serving(loaded_database, PoolSettings(read_timeout_s=2)) as client,
        await psycopg.AsyncConnection.connect(loaded_database) as other,
    ):
        assert (await client.get_model("openai/gpt-5")).model.id
        await other.execute("LOCK TABLE models_metadata IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(client_errors.DeadlineExceededError) as caught:
            await client.get_model("openai/gpt-5")
        assert caught.value.reason == "DEADLINE"
        assert caught.value.message == "the database did not answer in time"
        await other.rollback()
        assert (await client.get_model("openai/gpt-5")).model.id


async def test_a_caller_whose_time_is_over_does_not_wait_for_the_database(loaded_database: str) -> None:
    async with (
        serving(loaded_database, PoolSettings(read_size=1)) as client,
        await psycopg.AsyncConnection.connect(loaded_database) as other,
    ):
        await other.execute("LOCK TABLE models_metadata IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(client_errors.DeadlineExceededError):
            await client.get_model("openai/gpt-5", timeout=0.2)
        await other.rollback()
        # The one connection is free again: what the caller left behind was cancelled.
        assert (await client.get_model("openai/gpt-5", timeout=10)).model.id


async def test_a_database_that_is_gone_is_unavailable_until_it_is_back(loaded_database: str) -> None:
    name = (await fetch(loaded_database, "SELECT current_database()"))[0]
    admin = loaded_database.replace(f"/{name}?", "/postgres?")
    async with serving(loaded_database, PoolSettings(acquire_timeout_s=2)) as client:
        assert (await client.get_model("openai/gpt-5")).model.id
        await fetch(admin, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        await fetch(admin, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", name)
        for _ in range(3):
            with pytest.raises(client_errors.DatabaseUnavailableError) as caught:
                await client.get_model("openai/gpt-5")
            assert caught.value.message == "the database cannot be reached"
        await fetch(admin, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        get_model: Any = client._connect().catalog.GetModel

        async def is_back() -> bool:
            return await error_of(get_model(pb.GetModelRequest(model_id="openai/gpt-5"))) is None

        await until(is_back)
        assert (await client.get_model("openai/gpt-5")).model.id
