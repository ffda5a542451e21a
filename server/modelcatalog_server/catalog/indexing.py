"""What references can mean, revision by revision: built when it is first asked for, and from then on for each one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Self

from modelcatalog_server.catalog.per_revision import PerRevision
from modelcatalog_server.catalog.resolver.canonical import CanonicalIndex
from modelcatalog_server.catalog.resolver.linking import ModelFacts
from modelcatalog_server.catalog.resolver.reference import ReferenceIndex, Served
from modelcatalog_server.catalog.resolver.spelling import read_id
from modelcatalog_server.catalog.snapshots import ANY_REVISION, Snapshots
from modelcatalog_server.domain.errors import CatalogError
from modelcatalog_server.domain.ports.catalog import CatalogSnapshot, CatalogState
from modelcatalog_server.domain.signal import Signal
from modelcatalog_server.domain.tasks import end_tasks, run_in_slices

#: Canonical ids by provider and upstream id.
Links = Mapping[str, Mapping[str, str | None]]


class ReferenceIndexes:
    """Builds the index of a revision once, whoever asks, in slices of the event loop. An async context manager."""

    def __init__(self, snapshots: Snapshots, changed: Signal) -> None:
        self._snapshots = snapshots
        self._changed = changed
        self._builds: PerRevision[asyncio.Task[ReferenceIndex]] = PerRevision()
        self._newest = 0
        self._tasks: set[asyncio.Task[ReferenceIndex]] = set()
        self._following: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Begin to follow the catalog."""
        self._following = asyncio.create_task(self._follow(), name="reference-indexes")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """End whatever is being built."""
        if self._following is not None:
            await end_tasks(self._following)
        await end_tasks(*self._tasks)

    async def get(self, snapshot: CatalogSnapshot) -> ReferenceIndex:
        """Return the index of the snapshot's revision. A caller who gives up does not stop it for the others."""
        return await asyncio.shield(await self._begin(snapshot))

    async def _begin(self, snapshot: CatalogSnapshot) -> asyncio.Task[ReferenceIndex]:
        return await self._builds.get(snapshot.state, partial(self._start, snapshot))

    async def _start(self, snapshot: CatalogSnapshot) -> asyncio.Task[ReferenceIndex]:
        links, release_dates = await snapshot.list_links(), await snapshot.list_release_dates()
        task = asyncio.create_task(_build(links, release_dates), name=f"reference-index-{snapshot.state.revision}")
        self._newest = snapshot.state.revision
        self._tasks.add(task)
        task.add_done_callback(partial(self._end, snapshot.state))
        return task

    def _end(self, state: CatalogState, task: asyncio.Task[ReferenceIndex]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or task.exception():
            self._builds.forget(state)  # whoever waited has the error; the next one tries again

    async def _follow(self) -> None:
        """Build for each new revision what has been asked for in an older one."""
        while True:
            ticket = self._changed.ticket()
            if self._builds and self._snapshots.newest_revision > self._newest:
                with suppress(CatalogError):  # whoever needs it says so; a reader begins it otherwise
                    async with self._snapshots.open(ANY_REVISION) as snapshot:
                        await self._begin(snapshot)
            await ticket.wait()


async def _build(links: Links, release_dates: Mapping[str, str | None]) -> ReferenceIndex:
    await run_in_slices(_read_ids(release_dates))
    facts = {id_: ModelFacts(release_date=release_date) for id_, release_date in release_dates.items()}
    index = ReferenceIndex((), CanonicalIndex(facts))
    await run_in_slices(_fill(index, links))
    return index


def _read_ids(ids: Mapping[str, str | None]) -> Iterator[None]:
    """Read spellings, so that they need not be read all at once."""
    for id_ in ids:
        read_id(id_)
        yield


def _fill(index: ReferenceIndex, links: Links) -> Iterator[None]:
    for provider_id, models in links.items():
        index.add_provider(provider_id)
        for upstream_id, canonical_id in models.items():
            index.add(Served(provider_id, upstream_id, canonical_id))
            yield
