"""What has to be asked for, while scraped: of PostgreSQL after each change of the catalog, of Redis once a minute."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import datetime

import structlog

from modelcatalog_server.domain.ports.catalog import CatalogState
from modelcatalog_server.metrics.sources import Sources

_log = structlog.get_logger(__name__)

# Of a scrape, which Prometheus gives up after 10 s.
_TIMEOUT_S = 2.0
# Redis is asked for the size of each of its entries.
_CACHE_INTERVAL_S = 60.0


class Facts:
    """The last answers.

    Attributes:
        sync_times: By provider.
        quarantined: Records that the catalog's document had and that could not be read; ``None`` while not known.
    """

    def __init__(self, sources: Sources, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._sources = sources
        self._clock = clock
        self._state: CatalogState | None = None
        self._cache_at: float | None = None
        self.sync_times: Mapping[str, datetime | None] = {}
        self.quarantined: int | None = None

    async def update(self) -> None:
        """Ask again for what may have changed. What does not answer in time stays what it was."""
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                await self._update_catalog()
                await self._update_cache()
        except Exception as error:
            _log.warning("some metrics are not up to date", reason=str(error) or type(error).__name__)

    async def _update_catalog(self) -> None:
        state = self._sources.get_state()
        if state is None or state == self._state:
            return
        self.sync_times = await self._sources.list_sync_times()
        applied = await self._sources.get_last_applied()
        self.quarantined = applied.counts.quarantined if applied else None
        self._state = state

    async def _update_cache(self) -> None:
        now = self._clock()
        if self._cache_at is None or now - self._cache_at >= _CACHE_INTERVAL_S:
            self._cache_at = now
            await self._sources.measure_cache()
