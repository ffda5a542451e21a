"""Consistent views of the catalog, of at least the revision that a reader must see."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

from modelcatalog_server.catalog.current import CurrentRevision
from modelcatalog_server.domain.errors import CatalogNotReadyError, DatabaseUnavailableError, RevisionNotAvailableError
from modelcatalog_server.domain.ports.catalog import CatalogSnapshot, CatalogState, CatalogStore
from modelcatalog_server.domain.signal import Signal

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class AtLeast:
    """The revision that a reader must see, and how many seconds it is worth waiting for."""

    revision: int = 0
    timeout_s: float = 10.0


ANY_REVISION = AtLeast()


@dataclass(frozen=True, slots=True, kw_only=True)
class Read(Generic[T]):
    """An answer and the state of the catalog it belongs to."""

    state: CatalogState
    value: T


class Snapshots:
    """Opens snapshots of the store. ``changed`` is nudged when a new revision may be there.

    ``current`` sees every state that is read.
    """

    def __init__(self, store: CatalogStore, changed: Signal, current: CurrentRevision) -> None:
        self._store = store
        self._changed = changed
        self._current = current

    @property
    def newest_revision(self) -> int:
        """The newest that was seen here, 0 before the first."""
        return self._current.newest_revision

    @asynccontextmanager
    async def open(self, at_least: AtLeast, *, may_be_empty: bool = False) -> AsyncIterator[CatalogSnapshot]:
        """Open a snapshot of at least this revision, waiting for it as long as the caller has time.

        Raises:
            CatalogNotReadyError: nothing has been loaded yet.
            RevisionNotAvailableError: the revision did not arrive in time.
        """
        await self.catch_up(at_least)
        async with self._store.snapshot() as snapshot:
            self._current.observe(snapshot.state)
            if snapshot.state.revision == 0 and not may_be_empty:
                raise CatalogNotReadyError("no catalog has been loaded yet: ask again after the first refresh")
            yield snapshot

    def open_ahead(self) -> AbstractAsyncContextManager[CatalogSnapshot]:
        """Open a snapshot of what is committed, for nobody to be answered with: the process does not turn to it."""
        return self._store.snapshot(newest=True)

    async def look(self) -> CatalogState:
        """Return the current revision and its freshness in the same way."""
        return await self._store.get_state()

    async def get_state(self) -> CatalogState:
        """Return the current revision and its freshness."""
        state = await self._store.get_state()
        self._current.observe(state)
        return state

    def observe(self, state: CatalogState) -> None:
        """Take note of a state that was read elsewhere."""
        self._current.observe(state)

    async def catch_up(self, at_least: AtLeast) -> None:
        """Wait until the process is at this revision, as long as the caller has time.

        Raises:
            DatabaseUnavailableError: nobody can tell whether it exists.
            RevisionNotAvailableError: the revision did not arrive in time.
        """
        if at_least.revision == 0 or (self._current.state and self._current.state.revision >= at_least.revision):
            return
        clock = asyncio.get_running_loop().time
        deadline = clock() + at_least.timeout_s
        was_told = False
        with suppress(TimeoutError):
            async with asyncio.timeout(at_least.timeout_s):
                # The deadline is looked at, too: the one cancellation of a time-out may be lost in the driver (see
                # domain.tasks).
                while clock() < deadline:
                    ticket = self._changed.ticket()
                    state = await self._store.get_state(newest=True)
                    was_told = True
                    self._current.observe(state)
                    if state.revision >= at_least.revision:
                        return
                    await ticket.wait()
        if not was_told:
            raise DatabaseUnavailableError("the database did not say in time what the revision is")
        raise RevisionNotAvailableError(f"revision {at_least.revision} did not arrive in time")
