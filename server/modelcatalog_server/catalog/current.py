"""The revision that this process is at: what it answers from memory belongs to it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Self

import structlog

from modelcatalog_server.domain.errors import CatalogError
from modelcatalog_server.domain.ports.catalog import CatalogState
from modelcatalog_server.domain.signal import Signal
from modelcatalog_server.domain.tasks import end_tasks, rest

_log = structlog.get_logger(__name__)
# A revision is served by every replica within 50 ms of its commit; this is what preparing for it may take of that.
_PREPARE_S = 0.025
# Whoever is about to tell of a revision waits so long for the process to be at it.
_PATIENCE_S = 2 * _PREPARE_S
_NEVER = datetime.min.replace(tzinfo=UTC)


class CurrentRevision:
    """The newest state of the catalog that this process has seen. It never goes back.

    Whoever reads a state shows it to :meth:`observe` before answering with it, and whoever hears of a revision without
    its state says so to :meth:`reach` or :meth:`expect` before passing that on: so nobody who was told of a revision by
    this process gets anything older from its memory.

    Attributes:
        state: ``None`` until the first one was read, and while a newer revision is known of but not what it is.
        moved: Nudged at each new revision.
    """

    def __init__(self) -> None:
        self.moved = Signal()
        self.state: CatalogState | None = None
        self._seen: CatalogState | None = None
        self._expected = 0

    @property
    def seen(self) -> CatalogState | None:
        """The newest state that was read, also while a newer revision is known of."""
        return self._seen

    @property
    def newest_revision(self) -> int:
        """The newest that was read, 0 before the first."""
        return self._seen.revision if self._seen else 0

    def observe(self, state: CatalogState) -> None:
        """Take over a state that was read, unless a newer one is known."""
        if self._seen is None or _order(state) > _order(self._seen):
            before, self._seen = self._seen, state
            self.state = state if state.revision >= self._expected else None
            if before is None or version_of(before) != version_of(state):
                self.moved.notify()

    async def reach(self, revision: int) -> None:
        """Wait, for moments, until the process is at a revision that exists; if it is not then, it is expected."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE_S):
                while self.newest_revision < revision:
                    await self.moved.ticket().wait()
        self.expect(revision)

    def expect(self, revision: int) -> None:
        """Note that this revision exists."""
        self._expected = max(self._expected, revision)
        if self.state is not None and self.state.revision < revision:
            self.state = None


class RevisionFollower:
    """Keeps a process at the newest revision: reads the state at once, and whenever there may be a new one.

    An async context manager: entered, the revision is known, unless PostgreSQL is away.

    Args:
        current: What is kept there.
        read_state: Reads it, without showing it to ``current``.
        changed: Nudged when there may be a new one.
        prepare: Makes answers of a new revision before the process turns to it: otherwise all who ask for what is
            asked for most would wait for PostgreSQL then, which has just written that revision.
    """

    def __init__(
        self,
        current: CurrentRevision,
        read_state: Callable[[], Awaitable[CatalogState]],
        changed: Signal,
        prepare: Callable[[], Awaitable[None]],
    ) -> None:
        self._current = current
        self._read_state = read_state
        self._changed = changed
        self._prepare = prepare
        self._task: asyncio.Task[None] | None = None
        self._preparing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        ticket = self._changed.ticket()
        await self._read()
        self._task = asyncio.create_task(self._follow(ticket), name="revision-follower")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await end_tasks(*(task for task in (self._task, self._preparing) if task is not None))

    async def _follow(self, ticket: asyncio.Event) -> None:
        while True:
            await ticket.wait()
            ticket = self._changed.ticket()
            await self._read()

    async def _read(self) -> None:
        try:
            state = await self._read_state()
            if self._current.state is not None and state.revision > self._current.state.revision:
                await self._prepare_in_time()
                await rest()
            self._current.observe(state)
        except CatalogError:
            pass  # PostgreSQL is away: health says so, and what is in memory stays what it is
        except Exception:
            _log.exception("cannot read the revision of the catalog")

    async def _prepare_in_time(self) -> None:
        """Wait for what is prepared, but not for long; what comes later is of use all the same."""
        if self._preparing is None or self._preparing.done():
            self._preparing = asyncio.create_task(self._prepare_quietly(), name="revision-ahead")
            await asyncio.wait({self._preparing}, timeout=_PREPARE_S)

    async def _prepare_quietly(self) -> None:
        try:
            await self._prepare()
        except CatalogError:
            pass  # whoever asks has it made
        except Exception:
            _log.exception("cannot prepare answers of a new revision")


def version_of(state: CatalogState) -> str:
    """Return what tells this revision from every other, also from one of the same number.

    A database that was put back to an earlier state, or a copy that went its own way, counts on from there: the number
    comes again, the time of the change does not.
    """
    return f"{state.revision}-{state.changed_at.timestamp():.6f}" if state.changed_at else str(state.revision)


def _order(state: CatalogState) -> tuple[int, datetime, datetime]:
    return state.revision, state.changed_at or _NEVER, state.checked_at or _NEVER
