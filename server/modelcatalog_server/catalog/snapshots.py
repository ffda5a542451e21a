"""Consistent views of the catalog, of at least the revision that a reader must see."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

from modelcatalog_server.domain.errors import CatalogNotReadyError, RevisionNotAvailableError
from modelcatalog_server.domain.ports import CatalogSnapshot, CatalogState, CatalogStore
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

    ``newest_revision``: the newest that was seen here.
    """

    def __init__(self, store: CatalogStore, changed: Signal) -> None:
        self._store = store
        self._changed = changed
        self.newest_revision = 0

    @asynccontextmanager
    async def open(self, at_least: AtLeast, *, may_be_empty: bool = False) -> AsyncIterator[CatalogSnapshot]:
        """Open a snapshot of at least this revision, waiting for it as long as the caller has time.

        Raises:
            CatalogNotReadyError: nothing has been loaded yet.
            RevisionNotAvailableError: the revision did not arrive in time.
        """
        if at_least.revision > 0:
            await self._wait_for(at_least)
        async with self._opened() as snapshot:
            if snapshot.state.revision == 0 and not may_be_empty:
                raise CatalogNotReadyError("no catalog has been loaded yet: ask again after the first refresh")
            yield snapshot

    async def get_state(self) -> CatalogState:
        """Return the current revision and its freshness."""
        async with self._opened() as snapshot:
            return snapshot.state

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[CatalogSnapshot]:
        async with self._store.snapshot() as snapshot:
            self.newest_revision = max(self.newest_revision, snapshot.state.revision)
            yield snapshot

    async def _wait_for(self, at_least: AtLeast) -> None:
        clock = asyncio.get_running_loop().time
        deadline = clock() + at_least.timeout_s
        with suppress(TimeoutError):
            async with asyncio.timeout(at_least.timeout_s):
                # The deadline is looked at, too: the one cancellation of a time-out may be lost in the driver (see
                # domain.tasks).
                while clock() < deadline:
                    ticket = self._changed.ticket()
                    if (await self.get_state()).revision >= at_least.revision:
                        return
                    await ticket.wait()
        raise RevisionNotAvailableError(f"revision {at_least.revision} did not arrive in time")
