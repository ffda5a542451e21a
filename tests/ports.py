"""Ports for servers that are started again on the same one."""

from __future__ import annotations

import random
import socket

# The kernel gives ports from 32768 on to whoever asks for any, and to whoever connects. A cluster's bus of Redis has
# the port and 10000.
_PORTS = range(10_000, 22_000)
_BUS = 10_000


def choose_port() -> int:
    """Return a port that nobody has, and that nobody is given by the kernel while its server is down."""
    while True:
        port = random.SystemRandom().choice(_PORTS)  # whatever else was seeded
        if is_free(port) and is_free(port + _BUS):
            return port


def is_free(port: int) -> bool:
    """Whether a server could listen there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
