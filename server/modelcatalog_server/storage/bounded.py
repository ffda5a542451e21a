"""A connection that ends when PostgreSQL, or the network before it, is silent."""

from __future__ import annotations

import asyncio
import math
import os
import select
import socket
from contextlib import suppress
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import DictRow

# Of one that nobody used for so long the network may have forgotten: it has to answer first, and soon.
_IDLE_S = 1.0
_PING_PATIENCE_S = 2.0


class BoundedConnection(AsyncConnection[DictRow]):
    """Waits ``patience_s`` for an answer and then is cut, for whoever waits for it as if the network had done that.

    PostgreSQL ends a statement by itself after its ``statement_timeout``, but not where it hangs, nor where the network
    swallows what is sent: TCP itself would wait for a quarter of an hour, and for ever where a proxy is in between.
    """

    patience_s = math.inf
    _answered_at = -math.inf

    async def wait(self, *args: Any, **kwargs: Any) -> Any:
        """Do what a statement, a commit or a copy waits for."""
        if self.patience_s == math.inf:
            return await super().wait(*args, **kwargs)
        loop = asyncio.get_running_loop()
        cutting = loop.call_later(self.patience_s, self.cut)
        try:
            return await super().wait(*args, **kwargs)
        finally:
            cutting.cancel()
            self._answered_at = loop.time()

    async def is_alive(self) -> bool:
        """Whether it still answers. Costs a round trip only where nobody has used it for a while, or it has ended."""
        idle_s = asyncio.get_running_loop().time() - self._answered_at
        return (idle_s < _IDLE_S and not _has_something(self.pgconn.socket)) or await self.answers()

    async def answers(self) -> bool:
        """Whether it answers now, and soon; not counted among the statements."""
        patience_s, self.patience_s = self.patience_s, _PING_PATIENCE_S
        try:
            await AsyncConnection.execute(self, "")
            if not self.autocommit:
                await self.rollback()
        except psycopg.Error:
            return False
        finally:
            self.patience_s = patience_s
        return True

    def cut(self) -> None:
        """Shut the socket down. It is not closed: somebody waits for it."""
        with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(self.pgconn.socket)) as shared:
            shared.shutdown(socket.SHUT_RDWR)


def _has_something(descriptor: int) -> bool:
    """Whether there is something to read where nobody has asked: the end, mostly."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))
