"""One address for several processes: reserved by the one that starts them, listened on by each."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from modelcatalog_server.domain.errors import StartupError


@contextmanager
def reserved_port(listen: str) -> Iterator[str]:
    """Hold an address for processes of ours without listening on it; yield it with the port that was free, if it had 0.

    It is bound as if nobody else was to have it, so that an address that somebody listens on is refused, and opened to
    others only then: SO_REUSEPORT holds between sockets of one user that all have it.

    Raises:
        StartupError: it cannot be bound.
    """
    host, _, port = listen.rpartition(":")
    bound, reason = 0, None
    with ExitStack() as stack:
        for family, target in _resolve(listen):
            holder = stack.enter_context(socket.socket(family))
            try:
                bound = _bind(holder, (target[0], bound or int(port), *target[2:]))
            except OSError as error:  # a name may stand for both families where there is but one
                reason = error.strerror
        if not bound:
            raise _refusal(listen, reason)
        yield f"{host}:{bound}"


def _resolve(listen: str) -> list[tuple[socket.AddressFamily, Any]]:
    host, _, port = listen.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise _refusal(listen, error.strerror) from error
    return [(family, target) for family, _, _, _, target in found]


def _bind(holder: socket.socket, target: Any) -> int:
    # Connections of who had it before may linger; but nobody is to take it over on that ground.
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(target)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return int(holder.getsockname()[1])


def _refusal(listen: str, reason: str | None) -> StartupError:
    return StartupError(f"cannot listen on {listen}: {reason}. Choose another with --listen.")
