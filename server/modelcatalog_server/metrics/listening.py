"""The address of the endpoint: bound before anything else starts, so that one that is taken is refused at once."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EADDRINUSE
from pathlib import Path

from modelcatalog_server.domain.errors import StartupError

#: Instead of an address: there is no endpoint.
OFF = "off"
_UNIX = "unix:"
_BACKLOG = 128


@contextmanager
def listening(listen: str) -> Iterator[socket.socket | None]:
    """Listen on an address, ``host:port``, ``unix:path`` or ``unix:@name``, and yield the socket; ``None`` for ``off``.

    Raises:
        StartupError: it cannot be bound.
    """
    if listen == OFF:
        yield None
        return
    try:
        bound = _bind_path(listen.removeprefix(_UNIX)) if listen.startswith(_UNIX) else _bind_port(listen)
    except OSError as error:
        raise StartupError(
            f"cannot show metrics on {listen}: {error.strerror}. Choose another address with --metrics-listen, or off."
        ) from error
    with bound:
        yield bound


def address_of(bound: socket.socket) -> str:
    """Return where a socket listens, with the port that was free."""
    name = bound.getsockname()
    if bound.family == socket.AF_UNIX:
        return _UNIX + (f"@{name[1:].decode()}" if isinstance(name, bytes) else name)
    host = f"[{name[0]}]" if bound.family == socket.AF_INET6 else name[0]
    return f"{host}:{name[1]}"


def _bind_port(listen: str) -> socket.socket:
    host, _, port = listen.rpartition(":")
    family, _, _, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
    return _listen(socket.socket(family), address)


def to_socket_name(path: str) -> str:
    """Return what the kernel calls a unix socket; ``@name`` is abstract, which is no file and goes with its process."""
    return f"\0{path[1:]}" if path.startswith("@") else path


def _bind_path(path: str) -> socket.socket:
    name = to_socket_name(path)
    with socket.socket(socket.AF_UNIX) as probe:
        if probe.connect_ex(name) == 0:
            raise OSError(EADDRINUSE, os.strerror(EADDRINUSE))
    if name == path and Path(path).is_socket():
        Path(path).unlink(missing_ok=True)  # of a life before; another file is not ours to remove
    return _listen(socket.socket(socket.AF_UNIX), name)


def _listen(bound: socket.socket, address: object) -> socket.socket:
    try:
        if bound.family != socket.AF_UNIX:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # who had it before may linger
        bound.bind(address)  # type: ignore[arg-type]  # what the family takes
        bound.listen(_BACKLOG)
    except OSError:
        bound.close()
        raise
    return bound
