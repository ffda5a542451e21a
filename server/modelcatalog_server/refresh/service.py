"""Starting refreshes and asking about them. Runs live in this process as tasks that it owns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Self
from uuid import UUID

import structlog

from modelcatalog_server.domain.deadlines import create_lasting_task
from modelcatalog_server.domain.errors import (
    CatalogError,
    DatabaseUnavailableError,
    OwnerLostError,
    RefreshNotCancellableError,
    RefreshNotFoundError,
    RequestIdReusedError,
    ServerDrainingError,
)
from modelcatalog_server.domain.ports.catalog import CatalogState
from modelcatalog_server.domain.ports.refreshes import RefreshOwnership, RefreshStore
from modelcatalog_server.domain.query import Expression
from modelcatalog_server.domain.refresh import (
    EventKind,
    Refresh,
    RefreshFailure,
    RefreshRequest,
    RefreshType,
    State,
)
from modelcatalog_server.domain.signal import Signal
from modelcatalog_server.domain.tasks import end_tasks, rest, undisturbed
from modelcatalog_server.outages import Outage
from modelcatalog_server.refresh.measures import RefreshMeasures
from modelcatalog_server.refresh.policy import RefreshPolicy
from modelcatalog_server.refresh.runner import RefreshRunner
from modelcatalog_server.refresh.schedule import Schedule

_log = structlog.get_logger(__name__)

# Another run owns the lock but its row is not to be seen yet, or no longer, which takes it some milliseconds: look
# again, ever less often, for about 5 s.
_JOIN_PAUSES_S = (0.002, 0.005, 0.01, 0.02, 0.05, *[0.1] * 49)

_SWEEP_RETRY_S = 1.0
_HAND_OVER_TIMEOUT_S = 2.0
# Every event is a nudge, and a run has several within milliseconds: one look at what they come to is enough.
_LOOK_AFTER_S = 0.05
_TOLD_S = 0.003

#: Reasons of failures after which a full run may do better: not another look at a payload that a gate refused.
_FALLBACK_REASONS = {"UPSTREAM_UNAVAILABLE", "UPSTREAM_INVALID", "DATABASE_UNAVAILABLE", "INTERNAL"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshOverview:
    """What is going on and how fresh the catalog is."""

    running: Refresh | None
    last_finished: Refresh | None
    last_success: Refresh | None
    state: CatalogState
    age: timedelta | None
    stale: bool
    next_time: datetime | None


class RefreshService:
    """Starts refreshes, one in the cluster at a time. An async context manager: leaving it ends the run under way."""

    def __init__(
        self,
        store: RefreshStore,
        runner: RefreshRunner,
        changed: Signal,
        schedule: Schedule,
        *,
        new_id: Callable[[], UUID],
        now: Callable[[], datetime],
        policy: RefreshPolicy,
    ) -> None:
        self._store = store
        self._runner = runner
        self._changed = changed
        self._schedule = schedule
        self._new_id = new_id
        self._now = now
        self._policy = policy
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def __aenter__(self) -> Self:
        self._own(self._sweep(), name="refresh-orphan-sweep")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Start no more, and end the run under way. A second time does nothing."""
        self._closed = True
        while self._tasks:
            await end_tasks(*self._tasks)

    def _own(self, work: Coroutine[Any, Any, None], *, name: str) -> None:
        task = create_lasting_task(work, name=name)  # the call that starts a run ends long before it
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @property
    def measures(self) -> RefreshMeasures:
        """Figures of the runs that ended here."""
        return self._runner.measures

    def get_next_time(self) -> datetime | None:
        """Return when the schedule is due next; ``None`` when it is off."""
        return self._schedule.get_next_time(self._now())

    async def start(self, request: RefreshRequest, slots: Mapping[str, datetime] | None = None) -> tuple[Refresh, bool]:
        """Accept a run and return it at once, or the one under way and True.

        ``slots`` of the schedule are taken with the run, unless it is another's.

        Raises:
            RequestIdReusedError: the request id was used with other arguments.
            SlotTakenError: somebody has started what a slot is for.
        """
        if self._closed:
            raise ServerDrainingError("this server is shutting down")
        if (known := await self._find_known(request)) is not None:
            return known
        active: Refresh | None = None
        for pause_s in _JOIN_PAUSES_S:
            ownership = await self._store.try_own()
            if ownership is not None:
                return await self._start_owned(ownership, request, slots or {})
            active = await self._store.get_active()
            if active is not None and _is_worth_joining(active, request):
                break
            await asyncio.sleep(pause_s)
        if active is None:
            raise DatabaseUnavailableError("another refresh neither runs nor ends")
        return await self._join(request, active)

    async def _join(self, request: RefreshRequest, active: Refresh) -> tuple[Refresh, bool]:
        if request.request_id is not None:
            await self._store.remember_joined(request, active.id)
            # The same id may have come in twice at once: whichever was noted first is the answer to both.
            if (known := await self._find_known(request)) is not None:
                return known
        return active, True

    async def cancel(self, refresh_id: UUID) -> Refresh:
        """Ask a run to stop; return it as it is now. One that was stopped already is returned as it ended.

        Raises:
            RefreshNotFoundError: there is none.
            RefreshNotCancellableError: it came to its end before.
        """
        refresh = await self._store.cancel(refresh_id)
        if refresh is None:
            raise RefreshNotFoundError(str(refresh_id))
        if refresh.state.is_over and refresh.state is not State.CANCELLED:
            raise RefreshNotCancellableError(f"the refresh is over: it {_ENDS[refresh.state]}")
        return refresh

    async def _sweep(self) -> None:
        """Look for orphans as long as the process lives; at once first, for what this machine's last life left."""
        outage = Outage(_log, "cannot look for orphaned refreshes", "orphaned refreshes are looked for again")
        while True:
            interval_s = self._policy.sweep.total_seconds()
            try:
                await self._end_orphan_if_any()
                outage.note_success()
            except Exception as error:
                outage.note_failure(error=str(error))
                interval_s = min(_SWEEP_RETRY_S, interval_s)
            await asyncio.sleep(interval_s)

    async def _end_orphan_if_any(self) -> None:
        """End a run whose process died or is stuck, so that nobody waits for it.

        Of a dead process the lock is free; a process that is stuck holds it and shows no sign of life.
        """
        if await self._store.get_active() is None:
            if await self._store.end_idle_owner(self._policy.lease):
                _log.warning("took the right to refresh from a session that was forgotten")
            return
        ownership = await self._store.try_own()
        if ownership is None:
            expired = await self._store.end_expired(self._policy.lease)
            if expired is not None:
                self._runner.measures.note_end(expired)
                _log.warning("ended a refresh whose process is stuck", refresh_id=str(expired.id))
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

    async def list_refreshes(
        self, matching: Expression | None = None, *, before: tuple[datetime, UUID] | None, limit: int
    ) -> list[Refresh]:
        """Return runs newest first, those that started before ``before``, all or those that match."""
        return await self._store.list_refreshes(matching, before=before, limit=limit)

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
            next_time=self.get_next_time(),
        )

    def get_age(self, state: CatalogState) -> tuple[timedelta | None, bool]:
        """Return the time since the catalog was last known to equal upstream, and whether that is too long."""
        if state.checked_at is None:
            return None, True
        age = max(self._now() - state.checked_at, timedelta(0))
        return age, age > self._policy.max_age

    async def _find_known(self, request: RefreshRequest) -> tuple[Refresh, bool] | None:
        """Return what the same request got before."""
        if request.request_id is None:
            return None
        known = await self._store.find_request(request.request_id)
        if known is None:
            return None
        if not known.request.asks_the_same(request):
            raise RequestIdReusedError("this request_id was used before, with other arguments")
        return known.refresh, known.joined

    async def _start_owned(
        self, ownership: RefreshOwnership, request: RefreshRequest, slots: Mapping[str, datetime]
    ) -> tuple[Refresh, bool]:
        try:
            # Again, now that nobody else can start one: the same request may have been served meanwhile.
            if (known := await self._find_known(request)) is not None:
                await ownership.release()
                return known
            await self._end_orphan()
            refresh = await self._store.create(self._new_id(), request, slots)
        except BaseException:
            await ownership.release()
            raise
        self._own(self._run(ownership, refresh, slots), name=f"refresh-{refresh.id}")
        return refresh, False

    async def _run(self, ownership: RefreshOwnership, refresh: Refresh, slots: Mapping[str, datetime]) -> None:
        ended: Refresh | None = None
        try:
            ended = await self._run_watched(refresh)
        except OwnerLostError:
            pass  # the runner has said so
        except asyncio.CancelledError:
            await undisturbed(self._hand_over(refresh, slots))
            raise
        except DatabaseUnavailableError as error:
            # So the end could not be written. Whoever owns the lock next ends the row.
            _log.warning("a refresh could not be ended", refresh_id=str(refresh.id), reason=str(error))
        except Exception:
            _log.exception("a refresh could not be ended", refresh_id=str(refresh.id))
        finally:
            await undisturbed(ownership.release())
        if ended is not None and self._policy.fallback_delay is not None and _calls_for_full(ended):
            await asyncio.sleep(self._policy.fallback_delay.total_seconds())
            await self._fall_back(ended)

    async def _hand_over(self, refresh: Refresh, slots: Mapping[str, datetime]) -> None:
        """Leave what the schedule asked for to another process, or to the next life of this one."""
        if not slots:
            return
        try:
            async with asyncio.timeout(_HAND_OVER_TIMEOUT_S):
                await self._store.give_back_slots(slots, refresh.id)
        except Exception as error:
            _log.warning("a scheduled refresh is not made up for", refresh_id=str(refresh.id), error=str(error))

    async def _run_watched(self, refresh: Refresh) -> Refresh | None:
        """Run beside a task that watches over the run. None when the run was stopped."""
        run = asyncio.create_task(self._runner.run(refresh), name=f"refresh-run-{refresh.id}")
        watch = asyncio.create_task(self._watch_over(refresh, run), name=f"refresh-watch-{refresh.id}")
        try:
            await asyncio.wait({run})
        except asyncio.CancelledError:
            await undisturbed(end_tasks(run))
            if not run.cancelled() and (error := run.exception()) is not None:
                _log.error("a refresh could not be ended", refresh_id=str(refresh.id), exc_info=error)
            raise
        finally:
            await undisturbed(end_tasks(watch))
        return None if run.cancelled() else run.result()

    async def _watch_over(self, refresh: Refresh, run: asyncio.Task[Refresh]) -> None:
        """Show signs of life, and stop the run when somebody asks for that.

        One that somebody else has ended finds that out when it takes its next step.
        """
        clock = asyncio.get_running_loop().time  # not the wall clock, which may be set back
        beat_at = clock()  # creating it was the first
        while True:
            await asyncio.sleep(_LOOK_AFTER_S)
            ticket = self._changed.ticket()
            try:
                if clock() - beat_at >= self._policy.heartbeat.total_seconds():
                    beat_at = clock()
                    await self._store.beat(refresh.id)
                current = await self._store.get(refresh.id)
            except Exception as error:  # whatever it was: without a sign of life the run is ended
                _log.warning("a refresh cannot show a sign of life", refresh_id=str(refresh.id), error=str(error))
            else:
                if current is not None and current.state is State.CANCELLING:
                    run.cancel()
                    return
            with suppress(TimeoutError):
                async with asyncio.timeout(self._policy.heartbeat.total_seconds()):
                    await ticket.wait()
            await rest(_TOLD_S)  # those who follow the run come first

    async def _fall_back(self, failed: Refresh) -> None:
        """Start the full run that follows a failed incremental one."""
        request = replace(failed.request, type=RefreshType.FULL, request_id=None, fallback_of=failed.id)
        try:
            refresh, _ = await self.start(request)
        except CatalogError as error:
            _log.warning("cannot fall back to a full refresh", refresh_id=str(failed.id), error=str(error))
        else:
            _log.info("falling back to a full refresh", refresh_id=str(refresh.id), failed=str(failed.id))

    async def _end_orphan(self) -> None:
        orphan = await self._store.get_active()
        if orphan is None:
            return
        failure = RefreshFailure(reason="OWNER_LOST", message="the process that ran it died")
        _log.warning("ending a refresh whose process died", refresh_id=str(orphan.id))
        ended = replace(orphan, state=State.FAILED, failure=failure)
        with suppress(OwnerLostError):  # it only lost its lock, and came to its end meanwhile
            ended = await self._store.record(ended, EventKind.TERMINAL, message=failure.message)
            self._runner.measures.note_end(ended)


_ENDS = {
    State.SUCCEEDED: "succeeded",
    State.PARTIALLY_SUCCEEDED: "partially succeeded",
    State.FAILED: "failed",
}


def _is_worth_joining(active: Refresh, request: RefreshRequest) -> bool:
    """Whether a run under way is an answer to a request; one that is not is waited for, if it does not take long.

    A dry run is none to who wants the catalog refreshed, and one that was asked to stop to nobody.
    """
    if active.state is State.CANCELLING:
        return False
    return request.validate_only or not active.request.validate_only


def _calls_for_full(ended: Refresh) -> bool:
    """Whether a full run may bring what this one did not."""
    request, failure = ended.request, ended.failure
    return (
        ended.state is State.FAILED
        and request.type is RefreshType.INCREMENTAL
        and not request.validate_only
        and failure is not None
        and failure.reason in _FALLBACK_REASONS
    )
