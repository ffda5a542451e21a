"""What watchers see of refreshes: one reader of the event table per process, and a bounded buffer per watcher.

The event table is the truth. Event ids rise in commit order over all refreshes, so a position is one number, good on
every replica and after a restart.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Self
from uuid import UUID

import structlog

from modelcatalog_server.domain.errors import (
    CatalogError,
    InvalidResumeTokenError,
    RefreshNotFoundError,
    ResumeTokenExpiredError,
    ServerDrainingError,
    SlowConsumerError,
    TooManyStreamsError,
)
from modelcatalog_server.domain.ports.refreshes import RefreshStore
from modelcatalog_server.domain.refresh import EventKind, Phase, Refresh, RefreshEvent
from modelcatalog_server.domain.signal import Signal
from modelcatalog_server.domain.tasks import end_tasks, rest
from modelcatalog_server.outages import Outage
from modelcatalog_server.tokens import ExpiredTokenError, InvalidTokenError, TokenSealer

_log = structlog.get_logger(__name__)

#: Watches that one process takes.
MAX_WATCHES = 500
_BATCH = 200
_BUFFER = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One message of a watch. ``refresh`` is ``None`` on a heartbeat, and on a snapshot before the first refresh."""

    kind: EventKind
    resume_token: str
    happened_at: datetime | None = None
    refresh: Refresh | None = None
    sequence: int = 0
    phase: Phase | None = None
    done: int = 0
    total: int | None = None
    message: str = ""


@dataclass(slots=True, eq=False)
class _Buffer:
    """Events that a watcher has not taken yet. Progress gives way first; a state is never dropped."""

    refresh_id: UUID | None
    events: deque[RefreshEvent] = field(default_factory=deque)
    filled: asyncio.Event = field(default_factory=asyncio.Event)
    overflowed: bool = False

    def put(self, event: RefreshEvent) -> None:
        if self.overflowed or self.refresh_id not in (None, event.refresh.id):
            return
        if len(self.events) >= _BUFFER:
            self.events = deque(held for held in self.events if held.kind is not EventKind.PROGRESS)
            self.overflowed = len(self.events) >= _BUFFER
        if self.events and event.kind is EventKind.PROGRESS and self.events[-1].kind is EventKind.PROGRESS:
            self.events.pop()
        self.events.append(event)
        self.filled.set()

    def take(self) -> RefreshEvent | None:
        if self.overflowed:
            raise SlowConsumerError("the reader did not keep up: resume with the last token")
        event = self.events.popleft() if self.events else None
        if not self.events:
            self.filled.clear()
        return event


class RefreshFeed:
    """Hands the events of all refreshes to this process's watches. An async context manager.

    ``reach`` is told of every revision that a watch is about to be told of, and returns when it may be.
    """

    def __init__(
        self,
        store: RefreshStore,
        tokens: TokenSealer,
        changed: Signal,
        reach: Callable[[int], Awaitable[None]],
    ) -> None:
        self._store = store
        self._reach = reach
        self._tokens = tokens
        self._changed = changed
        self._buffers: set[_Buffer] = set()
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._last_id = 0
        #: Messages that watches were told, heartbeats too.
        self.told = 0
        #: Watches that ended because their readers did not keep up.
        self.slow_consumers = 0
        #: Revision of the catalog, at least that of every event handed out.
        self.revision = 0

    async def __aenter__(self) -> Self:
        self._last_id = await self._store.get_last_event_id()
        self.revision = (await self._store.get_catalog_state()).revision
        self._task = asyncio.create_task(self._read_events(), name="refresh-feed")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.close()
        if self._task is not None:
            await end_tasks(self._task)

    def close(self) -> None:
        """End every watch with ServerDrainingError, and refuse new ones."""
        self._closing.set()
        for buffer in self._buffers:
            buffer.filled.set()

    async def watch(self, refresh_id: UUID | None, resume_token: str, heartbeat_s: float) -> Watch:
        """Open a watch on one refresh, or on all. Use it as an async context manager.

        Raises:
            RefreshNotFoundError: there is no such refresh.
            InvalidResumeTokenError, ResumeTokenExpiredError: the token is not good.
            TooManyStreamsError: this process takes no more.
        """
        self.check_open()
        if len(self._buffers) >= MAX_WATCHES:
            raise TooManyStreamsError(f"this process has {MAX_WATCHES} streams already")
        position = self._unseal(refresh_id, resume_token) if resume_token else None
        buffer = _Buffer(refresh_id)
        self._buffers.add(buffer)  # from here on nothing is missed; what the replay brings too is told apart by its id
        try:
            first, cursor = await self._first_notice(refresh_id, position)
        except BaseException:
            self._buffers.discard(buffer)
            raise
        return Watch(self, self._store, buffer, first, cursor, heartbeat_s, is_resumed=position is not None)

    def check_open(self) -> None:
        """Raise ServerDrainingError once the process is shutting down."""
        if self._closing.is_set():
            raise ServerDrainingError("this server is shutting down: resume on another one")

    @property
    def watches(self) -> int:
        """How many there are."""
        return len(self._buffers)

    @property
    def backlog(self) -> int:
        """Events that wait for the reader who is furthest behind."""
        return max((len(buffer.events) for buffer in self._buffers), default=0)

    async def tell(self, notice: Notice) -> Notice:
        """Return a notice that a watch is about to get."""
        self.told += 1
        if notice.refresh is not None and notice.refresh.result_revision is not None:
            await self._reach(notice.refresh.result_revision)
        return notice

    def take_from(self, buffer: _Buffer) -> RefreshEvent | None:
        """Return the next event that waits for a watch, if there is one.

        Raises:
            SlowConsumerError: too many waited.
        """
        try:
            return buffer.take()
        except SlowConsumerError:
            self.slow_consumers += 1
            raise

    def forget(self, buffer: _Buffer) -> None:
        """Let go of a watch that is over."""
        self._buffers.discard(buffer)

    def notice(self, event: RefreshEvent, scope: UUID | None) -> Notice:
        """Return an event as a watcher sees it."""
        return Notice(
            kind=event.kind,
            resume_token=self.seal(scope, event.id),
            happened_at=event.happened_at,
            refresh=event.refresh,
            sequence=event.sequence,
            phase=event.phase,
            done=event.done,
            total=event.total,
            message=event.message,
        )

    def seal(self, scope: UUID | None, event_id: int) -> str:
        """Return the token of a position."""
        return self._tokens.seal([str(scope or ""), event_id])

    def _unseal(self, scope: UUID | None, token: str) -> int:
        try:
            sealed_scope, event_id = self._tokens.unseal(token)
        except ExpiredTokenError as error:
            raise ResumeTokenExpiredError("resume_token is older than 24 hours: watch again without it") from error
        except (InvalidTokenError, ValueError, TypeError) as error:
            raise InvalidResumeTokenError("resume_token", "is not one of this service's tokens") from error
        if sealed_scope not in ("", str(scope or "")):
            raise InvalidResumeTokenError("resume_token", "belongs to a watch on another refresh")
        return int(event_id)

    async def _first_notice(self, refresh_id: UUID | None, position: int | None) -> tuple[Notice, int]:
        """Return the SNAPSHOT and the position behind which the watch goes on."""
        cursor = position if position is not None else await self._present(refresh_id)
        event = await self._store.get_event_at(cursor, refresh_id)
        current = await self._store.get(refresh_id) if refresh_id else None  # last: never older than the event
        if refresh_id is not None and current is None:
            raise RefreshNotFoundError(str(refresh_id))
        token = self.seal(refresh_id, cursor)
        if event is None:
            return Notice(kind=EventKind.SNAPSHOT, resume_token=token, refresh=current), cursor
        shown = event
        if position is None and current is not None and current.state.is_over:
            # What it came to, at the place before its end: TERMINAL follows.
            shown = await self._store.get_event_at(await self._store.get_last_event_id(), refresh_id) or event
        snapshot = replace(
            self.notice(shown, refresh_id), kind=EventKind.SNAPSHOT, resume_token=token, sequence=event.sequence
        )
        if position is None and current is not None:
            snapshot = replace(snapshot, refresh=current)
        return snapshot, cursor

    async def _present(self, refresh_id: UUID | None) -> int:
        """Return the position of now; for a run that is over the one before its end, so that TERMINAL follows."""
        last = await self._store.get_last_event_id()
        # In this order: an end that comes between the two questions is behind ``last`` and follows by itself.
        ended = await self._store.get_terminal_event_id(refresh_id) if refresh_id else None
        return last if ended is None else min(last, ended - 1)

    async def _read_events(self) -> None:
        outage = Outage(_log, "cannot read refresh events", "refresh events can be read again")
        while True:
            ticket = self._changed.ticket()
            try:
                await self._catch_up()
                outage.note_success()
            except CatalogError as error:
                outage.note_failure(error=str(error))
            except Exception:
                _log.exception("cannot read refresh events")
            await ticket.wait()
            await rest()

    async def _catch_up(self) -> None:
        while events := await self._store.list_events(self._last_id, None, _BATCH):
            if any(event.kind is EventKind.TERMINAL for event in events):  # no other one comes with a new revision
                self.revision = (await self._store.get_catalog_state()).revision
            self._hand_out(events)
            if len(events) < _BATCH:
                return  # whatever has come since then nudges again

    def _hand_out(self, events: Iterable[RefreshEvent]) -> None:
        for event in events:
            self._last_id = event.id
            for buffer in self._buffers:
                buffer.put(event)


class Watch:
    """One watcher: SNAPSHOT first, then every event behind it, heartbeats in silence, the end after TERMINAL."""

    def __init__(
        self,
        feed: RefreshFeed,
        store: RefreshStore,
        buffer: _Buffer,
        first: Notice,
        cursor: int,
        heartbeat_s: float,
        *,
        is_resumed: bool,
    ) -> None:
        self._feed = feed
        self._store = store
        self._buffer = buffer
        self._first: Notice | None = first
        self._cursor = cursor
        self._heartbeat_s = heartbeat_s
        self._replay: deque[RefreshEvent] | None = deque()
        self._is_resumed = is_resumed
        self._over = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._feed.forget(self._buffer)

    async def next(self) -> Notice | None:
        """Return the next message, ``None`` when the watch is over.

        Raises:
            SlowConsumerError: too many events waited for this reader.
            ServerDrainingError: the process is shutting down.
        """
        if self._first is not None:
            first, self._first = self._first, None
            return await self._feed.tell(first)
        if self._over:
            return None
        event = await self._next_event()
        if event is None:
            return await self._after_silence()
        self._cursor = event.id
        self._over = event.kind is EventKind.TERMINAL and self._buffer.refresh_id is not None
        return await self._feed.tell(self._feed.notice(event, self._buffer.refresh_id))

    async def _next_event(self) -> RefreshEvent | None:
        """Return the next event, from the table until that is caught up, then from the buffer; None after silence."""
        if self._replay is not None:
            if not self._replay:
                self._replay.extend(await self._store.list_events(self._cursor, self._buffer.refresh_id, _BATCH))
            if self._replay:
                return self._replay.popleft()
            self._replay = None
            if self._is_resumed and await self._is_past_end():
                return None
        return await self._take()

    async def _is_past_end(self) -> bool:
        """Whether the watch was resumed behind the end of its refresh: there is nothing left to come."""
        refresh_id = self._buffer.refresh_id
        ended = await self._store.get_terminal_event_id(refresh_id) if refresh_id else None
        self._over = ended is not None and ended <= self._cursor
        return self._over

    async def _take(self) -> RefreshEvent | None:
        try:
            async with asyncio.timeout(self._heartbeat_s):
                while True:
                    self._feed.check_open()
                    event = self._feed.take_from(self._buffer)
                    if event is not None and event.id > self._cursor:
                        return event
                    if event is None:
                        await self._buffer.filled.wait()
        except TimeoutError:
            return None

    async def _after_silence(self) -> Notice | None:
        if self._over:
            return None
        token = self._feed.seal(self._buffer.refresh_id, self._cursor)
        return await self._feed.tell(Notice(kind=EventKind.HEARTBEAT, resume_token=token))
