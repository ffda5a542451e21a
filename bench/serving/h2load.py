"""The load: h2load, which posts one framed gRPC request again and again.

It takes a status of HTTP for success and knows nothing of gRPC's. Whoever loads a server with it looks at what that
server counted.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_FINISHED = re.compile(r"finished in [^,]+, ([\d.]+) req/s")
_SUCCEEDED = re.compile(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout")
_FIRST = ("chrt", "--fifo", "1")
_HEADERS = ("content-type: application/grpc", "te: trailers", "grpc-timeout: 20S")


@dataclass(frozen=True)
class Call:
    """What is posted: the path of the method, the bytes of the request, and what goes with them."""

    path: str
    request: bytes = b""
    metadata: tuple[tuple[str, str], ...] = ()

    @property
    def frame(self) -> bytes:
        return b"\0" + struct.pack(">I", len(self.request)) + self.request


@dataclass(frozen=True)
class Answered:
    """When a call was begun, in seconds since the epoch, and how long it took, in seconds."""

    begun: float
    took: float


@dataclass(frozen=True)
class Load:
    """What came of it."""

    calls: int
    per_second: float
    failed: int
    answers: list[Answered]


def require() -> None:
    """End with what to install where it is missing."""
    missing = [name for name in ("h2load", "taskset") if shutil.which(name) is None]
    if missing:
        sys.exit(
            f"{' and '.join(missing)} not found. The load generator is h2load: apt-get install nghttp2-client"
            " (Debian and Ubuntu; elsewhere it is part of nghttp2). taskset is part of util-linux."
        )


def run(
    address: str,
    call: Call,
    *,
    core: int,
    calls: int,
    connections: int = 10,
    streams: int = 10,
    per_second: float | None = None,
    with_answers: bool = False,
    first: bool = False,
) -> Load:
    """Post a call so many times, as fast as answers come or at a fixed rate, whatever the answers.

    ``first``: before everything else on its core, where this program may say so; else what waits is the load, too.

    At a rate the connections are made one after the other within the time between two calls of one of them, so that
    calls are evenly spaced.
    """
    with tempfile.TemporaryDirectory(prefix="modelcatalog-h2load-") as folder:
        frame, log = Path(folder, "frame"), Path(folder, "log")
        frame.write_bytes(call.frame)
        arguments = ["-n", calls, "-c", connections, "-m", streams, "-d", frame]
        if per_second is not None:
            together = max(1, round(per_second / 1000))  # the period is in whole milliseconds
            period = f"{round(together * 1000 / per_second)}ms"
            arguments += ["--rps", f"{per_second / connections:.4f}", "-r", together, "--rate-period", period]
        if with_answers:
            arguments += ["--log-file", log]
        for header in (*_HEADERS, *(f"{name}: {value}" for name, value in call.metadata)):
            arguments += ["-H", header]
        load = _run(core, *arguments, f"http://{address}{call.path}", before=_FIRST if first and may_be_first() else ())
        return Load(load.calls, load.per_second, load.failed, _read(log) if with_answers else [])


def get(url: str, *, core: int, calls: int, connections: int = 100) -> Load:
    """Get a page over HTTP/1.1 so many times, as fast as answers come."""
    return _run(core, "--h1", "-n", calls, "-c", connections, url)


@cache
def may_be_first() -> bool:
    """Whether the load can go before everything else on its core."""
    return subprocess.run([*_FIRST, "true"], capture_output=True, check=False).returncode == 0


def _run(core: int, *arguments: object, before: Sequence[str] = ()) -> Load:
    command = [*before, "taskset", "-c", str(core), "h2load", *map(str, arguments)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    finished, succeeded = _FINISHED.search(output), _SUCCEEDED.search(output)
    assert finished, output
    assert succeeded, output
    good, *bad = map(int, succeeded.groups())
    return Load(good, float(finished[1]), sum(bad), [])


def _read(log: Path) -> list[Answered]:
    answers = []
    for line in log.read_text().splitlines():
        begun, status, took = line.split("\t")[:3]
        if status != "-1":
            answers.append(Answered(int(begun) / 1e6, int(took) / 1e6))
    return answers
