"""Whatever is sent, what comes back is documented, the log has no fault, and the server answers the next caller.

``make security`` sends 100,000 requests; FUZZ_REQUESTS and FUZZ_SEED say how many and which.
"""

# ruff: noqa: S311 -- what is drawn here is no secret

from __future__ import annotations

import asyncio
import gzip
import logging
import os
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from conftest import Services, make_settings
from contract.client_peer import RPCS
from fuzzing import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    call_headers,
    frame,
    garbage_connections,
    grpc_message,
    mutate,
    requests,
)
from modelcatalog.v1 import model_catalog_service_pb2 as pb
from modelcatalog.v1.model_catalog_service_pb2_grpc import ModelCatalogStub
from modelcatalog_server import app
from modelcatalog_server.rpc.errors import TABLE
from seeds import seed_of
from small_catalog import SmallCatalog, clone_small
from upstream_server import UpstreamServer

pytestmark = pytest.mark.asyncio(loop_scope="module")

COUNT = int(os.environ.get("FUZZ_REQUESTS", "2000"))
SEED = seed_of("FUZZ_SEED")
#: Requests of one structured example, and how many of all requests are structured.
TOGETHER, STRUCTURED = 8, COUNT // 5
AT_ONCE = 16
#: No call may take longer than this, in seconds.
PATIENCE_S = 30

DOCUMENTED = {(code, reason) for code, reason in TABLE.values()}
#: Refusals of gRPC itself, which have no reason (docs/errors.md): a message or metadata that is too large.
OF_GRPC = {(grpc.StatusCode.RESOURCE_EXHAUSTED, "")}


@dataclass
class Target:
    """A server, and what it said to what was sent."""

    address: str
    channel: grpc.aio.Channel
    outcomes: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0

    async def send(self, name: str, body: bytes, metadata: Sequence[tuple[str, str | bytes]] = ()) -> tuple[Any, str]:
        """Send bytes as the request of an RPC. Returns code and reason, which are documented."""
        rpc = RPCS[name]
        method = f"/{rpc.containing_service.full_name}/{name}"
        began = time.monotonic()
        open_call: Any = self.channel.unary_stream if rpc.server_streaming else self.channel.unary_unary
        call = open_call(method)(body, timeout=PATIENCE_S, metadata=metadata)
        if rpc.server_streaming and await begins(call):
            call.cancel()  # it may go on for ever
            code, reason = grpc.StatusCode.OK, ""
        else:
            code, reason = await call.code(), reason_of(await call.trailing_metadata())
        self.slowest_s = max(self.slowest_s, time.monotonic() - began)
        self.outcomes[f"{code.name} {reason}".strip()] += 1
        if code is not grpc.StatusCode.OK:
            assert (code, reason) in DOCUMENTED, f"{name}({body!r}): {code} {reason!r} {await call.details()}"
            said = f"{await call.details()} {await call.trailing_metadata()}"
            assert not any(word in said for word in ("Traceback", "SELECT", "psycopg", "line ")), said
        return code, reason

    async def still_answers(self) -> None:
        """Ask what a caller asks who knows nothing of all this."""
        answer = await ModelCatalogStub(self.channel).GetProvider(
            pb.GetProviderRequest(provider_id="openai"), timeout=20
        )
        assert answer.provider.id == "openai"
        health: Any = health_pb2_grpc.HealthStub(self.channel)
        check = await health.Check(health_pb2.HealthCheckRequest(), timeout=20)
        assert check.status == health_pb2.HealthCheckResponse.SERVING


async def begins(call: Any) -> bool:
    """Whether a stream has a first message."""
    try:
        return await call.read() is not grpc.aio.EOF
    except grpc.RpcError:
        return False


def reason_of(trailers: Any) -> str:
    for key, value in trailers or ():
        if key == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info):
                    assert info.domain == "modelcatalog"
                    return str(info.reason)
    return ""


class Records(logging.Handler):
    """Keeps what goes to the standard library's log: asyncio and grpc tell of exceptions that nobody handled there."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture(scope="module")
def database(templates: Services) -> Iterator[str]:
    yield from clone_small(templates)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def target(templates: Services, database: str) -> AsyncIterator[Target]:
    async with UpstreamServer() as upstream:
        upstream.serve("/catalog.json", SmallCatalog().body)
        async with (
            app.start(make_settings(templates, database, upstream_url=upstream.url)) as running,
            grpc.aio.insecure_channel(running.server.address, options=[("grpc.enable_retries", 0)]) as channel,
        ):
            running.server.set_serving(True)
            yield Target(running.server.address, channel)


@pytest.fixture(autouse=True)
def no_fault_in_the_log() -> Any:
    records = Records()
    logging.getLogger().addHandler(records)
    with capture_logs() as logs:
        yield
    logging.getLogger().removeHandler(records)
    assert [line for line in logs if line["log_level"] in ("error", "critical") or "exc_info" in line] == []
    assert [record.getMessage() for record in records.records] == []


async def tokens_of(target: Target) -> list[str]:
    """Return page tokens that are good."""
    stub = ModelCatalogStub(target.channel)
    listings = (pb.ListModelsRequest(page_size=2), pb.ListModelsRequest(page_size=2, order_by="pricing.input desc"))
    return [(await stub.ListModels(listing)).next_page_token for listing in listings]


def _settings(examples: int) -> settings:
    return settings(
        max_examples=examples,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )


# --- requests ------------------------------------------------------------------------------------------------------


# The server, in another thread, draws numbers while examples are made, which Hypothesis takes for theirs.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")
async def test_structured_requests_give_documented_answers(target: Target) -> None:
    tokens = await tokens_of(target)
    calls = st.lists(requests(tokens), min_size=TOGETHER, max_size=TOGETHER)
    loop = asyncio.get_running_loop()

    @seed(SEED)
    @_settings(STRUCTURED // TOGETHER)
    @given(calls)
    def send(calls: list[tuple[str, Message]]) -> None:
        sending = send_all(target, [(name, message.SerializeToString()) for name, message in calls])
        asyncio.run_coroutine_threadsafe(sending, loop).result()

    await asyncio.to_thread(send)
    await target.still_answers()
    print(f"\nstructured, seed {SEED}: {target.outcomes.total()} requests, slowest {target.slowest_s:.2f} s")
    print(dict(target.outcomes.most_common()))


async def send_all(target: Target, calls: Sequence[tuple[str, bytes]]) -> None:
    await asyncio.gather(*(target.send(name, body) for name, body in calls))


@pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")
async def test_broken_bytes_give_documented_answers(target: Target) -> None:
    rng = random.Random(SEED)
    corpus = await make_corpus(target)
    before = target.outcomes.copy()
    left = iter(range(COUNT - STRUCTURED))

    async def go_on() -> None:
        for _ in left:
            name, body = rng.choice(corpus)
            await target.send(name, mutate(rng, body))

    await asyncio.gather(*(go_on() for _ in range(AT_ONCE)))
    await target.still_answers()
    outcomes = target.outcomes - before
    print(f"\nbroken bytes, seed {SEED}: {outcomes.total()} requests, slowest {target.slowest_s:.2f} s")
    print(dict(outcomes.most_common()))
    assert outcomes["OK"], "mutations leave some requests good"
    assert outcomes["INVALID_ARGUMENT INVALID_QUERY"], "and most not"


async def make_corpus(target: Target) -> list[tuple[str, bytes]]:
    """Return good requests of every RPC, and of every other field."""
    tokens = await tokens_of(target)
    corpus: list[tuple[str, bytes]] = []

    @seed(SEED)
    @_settings(300)
    @given(requests(tokens))
    def keep(call: tuple[str, Message]) -> None:
        name, message = call
        corpus.append((name, message.SerializeToString()))

    await asyncio.to_thread(keep)
    return corpus + [(name, b"\n\x0copenai/gpt-5") for name in RPCS]


# --- metadata ------------------------------------------------------------------------------------------------------

GET = pb.GetModelRequest(model_id="openai/gpt-5").SerializeToString()
REVISION = "x-catalog-min-revision"


@pytest.mark.parametrize(
    "value",
    ["", "-1", "1.5", "x", "9" * 19, "1" * 4000, "1;2", "'--", "0x1", "+1", " 1 ", "1e3", "NaN", "1_0"],
)
async def test_a_revision_that_is_none_is_refused(target: Target, value: str) -> None:
    outcome = await target.send("GetModel", GET, [(REVISION, value)])
    assert outcome == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_QUERY")


@pytest.mark.parametrize(
    "metadata",
    [
        [(f"x-{index}", "y") for index in range(200)],
        [("x-catalog-accept-encoding", "gzip")] * 100,
        [("x-bin", os.urandom(2000))],
        [(f"x-{index}-bin", b"") for index in range(100)],
        [("authorization", "Bearer " + "x" * 4000)],
        [("authorization", "Basic eDp5")],
        [("traceparent", "00-" + "f" * 32)],
        [(REVISION, "1"), (REVISION, "x")],
    ],
    ids=["many", "the same", "binary", "many binary", "a long token", "another scheme", "a trace", "two revisions"],
)
async def test_odd_metadata_is_taken_or_refused(target: Target, metadata: Sequence[tuple[str, str | bytes]]) -> None:
    await target.send("GetModel", GET, metadata)
    await target.send("StartRefresh", b"\x30\x01", metadata)
    await target.still_answers()


@pytest.mark.parametrize("size", [64 * 1024, 1024 * 1024])
async def test_metadata_without_end_is_refused_by_grpc_itself(target: Target, size: int) -> None:
    call: Any = target.channel.unary_unary("/modelcatalog.v1.ModelCatalog/GetModel")
    call = call(GET, metadata=[("x-large", "y" * size)], timeout=PATIENCE_S)
    assert (await call.code(), reason_of(await call.trailing_metadata())) in OF_GRPC
    await target.still_answers()


async def test_a_message_beyond_a_mebibyte_is_refused_also_one_that_is_compressed(target: Target) -> None:
    bomb = b"\n" + b"\x80\x80\x80\x20" + bytes(64 * 1024 * 1024)
    assert len(gzip.compress(bomb)) < 128 * 1024
    for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
        call: Any = target.channel.unary_unary("/modelcatalog.v1.ModelCatalog/GetModel")
        call = call(bomb, compression=compression, timeout=PATIENCE_S)
        assert (await call.code(), reason_of(await call.trailing_metadata())) in OF_GRPC
    await target.still_answers()


# --- below gRPC ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", [what for what, _ in garbage_connections(random.Random(0))])
async def test_garbage_on_a_connection_harms_nobody_else(target: Target, what: str) -> None:
    garbage = dict(garbage_connections(random.Random(SEED)))[what]
    host, _, port = target.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(garbage)
        said = await listen(reader)
    finally:
        writer.transport.abort()
    assert b"Traceback" not in said
    assert b"psycopg" not in said
    await target.still_answers()


async def test_a_connection_begins_only_so_many_calls_that_never_send_their_request(target: Target) -> None:
    begin = call_headers(b"/modelcatalog.v1.ModelCatalog/GetModel")
    host, _, port = target.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(PREFACE + frame(SETTINGS, 0, 0, b""))
        # The bound is among the server's settings, and holds when they are acknowledged: type 4, no flags, stream 0.
        await listen_for(reader, b"\4\0\0\0\0\0")
        begun = [frame(HEADERS, END_HEADERS, 2 * number + 1, begin) for number in range(1100)]
        writer.write(frame(SETTINGS, ACK, 0, b"") + b"".join(begun))
        refused = frame(RST_STREAM, 0, 2199, (7).to_bytes(4, "big"))  # REFUSED_STREAM
        await listen_for(reader, refused)
    finally:
        writer.transport.abort()
    await target.still_answers()


async def test_calls_that_wait_to_be_taken_in_cost_nobody_else_a_call(target: Target) -> None:
    """Left to itself, gRPC cancels some of those that come when a thousand wait, and all when three thousand do."""
    begin = call_headers(b"/modelcatalog.v1.ModelCatalog/GetModel")
    begun = b"".join(frame(HEADERS, END_HEADERS, 2 * number + 1, begin) for number in range(1000))
    host, _, port = target.address.rpartition(":")
    sent = threading.Event()

    def begin_many_and_ask() -> str:
        with ExitStack() as stack:
            for _ in range(4):
                connection = stack.enter_context(socket.create_connection((host, int(port)), timeout=PATIENCE_S))
                connection.sendall(PREFACE + frame(SETTINGS, 0, 0, b"") + frame(SETTINGS, ACK, 0, b"") + begun)
            time.sleep(0.3)  # for gRPC's own threads to read that
            with grpc.insecure_channel(target.address, [("grpc.enable_retries", 0)]) as channel:
                # Not one of its models, for what was sent before may have hidden them.
                call = ModelCatalogStub(channel).GetProvider.future(
                    pb.GetProviderRequest(provider_id="openai"), timeout=PATIENCE_S
                )
                time.sleep(0.3)  # and that
                sent.set()
                return str(call.result().provider.id)

    asking = asyncio.get_running_loop().run_in_executor(None, begin_many_and_ask)
    sent.wait(PATIENCE_S)  # on purpose without await: meanwhile the server takes nothing in
    assert await asking == "openai"
    await target.still_answers()


@pytest.mark.parametrize("revision", ["²", "٣"])
async def test_a_revision_of_digits_that_are_no_ascii_is_refused_of_what_is_at_hand_too(
    target: Target, revision: str
) -> None:
    await target.send("GetModel", GET)
    path = b"/modelcatalog.v1.ModelCatalog/GetModel"
    host, _, port = target.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        begin = frame(HEADERS, END_HEADERS, 1, call_headers(path, (REVISION.encode(), revision.encode())))
        writer.write(PREFACE + frame(SETTINGS, 0, 0, b"") + begin + frame(DATA, END_STREAM, 1, grpc_message(GET)))
        said = await listen_for(reader, b"x-catalog-min-revision: must be a revision number")
    finally:
        writer.transport.abort()
    assert b"ValueError" not in said


async def listen_for(reader: asyncio.StreamReader, words: bytes) -> bytes:
    """Return what the server says until it has said this and then for a while nothing more."""
    said = b""
    async with asyncio.timeout(PATIENCE_S):
        while words not in said:
            piece = await reader.read(65536)
            assert piece, said
            said += piece
    return said + await listen(reader)


async def listen(reader: asyncio.StreamReader) -> bytes:
    """Return what the server says until it closes the connection or has nothing to say."""
    said = b""
    try:
        while piece := await asyncio.wait_for(reader.read(65536), 0.1):
            said += piece
    except (TimeoutError, ConnectionError):
        pass
    return said


async def test_garbage_on_many_connections_at_once_harms_nobody(target: Target) -> None:
    rng = random.Random(SEED)
    host, _, port = target.address.rpartition(":")
    kinds = garbage_connections(rng)
    count = max(COUNT // 100, 40)

    async def meddle() -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(rng.choice(kinds)[1][: rng.randrange(1, 20_000)])
            await listen(reader)
        finally:
            writer.transport.abort()

    for _ in range(0, count, AT_ONCE):
        await asyncio.gather(*(meddle() for _ in range(AT_ONCE)))
        await target.still_answers()
    print(f"\nconnections of garbage, seed {SEED}: {count}")
