"""What is measured: servers as processes, on one PostgreSQL and one Valkey, with an upstream that is a folder."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import grpc
import psycopg

from modelcatalog.v1 import catalog_admin_service_pb2 as admin_pb
from modelcatalog.v1.catalog_admin_service_pb2_grpc import CatalogAdminStub
from modelcatalog_server.identity.token_entries import create_token
from serving.h2load import Call

ROOT = Path(__file__).parents[2]
SNAPSHOT = ROOT / "server/modelcatalog_server/modelsdev/snapshot/catalog-2026-07-02.json.gz"
COMMAND = (sys.executable, "-m", "modelcatalog_server")
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Process:
    """A server that answers. ``token``: who asks it, where it wants to know."""

    pid: int
    address: str
    token: str = field(default="", repr=False)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What a call says of who makes it."""
        return (("authorization", f"Bearer {self.token}"),) if self.token else ()

    def cpu_s(self) -> float:
        """Seconds of processor that it has used, in its own code and in the kernel."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICK

    def resident_bytes(self) -> int:
        """Memory that it has, shared libraries included."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("a process has memory")

    def call(self, call: Call) -> bytes:
        """Make one call and return the bytes of the response."""
        with grpc.insecure_channel(self.address) as channel:
            method: Any = channel.unary_unary(call.path)
            response: bytes = method(call.request, timeout=30, metadata=self.metadata)
            return response

    def layers(self) -> dict[str, Any]:
        """Return the figures of each cache layer."""
        with grpc.insecure_channel(self.address) as channel:
            admin = CatalogAdminStub(channel)
            stats = admin.GetCacheStats(admin_pb.GetCacheStatsRequest(), timeout=30, metadata=self.metadata)
            return {layer.name: layer for layer in stats.layers}


@dataclass
class Stage:
    """A PostgreSQL, a Valkey, an upstream, and the cores that servers and load are pinned to."""

    folder: Path
    database_url: str
    redis_url: str
    server_core: int
    load_core: int
    published: int = field(default=0)

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Have PostgreSQL, Valkey and this program on the core of the load: a server that is pinned has its own."""
        everywhere = os.sched_getaffinity(0)
        _move_to({self.load_core})
        try:
            yield
        finally:
            _move_to(everywhere)

    def publish(self, every: int = 0) -> int:
        """Have upstream list the catalog, with another price for every n-th model; return how many that are."""
        self.published += 1
        document = json.loads(gzip.decompress(SNAPSHOT.read_bytes()))
        models = [model for provider in document["providers"].values() for model in provider["models"].values()]
        changed = models[::every] if every else []
        for model in changed:
            cost = model.setdefault("cost", {})
            cost["input"] = round(cost.get("input", 0) + self.published / 1000, 6)
        body = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
        (self.folder / "upstream/catalog.json.gz").write_bytes(gzip.compress(body, 1))
        return len(changed)

    @contextmanager
    def serve(
        self,
        *flags: str,
        pinned: bool = True,
        warm: bool = True,
        token: str = "",
        more: Mapping[str, str] = MappingProxyType({}),
    ) -> Iterator[Process]:
        """Start the service; without ``warm`` it is ready, but may still be filling its cache. ``more`` variables."""
        environment = {
            "MODELCATALOG_METRICS_LISTEN": "127.0.0.1:0",  # shown as by default, at a port that is free
            **os.environ,
            "MODELCATALOG_DATABASE_URL": self.database_url,
            "MODELCATALOG_REDIS_URL": self.redis_url,
            "MODELCATALOG_UPSTREAM_URL": (self.folder / "upstream").as_uri(),
            "MODELCATALOG_REFRESH_INCREMENTAL_CRON": "off",
            "MODELCATALOG_REFRESH_FULL_CRON": "off",
            "MODELCATALOG_UPSTREAM_REQUESTS_PER_MINUTE": "6000",
            "MODELCATALOG_LOG_FORMAT": "json",
            **more,
        }
        pin = ("taskset", "-c", str(self.server_core)) if pinned else ()
        command = (*pin, *COMMAND, "serve", "--listen", "127.0.0.1:0", *flags)
        with (self.folder / "log").open("a") as log, running(command, environment, log) as started:
            process = replace(started, token=token)
            if warm:
                wait_until_warm(process)
            yield process

    @contextmanager
    def serve_identified(self) -> Iterator[Process]:
        """Start the service with a tokens file of a hundred."""
        file, now = self.folder / "identities.toml", datetime.now(UTC)
        tokens = [create_token(file, f"caller-{number}", "admin", created=now, expires=None) for number in range(100)]
        # Its calls are counted, but not refused.
        limits = ("--rate-limit-principal", "1000000/second", "--rate-limit-address", "1000000/second")
        with self.serve("--tokens-file", str(file), *limits, token=tokens[50].token) as process:
            yield process

    @contextmanager
    def echo(self, bodies: dict[str, bytes], *, pinned: bool = True) -> Iterator[Process]:
        """Start the ceiling: what answers a method with these bytes."""
        arguments = []
        for method, body in bodies.items():
            path = self.folder / f"echo-{method}"
            path.write_bytes(body)
            arguments.append(f"{method}={path}")
        pin = ("taskset", "-c", str(self.server_core)) if pinned else ()
        command = (*pin, sys.executable, str(Path(__file__).with_name("echo.py")))
        with (self.folder / "log").open("a") as log, running((*command, *arguments), dict(os.environ), log) as process:
            yield process


def _move_to(cores: set[int]) -> None:
    """Pin this process and all that it has started and that is running, threads included."""
    for pid in _family(os.getpid()):
        with suppress(ProcessLookupError, FileNotFoundError):
            for thread in Path(f"/proc/{pid}/task").iterdir():
                os.sched_setaffinity(int(thread.name), cores)


def _family(pid: int) -> Iterator[int]:
    """Yield a process and those below it."""
    yield pid
    with suppress(FileNotFoundError):
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in children.read_text().split():
                yield from _family(int(child))


@contextmanager
def open_stage() -> Iterator[Stage]:
    """Start PostgreSQL and Valkey, and load the catalog."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        sys.exit("there is one core: a load generator on the core of the server measures itself")
    folder = Path(tempfile.mkdtemp(prefix="modelcatalog-bench-"))
    folder.chmod(0o755)  # the servers run as an unprivileged user when we are root
    (folder / "upstream").mkdir()
    try:
        with (
            services(folder / "data") as (database_url, _),
            psycopg.connect(database_url, autocommit=True) as connection,
        ):
            connection.execute("ALTER SYSTEM SET track_commit_timestamp = on")  # for when a revision was committed
        with services(folder / "data") as urls:  # again: only a start reads that
            stage = Stage(folder, *urls, server_core=cores[0], load_core=cores[-1])
            stage.publish()
            environment = {**os.environ, "MODELCATALOG_DATABASE_URL": stage.database_url}
            subprocess.run([*COMMAND, "migrate"], env=environment, check=True, stdout=subprocess.DEVNULL)
            with stage.serve(warm=False, pinned=False):
                pass  # it is ready when the catalog is loaded
            yield stage
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def services(folder: Path) -> Iterator[tuple[str, str]]:
    """Start PostgreSQL and Valkey as the service's own ones are; yield their addresses."""
    command = [sys.executable, str(ROOT / "tests/services.py"), str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        urls = json.loads(process.stdout.readline())
        try:
            yield urls["database_url"], urls["redis_url"]
        finally:
            process.stdin.close()


@contextmanager
def running(command: Sequence[str], environment: dict[str, str], log: Any) -> Iterator[Process]:
    """Start a command that says ``ready on <address>:``, and end it."""
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True) as process:
        assert process.stdout is not None
        ready = process.stdout.readline()
        address = ready.partition(" ready on ")[2].partition(": ")[0]
        assert address, f"{command} said {ready!r}"
        try:
            yield Process(process.pid, address)
        finally:
            process.terminate()


def wait_until_warm(process: Process) -> None:
    """Wait until every model is at hand and no more come."""
    before = -1
    while (entries := process.layers()["near"].entries) != before or entries < 5000:
        before = entries
        time.sleep(0.5)
