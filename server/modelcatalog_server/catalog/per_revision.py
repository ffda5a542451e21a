"""What is derived of the catalog as a whole: made once for each revision, and kept in the process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from modelcatalog_server.catalog.current import version_of
from modelcatalog_server.domain.ports.catalog import CatalogState

T = TypeVar("T")

#: Those of the current revision, and of the one before for whoever still reads that.
_KEPT = 2


class PerRevision(Generic[T]):
    """Keeps what was made of the newest revisions. A number may come twice: versions tell them apart."""

    def __init__(self) -> None:
        self._making = asyncio.Lock()
        self._made: dict[str, T] = {}

    def __bool__(self) -> bool:
        """Whether anybody has asked."""
        return bool(self._made)

    async def get(self, state: CatalogState, make: Callable[[], Awaitable[T]]) -> T:
        """Return what was made of a revision. Of several who ask at once one makes it, and the others wait.

        Whoever waits here holds a connection: that the one reads through its own needs no further one.
        """
        version = version_of(state)
        if version in self._made:
            return self._made[version]
        async with self._making:
            if version not in self._made:
                self._made[version] = await make()
                for old in list(self._made)[:-_KEPT]:
                    del self._made[old]
            return self._made[version]

    def forget(self, state: CatalogState) -> None:
        """Have it made again by whoever asks next."""
        self._made.pop(version_of(state), None)
