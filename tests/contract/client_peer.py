"""A server that answers, or misbehaves, as a test scripts it, and one driver for both clients."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc import aio

from modelcatalog.v1 import catalog_admin_service_pb2, model_catalog_service_pb2, refresh_service_pb2
from modelcatalog.v1.catalog_admin_service_pb2_grpc import add_CatalogAdminServicer_to_server
from modelcatalog.v1.model_catalog_service_pb2_grpc import add_ModelCatalogServicer_to_server
from modelcatalog.v1.refresh_pb2 import RefreshStatus
from modelcatalog.v1.refresh_service_pb2_grpc import add_RefreshServiceServicer_to_server
from modelcatalog_client import AsyncModelCatalogClient, ModelCatalogClient
from modelcatalog_client.errors import CLASS_BY_REASON

RPCS = {
    rpc.name: rpc
    for module, service in (
        (model_catalog_service_pb2, "ModelCatalog"),
        (refresh_service_pb2, "RefreshService"),
        (catalog_admin_service_pb2, "CatalogAdmin"),
    )
    for rpc in module.DESCRIPTOR.services_by_name[service].methods
}

Behaviour = Callable[[Any, Any], Awaitable[Any]]


@dataclass
class Call:
    """What reached the server."""

    rpc: str
    request: Any
    metadata: dict[str, str | bytes]
    seconds: float | None


def answer(message: Message) -> Behaviour:
    async def behave(_request: Any, _context: Any) -> Message:
        return message

    return behave


def fail(reason: str, *, code: grpc.StatusCode | None = None, **metadata: str) -> Behaviour:
    """Aborts as the service does: details, and a request id in the trailer."""
    info = AnyMessage()
    info.Pack(error_details_pb2.ErrorInfo(reason=reason, domain="modelcatalog", metadata=metadata))
    details = status_pb2.Status(details=[info]).SerializeToString()

    async def behave(_request: Any, context: Any) -> None:
        trailers = (("grpc-status-details-bin", details), ("x-request-id", "r-1"))
        await context.abort(code or CLASS_BY_REASON[reason].code, f"failed: {reason}", trailers)

    return behave


async def hang(_request: Any, _context: Any) -> None:
    await asyncio.Event().wait()


@dataclass
class Peer:
    """The servicer of all three services. ``script`` has what to do next by RPC; after that, empty answers."""

    script: defaultdict[str, deque[Behaviour]] = field(default_factory=lambda: defaultdict(deque))
    streams: deque[list[RefreshStatus | Behaviour]] = field(default_factory=deque)
    calls: list[Call] = field(default_factory=list)
    open_streams: int = 0
    target: str = ""
    server: aio.Server | None = None
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def __getattr__(self, rpc: str) -> Behaviour:
        if rpc not in RPCS:
            raise AttributeError(rpc)

        async def handle(request: Any, context: Any) -> Any:
            await self._note(rpc, request, context)
            behaviours = self.script[rpc]
            empty = answer(RPCS[rpc].output_type._concrete_class())
            return await (behaviours.popleft() if behaviours else empty)(request, context)

        return handle

    async def WatchRefreshStatus(self, request: Any, context: Any) -> None:  # noqa: N802 -- the RPC's name
        self.open_streams += 1
        try:
            await self._note("WatchRefreshStatus", request, context)
            for step in self.streams.popleft() if self.streams else [hang]:
                if isinstance(step, RefreshStatus):
                    await context.write(refresh_service_pb2.WatchRefreshStatusResponse(status=step))
                else:
                    await step(request, context)
        finally:
            self.open_streams -= 1
            async with self._changed:
                self._changed.notify_all()

    async def _note(self, rpc: str, request: Any, context: Any) -> None:
        metadata = dict(context.invocation_metadata())
        async with self._changed:
            self.calls.append(Call(rpc, request, metadata, context.time_remaining()))
            self._changed.notify_all()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with self._changed:
            await asyncio.wait_for(self._changed.wait_for(condition), 30)

    async def stop(self) -> None:
        assert self.server is not None
        await self.server.stop(None)

    @property
    def tokens(self) -> list[str]:
        """The resume tokens of the watches, in order."""
        return [call.request.resume_token for call in self.calls if call.rpc == "WatchRefreshStatus"]


async def _be_healthy(_request: bytes, context: Any) -> None:
    await context.write(
        b"\x08\x01"
    )  # HealthCheckResponse with status SERVING; the client's own packages have no message
    await asyncio.Event().wait()


#: What clients ask before they call; where nobody answers it, gRPC says so on standard error.
HEALTHY: Any = grpc.unary_stream_rpc_method_handler(_be_healthy)


@asynccontextmanager
async def serving(
    peer: Peer, address: str = "127.0.0.1:0", credentials: grpc.ServerCredentials | None = None
) -> AsyncIterator[Peer]:
    server = aio.server(options=[("grpc.so_reuseport", 0)])
    add_ModelCatalogServicer_to_server(peer, server)  # type: ignore[arg-type]  # answers by name, below no servicer
    add_RefreshServiceServicer_to_server(peer, server)  # type: ignore[arg-type]  # answers by name, below no servicer
    add_CatalogAdminServicer_to_server(peer, server)  # type: ignore[arg-type]  # answers by name, below no servicer
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Watch": HEALTHY}),)
    )
    port = server.add_insecure_port(address) if credentials is None else server.add_secure_port(address, credentials)
    peer.target = f"127.0.0.1:{port}"
    peer.server = server
    await server.start()
    try:
        yield peer
    finally:
        await server.stop(None)


class AsyncDriver:
    """Drives the asynchronous client."""

    client_class: type = AsyncModelCatalogClient

    async def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return await function(*args, **kwargs)

    async def read(self, items: Any) -> list[Any]:
        return [item async for item in items]

    async def take(self, items: Any, count: int) -> list[Any]:
        iterator = aiter(items)
        return [await anext(iterator) for _ in range(count)]

    @asynccontextmanager
    async def client(self, target: str, **kwargs: Any) -> AsyncIterator[Any]:
        async with self.client_class(target, **kwargs) as client:
            yield client


class SyncDriver(AsyncDriver):
    """Drives the synchronous client, in threads, so that the peer's loop goes on."""

    client_class = ModelCatalogClient

    async def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return await asyncio.to_thread(function, *args, **kwargs)

    async def read(self, items: Iterable[Any]) -> list[Any]:
        return await asyncio.to_thread(list, items)

    async def take(self, items: Iterable[Any], count: int) -> list[Any]:
        iterator = iter(items)
        return [await asyncio.to_thread(next, iterator) for _ in range(count)]

    @asynccontextmanager
    async def client(self, target: str, **kwargs: Any) -> AsyncIterator[Any]:
        client = self.client_class(target, **kwargs)
        try:
            yield client
        finally:
            await asyncio.to_thread(client.close)


DRIVERS = [AsyncDriver(), SyncDriver()]
DRIVER_IDS = ["async", "sync"]
