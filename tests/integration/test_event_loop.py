"""Nothing that goes on beside reads keeps them waiting.

Counted is the processor time that the event loop's thread uses between two turns of it, not the time that passes: what
a machine has to do besides does not count, and what happens in threads and other processes does not either.
"""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from conftest import SNAPSHOT, Services, StartApp, make_settings, refresh_to_end
from modelcatalog_server import app
from modelcatalog_server.backends import start_backends
from modelcatalog_server.domain.tasks import end_tasks
from small_catalog import until

LONGEST_S = 0.05


@asynccontextmanager
async def watched_loop() -> AsyncIterator[list[float]]:
    """Yield what one turn of the event loop after the other takes of its thread's time."""
    turns: list[float] = []

    async def watch() -> None:
        before = time.thread_time()
        while True:
            await asyncio.sleep(0)
            now = time.thread_time()
            turns.append(now - before)
            before = now

    watching = asyncio.create_task(watch())
    try:
        yield turns
    finally:
        watching.cancel()
        await asyncio.wait({watching})


def repriced(every: int, dearer: float) -> bytes:
    """Return the recorded catalog with a higher price for every n-th model."""
    document: Any = json.loads(gzip.decompress(SNAPSHOT.read_bytes()))
    models = [model for provider in document["providers"].values() for model in provider["models"].values()]
    for model in models[::every]:
        cost = model.setdefault("cost", {})
        cost["input"] = round(cost.get("input", 0) + dearer, 6)
    return json.dumps(document, separators=(",", ":")).encode()


async def test_a_refresh_of_a_tenth_of_the_catalog_and_the_filling_of_the_cache_stop_no_read_for_long(
    start_app: StartApp, loaded_database: str, tmp_path: Path
) -> None:
    """A machine that stands still amid a turn may count that as its time: what the service does is in every refresh."""
    longest = []
    async with start_app(loaded_database, upstream_url=tmp_path.as_uri()) as running, running.warmer:
        await until(lambda: is_warm(running), seconds=60)
        for dearer in (0.25, 0.5):
            (tmp_path / "catalog.json").write_bytes(repriced(10, dearer))
            async with watched_loop() as turns:
                refresh = await refresh_to_end(running)
                await until(lambda: is_warm(running), seconds=60)
            assert refresh.counts.changed > 500
            assert len(turns) > 1000
            longest.append(max(turns))
    assert min(longest) < LONGEST_S, longest


async def test_a_full_collection_of_garbage_does_not_walk_through_what_stays(
    templates: Services, loaded_database: str
) -> None:
    settings = make_settings(templates, loaded_database, offline=True)
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    gc.unfreeze()  # what services have left here that tests before this one started
    before = len(gc.get_objects())
    async with start_backends(settings) as backends:
        serving = asyncio.create_task(app.serve(settings, backends, ready.set_result))
        try:
            await until(lambda: ready.done() or serving.done())
            assert ready.done()
            assert len(gc.get_objects()) < before / 10
        finally:
            gc.unfreeze()
            await end_tasks(serving)


def is_warm(running: app.App) -> bool:
    version = running.responses.version
    return bool(version) and running.warmer.warmed == version
