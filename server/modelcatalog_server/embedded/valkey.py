"""The embedded Valkey: Redis' protocol and commands for the response cache."""

from __future__ import annotations

import signal
import socket
from pathlib import Path
from types import TracebackType
from typing import Self

from modelcatalog_server.embedded import programs
from modelcatalog_server.embedded.child import Child
from modelcatalog_server.embedded.directory import DataDirectory

_START_TIMEOUT_S = 10.0
_STOP = ((signal.SIGTERM, 3.0),)
# It keeps nothing, so it has nothing to do before it goes.
_DEATH_SIGNAL = signal.SIGKILL

_SETTINGS = {
    # Only the socket, in a directory that is its owner's and root's.
    "port": "0",
    "unixsocketperm": "700",
    # A cache: what is lost is computed again.
    "save": "",
    "appendonly": "no",
    # Several times the encoded catalog; past it, the key that was not used for longest goes.
    "maxmemory": "64mb",
    "maxmemory-policy": "allkeys-lru",
}


class EmbeddedValkey:
    """A Valkey that keeps nothing on the disk, running while this context is entered."""

    _child: Child

    def __init__(self, directory: DataDirectory) -> None:
        self._directory = directory

    @property
    def url(self) -> str:
        """The URL for redis-py: a unix socket."""
        return f"unix://{self._socket}"

    @property
    def _socket(self) -> Path:
        return self._directory.sockets / "valkey.sock"

    async def __aenter__(self) -> Self:
        """Starts the server.

        Raises:
            StartupError: That failed.
        """
        folder = programs.locate(programs.VALKEY, self._directory)
        arguments: list[str | Path] = [programs.find_program(programs.VALKEY, folder)]
        settings = {**_SETTINGS, "unixsocket": str(self._socket), "dir": str(self._directory.sockets)}
        for name, value in settings.items():
            arguments += [f"--{name}", value]
        self._child = Child.start("Valkey", arguments, self._directory, _DEATH_SIGNAL, "valkey", keep_stdout=True)
        try:
            await self._child.wait_until(self._accepts, _START_TIMEOUT_S)
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

    def _accepts(self) -> bool:
        """Whether it listens; with nothing to load, it answers from then on."""
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self._socket)) == 0
