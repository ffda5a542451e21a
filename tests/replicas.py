"""Replicas: the command as processes of its own on a database that they share, and what must hold whatever ends them.

They are forked, so that killing one and starting the next costs little.

async with replicas(services, work_dir) as start:
    replica = await start(database_url, upstream_url)
    await replica.kill()
    again = await start(database_url, upstream_url, listen=replica.address)
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic_ns
from typing import IO, Any

from acceptance.serving import END_TIMEOUT_S, READY, environment
from conftest import OPEN_GATES, Services
from forking import Forked, fork
from ports import choose_port
from small_catalog import fetch

READY_TIMEOUT_S = 60.0


@dataclass
class Replica:
    """A ``modelcatalog serve`` that is ready, on somebody else's database."""

    process: Forked
    address: str
    log: Path

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    async def kill(self) -> None:
        """End it as the kernel does when memory is short."""
        self.send(signal.SIGKILL)
        assert await asyncio.to_thread(self.process.wait, END_TIMEOUT_S) == -signal.SIGKILL


StartReplica = Callable[..., Awaitable[Replica]]


@asynccontextmanager
async def replicas(services: Services, folder: Path) -> AsyncIterator[StartReplica]:
    """Yield what starts replicas; those that still live end with the block."""
    processes: list[Forked] = []

    async def start(database_url: str, upstream_url: str, *, listen: str = "", **variables: str) -> Replica:
        log = folder / f"replica-{os.getpid()}-{monotonic_ns()}.log"
        told = {
            "DATABASE_URL": database_url,
            "REDIS_URL": services.redis_url,
            "UPSTREAM_URL": upstream_url,
            "LISTEN": listen or f"127.0.0.1:{choose_port()}",
            "LOG_LEVEL": "warning",
            "REFRESH_FULL_CRON": "off",
            "REFRESH_INCREMENTAL_CRON": "off",
            "REFRESH_BACKOFF_SECONDS": "0.05",
            "UPSTREAM_REQUESTS_PER_MINUTE": "1000",
            **{name.upper(): str(value) for name, value in OPEN_GATES.items()},
            **variables,
        }
        variables = {f"MODELCATALOG_{name}": value for name, value in told.items()}
        reading, writing = os.pipe()
        with log.open("w") as errors, os.fdopen(writing, "wb") as stdout:
            files = {"stdout": stdout.fileno(), "stderr": errors.fileno()}
            process = await asyncio.to_thread(fork, ["serve"], environment(**variables), **files)
        processes.append(process)
        with os.fdopen(reading) as lines:
            line = (await asyncio.to_thread(_read_line, lines)).strip()
        ready = READY.fullmatch(line)
        assert ready, f"{line!r}, and on standard error: {log.read_text()}"
        return Replica(process, ready["address"], log)

    try:
        yield start
    finally:
        for process in processes:
            process.send_signal(signal.SIGKILL)
            await asyncio.to_thread(process.wait, END_TIMEOUT_S)


def _read_line(lines: IO[str]) -> str:
    assert select.select([lines], [], [], READY_TIMEOUT_S)[0], f"not ready after {READY_TIMEOUT_S} s"
    return lines.readline()


# --- what must hold -----------------------------------------------------------------------------------------------

#: What a row says about when and from where it came, which differs between two ways to the same catalog.
_CIRCUMSTANCES = (
    "id,revision,valid_to_revision,change,first_seen_at,last_changed_at,last_models_sync,source_url,source_snapshot"
)
_CURRENT = {
    "models_metadata": ("model_id", "model_versions"),
    "llm_providers": ("id", "provider_versions"),
    "canonical_models": ("id", "canonical_model_versions"),
}


async def digest_content(database_url: str) -> str:
    """Return a digest of what the catalog says now, whatever revisions it took: listed and removed records alike."""
    content = " UNION ALL ".join(
        f"SELECT '{table}' AS name, {key} AS key, (to_jsonb(t) - '{{{_CIRCUMSTANCES},removed_at}}'::text[])"
        f" || jsonb_build_object('removed', removed_at IS NOT NULL) AS said FROM {table} AS t"
        for table, key in {
            **{table: key for table, (key, _) in _CURRENT.items()},
            "model_benchmarks": "canonical_id",
        }.items()
    )
    (digest,) = await fetch(
        database_url,
        f"SELECT md5(string_agg(name || key || said::text, ',' ORDER BY name, key, said::text)) FROM ({content}) AS c",
    )
    return str(digest)


async def assert_consistent(database_url: str) -> int:
    """Check that history and catalog say the same, and return the revision that they are at."""
    (revision,) = await fetch(database_url, "SELECT revision FROM catalog_state")
    revisions = await fetch(database_url, "SELECT revision FROM catalog_revisions ORDER BY revision")
    assert revisions == list(range(1, revision + 1))
    not_of_its_run = await fetch(
        database_url,
        "SELECT r.revision FROM catalog_revisions AS r LEFT JOIN models_refresh_history AS h ON h.id = r.refresh_id"
        " WHERE r.kind = 'REFRESH' AND (h.result_revision, h.status) IS DISTINCT FROM (r.revision, 'SUCCEEDED')",
    )
    assert not_of_its_run == []
    for table, (key, versions) in _CURRENT.items():
        differing = await fetch(
            database_url,
            f"SELECT coalesce(t.{key}, v.{key}) FROM {table} AS t"
            f" FULL JOIN (SELECT * FROM {versions} WHERE valid_to_revision IS NULL) AS v USING ({key})"
            " WHERE to_jsonb(t) IS DISTINCT FROM to_jsonb(v) - '{valid_to_revision,change}'::text[]",
        )
        assert differing == [], table
        beyond = f"SELECT count(*) FROM {versions} WHERE revision > %s OR valid_to_revision > %s"
        assert await fetch(database_url, beyond, revision, revision) == [0], versions
    await _assert_every_run_has_its_end(database_url)
    return int(revision)


async def _assert_every_run_has_its_end(database_url: str) -> None:
    """Every run that is over said so once, as its last word; its events have no gap."""
    bad = await fetch(
        database_url,
        "SELECT h.id, h.status FROM models_refresh_history AS h LEFT JOIN LATERAL ("
        "  SELECT count(*) FILTER (WHERE kind = 'TERMINAL') AS ends,"
        "    max(sequence) FILTER (WHERE kind = 'TERMINAL') AS last, count(*) AS events, max(sequence) AS newest"
        "  FROM refresh_events WHERE refresh_id = h.id) AS e ON true"
        " WHERE h.status IN ('PENDING', 'RUNNING', 'CANCELLING')"
        "  OR e.ends <> 1 OR e.last <> h.last_sequence OR e.events <> e.newest",
    )
    assert bad == []


async def kept_events(database_url: str, refresh_id: Any) -> list[tuple[int, str]]:
    """Return sequence and kind of the events of a run that no watch may lose."""
    return await fetch(
        database_url,
        "SELECT sequence, kind FROM refresh_events WHERE refresh_id = %s AND kind <> 'PROGRESS' ORDER BY id",
        refresh_id,
    )
