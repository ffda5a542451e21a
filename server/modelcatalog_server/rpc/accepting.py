"""The server of grpc.aio, made proof against a path that is no text.

grpcio 1.84.0 to 1.85.3 decode the path of a call in the one loop that takes all of them in (``_server_main_loop`` in
``aio/server.pyx.pxi``): one byte of it that is no UTF-8, from anybody who can connect, and the server shuts down.
Paths of registered methods are compared as bytes by gRPC's core and never decoded. So ours are registered, and all
others are refused without a look at them. What is taken in here is not, as in grpcio, waited for by one loop over all
methods: each has a task, and a call costs one task less.

It takes what is private to grpcio, whose version is pinned (pyproject.toml says so to pip, too). "A path of noise" in
tests/integration/test_fuzz.py ends the server without it; once that passes with ``grpc.aio.server`` alone, this can go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined] # as below

from modelcatalog_server.rpc.context import MethodHandler

#: What no service has.
_UNKNOWN = "/"


def new_server(
    handlers: Mapping[str, MethodHandler],
    options: Sequence[tuple[str, Any]],
    on_unknown: Callable[[], None] = lambda: None,
) -> grpc.aio.Server:
    """Return a server that answers these methods, by their paths, and refuses all others as UNIMPLEMENTED.

    ``on_unknown`` hears of each call of another method.
    """
    server = grpc.aio.server()
    accepting: Any = _Accepting(asyncio.get_running_loop(), None, (), (), tuple(options), None)
    accepting.on_unknown = on_unknown
    accepting.add_registered_method_handlers(dict(handlers))
    server._server = accepting  # type: ignore[attr-defined] # noqa: SLF001 - there is no other way in
    return server


class _Accepting(cygrpc.AioServer):  # type: ignore[misc] # it ships no types
    """Takes each method's calls in by a task of its own. ``_server_main_loop`` waits for the first of them to end."""

    on_unknown: Callable[[], None]

    def add_registered_method_handlers(self, method_handlers: dict[str, MethodHandler]) -> None:
        super().add_registered_method_handlers(method_handlers)
        self._resolver = cygrpc._MethodResolver([], method_handlers)  # noqa: SLF001
        self._calls: set[asyncio.Task[None]] = set()

    def _make_request_call_future(self, method: bytes | None) -> asyncio.Task[NoReturn]:
        """Called at the start for each method, and once with ``None`` for the others; again when a task has failed."""
        return asyncio.create_task(self._accept(method), name=f"accept-{(method or b'others').decode()}")

    async def _accept(self, method: bytes | None) -> NoReturn:
        """Take calls in, until asking for the next one fails: the server stops."""
        path = _UNKNOWN if method is None else method.decode()
        loop = asyncio.get_running_loop()
        while True:
            call = await (self._request_call() if method is None else self._request_registered_call(method))
            if method is None:
                self.on_unknown()
            answering = cygrpc._handle_rpc(path, self._resolver, (), call, loop, False)  # noqa: SLF001
            scheduled = cygrpc._schedule_rpc_coro(answering, call, loop, path)  # noqa: SLF001
            task = loop.create_task(scheduled, name="rpc_task")
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)
