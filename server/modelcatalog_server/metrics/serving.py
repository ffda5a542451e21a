"""Serving the endpoint beside everything else, without the start of the service waiting for it."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from importlib import import_module
from typing import Any

import structlog

from modelcatalog_server.domain.tasks import end_tasks
from modelcatalog_server.metrics.loop_lag import measure_loop_lag
from modelcatalog_server.metrics.sources import Sources

_log = structlog.get_logger(__name__)

# A first load takes longer than a liveness probe has patience for.
_READY_TIMEOUT_S = 1.0


@asynccontextmanager
async def showing_metrics(bound: socket.socket | None, sources: Sources, ready: asyncio.Event) -> AsyncIterator[None]:
    """Show the metrics of this process while the block runs; without a socket none."""
    async with _beside(bound, lambda socket: _serve_process(socket, sources), ready):
        yield


@asynccontextmanager
async def showing_metrics_of_workers(
    bound: socket.socket | None, addresses: Sequence[str], ready: asyncio.Event
) -> AsyncIterator[None]:
    """Show the metrics of worker processes, the first of which answers at the first address, while the block runs."""
    async with _beside(bound, lambda socket: _serve_workers(socket, addresses), ready):
        yield


@asynccontextmanager
async def _beside(
    bound: socket.socket | None, serve: Callable[[socket.socket], Coroutine[Any, Any, None]], ready: asyncio.Event
) -> AsyncIterator[None]:
    if bound is None:
        yield
        return
    task = asyncio.create_task(_serve_when_ready(bound, serve, ready), name="metrics")
    try:
        yield
    finally:
        await end_tasks(task)


async def _serve_when_ready(
    bound: socket.socket, serve: Callable[[socket.socket], Coroutine[Any, Any, None]], ready: asyncio.Event
) -> None:
    """Serve to the end. Calls are answered without metrics, so what goes wrong here is a line in the log."""
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(_READY_TIMEOUT_S):
                await ready.wait()
        await serve(bound)
    except Exception:
        _log.exception("metrics cannot be shown")


async def _serve_process(bound: socket.socket, sources: Sources) -> None:
    endpoint = await _import("endpoint")
    async with endpoint.answering(bound, endpoint.answers_of(sources)):
        await measure_loop_lag(sources.loop_lag)


async def _serve_workers(bound: socket.socket, addresses: Sequence[str]) -> None:
    endpoint, merging = await _import("endpoint"), await _import("merging")
    async with endpoint.answering(bound, merging.answers_of_workers(addresses)):
        await asyncio.get_running_loop().create_future()


async def _import(name: str) -> Any:
    """Import a module in a thread: the HTTP library that these need takes a fifth of a second."""
    module = await asyncio.to_thread(import_module, f"modelcatalog_server.metrics.{name}")
    gc.freeze()  # as at the start: a full collection is not to walk through modules
    return module
