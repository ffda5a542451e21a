"""Deletes what is older than its retention, never the catalog's.

Events, runs that changed nothing, audit entries, and what is searched through no page token any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Self

import structlog

from modelcatalog_server.domain.ports.administration import AuditLog
from modelcatalog_server.domain.ports.catalog import SearchDocuments
from modelcatalog_server.domain.ports.refreshes import RefreshStore
from modelcatalog_server.domain.tasks import end_tasks
from modelcatalog_server.refresh.policy import RetentionPolicy
from modelcatalog_server.tokens import MAX_AGE_S

_log = structlog.get_logger(__name__)

_INTERVAL = timedelta(hours=1)
# As long as a page token is good, and some more for clocks that differ.
_SEARCHED = timedelta(seconds=MAX_AGE_S) + timedelta(hours=1)


class Retention:
    """Deletes once an hour, at once first. An async context manager; several processes may do it at once."""

    def __init__(
        self,
        refreshes: RefreshStore,
        audit: AuditLog,
        documents: SearchDocuments,
        policy: RetentionPolicy,
        now: Callable[[], datetime],
    ) -> None:
        self._refreshes = refreshes
        self._documents = documents
        self._audit = audit
        self._policy = policy
        self._now = now
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="retention")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._task is not None:
            await end_tasks(self._task)

    async def prune(self) -> tuple[int, int]:
        """Delete what is old, a bounded number; return how many refreshes and how many audit entries."""
        now, policy = self._now(), self._policy
        refreshes = await self._refreshes.prune(
            events_before=now - policy.events, refreshes_before=now - policy.refreshes
        )
        await self._documents.prune(before=now - _SEARCHED)
        return refreshes, await self._audit.prune(before=now - policy.audit)

    async def _run(self) -> None:
        while True:
            try:
                refreshes, entries = await self.prune()
                if refreshes or entries:
                    _log.info("deleted what is old", refreshes=refreshes, audit_entries=entries)
            except Exception as error:
                _log.warning("cannot delete what is old", error=str(error))
            await asyncio.sleep(_INTERVAL.total_seconds())
