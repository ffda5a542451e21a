"""What a refresh costs, by what changed. `make bench-refresh` prints the tables that docs/performance.md quotes.

The service runs in this process on its own PostgreSQL and Valkey, durable as they are by default. Upstream is an HTTP
server in a process of its own, on loopback. Times are from the body's arrival (the VALIDATE event) to the commit; that
of a 304 is from the request to the TERMINAL event. The lag of the event loop is by how much a sleep of one millisecond
takes too long.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import copy
import gzip
import hashlib
import json
import multiprocessing
import os
import shutil
import statistics
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter
from typing import Any

import psycopg
import uvloop

from machine import describe_machine
from modelcatalog_server import app
from modelcatalog_server.backends import start_backends
from modelcatalog_server.domain.refresh import EventKind, Phase, Refresh, RefreshRequest, RefreshType, State
from modelcatalog_server.logs import set_up_logs
from modelcatalog_server.settings import load_settings

ROOT = Path(__file__).parents[1]
SNAPSHOT = ROOT / "server/modelcatalog_server/modelsdev/snapshot/catalog-2026-07-02.json.gz"
BODY = "catalog.json.gz"
PROCESS = "comparison_process"


# --- payloads ------------------------------------------------------------------------------------------------------


def write_payloads(folder: Path, times: int) -> None:
    """Write the bodies that upstream is to serve. In a process of its own: it takes more memory than the service."""
    document = json.loads(gzip.decompress(SNAPSHOT.read_bytes()))
    for id_, provider in list(document["providers"].items()):
        for number in range(2, times + 1):
            clone = f"x{number}-{id_}"
            document["providers"][clone] = {**copy.deepcopy(provider), "id": clone}
    write(folder / "base.gz", document)
    models = [model for provider in document["providers"].values() for model in provider["models"].values()]
    for model in models[::100]:
        reprice(model)
    write(folder / "some.gz", document)
    for number, model in enumerate(models):
        if number % 100:
            reprice(model)
    write(folder / "all.gz", document)


def reprice(model: dict[str, Any]) -> None:
    cost = model.setdefault("cost", {})
    cost["input"] = round(cost.get("input", 0) + 0.25, 6)


def write(path: Path, document: Any) -> None:
    # As upstream writes it: without spaces, and not in ASCII.
    path.write_bytes(gzip.compress(json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode(), 6))


# --- upstream ------------------------------------------------------------------------------------------------------


def serve_upstream(folder: Path, ready: Connection) -> None:
    class Site(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = (folder / BODY).read_bytes()
            etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
            is_known = self.headers.get("If-None-Match") == etag
            self.send_response(HTTPStatus.NOT_MODIFIED if is_known else HTTPStatus.OK)
            self.send_header("ETag", etag)
            if not is_known:
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Encoding", "gzip")
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if not is_known:
                self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    ready.send(server.server_port)
    server.serve_forever()


@contextlib.contextmanager
def upstream(folder: Path) -> Iterator[str]:
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve_upstream, args=(folder, there), daemon=True)
    process.start()
    yield f"http://127.0.0.1:{here.recv()}"
    process.terminate()
    process.join()


# --- measuring -----------------------------------------------------------------------------------------------------


@dataclass
class Measured:
    """What some runs of one kind took. Times in seconds, memory in bytes; 0 where there was no process."""

    times: list[float] = field(default_factory=list)
    lags: list[float] = field(default_factory=list)
    server_peak: int = 0
    process_peak: int = 0


class Probe:
    """Looks at the event loop and at memory as long as it is entered."""

    def __init__(self, measured: Measured) -> None:
        self._measured = measured

    async def __aenter__(self) -> None:
        begin_new_peak()
        self._tasks = [asyncio.create_task(self._feel()), asyncio.create_task(self._weigh())]

    async def __aexit__(self, *exc_info: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._measured.server_peak = max(self._measured.server_peak, peak_of("self"))

    async def _feel(self) -> None:
        while True:
            begin = perf_counter()
            await asyncio.sleep(0.001)
            self._measured.lags.append(perf_counter() - begin - 0.001)

    async def _weigh(self) -> None:
        while True:
            # Looking takes 2 ms of the event loop that is measured; a peak is kept by the kernel, so it can wait.
            await asyncio.sleep(0.1)
            for pid in children():
                self._measured.process_peak = max(self._measured.process_peak, peak_of(pid))


def children() -> list[str]:
    """Return the processes of ours that decode."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        for pid in (task / "children").read_text().split():
            with contextlib.suppress(OSError):
                if PROCESS.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(pid)
    return found


def begin_new_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def peak_of(pid: str) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


async def refresh(running: app.App, measured: Measured, **request: Any) -> Refresh:
    """Run a refresh to its end and note how long it took."""
    received = None
    async with Probe(measured):
        begin = perf_counter()
        refresh, _ = await running.refreshes.start(RefreshRequest(**request))
        async with await running.feed.watch(refresh.id, "", 15) as watch:
            while (notice := await watch.next()) is not None:
                refresh = notice.refresh or refresh
                if notice.kind is EventKind.STATE and notice.phase is Phase.VALIDATE:
                    received = notice.happened_at
        took = perf_counter() - begin
    assert refresh.state is State.SUCCEEDED, refresh
    if received is not None:
        assert refresh.completed_at is not None
        took = (refresh.completed_at - received).total_seconds()
    measured.times.append(took)
    return refresh


# --- the runs ------------------------------------------------------------------------------------------------------


class Bench:
    """The same runs for one size of payload."""

    def __init__(self, folder: Path, times: int, repeats: int) -> None:
        self.folder = folder / f"x{times}"
        self.folder.mkdir()
        self.repeats = repeats
        self.results: dict[str, Measured] = {}
        context = multiprocessing.get_context("spawn")
        process = context.Process(target=write_payloads, args=(self.folder, times))
        process.start()
        process.join()
        self.publish("base")

    def publish(self, name: str) -> None:
        shutil.copy(self.folder / f"{name}.gz", self.folder / BODY)

    @asynccontextmanager
    async def service(self, name: str, url: str) -> AsyncIterator[app.App]:
        settings = load_settings(
            data_dir=self.folder / name, upstream_url=url, listen="127.0.0.1:0", upstream_requests_per_minute=6000
        )
        async with start_backends(settings) as backends, app.start_on(backends, settings) as running:
            self.database_url = backends.database_url
            yield running

    async def run(self, url: str) -> None:
        for number in range(self.repeats):
            async with self.service(f"first-{number}", url) as running:
                await refresh(running, self.of("first load"))
            if number:
                shutil.rmtree(self.folder / f"first-{number}")
        async with self.service("first-0", url) as running:
            await self.settle()
            idle = Measured()
            async with Probe(idle):
                await asyncio.sleep(2)
            self.results["idle"] = idle
            await refresh(running, Measured())  # the first one of a process imports the HTTP library
            for _ in range(self.repeats * 4):
                ended = await refresh(running, self.of("304"))
                assert ended.not_modified
            for _ in range(self.repeats * 2):
                ended = await refresh(running, self.of("same body"), force=True)
                assert ended.base_revision == ended.result_revision
            await self.alternate(running, "1 % changed", "some", self.repeats * 2)
            await self.alternate(running, "everything changed", "all", self.repeats)
            for _ in range(self.repeats):
                await refresh(running, self.of("FULL, same body"), type=RefreshType.FULL)

    async def alternate(self, running: app.App, name: str, body: str, repeats: int) -> None:
        """Go from one body to the other and back, so that each run finds the same to do."""
        for number in range(repeats):
            self.publish("base" if number % 2 else body)
            ended = await refresh(running, self.of(name))
            assert ended.counts.changed
            await self.settle()
        if repeats % 2:
            self.publish("base")
            await refresh(running, Measured())

    async def settle(self) -> None:
        """Have PostgreSQL done with what it puts off, so that no run pays for the one before."""
        async with await psycopg.AsyncConnection.connect(self.database_url, autocommit=True) as connection:
            await connection.execute("VACUUM ANALYZE")
            await connection.execute("CHECKPOINT")
            version = connection.info.server_version
            self.postgres = f"{version // 10000}.{version % 10000}"

    def of(self, name: str) -> Measured:
        return self.results.setdefault(name, Measured())

    def report(self) -> None:
        print(
            f"{'refresh':<20} {'runs':>4} {'median':>9} {'worst':>9} {'lag p99':>9} {'lag max':>9}"
            f" {'server':>8} {'process':>8}"
        )
        for name, measured in self.results.items():
            lags = sorted(measured.lags)
            times = measured.times
            median, worst = (statistics.median(times), max(times)) if times else (0, 0)
            print(
                f"{name:<20} {len(times):>4} {ms(median)} {ms(worst)} {ms(lags[int(len(lags) * 0.99)])} {ms(lags[-1])}"
                f" {mb(measured.server_peak)} {mb(measured.process_peak)}",
                flush=True,
            )


def ms(seconds: float) -> str:
    return f"{seconds * 1000:>6.1f} ms" if seconds else f"{'—':>9}"


def mb(size: int) -> str:
    return f"{size / 1e6:>5.0f} MB" if size else f"{'—':>8}"


async def main(folder: Path, sizes: list[int], repeats: int) -> None:
    print(describe_machine(), flush=True)
    for times in sizes:
        bench = Bench(folder, times, repeats)
        with upstream(bench.folder) as url:
            await bench.run(url)
        print(f"\npayload x{times}, PostgreSQL {bench.postgres}; load {os.getloadavg()[0]:.1f}")
        bench.report()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 10], help="how many times today's payload")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    set_up_logs("error", "console")
    scratch = Path(tempfile.mkdtemp(prefix="modelcatalog-bench-"))
    scratch.chmod(0o755)  # the servers run as an unprivileged user when we are root
    try:
        uvloop.run(main(scratch, arguments.sizes, arguments.repeats))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
