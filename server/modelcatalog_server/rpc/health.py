"""Health as grpc.health.v1 has it, for many watchers, none of whom holds up another one.

The servicer of grpcio-health-checking (1.84) writes to a watcher inside of the lock that a change of status takes: one
connection with a window of nothing, from anybody, and no status changes any more, not even for stopping.
"""

from __future__ import annotations

import asyncio

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from modelcatalog_server.rpc.context import Context

#: Full name of the service.
HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

_SERVING, _NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class Health(health_pb2_grpc.HealthServicer):
    """Knows whether each service serves. ``""`` is the server as a whole."""

    def __init__(self) -> None:
        self._statuses: dict[str, int] = {}
        self._changed = asyncio.Event()
        self._is_ending = False

    def set(self, service: str, serving: bool) -> None:
        """Say of a service whether it serves, unless all of it is ending."""
        if not self._is_ending:
            self._statuses[service] = _SERVING if serving else _NOT_SERVING
            self._wake()

    def end(self) -> None:
        """Say of every service, for good, that it does not serve."""
        self._is_ending = True
        self._statuses = dict.fromkeys(self._statuses, _NOT_SERVING)
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Context) -> health_pb2.HealthCheckResponse:  # noqa: N802 -- the contract's name
        """Return the status of a service that there is."""
        if request.service not in self._statuses:
            await context.abort(grpc.StatusCode.NOT_FOUND)
        return health_pb2.HealthCheckResponse(status=self._statuses[request.service])

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Context) -> None:  # noqa: N802 -- as above
        """Write the status now, and each time that it is another one; what a slow reader misses is not made up for."""
        told: int | None = None
        while True:
            changed = self._changed  # before the status is looked at: a change while it is written counts
            status = self._statuses.get(request.service, _UNKNOWN)
            if status != told:
                await context.write(health_pb2.HealthCheckResponse(status=status))
                told = status
            await changed.wait()
