"""One run of a refresh: fetch, validate, compare, apply in one transaction, publish.

Whatever happens, the run ends in a final state with exactly one TERMINAL event, and the catalog is the old one or the
new one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import structlog
from structlog.contextvars import bind_contextvars
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt

from modelcatalog_server.domain.errors import (
    CatalogError,
    DatabaseUnavailableError,
    DeadlineError,
    GateRefusedError,
    OwnerLostError,
    RefreshCancelledError,
    UpstreamInvalidError,
    UpstreamUnavailableError,
)
from modelcatalog_server.domain.models import ModelRecord
from modelcatalog_server.domain.ports.catalog import CatalogState
from modelcatalog_server.domain.ports.refreshes import CatalogWrite, RefreshStore
from modelcatalog_server.domain.ports.upstream import ModelSink, PayloadComparison, Progress, Upstream
from modelcatalog_server.domain.refresh import (
    Attempt,
    Difference,
    EventKind,
    KnownState,
    Payload,
    Phase,
    PriceChange,
    Refresh,
    RefreshFailure,
    RefreshType,
    State,
)
from modelcatalog_server.domain.spans import Kind, trace
from modelcatalog_server.domain.tasks import find_in_slices, rest, run_in_slices, undisturbed, within_limits
from modelcatalog_server.refresh.gates import GateLimits, judge, split_gates, to_error
from modelcatalog_server.refresh.measures import RefreshMeasures
from modelcatalog_server.refresh.policy import RetryPolicy
from modelcatalog_server.refresh.prices import changed_model_ids, find_price_changes
from modelcatalog_server.refresh.progress import throttled
from modelcatalog_server.refresh.report import make_report
from modelcatalog_server.refresh.uncollected import uncollected

_log = structlog.get_logger(__name__)

#: Bad records in ``Refresh.warnings``; a payload may hold thousands. What else there is to say is a few lines.
MAX_WARNINGS = 100

_END_TIMEOUT_S = 10.0
_RECORDS_A_STEP = 20
#: Whoever follows a run has been told of an event by then.
_TOLD_S = 0.01
#: A process is at a new revision by then.
_TURN_S = 0.03


#: However long upstream asks to be left alone, it is asked again after this.
MAX_LEFT_ALONE = timedelta(hours=6)


@dataclass(frozen=True, slots=True)
class RefreshRunner:
    """Runs accepted refreshes. ``new_comparison`` makes what decodes and compares, fresh for each run."""

    store: RefreshStore
    upstream: Upstream
    new_comparison: Callable[[], PayloadComparison]
    now: Callable[[], datetime]
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    limits: GateLimits = field(default_factory=GateLimits)
    measures: RefreshMeasures = field(default_factory=RefreshMeasures)

    async def run(self, refresh: Refresh) -> Refresh:
        """Carry the run to its end and return it as stored; a failed run is returned, not raised.

        Cancelled, it ends the run as CANCELLED and goes on being cancelled.

        Raises:
            OwnerLostError: somebody else ended it.
        """
        bind_contextvars(refresh_id=str(refresh.id))  # in every line of what is done for this run, which has a task
        log = _log.bind(type=refresh.request.type)
        run = _Run(self, refresh)
        attributes = {"modelcatalog.refresh.id": str(refresh.id), "modelcatalog.refresh.type": refresh.request.type}
        try:
            with trace("refresh", Kind.INTERNAL, attributes):
                await run.carry_out()
        except asyncio.CancelledError:
            await undisturbed(self._end_cancelled(run))
            raise
        except RefreshCancelledError:
            await undisturbed(self._end_cancelled(run))
        except OwnerLostError:
            log.warning("the refresh was ended by somebody else")
            raise
        except CatalogError as error:
            log.warning("refresh failed", reason=str(error))
            await undisturbed(self._end(run, State.FAILED, _failure_of(error)))
        except Exception:
            log.exception("refresh failed on a fault of the service")
            failure = RefreshFailure(reason="INTERNAL", message="a fault of the service; its log has more")
            await undisturbed(self._end(run, State.FAILED, failure))
        else:
            ended = run.refresh
            log.info("refresh ended", state=ended.state, revision=ended.result_revision, **_figures(ended))
        finally:
            if run.refresh.state.is_over:  # else somebody else has ended it, and counts it
                self.measures.note_end(run.refresh)
        return run.refresh

    async def _end_cancelled(self, run: _Run) -> None:
        current = await self.store.get(run.refresh.id)
        asked = current is not None and current.state is State.CANCELLING
        why = "stopped on request" if asked else "the server was shut down"
        await self._end(run, State.CANCELLED, RefreshFailure(reason="REFRESH_CANCELLED", message=why))
        _log.info("refresh cancelled", state=run.refresh.state, reason=why)

    async def _end(self, run: _Run, state: State, failure: RefreshFailure) -> None:
        """Write the end, unless a commit that was on its way when the run was cancelled is the end already."""
        async with asyncio.timeout(_END_TIMEOUT_S):
            current = await self.store.get(run.refresh.id)
            if current is not None and current.state.is_over:
                run.refresh = current
                return
            ended = replace(run.refresh, state=state, failure=failure)
            run.refresh = await self.store.record(ended, EventKind.TERMINAL, message=failure.message)


@dataclass(slots=True)
class _Run:
    """The steps of one run; ``refresh`` is the run as last stored."""

    runner: RefreshRunner
    refresh: Refresh

    async def carry_out(self) -> None:
        await rest(_TOLD_S)  # whoever asked for this run is being answered, and begins to watch it
        async with self.runner.new_comparison() as comparison:
            payload = await self._fetch()
            if payload is None:
                await self._warn_of_set_aside()
                ended = replace(self.refresh, state=State.SUCCEEDED, phase=Phase.PUBLISH)
                message = "upstream says nothing changed"
                self.refresh = await self.runner.store.finish_not_modified(ended, message=message)
                return
            with uncollected(), within_limits():
                async with self.runner.store.writing() as write:
                    await self._compare_and_write(comparison, payload, write)

    async def _compare_and_write(self, comparison: PayloadComparison, payload: Payload, write: CatalogWrite) -> None:
        difference = await self._compare(comparison, payload, write)
        self.refresh = await self._finish(payload, difference, write)
        # On return the records are gone, so that the collector does not find them all when it goes on. What can
        # wait does while the process turns to the new revision.
        await rest(_TURN_S)
        records = list(difference.models)
        del difference
        await run_in_slices(_let_go(records))

    async def _warn_of_set_aside(self) -> None:
        """Say so if the document that was not modified has records that could not be read: they are still stale."""
        applied = await self.runner.store.get_last_applied()
        if applied is not None and applied.state is State.PARTIALLY_SUCCEEDED:
            self._warn(f"records are still set aside: the report of refresh {applied.id} has them with their reasons")

    async def _enter(self, phase: Phase, message: str) -> None:
        self.refresh = await self.runner.store.record(
            replace(self.refresh, state=State.RUNNING, phase=phase), EventKind.STATE, message=message
        )
        await rest(_TOLD_S)

    async def _report(self, done: int, total: int | None) -> None:
        # Figures are not worth a run: one that is over, or a database that is away, is found out by the next step.
        with suppress(CatalogError):
            await self.runner.store.record(self.refresh, EventKind.PROGRESS, done=done, total=total)

    async def _fetch(self) -> Payload | None:
        state = await self.runner.store.get_catalog_state()
        etag = await self._find_etag(state)
        is_first = state.revision == 0
        try:
            if not is_first:
                await self._check_left_alone(state)
            # Whoever waits for a first catalog is served the bundled snapshot sooner, and upstream is asked again soon.
            return await self._ask_upstream(etag, attempts=1 if is_first else self.runner.retry.attempts)
        except (UpstreamUnavailableError, UpstreamInvalidError) as error:
            if not is_first:
                raise
            # Nothing to serve at all: the snapshot that ships with the package is better than nothing, and says so.
            payload = await self.runner.upstream.load_bundled()
            self._warn(f"{error}; loaded the bundled snapshot instead ({payload.source.url})")
            return payload

    async def _find_etag(self, state: CatalogState) -> str | None:
        """Return the ETag of what the catalog equals, if upstream may say that it is still so."""
        if not self._may_be_unmodified() or state.source_etag is None or state.source_url is None:
            return None
        return state.source_etag if await self.runner.upstream.is_source(state.source_url) else None

    async def _check_left_alone(self, state: CatalogState) -> None:
        until, url = state.upstream_not_before, state.upstream_not_before_url
        if until is None or until <= self.runner.now():
            return
        if url is None or await self.runner.upstream.is_source(url):  # what another upstream asked for is no matter
            raise UpstreamUnavailableError(f"upstream asked to be left alone until {until:%Y-%m-%d %H:%M:%S} UTC")

    async def _ask_upstream(self, etag: str | None, *, attempts: int) -> Payload | None:
        policy = self.runner.retry
        retrying = AsyncRetrying(
            stop=stop_after_attempt(attempts),
            wait=lambda state: policy.get_pause_s(state.attempt_number, _error_of(state)),
            retry=retry_if_exception(policy.is_worth_another),
            before_sleep=self._note_pause,
            reraise=True,
        )
        try:
            return await retrying(self._attempt, etag)
        except UpstreamUnavailableError as error:
            if error.retry_after:
                left_alone = min(timedelta(seconds=error.retry_after), MAX_LEFT_ALONE)
                source_url = await self.runner.upstream.get_source_url()
                await self.runner.store.set_upstream_not_before(self.runner.now() + left_alone, source_url)
            raise

    async def _attempt(self, etag: str | None) -> Payload | None:
        attempt = Attempt(number=self.refresh.attempt + 1, started_at=self.runner.now())
        self.refresh = replace(self.refresh, attempts=(*self.refresh.attempts, attempt))
        await self._enter(Phase.FETCH, f"asking upstream, attempt {attempt.number}")
        try:
            async with throttled(self._report) as progress:
                payload = await self.runner.upstream.fetch(etag=etag, progress=progress)
        except CatalogError as error:
            self._amend_attempt(duration=self.runner.now() - attempt.started_at, failure=_failure_of(error))
            raise
        self._amend_attempt(duration=self.runner.now() - attempt.started_at)
        return payload

    async def _note_pause(self, retry: RetryCallState) -> None:
        pause = timedelta(seconds=retry.upcoming_sleep)
        self._amend_attempt(retry_delay=pause)
        failure = self.refresh.attempts[-1].failure
        why = failure.message if failure else "failed"
        await self._enter(Phase.FETCH, f"{why}; asking again in {pause.total_seconds():.1f} s")

    def _amend_attempt(self, **changes: Any) -> None:
        *earlier, last = self.refresh.attempts
        self.refresh = replace(self.refresh, attempts=(*earlier, replace(last, **changes)))

    def _may_be_unmodified(self) -> bool:
        """Whether "not modified" would be an answer: a full run needs the body, a limited one leaves the rest stale."""
        request = self.refresh.request
        return (
            request.type is RefreshType.INCREMENTAL
            and not request.force
            and not request.validate_only
            and request.provider_id is None
        )

    async def _compare(self, comparison: PayloadComparison, payload: Payload, write: CatalogWrite) -> Difference:
        request = self.refresh.request
        await self._enter(Phase.VALIDATE, "decoding each record")
        state = await self.runner.store.get_catalog_state()
        known = await self.runner.store.get_known_state(request.provider_id)
        async with throttled(self._report) as progress:
            difference = await comparison.compare(
                payload,
                known,
                provider_id=request.provider_id,
                full=request.type is RefreshType.FULL,
                take=self._staging(write, progress),
            )
        for bad in difference.quarantined[:MAX_WARNINGS]:
            self._warn(f"quarantined {bad.pointer}: {bad.reason}")
        # Of a run that writes it is read again, under the lock: policy may have made a revision meanwhile.
        self.refresh = replace(self.refresh, counts=difference.counts, base_revision=state.revision)
        await self._enter(Phase.COMPARE, _describe(difference))
        prices = await self.runner.store.get_prices(changed_model_ids(difference, known))
        price_changes = await find_in_slices(find_price_changes(difference, prices))
        report = await asyncio.to_thread(make_report, difference, known, price_changes)
        await rest()
        await self.runner.store.save_report(self.refresh.id, report)
        if not payload.is_bundled:  # which is better than nothing, whatever it looks like
            await self._judge(difference, known, price_changes, state)
        return difference

    def _staging(self, write: CatalogWrite, progress: Progress) -> ModelSink:
        """Return what takes decoded models: to the database, unless nothing will be written whatever they say."""
        done = 0

        async def take(models: Sequence[tuple[ModelRecord, bytes]]) -> None:
            nonlocal done
            if not self.refresh.request.validate_only:
                await write.stage(models)
            done += len(models)
            progress(done, None)

        return take

    async def _judge(
        self, difference: Difference, known: KnownState, price_changes: Sequence[PriceChange], state: CatalogState
    ) -> None:
        """Raise what the gates say whose refusal nobody accepted."""
        request = self.refresh.request
        verdict = await asyncio.to_thread(
            judge,
            difference,
            known=known,
            price_changes=price_changes,
            state=state,
            now=self.runner.now(),
            limits=self.runner.limits,
            provider_id=request.provider_id,
        )
        for line in verdict.warnings:
            self._warn(line)
        accepted = split_gates(request.override_gate)
        for refusal in verdict.refusals:
            if refusal.gate in accepted:
                self._warn(f"accepted in spite of the gate {refusal.message}")
        refused = [refusal for refusal in verdict.refusals if refusal.gate not in accepted]
        if refused:
            raise to_error(refused)

    async def _finish(self, payload: Payload, difference: Difference, write: CatalogWrite) -> Refresh:
        message = _describe(difference)
        if not self.refresh.request.validate_only:
            await self._enter(Phase.APPLY, "writing")
        state = State.PARTIALLY_SUCCEEDED if difference.quarantined else State.SUCCEEDED
        ended = replace(self.refresh, state=state, phase=Phase.PUBLISH)
        if self.refresh.request.validate_only:
            return await self.runner.store.record(ended, EventKind.TERMINAL, message=f"nothing written: {message}")
        return await write.apply(ended, difference, payload, message=message)

    def _warn(self, line: str) -> None:
        self.refresh = replace(self.refresh, warnings=(*self.refresh.warnings, line))


def _let_go(records: list[ModelRecord]) -> Iterator[None]:
    while records:
        del records[-_RECORDS_A_STEP:]
        yield


def _describe(difference: Difference) -> str:
    counts = difference.counts
    return (
        f"{counts.seen} models: {counts.added} added, {counts.changed} changed, {counts.removed} removed,"
        f" {counts.revived} revived, {counts.unchanged} unchanged, {counts.quarantined} quarantined"
    )


def _figures(refresh: Refresh) -> dict[str, int]:
    counts = refresh.counts
    return {"added": counts.added, "changed": counts.changed, "removed": counts.removed, "seen": counts.seen}


def _error_of(retry: RetryCallState) -> BaseException | None:
    return retry.outcome.exception() if retry.outcome else None


def _failure_of(error: CatalogError) -> RefreshFailure:
    match error:
        case GateRefusedError():
            return RefreshFailure(reason="GATE_REFUSED", message=str(error), metadata=error.metadata)
        case UpstreamUnavailableError():
            reason = "UPSTREAM_UNAVAILABLE"
        case UpstreamInvalidError():
            reason = "UPSTREAM_INVALID"
        case DatabaseUnavailableError() | DeadlineError():
            reason = "DATABASE_UNAVAILABLE"
        case _:
            reason = "INTERNAL"
    return RefreshFailure(reason=reason, message=str(error))
