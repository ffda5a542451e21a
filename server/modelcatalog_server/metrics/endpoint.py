"""The HTTP server of a process: ``/metrics``, ``/healthz`` and ``/readyz``.

Imports what takes a fifth of a second to import: only to be imported, off the event loop, when the service is ready.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import structlog
from aiohttp import web
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import Metric

from modelcatalog_server.domain.tasks import end_tasks
from modelcatalog_server.metrics.facts import Facts
from modelcatalog_server.metrics.families import ServiceCollector
from modelcatalog_server.metrics.listening import address_of
from modelcatalog_server.metrics.sources import Sources

_log = structlog.get_logger(__name__)

# For who is still being answered when the process ends.
_END_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True)
class Answers:
    """What is answered. ``render`` returns the metrics in Prometheus' text format."""

    render: Callable[[], Coroutine[Any, Any, bytes]]
    is_ready: Callable[[], Awaitable[bool]]


class _Collected:
    """Stands for a registry that has been read."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterator[Metric]:
        return iter(self._families)


def answers_of(sources: Sources) -> Answers:
    """Return the answers of one process."""
    facts = Facts(sources)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(ServiceCollector(sources, facts))
    for library in (ProcessCollector, PlatformCollector, GCCollector):
        library(registry=registry)

    async def render() -> bytes:
        await facts.update()
        # Read in one go, so that nothing changes meanwhile; the text takes longer, and calls are not to wait for it.
        return await asyncio.to_thread(generate_latest, cast("CollectorRegistry", _Collected(registry.collect())))

    async def is_ready() -> bool:
        return sources.is_ready()

    return Answers(render, is_ready)


@asynccontextmanager
async def answering(bound: socket.socket, answers: Answers) -> AsyncIterator[None]:
    """Answer on a socket that listens."""
    rendered = _Shared(answers.render)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=await rendered.get(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        ready = await answers.is_ready()
        return web.Response(text="ok\n" if ready else "not ready\n", status=200 if ready else 503)

    app = web.Application()
    app.add_routes([web.get("/metrics", metrics), web.get("/healthz", healthz), web.get("/readyz", readyz)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_END_TIMEOUT_S)
    await runner.setup()
    try:
        await web.SockSite(runner, bound).start()
        _log.info("metrics are shown", address=address_of(bound))
        yield
    finally:
        await runner.cleanup()
        await rendered.close()


class _Shared:
    """Has who asks while something is made wait for that: however many ask, it is made once at a time."""

    def __init__(self, make: Callable[[], Coroutine[Any, Any, bytes]]) -> None:
        self._make = make
        self._making: asyncio.Task[bytes] | None = None

    async def get(self) -> bytes:
        if self._making is None or self._making.done():
            self._making = asyncio.create_task(self._make(), name="metrics-rendering")
        return await asyncio.shield(self._making)  # who goes away takes it from nobody

    async def close(self) -> None:
        if self._making is not None:
            await end_tasks(self._making)
