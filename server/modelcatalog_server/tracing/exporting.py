"""Where traces go: to a collector, by OTLP over gRPC."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any

import structlog

from modelcatalog_server.domain.errors import StartupError
from modelcatalog_server.domain.spans import traced_by

_log = structlog.get_logger(__name__)

# What has not been sent by then is lost: the end of the service does not wait for a collector that is away.
_END_TIMEOUT_S = 3.0


@asynccontextmanager
async def tracing_to(endpoint: str | None, version: str) -> AsyncIterator[None]:
    """Trace what the block does, and send it to a collector; nothing without an ``endpoint``.

    Raises:
        StartupError: OpenTelemetry is not installed.
    """
    if endpoint is None:
        yield
        return
    try:
        otel = import_module("modelcatalog_server.tracing.otel")
    except ModuleNotFoundError as missing:
        raise StartupError(
            f"traces need OpenTelemetry: pip install 'modelcatalog[server,tracing]' (missing: {missing.name})"
        ) from missing
    provider = otel.make_provider(endpoint, version)
    with traced_by(otel.OpenTelemetryTracer(provider)):
        _log.info("calls are traced", endpoint=endpoint)
        try:
            yield
        finally:
            await _shut_down(provider)


async def _shut_down(provider: Any) -> None:
    """Send what is left, for a while: in a thread that the end of the process does not wait for either."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def shut_down() -> None:
        provider.shutdown()
        loop.call_soon_threadsafe(done.set)

    threading.Thread(target=shut_down, name="tracing-end", daemon=True).start()
    try:
        async with asyncio.timeout(_END_TIMEOUT_S):
            await done.wait()
    except TimeoutError:
        _log.warning("the collector does not answer: the last traces are lost")
