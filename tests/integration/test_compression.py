"""What goes over the wire: compressed where the caller asks for it and it is worth it, and nowhere else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
import pytest_asyncio

from conftest import Services, make_settings
from fault_proxy import stop_listening
from modelcatalog.v1 import model_catalog_service_pb2 as pb
from modelcatalog.v1.model_catalog_service_pb2_grpc import ModelCatalogStub
from modelcatalog.v1.model_pb2 import MODEL_VIEW_FULL
from modelcatalog_client import AsyncModelCatalogClient
from modelcatalog_server import app
from modelcatalog_server.domain.tasks import end_tasks
from modelcatalog_server.rpc.compression import MAX_BYTES, MIN_BYTES

pytestmark = pytest.mark.asyncio(loop_scope="module")

ASKING = (("x-catalog-accept-encoding", "gzip"),)
#: Headers, trailers and frames around a response.
AROUND = 600


@dataclass
class Wire:
    """A way to the server that counts what comes back over it."""

    address: str
    received: int = 0


@asynccontextmanager
async def wire_to(address: str) -> AsyncIterator[Wire]:
    host, _, port = address.rpartition(":")
    tasks: set[asyncio.Task[None]] = set()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, counted: bool = False) -> None:
        try:
            while chunk := await reader.read(65536):
                wire.received += len(chunk) if counted else 0
                writer.write(chunk)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(host, int(port))
        for copying in (copy(reader, there_writer), copy(there_reader, writer, counted=True)):
            task = asyncio.create_task(copying)
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    wire = Wire(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
    try:
        yield wire
    finally:
        await stop_listening(server)
        await end_tasks(*tasks)


@pytest.fixture(scope="module")
def database(templates: Services) -> Iterator[str]:
    url = templates.clone("mc_loaded")
    yield url
    templates.drop(url)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[20_000, 0], ids=["cached", "not cached"])
async def running(templates: Services, database: str, request: pytest.FixtureRequest) -> AsyncIterator[app.App]:
    settings = make_settings(templates, database, offline=True, cache_entries=request.param)
    async with app.start(settings) as running:
        yield running


async def size_of(
    running: app.App, method: str, request: Any, metadata: tuple[tuple[str, str], ...] = ()
) -> tuple[Any, int]:
    """Return what a call answers the second time, and what that took on the wire."""
    async with wire_to(running.server.address) as wire, grpc.aio.insecure_channel(wire.address) as channel:
        call = getattr(ModelCatalogStub(channel), method)
        await call(request, metadata=metadata)
        before = wire.received
        return await call(request, metadata=metadata), wire.received - before


def page(size: int) -> pb.ListModelsRequest:
    return pb.ListModelsRequest(page_size=size)


async def test_a_large_response_is_compressed_for_who_asks(running: app.App) -> None:
    plain, plain_size = await size_of(running, "ListModels", page(100))
    packed, packed_size = await size_of(running, "ListModels", page(100), ASKING)
    assert packed.models == plain.models
    assert MIN_BYTES < plain.ByteSize() < plain_size
    assert packed_size < plain_size / 3


@pytest.mark.parametrize("value", ["", "identity", "deflate", "gzipped"])
async def test_who_does_not_ask_for_gzip_never_gets_it(running: app.App, value: str) -> None:
    """Also right behind somebody who did, on the same server."""
    await size_of(running, "ListModels", page(100), ASKING)
    response, size = await size_of(running, "ListModels", page(100), (("x-catalog-accept-encoding", value),))
    assert size > response.ByteSize()


@pytest.mark.parametrize("value", ["deflate, gzip", "GZIP", "Deflate,GZip"])
async def test_among_other_names_and_in_any_case_it_is_found(running: app.App, value: str) -> None:
    asking = (("x-catalog-accept-encoding", value),)
    response, size = await size_of(running, "ListModels", page(100), asking)
    assert size < response.ByteSize() / 3


async def test_what_is_small_or_would_take_too_long_stays_as_it_is(running: app.App) -> None:
    small, small_size = await size_of(running, "GetModel", pb.GetModelRequest(model_id="openai/gpt-5"), ASKING)
    assert small.ByteSize() < MIN_BYTES
    assert small.ByteSize() < small_size < small.ByteSize() + AROUND
    large, large_size = await size_of(
        running, "ListModels", pb.ListModelsRequest(page_size=1000, view=MODEL_VIEW_FULL), ASKING
    )
    assert large.ByteSize() > MAX_BYTES
    assert large_size > large.ByteSize()


async def test_an_error_is_told_to_who_asks_as_to_everybody(running: app.App) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await size_of(running, "GetModel", pb.GetModelRequest(model_id="openai/no-such-model"), ASKING)
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND


async def test_the_typed_client_asks_where_it_is_made_to(running: app.App) -> None:
    async with wire_to(running.server.address) as wire:
        sizes = []
        for compression in (None, grpc.Compression.Gzip):
            async with AsyncModelCatalogClient(wire.address, compression=compression) as client:
                before = wire.received
                assert len((await anext(client.list_models(page_size=100).pages())).models) == 100
                sizes.append(wire.received - before)
    assert sizes[1] < sizes[0] / 3
