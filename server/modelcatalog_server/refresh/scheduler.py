"""Starts refreshes by themselves: when the schedule says so, and at start when the catalog is too old."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Self

import structlog

from modelcatalog_server.domain.errors import CatalogError, SlotTakenError
from modelcatalog_server.domain.ports.refreshes import RefreshStore
from modelcatalog_server.domain.refresh import Refresh, RefreshRequest, RefreshType, State, Trigger
from modelcatalog_server.domain.tasks import end_tasks
from modelcatalog_server.outages import Outage
from modelcatalog_server.refresh.schedule import Schedule, Timer
from modelcatalog_server.refresh.service import RefreshService

_log = structlog.get_logger(__name__)

# The loop's clock stands still while a machine sleeps: the wall clock is looked at this often at least.
_LONGEST_NAP_S = 30.0
# Between two attempts to start what is due while another kind of run, or no database, is in the way.
_RETRY_S = 2.0


class RefreshScheduler:
    """Starts what is due, once in the cluster however many processes have a scheduler. An async context manager.

    Processes race for the row that holds the last slot of each timer; slots that were missed meanwhile are one slot.
    """

    def __init__(
        self,
        refreshes: RefreshService,
        store: RefreshStore,
        schedule: Schedule,
        *,
        now: Callable[[], datetime],
        pause_after_run: timedelta,
    ) -> None:
        """Prepare a scheduler.

        Args:
            refreshes: What starts the runs.
            store: Where the slots are.
            schedule: When.
            now: The wall clock.
            pause_after_run: How long after a run a catalog that is still too old is not asked for again at start.
        """
        self._refreshes = refreshes
        self._store = store
        self._schedule = schedule
        self._now = now
        self._pause_after_run = pause_after_run
        self._outage = Outage(_log, "cannot start what is due", "what is due can be started again")
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="refresh-scheduler")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._task is not None:
            await end_tasks(self._task)

    async def _run(self) -> None:
        await self._repeat(self._refresh_if_stale, until=0)
        await self._repeat(self._start_what_is_due)

    async def _repeat(self, step: Callable[[], Awaitable[float]], *, until: float | None = None) -> None:
        """Take a step again and again, each as many seconds after the last as that said, until it says ``until``."""
        while True:
            try:
                nap_s = await step()
            except CatalogError as error:
                self._outage.note_failure(error=str(error))
                nap_s = _RETRY_S
            except Exception:
                _log.exception("cannot start what is due")
                nap_s = _LONGEST_NAP_S
            else:
                self._outage.note_success()
            if nap_s == until:
                return
            await asyncio.sleep(min(nap_s, _LONGEST_NAP_S))

    async def _refresh_if_stale(self) -> float:
        """Start a run if the catalog is too old; return the seconds to wait before this is to be asked again, or 0."""
        overview = await self._refreshes.get_overview()
        if not overview.stale:
            return 0
        last = overview.last_finished
        if last is not None and last.completed_at is not None:
            # A first load that had to do with the bundled snapshot has asked upstream just now.
            left = last.completed_at + self._pause_after_run - self._now()
            if left > timedelta(0):
                return left.total_seconds()
        await self._refreshes.start(RefreshRequest(trigger=Trigger.STARTUP))
        return 0

    async def _start_what_is_due(self) -> float:
        """Start what is due; return the seconds until there is something to do again."""
        now = self._now()
        if forgotten := await self._store.forget_future_slots(now):
            _log.warning("forgot times that a clock which was ahead had taken", timers=forgotten)
        due = {timer: slot for timer in Timer if (slot := self._schedule.get_due_slot(timer, now)) is not None}
        taken = await self._store.get_slots()
        # The first slot ever is nobody's: it was before this catalog.
        first: dict[str, datetime] = {timer: slot for timer, slot in due.items() if timer not in taken}
        await self._take(first)
        free: dict[str, datetime] = {
            timer: slot for timer, slot in due.items() if timer in taken and taken[timer] < slot
        }
        if free and not await self._start(free):
            return _RETRY_S
        next_time = self._schedule.get_next_time(self._now(), due)
        return _LONGEST_NAP_S if next_time is None else max((next_time - self._now()).total_seconds(), 0)

    async def _start(self, slots: Mapping[str, datetime]) -> bool:
        """Start the run that these slots are due for; False when another one is in its way."""
        # A full run does what an incremental one does.
        type_ = RefreshType.FULL if Timer.FULL in slots else RefreshType.INCREMENTAL
        request = RefreshRequest(type=type_, trigger=Trigger.SCHEDULED)
        try:
            # The slots are taken with the run that they are for: a process that dies here has taken neither.
            refresh, already_running = await self._refreshes.start(request, slots)
        except SlotTakenError:
            return True  # another process has started it, and it may be over already
        if already_running:
            if not _covers(refresh, type_):
                return False
            await self._take(slots)
        return True

    async def _take(self, slots: Mapping[str, datetime]) -> None:
        if slots:
            await self._store.take_slots(slots)


def _covers(running: Refresh, wanted: RefreshType) -> bool:
    """Whether a run under way does what is wanted."""
    request = running.request
    if request.provider_id is not None or request.validate_only or running.state is State.CANCELLING:
        return False
    return request.type is RefreshType.FULL or wanted is RefreshType.INCREMENTAL
