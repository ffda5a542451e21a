"""A pool that is soon back after PostgreSQL was away."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
from psycopg.pq import PipelineStatus
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from modelcatalog_server.storage.measured import MeasuredConnection

# Of attempts to connect again: the pauses between them double, to minutes, and while the pool pauses nobody can have it
# try. After this it does so as soon as somebody wants a connection, which somebody does every second.
_RECONNECT_TIMEOUT_S = 0.5
# How long a connection is waited for while there is no PostgreSQL to connect to: a caller has better to do.
_DOWN_TIMEOUT_S = 1.0


class ReconnectingPool(AsyncConnectionPool[MeasuredConnection]):
    """A pool of connections that are bounded and alive, and that does not have callers wait while there is no server.

    Attributes:
        is_down: No connection can be made, or nobody gave one back as long as somebody waited.
        on_ended: Called when a connection turns out to have ended while nobody used it.
    """

    def __init__(self, url: str, *, patience_s: float, **settings: Any) -> None:
        self.is_down = False
        self.on_ended: Callable[[], None] = lambda: None
        self._given = 0
        self._patience_s = patience_s
        self._configure_further = settings.pop("configure", None)
        super().__init__(
            url,
            connection_class=MeasuredConnection,
            configure=self._note_up,
            check=self._check_alive,
            reset=_check_settled,
            reconnect_timeout=_RECONNECT_TIMEOUT_S,
            reconnect_failed=self._note_down,
            **settings,
        )

    async def getconn(self, timeout: float | None = None) -> MeasuredConnection:  # noqa: ASYNC109 -- the pool has it
        """Return a connection, which is to be given back with ``putconn``.

        That there is none within a ``timeout`` of the caller's own says nothing about the server.
        """
        given = self._given
        try:
            connection = await super().getconn(_DOWN_TIMEOUT_S if self.is_down and timeout is None else timeout)
        except PoolTimeout:
            if timeout is None and self._given == given and not self.is_down:
                self.is_down = True
                await self.drain()  # what nobody uses may be as dead: to find out takes longer
            raise
        self._given += 1
        self.is_down = False
        return connection

    async def _note_up(self, connection: MeasuredConnection) -> None:
        connection.patience_s = self._patience_s
        if self._configure_further is not None:
            await self._configure_further(connection)
        self.is_down = False

    async def _note_down(self, _pool: object) -> None:
        self.is_down = True

    async def _check_alive(self, connection: MeasuredConnection) -> None:
        """Refuse a connection that has ended while nobody used it, and let go of the others, which have, too."""
        if not await connection.is_alive():
            self.on_ended()
            await self.drain()
            raise psycopg.OperationalError("the connection has ended")


async def _check_settled(connection: MeasuredConnection) -> None:
    """Have a connection closed that is given back in pipeline mode, from which it may not find back.

    That happens to who is cancelled at the end of a pipeline, and the driver only says so in its log. All but COPY
    would go on there as if nothing were the matter.
    """
    if connection.pgconn.pipeline_status != PipelineStatus.OFF:
        raise psycopg.OperationalError("the connection was left in pipeline mode")
