"""A TCP proxy that does to connections what networks, firewalls and dying machines do.

    async with FaultProxy("127.0.0.1", 5432) as proxy:      # or FaultProxy("/run/x.sock")
        ...                                                 # proxy.port is where it listens, on 127.0.0.1
        proxy.cut()                                         # refuses and resets until proxy.mend()

Faults, each until ``mend``:

- ``cut``: connections are reset, new ones too.
- ``delay(s)``: what comes through is late by so much, each way.
- ``drip(bytes_per_s)``: it comes through slowly.
- ``black_hole``: connections stay open and are accepted, nothing comes through, and nobody is told.
- ``half_open``: those that are open now are forgotten as by a firewall, for ever; new ones work.
- ``vanish``: the same, and what comes in on them is not even acknowledged, as by a machine that has lost its power.
"""

from __future__ import annotations

import asyncio
import ctypes
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Self

_PIECE = 64 * 1024
# Of Linux; Python has no name for it.
_SO_ATTACH_FILTER = 26
_End = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(eq=False)
class _Link:
    """A connection through the proxy: both its ends."""

    streams: tuple[_End, _End]
    forgotten: bool = False
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def reset(self) -> None:
        """End both ends with RST, as a machine does that has rebooted meanwhile."""
        for _, writer in self.streams:
            if (connection := writer.get_extra_info("socket")) is not None and connection.family != socket.AF_UNIX:
                with suppress(OSError):
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


class FaultProxy:
    """Stands before a port or, where ``port`` is 0, a unix socket."""

    def __init__(self, host: str, port: int = 0) -> None:
        self._target = (host, port)
        self._links: set[_Link] = set()
        self._server: asyncio.Server | None = None
        self._is_open = asyncio.Event()
        self._is_open.set()
        self._delay_s = 0.0
        self._bytes_per_s = 0.0
        self._refuses = False
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._take_on, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._server is not None
        await stop_listening(self._server)
        tasks = self._tasks | {task for link in self._links for task in link.tasks}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for link in list(self._links):
            link.reset()

    @property
    def connections(self) -> int:
        """How many go through it now and are not forgotten."""
        return sum(not link.forgotten for link in self._links)

    def cut(self) -> None:
        self._refuses = True
        self.reset()

    def reset(self) -> None:
        """Reset the connections there are; new ones work."""
        for link in list(self._links):
            link.reset()

    async def reset_all(self) -> None:
        """The same, until it has happened."""
        links = list(self._links)
        self.reset()
        await asyncio.gather(*(task for link in links for task in link.tasks))

    def lead_to(self, host: str, port: int = 0) -> None:
        """Have new connections go elsewhere, as an address does that moves on."""
        self._target = (host, port)

    def delay(self, seconds: float) -> None:
        self._delay_s = seconds

    def drip(self, bytes_per_s: float) -> None:
        self._bytes_per_s = bytes_per_s

    def black_hole(self) -> None:
        self._is_open.clear()

    def half_open(self) -> None:
        for link in self._links:
            link.forgotten = True

    def vanish(self) -> None:
        self.half_open()
        for link in self._links:
            near: socket.socket = link.streams[0][1].get_extra_info("socket")
            program = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # BPF: return 0, which drops
            near.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(program)))

    def mend(self) -> None:
        """Let everything through again, what a black hole has held back too."""
        self._refuses = False
        self._delay_s = self._bytes_per_s = 0.0
        self._is_open.set()

    def _take_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        near = (reader, writer)
        if self._server is None or not self._server.is_serving():  # accepted just before the end
            _Link((near, near)).reset()
            return
        task = asyncio.create_task(self._accept(near))
        self._tasks.add(task)
        task.add_done_callback(partial(self._let_go, near))

    def _let_go(self, near: _End, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():  # perhaps before it had begun
            _Link((near, near)).reset()

    async def _accept(self, near: _End) -> None:
        if self._refuses:
            _Link((near, near)).reset()
            return
        try:
            await self._is_open.wait()
            far = await self._reach()
        except OSError:
            _Link((near, near)).reset()
            return
        link = _Link((near, far))
        link.tasks = [
            asyncio.create_task(self._carry(link, near[0], far[1])),
            asyncio.create_task(self._carry(link, far[0], near[1])),
        ]
        self._links.add(link)
        try:
            await asyncio.wait(link.tasks)
        finally:
            self._links.discard(link)
            for _, each in link.streams:
                each.close()

    async def _reach(self) -> _End:
        host, port = self._target
        return await (asyncio.open_connection(host, port) if port else asyncio.open_unix_connection(host))

    async def _carry(self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while piece := await reader.read(_PIECE):
                await self._hold_back(link, piece)
                writer.write(piece)
                await writer.drain()
        await self._hold_back(link, b"")  # the end of a connection gets lost as well
        writer.close()

    async def _hold_back(self, link: _Link, piece: bytes) -> None:
        if link.forgotten:
            await asyncio.Event().wait()
        if self._delay_s:
            await asyncio.sleep(self._delay_s)
        if self._bytes_per_s:
            await asyncio.sleep(len(piece) / self._bytes_per_s)
        await self._is_open.wait()
        if link.forgotten:
            await asyncio.Event().wait()


async def stop_listening(server: asyncio.Server) -> None:
    """Close a server without losing a connection that it is just accepting.

    Before Python 3.12 one that was accepted in the turn in which its server is closed is never closed itself.
    """
    for listening in server.sockets:
        asyncio.get_running_loop().remove_reader(listening.fileno())
    for _ in range(2):
        await asyncio.sleep(0)
    server.close()


def socket_of(url: str) -> str:
    """Return the unix socket of a PostgreSQL of the tests."""
    parts = dict(part.split("=") for part in url.partition("?")[2].split("&"))
    return f"{parts['host']}/.s.PGSQL.5432"


@asynccontextmanager
async def proxied(url: str) -> AsyncIterator[tuple[FaultProxy, str]]:
    """Yield a proxy before a database, and the address that leads through it."""
    async with FaultProxy(socket_of(url)) as proxy:
        yield proxy, url.partition("?")[0].replace("@/", f"@127.0.0.1:{proxy.port}/")
