"""One run of a refresh: fetch, validate, compare, apply in one transaction, publish.

Whatever happens, the run ends in a final state with exactly one TERMINAL event, and the catalog is the old one or the
new one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import structlog

from modelcatalog_server.domain.errors import (
    CatalogError,
    DatabaseUnavailableError,
    DeadlineError,
    OwnerLostError,
    UpstreamInvalidError,
    UpstreamUnavailableError,
)
from modelcatalog_server.domain.ports import PayloadComparison, RefreshStore, Upstream
from modelcatalog_server.domain.refresh import (
    Attempt,
    Difference,
    EventKind,
    Payload,
    Phase,
    Refresh,
    RefreshFailure,
    RefreshType,
    State,
)
from modelcatalog_server.refresh.progress import throttled

_log = structlog.get_logger(__name__)

#: Lines of ``Refresh.warnings``; a payload may hold thousands of bad records.
MAX_WARNINGS = 100

_END_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class RefreshRunner:
    """Runs accepted refreshes. ``new_comparison`` makes what decodes and compares, fresh for each run."""

    store: RefreshStore
    upstream: Upstream
    new_comparison: Callable[[], PayloadComparison]

    async def run(self, refresh: Refresh) -> Refresh:
        """Carry the run to its end and return it as stored; a failed run is returned, not raised."""
        log = _log.bind(refresh_id=str(refresh.id), type=refresh.request.type)
        try:
            finished = await _Run(self, refresh).carry_out()
        except asyncio.CancelledError:
            await self._end_badly(refresh, State.CANCELLED, "REFRESH_CANCELLED", "the server is shutting down")
            raise
        except OwnerLostError:
            log.warning("the refresh was ended by somebody else")
            raise
        except CatalogError as error:
            log.warning("refresh failed", reason=str(error))
            return await self._end_badly(refresh, State.FAILED, _reason_of(error), str(error))
        except Exception:
            log.exception("refresh failed on a fault of the service")
            return await self._end_badly(refresh, State.FAILED, "INTERNAL", "a fault of the service; its log has more")
        log.info("refresh ended", state=finished.state, revision=finished.result_revision, **_figures(finished))
        return finished

    async def _end_badly(self, refresh: Refresh, state: State, reason: str, message: str) -> Refresh:
        current = await self.store.get(refresh.id) or refresh
        ended = replace(current, state=state, failure=RefreshFailure(reason=reason, message=message))
        async with asyncio.timeout(_END_TIMEOUT_S):
            return await self.store.record(ended, EventKind.TERMINAL, message=message)


@dataclass(slots=True)
class _Run:
    """The steps of one run; ``refresh`` is the run as last stored."""

    runner: RefreshRunner
    refresh: Refresh

    async def carry_out(self) -> Refresh:
        async with self.runner.new_comparison() as comparison:
            payload = await self._fetch()
            if payload is None:
                ended = replace(self.refresh, state=State.SUCCEEDED, phase=Phase.PUBLISH)
                return await self.runner.store.finish_not_modified(ended, message="upstream says nothing changed")
            difference = await self._compare(comparison, payload)
        return await self._finish(payload, difference)

    async def _enter(self, phase: Phase, message: str) -> None:
        self.refresh = await self.runner.store.record(
            replace(self.refresh, state=State.RUNNING, phase=phase), EventKind.STATE, message=message
        )

    async def _report(self, done: int, total: int | None) -> None:
        # Figures are not worth a run: one that is over, or a database that is away, is found out by the next step.
        with suppress(CatalogError):
            await self.runner.store.record(self.refresh, EventKind.PROGRESS, done=done, total=total)

    async def _fetch(self) -> Payload | None:
        number = self.refresh.attempt + 1
        attempt = Attempt(number=number, started_at=datetime.now(UTC))
        self.refresh = replace(self.refresh, attempts=(*self.refresh.attempts, attempt))
        await self._enter(Phase.FETCH, "asking upstream")
        state = await self.runner.store.get_catalog_state()
        try:
            async with throttled(self._report) as progress:
                etag = state.source_etag if self._may_be_unmodified() else None
                return await self.runner.upstream.fetch(etag=etag, progress=progress)
        except (UpstreamUnavailableError, UpstreamInvalidError) as error:
            if state.revision > 0:
                raise
            # Nothing to serve at all: the snapshot that ships with the package is better than nothing, and says so.
            payload = await self.runner.upstream.load_bundled()
            self._warn(f"{error}; loaded the bundled snapshot instead ({payload.source.url})")
            return payload

    def _may_be_unmodified(self) -> bool:
        """Whether "not modified" would be an answer: a full run needs the body, a limited one leaves the rest stale."""
        request = self.refresh.request
        return (
            request.type is RefreshType.INCREMENTAL
            and not request.force
            and not request.validate_only
            and request.provider_id is None
        )

    async def _compare(self, comparison: PayloadComparison, payload: Payload) -> Difference:
        request = self.refresh.request
        await self._enter(Phase.VALIDATE, "decoding each record")
        known = await self.runner.store.get_known_state(request.provider_id)
        difference = await comparison.compare(
            payload, known, provider_id=request.provider_id, full=request.type is RefreshType.FULL
        )
        for bad in difference.quarantined[:MAX_WARNINGS]:
            self._warn(f"quarantined {bad.pointer}: {bad.reason}")
        self.refresh = replace(self.refresh, counts=difference.counts)
        await self._enter(Phase.COMPARE, _describe(difference))
        return difference

    async def _finish(self, payload: Payload, difference: Difference) -> Refresh:
        message = _describe(difference)
        if not self.refresh.request.validate_only:
            await self._enter(Phase.APPLY, "writing")
        state = State.PARTIALLY_SUCCEEDED if difference.quarantined else State.SUCCEEDED
        ended = replace(self.refresh, state=state, phase=Phase.PUBLISH)
        if self.refresh.request.validate_only:
            return await self.runner.store.record(ended, EventKind.TERMINAL, message=f"nothing written: {message}")
        async with throttled(self._report) as progress:
            return await self.runner.store.apply(ended, difference, payload, progress=progress, message=message)

    def _warn(self, line: str) -> None:
        if len(self.refresh.warnings) < MAX_WARNINGS:
            self.refresh = replace(self.refresh, warnings=(*self.refresh.warnings, line))


def _describe(difference: Difference) -> str:
    counts = difference.counts
    return (
        f"{counts.seen} models: {counts.added} added, {counts.changed} changed, {counts.removed} removed,"
        f" {counts.revived} revived, {counts.unchanged} unchanged, {counts.quarantined} quarantined"
    )


def _figures(refresh: Refresh) -> dict[str, int]:
    counts = refresh.counts
    return {"added": counts.added, "changed": counts.changed, "removed": counts.removed, "seen": counts.seen}


def _reason_of(error: CatalogError) -> str:
    match error:
        case UpstreamUnavailableError():
            return "UPSTREAM_UNAVAILABLE"
        case UpstreamInvalidError():
            return "UPSTREAM_INVALID"
        case DatabaseUnavailableError() | DeadlineError():
            return "DATABASE_UNAVAILABLE"
        case _:
            return "INTERNAL"
