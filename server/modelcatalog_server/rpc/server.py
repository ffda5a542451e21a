"""The gRPC server: the three services, health and reflection, on one address."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Collection, Mapping
from typing import Any, Self

import grpc
import structlog
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from modelcatalog.v1 import catalog_admin_service_pb2, model_catalog_service_pb2, refresh_service_pb2
from modelcatalog.v1.catalog_admin_service_pb2_grpc import add_CatalogAdminServicer_to_server
from modelcatalog.v1.model_catalog_service_pb2_grpc import add_ModelCatalogServicer_to_server
from modelcatalog.v1.refresh_service_pb2_grpc import add_RefreshServiceServicer_to_server
from modelcatalog_server.domain.errors import StartupError
from modelcatalog_server.domain.features import Feature
from modelcatalog_server.domain.spans import is_tracing
from modelcatalog_server.domain.tasks import end_tasks
from modelcatalog_server.rpc.accepting import new_server
from modelcatalog_server.rpc.admin_servicer import AdminServicer
from modelcatalog_server.rpc.admission import Admission
from modelcatalog_server.rpc.audit import AuditTrail
from modelcatalog_server.rpc.cached_reads import CachedReads
from modelcatalog_server.rpc.call_log import CallLog
from modelcatalog_server.rpc.call_measures import CallMeasures
from modelcatalog_server.rpc.calls import Calls
from modelcatalog_server.rpc.catalog_servicer import CatalogServicer
from modelcatalog_server.rpc.context import MethodHandler
from modelcatalog_server.rpc.health import HEALTH, Health
from modelcatalog_server.rpc.overload import MAX_STREAMS_PER_CALLER, Places
from modelcatalog_server.rpc.refresh_servicer import RefreshServicer
from modelcatalog_server.rpc.tls import ServerTls
from modelcatalog_server.rpc.traced import traced

_log = structlog.get_logger(__name__)

SERVICES = (
    model_catalog_service_pb2.DESCRIPTOR.services_by_name["ModelCatalog"].full_name,
    refresh_service_pb2.DESCRIPTOR.services_by_name["RefreshService"].full_name,
    catalog_admin_service_pb2.DESCRIPTOR.services_by_name["CatalogAdmin"].full_name,
)

#: Health entry that serves from when the server listens until it drains, whatever the state of the catalog. The typed
#: client watches it on each connection, and so has left before the server stops listening.
ACCEPTING = "modelcatalog.accepting"

_OPTIONS = (
    # Below the clients' interval of 30 s: a watch that is idle must not die of "too many pings".
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.max_receive_message_length", 1024 * 1024),
    # Of a connection. A call costs memory from its headers on, and before its request is there nothing else counts it.
    ("grpc.max_concurrent_streams", 1000),
    # Of a method, calls that the event loop has not come to. Beyond a thousand gRPC's core would cancel some at random,
    # from whichever connection, beyond three thousand all: one caller could have that happen to all others.
    ("grpc.server.max_pending_requests", 20_000),
    ("grpc.server.max_pending_requests_hard_limit", 20_000),
)

# A machine that does everything else as well lets clients hear late that they should leave: the server looks so often,
# and they have left when so many looks in a row have seen no call. Looks and not time: who is starved looks later, too.
_LOOK_INTERVAL_S = 0.05
_QUIET_LOOKS = 5
#: So long those who go on calling are answered; some never look at health.
LEAVING_S = 5.0


class RpcServer:
    """Listens from ``start`` on; ``drain`` ends it politely.

    Health is NOT_SERVING until ``set_serving(True)``.

    With ``shares_port`` others listen on the same address, and somebody has reserved it for all of them. No ``tls``:
    connections are not encrypted.
    """

    def __init__(
        self,
        listen: str,
        *,
        catalog: CatalogServicer,
        refresh: RefreshServicer,
        admin: AdminServicer,
        with_reflection: bool,
        shares_port: bool = False,
        audit: AuditTrail | None = None,
        cached_reads: CachedReads | None = None,
        call_log: CallLog | None = None,
        admission: Admission | None = None,
        places: Places | None = None,
        streams_per_caller: int = MAX_STREAMS_PER_CALLER,
        tls: ServerTls | None = None,
        measures: CallMeasures | None = None,
        features: Collection[Feature] = tuple(Feature),
    ) -> None:
        self._listen = listen
        self._tls = tls
        self._catalog = catalog
        self._refresh = refresh
        self._admin = admin
        self._with_reflection = with_reflection
        self._shares_port = shares_port
        self._health = Health()
        self._measures = measures or CallMeasures()
        self._calls = Calls(
            audit,
            cached_reads,
            call_log,
            admission,
            places=places,
            streams_per_caller=streams_per_caller,
            measures=self._measures,
            features=features,
        )
        self._server: grpc.aio.Server | None = None
        self._end: asyncio.Task[bool] | None = None
        self.address = listen
        self._is_ready = self._is_draining = False

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
            names = (*SERVICES, HEALTH, reflection.SERVICE_NAME)
            servicer = reflection.aio.ReflectionServicer(names)
            reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, handlers)  # type: ignore[no-untyped-call] # it ships no types
        # Two servers on one port would share its calls without anybody having asked for it.
        sharing = ("grpc.so_reuseport", int(self._shares_port))
        server = new_server(handlers.by_method, (sharing, *_OPTIONS), self._measures.note_unknown)
        self.set_serving(False)
        self._health.set(ACCEPTING, True)
        if not self._shares_port:
            _check_free(self._listen)
        try:
            port = self._open_port(server)
        except RuntimeError as error:
            raise _refusal(self._listen, "the address is taken or not ours") from error
        self.address = f"{self._listen.rpartition(':')[0]}:{port}"
        await server.start()
        self._server = server
        # A task of its own, never cancelled: grpc takes a cancelled wait for the end itself.
        self._end = asyncio.create_task(server.wait_for_termination(), name="grpc-end")
        return self

    def _open_port(self, server: grpc.aio.Server) -> int:
        if self._tls is None:
            return server.add_insecure_port(self._listen)
        return server.add_secure_port(self._listen, self._tls.credentials())

    @property
    def is_serving(self) -> bool:
        """Whether health says SERVING."""
        return self._is_ready and not self._is_draining

    def set_serving(self, serving: bool) -> None:
        """Set the health of the server ("") and of each service."""
        for service in ("", *SERVICES):
            self._health.set(service, serving)
        self._is_ready = serving

    async def end(self) -> str:
        """Wait until nothing listens any more, by :meth:`drain` or by a fault within grpc, and return what to say."""
        assert self._end is not None, "it was started"  # noqa: S101 - a broken invariant, not a check
        await asyncio.wait({self._end})
        return "the gRPC server has stopped by itself: the lines before this one may say why"

    async def drain(self, grace_s: float, *, delay_s: float = 0) -> None:
        """Turn not ready, end the streams, and ``delay_s`` later stop, within ``grace_s`` seconds for unary calls.

        In between they are answered as ever. Where ``delay_s`` is not 0, this goes on while calls still come in, for
        5 s or half of ``grace_s``, which has so much less left then. gRPC itself refuses, with CANCELLED, what comes in
        after it has stopped, and what it has not handed over yet: whoever looks at health is gone by then.
        """
        if self._server is None:
            return
        self._is_draining = True
        self._health.end()
        self._calls.refuse_streams()
        if delay_s:
            grace_s -= await self._wait_until_left(delay_s, min(LEAVING_S, grace_s / 2))
        ending = asyncio.create_task(self._calls.end_streams(), name="end-streams")
        try:
            await self._server.stop(grace_s)
        finally:
            await end_tasks(ending)

    async def _wait_until_left(self, delay_s: float, limit_s: float) -> float:
        """Wait so long, and on while calls come in, for ``limit_s`` at most; return how long that further wait was."""
        loop = asyncio.get_running_loop()
        due, looks, seen = loop.time() + delay_s, 0, self._measures.count_started()
        while (now := loop.time()) < due or (looks < _QUIET_LOOKS and now < due + limit_s):
            await asyncio.sleep(_LOOK_INTERVAL_S)
            started = self._measures.count_started()
            looks, seen = (looks + 1, seen) if started == seen else (0, started)
        return loop.time() - due


class _Handlers:
    """Takes from the generated code, in the place of a server, what it registers, and has it wrapped."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self.by_method: dict[str, MethodHandler] = {}

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, MethodHandler]) -> None:
        """Called by the generated code."""
        for name, handler in handlers.items():
            method = f"/{service}/{name}"
            wrapped = self._calls.wrap(method, handler)
            is_traced = is_tracing() and not method.startswith("/grpc.health.")
            self.by_method[method] = traced(method, wrapped) if is_traced else wrapped

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """Called by the generated code, with the same handlers in another form."""


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
