"""The gRPC server: the three services, health and reflection, on one address."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from typing import Any, Self

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from modelcatalog.v1 import catalog_admin_service_pb2, model_catalog_service_pb2, refresh_service_pb2
from modelcatalog.v1.catalog_admin_service_pb2_grpc import add_CatalogAdminServicer_to_server
from modelcatalog.v1.model_catalog_service_pb2_grpc import add_ModelCatalogServicer_to_server
from modelcatalog.v1.refresh_service_pb2_grpc import add_RefreshServiceServicer_to_server
from modelcatalog_server.domain.errors import StartupError
from modelcatalog_server.domain.tasks import end_tasks
from modelcatalog_server.rpc.admin_servicer import AdminServicer
from modelcatalog_server.rpc.audit import AuditTrail
from modelcatalog_server.rpc.cached_reads import CachedReads
from modelcatalog_server.rpc.calls import Calls
from modelcatalog_server.rpc.catalog_servicer import CatalogServicer
from modelcatalog_server.rpc.context import MethodHandler
from modelcatalog_server.rpc.refresh_servicer import RefreshServicer

_log = structlog.get_logger(__name__)

SERVICES = (
    model_catalog_service_pb2.DESCRIPTOR.services_by_name["ModelCatalog"].full_name,
    refresh_service_pb2.DESCRIPTOR.services_by_name["RefreshService"].full_name,
    catalog_admin_service_pb2.DESCRIPTOR.services_by_name["CatalogAdmin"].full_name,
)

_OPTIONS = (
    # Two servers on one port would share its calls without anybody having asked for it.
    ("grpc.so_reuseport", 0),
    # Below the clients' interval of 30 s: a watch that is idle must not die of "too many pings".
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.max_receive_message_length", 1024 * 1024),
)


class RpcServer:
    """Listens from ``start`` on; ``drain`` ends it politely.

    Health is NOT_SERVING until ``set_serving(True)``.
    """

    def __init__(
        self,
        listen: str,
        *,
        catalog: CatalogServicer,
        refresh: RefreshServicer,
        admin: AdminServicer,
        with_reflection: bool,
        audit: AuditTrail | None = None,
        cached_reads: CachedReads | None = None,
    ) -> None:
        self._listen = listen
        self._catalog = catalog
        self._refresh = refresh
        self._admin = admin
        self._with_reflection = with_reflection
        self._health = health.aio.HealthServicer()
        self._calls = Calls(audit, cached_reads)
        self._server: grpc.aio.Server | None = None
        self.address = listen

    async def start(self) -> Self:
        """Bind and listen.

        Raises:
            StartupError: the address cannot be bound.
        """
        handlers: Any = _Handlers(self._calls)  # in the place of a server, which the stubs do not know
        add_ModelCatalogServicer_to_server(self._catalog, handlers)
        add_RefreshServiceServicer_to_server(self._refresh, handlers)
        add_CatalogAdminServicer_to_server(self._admin, handlers)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, handlers)
        if self._with_reflection:
            names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
            servicer = reflection.aio.ReflectionServicer(names)
            reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, handlers)  # type: ignore[no-untyped-call] # it ships no types
        server = grpc.aio.server(handlers=(handlers,), options=_OPTIONS)
        await self.set_serving(False)
        _check_free(self._listen)
        try:
            port = server.add_insecure_port(self._listen)
        except RuntimeError as error:
            raise _refusal(self._listen, "the address is taken or not ours") from error
        self.address = f"{self._listen.rpartition(':')[0]}:{port}"
        await server.start()
        self._server = server
        return self

    async def set_serving(self, serving: bool) -> None:
        """Set the health of the server ("") and of each service."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in ("", *SERVICES):
            await self._health.set(service, status)

    async def drain(self, grace_s: float) -> None:
        """Turn not ready, end the streams, let unary calls finish, and stop; within ``grace_s`` seconds."""
        if self._server is None:
            return
        await self._health.enter_graceful_shutdown()
        ending = asyncio.create_task(self._calls.end_streams(), name="end-streams")
        try:
            await self._server.stop(grace_s)
        finally:
            await end_tasks(ending)


class _Handlers(grpc.GenericRpcHandler):
    """Takes from the generated code, in the place of a server, what it registers, and gives it to grpc wrapped."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._by_method: dict[str, MethodHandler] = {}

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, MethodHandler]) -> None:
        """Called by the generated code."""
        for name, handler in handlers.items():
            method = f"/{service}/{name}"
            self._by_method[method] = self._calls.wrap(method, handler)

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """Called by the generated code, with the same handlers in another form."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> MethodHandler | None:
        """Return what answers a method; of an unknown one ``None``, which reflection's fallback depends on."""
        return self._by_method.get(handler_call_details.method)


def _check_free(listen: str) -> None:
    """Refuse an address that cannot be bound, for the system's reason. gRPC keeps that to log lines of its own.

    Raises:
        StartupError: none of the addresses that it stands for can be bound.
    """
    host, _, port = listen.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise _refusal(listen, error.strerror) from error
    reasons = [_reason_not_to_bind(family, address) for family, _, _, _, address in found]
    if None not in reasons:
        raise _refusal(listen, reasons[0])


def _reason_not_to_bind(family: int, address: Any) -> str | None:
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gRPC does: who closed it may linger
            probe.bind(address)
    except OSError as error:
        return error.strerror
    return None


def _refusal(listen: str, reason: str | None) -> StartupError:
    return StartupError(f"cannot listen on {listen}: {reason}. Choose another with --listen.")
