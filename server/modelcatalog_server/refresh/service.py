"""Starting refreshes and asking about them. Runs live in this process as tasks that it owns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Self
from uuid import UUID

import structlog

from modelcatalog_server.domain.errors import (
    DatabaseUnavailableError,
    OwnerLostError,
    RefreshNotFoundError,
    RequestIdReusedError,
    ServerDrainingError,
)
from modelcatalog_server.domain.ports import CatalogState, RefreshOwnership, RefreshStore
from modelcatalog_server.domain.refresh import EventKind, Refresh, RefreshFailure, RefreshRequest, State
from modelcatalog_server.refresh.runner import RefreshRunner

_log = structlog.get_logger(__name__)

# Another process owns the lock but its row is not to be seen yet, or no longer: look again this often, this long.
_JOIN_ATTEMPTS = 50
_JOIN_INTERVAL_S = 0.1

# The contract ends an orphan within 30 s.
_SWEEP_INTERVAL_S = 10.0
_SWEEP_RETRY_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshOverview:
    """What is going on and how fresh the catalog is."""

    running: Refresh | None
    last_finished: Refresh | None
    last_success: Refresh | None
    state: CatalogState
    age: timedelta | None
    stale: bool


class RefreshService:
    """Starts refreshes, one in the cluster at a time. An async context manager: leaving it ends the run under way."""

    def __init__(
        self,
        store: RefreshStore,
        runner: RefreshRunner,
        *,
        new_id: Callable[[], UUID],
        now: Callable[[], datetime],
        max_age: timedelta,
    ) -> None:
        self._store = store
        self._runner = runner
        self._new_id = new_id
        self._now = now
        self._max_age = max_age
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def __aenter__(self) -> Self:
        self._tasks.add(asyncio.create_task(self._sweep(), name="refresh-orphan-sweep"))
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def start(self, request: RefreshRequest) -> tuple[Refresh, bool]:
        """Accept a run and return it at once, or the one under way and True.

        Raises:
            RequestIdReusedError: the request id was used with other arguments.
        """
        if self._closed:
            raise ServerDrainingError("this server is shutting down")
        if (known := await self._find_by_request_id(request)) is not None:
            return known, False
        active: Refresh | None = None
        for _ in range(_JOIN_ATTEMPTS):
            ownership = await self._store.try_own()
            if ownership is not None:
                return await self._start_owned(ownership, request), False
            active = await self._store.get_active()
            # A dry run is no answer to who wants the catalog refreshed: it is waited for, if it does not take long.
            if active is not None and (request.validate_only or not active.request.validate_only):
                return active, True
            await asyncio.sleep(_JOIN_INTERVAL_S)
        if active is not None:
            return active, True
        raise DatabaseUnavailableError("another refresh neither runs nor ends")

    async def _sweep(self) -> None:
        """Look for orphans as long as the process lives; at once first, for what this machine's last life left."""
        while True:
            interval_s = _SWEEP_INTERVAL_S
            try:
                await self._end_orphan_if_any()
            except Exception as error:
                _log.warning("cannot look for orphaned refreshes", error=str(error))
                interval_s = _SWEEP_RETRY_S
            await asyncio.sleep(interval_s)

    async def _end_orphan_if_any(self) -> None:
        """End a run whose process died, so that nobody waits for it: its row says it runs but its lock is free."""
        if await self._store.get_active() is None:
            return
        ownership = await self._store.try_own()
        if ownership is None:
            return
        try:
            await self._end_orphan()
        finally:
            await ownership.release()

    async def get(self, refresh_id: UUID) -> Refresh:
        """Return one run.

        Raises:
            RefreshNotFoundError: there is none.
        """
        refresh = await self._store.get(refresh_id)
        if refresh is None:
            raise RefreshNotFoundError(str(refresh_id))
        return refresh

    async def list_refreshes(self, *, before: tuple[datetime, UUID] | None, limit: int) -> list[Refresh]:
        """Return runs newest first, those that started before ``before``."""
        return await self._store.list_refreshes(before=before, limit=limit)

    async def get_overview(self) -> RefreshOverview:
        """Return what is going on and how fresh the catalog is."""
        state = await self._store.get_catalog_state()
        age, stale = self.get_age(state)
        return RefreshOverview(
            running=await self._store.get_active(),
            last_finished=await self._store.get_last_finished(only_success=False),
            last_success=await self._store.get_last_finished(only_success=True),
            state=state,
            age=age,
            stale=stale,
        )

    def get_age(self, state: CatalogState) -> tuple[timedelta | None, bool]:
        """Return the time since the catalog was last known to equal upstream, and whether that is too long."""
        if state.checked_at is None:
            return None, True
        age = max(self._now() - state.checked_at, timedelta(0))
        return age, age > self._max_age

    async def _find_by_request_id(self, request: RefreshRequest) -> Refresh | None:
        if request.request_id is None:
            return None
        known = await self._store.get_by_request_id(request.request_id)
        if known is not None and known.request != replace(request, requested_by=known.request.requested_by):
            raise RequestIdReusedError("this request_id was used before, with other arguments")
        return known

    async def _start_owned(self, ownership: RefreshOwnership, request: RefreshRequest) -> Refresh:
        try:
            # Again, now that nobody else can start one: the same request may have been served meanwhile.
            if (known := await self._find_by_request_id(request)) is not None:
                await ownership.release()
                return known
            await self._end_orphan()
            refresh = await self._store.create(self._new_id(), request)
        except BaseException:
            await ownership.release()
            raise
        task = asyncio.create_task(self._run(ownership, refresh), name=f"refresh-{refresh.id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return refresh

    async def _run(self, ownership: RefreshOwnership, refresh: Refresh) -> None:
        try:
            with suppress(asyncio.CancelledError, OwnerLostError):  # the runner has said so
                await self._runner.run(refresh)
        except Exception:
            # The database is gone, so the end could not be written. Whoever owns the lock next ends the row.
            _log.exception("a refresh could not be ended", refresh_id=str(refresh.id))
        finally:
            await ownership.release()

    async def _end_orphan(self) -> None:
        orphan = await self._store.get_active()
        if orphan is None:
            return
        failure = RefreshFailure(reason="OWNER_LOST", message="the process that ran it died")
        _log.warning("ending a refresh whose process died", refresh_id=str(orphan.id))
        ended = replace(orphan, state=State.FAILED, failure=failure)
        with suppress(OwnerLostError):  # it only lost its lock, and came to its end meanwhile
            await self._store.record(ended, EventKind.TERMINAL, message=failure.message)
