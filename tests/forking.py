"""The command in processes that are forked from one which has imported it: starting Python costs more than most runs.

A process here is told everything by its arguments and its environment, like one that a shell starts, and can be
signalled and killed like that. That the command starts without this is what the other acceptance tests are for.

forked = fork(["refresh", "--json"], environment(), stdout=file.fileno(), stderr=file.fileno())
forked.wait(10)
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from threading import Lock
from typing import IO, Any, Never

_IMPORTED = (
    "modelcatalog_server.app",
    "modelcatalog_server.commands.refresh",
    "modelcatalog_server.modelsdev.client",
    "uvloop",
)


_starting = Lock()


@dataclass
class Forked:
    """A process of the command. ``life`` is closed by its parent, after the exit code, when it has ended."""

    pid: int
    life: IO[bytes]
    returncode: int | None = None

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def wait(self, timeout_s: float | None = None) -> int:
        """Wait for its end and return the exit code, or the negative number of the signal that ended it."""
        if self.returncode is None:
            if not select.select([self.life], [], [], timeout_s)[0]:
                raise TimeoutError(f"not over after {timeout_s} s")
            with self.life:
                self.returncode = int(self.life.readline())
        return self.returncode


def fork(arguments: Sequence[str], environment: Mapping[str, str], *, stdout: int, stderr: int) -> Forked:
    """Start the command; it writes to these files and has nothing to read."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as life:
        order = json.dumps({"arguments": list(arguments), "environment": dict(environment)}).encode()
        with _starting:
            nursery = _nursery()
        socket.send_fds(nursery, [order], [stdout, stderr, life.fileno()])
    born = os.fdopen(reading, "rb")
    return Forked(int(born.readline()), born)


@cache
def _nursery() -> socket.socket:
    """Start the process that forks the others; it ends with this one."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        process = subprocess.Popen([sys.executable, __file__, str(its.fileno())], pass_fds=[its.fileno()])

    def close() -> None:
        ours.close()
        process.wait()

    atexit.register(close)
    return ours


# --- in the process that forks ------------------------------------------------------------------------------------


def main(orders: socket.socket) -> None:
    for name in _IMPORTED:
        import_module(name)
    gc.freeze()  # what is there by now stays, and is shared
    while (received := socket.recv_fds(orders, 65536, 3))[0]:
        order, descriptors, *_ = received
        if os.fork() == 0:
            orders.close()
            _attend(json.loads(order), *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        _bury()


def _bury() -> None:
    """Take note of the children that have ended."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _attend(order: Mapping[str, Any], stdout: int, stderr: int, life: int) -> Never:
    """Fork the command, tell who it is and, when it has ended, how: it cannot do that itself when it is killed."""
    pid = os.fork()
    if pid == 0:
        os.close(life)
        os.setsid()
        for source, target in ((os.open(os.devnull, os.O_RDONLY), 0), (stdout, 1), (stderr, 2)):
            os.dup2(source, target)
            os.close(source)
        _become(**order)
    os.write(life, b"%d\n" % pid)
    _, status = os.waitpid(pid, 0)
    os.write(life, b"%d\n" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def _become(arguments: Sequence[str], environment: Mapping[str, str]) -> Never:
    from modelcatalog_server.__main__ import main

    os.environ.clear()
    os.environ.update(environment)
    sys.argv[:] = ["modelcatalog", *arguments]
    main()
    sys.exit()


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
