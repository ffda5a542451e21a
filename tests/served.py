"""The service in this process, as the command serves it: with its schedule, its warm cache and true health."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from modelcatalog_server import app
from modelcatalog_server.backends import start_backends
from modelcatalog_server.settings import Settings


@asynccontextmanager
async def served(
    settings: Settings, *, retries: bool = True
) -> AsyncIterator[tuple[asyncio.Task[None], grpc.aio.Channel]]:
    """Yield the task that serves, from ready on, and a channel, on request without second attempts of its own."""
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    async with start_backends(settings) as backends:
        task = asyncio.create_task(app.serve(settings, backends, ready.set_result))
        waited_for: list[asyncio.Future[Any]] = [task, ready]
        await asyncio.wait(waited_for, return_when=asyncio.FIRST_COMPLETED)
        try:
            assert ready.done(), task
            address = (await ready).partition(" ready on ")[2].partition(": ")[0]
            options = [("grpc.enable_http_proxy", 0), ("grpc.enable_retries", int(retries))]
            async with grpc.aio.insecure_channel(address, options) as channel:
                yield task, channel
        finally:
            task.cancel()
            await asyncio.wait({task})
