"""Hears of new revisions and events: LISTEN on a connection of its own, and a poll as the net under it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Self

import psycopg
import structlog

from modelcatalog_server.domain.errors import StartupError
from modelcatalog_server.domain.tasks import end_tasks
from modelcatalog_server.outages import Outage
from modelcatalog_server.storage.pools import connect

_log = structlog.get_logger(__name__)

_PATIENCE_S = 5.0


class ChangeListener:
    """Calls ``on_change`` after every notification, after every reconnect, and at least once per ``poll_s``.

    PostgreSQL is the truth and a notification only a nudge: ``on_change`` reads what is new by itself, so one call too
    many costs a query and one too few is made up for by the poll.

    ``on_message`` gets the text of each notification, and ``None`` after a reconnect: some may have been missed.

    An async context manager: entered, it listens, unless PostgreSQL is away. So nothing that is kept in memory from
    then on outlives what ends it.
    """

    def __init__(
        self,
        database_url: str,
        on_change: Callable[[], None],
        on_message: Callable[[str | None], None] = lambda _: None,
        *,
        poll_s: float = 1.0,
    ) -> None:
        self._on_message = on_message
        self._database_url = database_url
        self._on_change = on_change
        self._poll_s = poll_s
        self._outage = Outage(
            _log, "lost the connection that listens for changes", "the connection that listens for changes is back"
        )
        self._task: asyncio.Task[None] | None = None
        self._has_tried = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="change-listener")
        try:
            await self._has_tried.wait()
        except asyncio.CancelledError:
            await end_tasks(self._task)
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._task is not None:
            await end_tasks(self._task)

    async def _run(self) -> None:
        while True:
            try:
                await self._listen()
            except (psycopg.Error, StartupError):
                self._outage.note_failure(retry_in_s=self._poll_s)
            finally:
                self._has_tried.set()
            self._on_change()
            await asyncio.sleep(self._poll_s)

    async def _listen(self) -> None:
        async with await connect(
            self._database_url, timeout_s=5, patience_s=_PATIENCE_S, application_name="modelcatalog-changes"
        ) as connection:
            await connection.execute("LISTEN modelcatalog")
            self._has_tried.set()
            if self._outage.note_success():
                self._on_message(None)
            while True:
                self._on_change()
                # A network that lets nothing through is as silent as a catalog at rest.
                if not await connection.answers():
                    raise psycopg.OperationalError("it does not answer")
                async for notification in connection.notifies(timeout=self._poll_s, stop_after=1):
                    self._on_message(notification.payload)
