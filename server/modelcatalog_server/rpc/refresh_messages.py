"""Refreshes as the contract's messages."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

from google.protobuf import any_pb2
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from modelcatalog.v1 import refresh_pb2
from modelcatalog_server.domain.money import format_decimal
from modelcatalog_server.domain.refresh import (
    Attempt,
    EventKind,
    Phase,
    PriceChange,
    Refresh,
    RefreshFailure,
    RefreshReport,
    RefreshType,
)
from modelcatalog_server.refresh.feed import Notice
from modelcatalog_server.rpc.errors import DOMAIN, code_of_reason
from modelcatalog_server.rpc.model_messages import to_timestamp

_PHASES = {phase: refresh_pb2.RefreshStatus.Phase.Value(f"PHASE_{phase}") for phase in Phase}
_KINDS = {kind: refresh_pb2.RefreshStatus.Kind.Value(f"KIND_{kind}") for kind in EventKind}


def to_refresh_type(value: refresh_pb2.Refresh.Type.ValueType) -> RefreshType:
    """Return the type that was asked for; unspecified means incremental."""
    return RefreshType.FULL if value == refresh_pb2.Refresh.TYPE_FULL else RefreshType.INCREMENTAL


def to_duration(value: timedelta | None) -> Duration | None:
    """Return a duration, unset when there is none."""
    if value is None:
        return None
    duration = Duration()
    duration.FromTimedelta(value)
    return duration


def to_refresh(refresh: Refresh, now: datetime) -> refresh_pb2.Refresh:
    """Return a run as of ``now``."""
    request, counts = refresh.request, refresh.counts
    return refresh_pb2.Refresh(
        id=str(refresh.id),
        state=refresh_pb2.Refresh.State.Value(f"STATE_{refresh.state}"),
        type=refresh_pb2.Refresh.Type.Value(f"TYPE_{request.type}"),
        provider_id=request.provider_id or "",
        trigger=refresh_pb2.Refresh.Trigger.Value(f"TRIGGER_{request.trigger}"),
        requested_by=request.requested_by or "",
        counts=refresh_pb2.RefreshCounts(
            seen=counts.seen,
            added=counts.added,
            changed=counts.changed,
            removed=counts.removed,
            revived=counts.revived,
            unchanged=counts.unchanged,
            quarantined=counts.quarantined,
        ),
        attempt=refresh.attempt,
        error=to_status(refresh.failure) if refresh.failure else None,
        warnings=refresh.warnings,
        start_time=to_timestamp(refresh.started_at),
        end_time=to_timestamp(refresh.completed_at),
        duration=to_duration(max((refresh.completed_at or now) - refresh.started_at, timedelta(0))),
        base_revision=refresh.base_revision,
        result_revision=refresh.result_revision,
        not_modified=refresh.not_modified,
        validate_only=request.validate_only,
        force=request.force,
        override_gate=request.override_gate or "",
        fallback_of=str(request.fallback_of or ""),
        attempts=[to_attempt(attempt) for attempt in refresh.attempts],
    )


def to_attempt(attempt: Attempt) -> refresh_pb2.RefreshAttempt:
    """Return one attempt at fetching."""
    return refresh_pb2.RefreshAttempt(
        number=attempt.number,
        start_time=to_timestamp(attempt.started_at),
        duration=to_duration(attempt.duration),
        error=to_status(attempt.failure) if attempt.failure else None,
        retry_delay=to_duration(attempt.retry_delay),
    )


def to_report(report: RefreshReport) -> refresh_pb2.RefreshReport:
    """Return what a run found."""
    return refresh_pb2.RefreshReport(
        added_model_ids=report.added_model_ids,
        changed_model_ids=report.changed_model_ids,
        removed_model_ids=report.removed_model_ids,
        revived_model_ids=report.revived_model_ids,
        price_changes=[_to_price_change(change) for change in report.price_changes],
        quarantined_records=[
            refresh_pb2.QuarantinedRecord(pointer=each.pointer, reason=each.reason) for each in report.quarantined
        ],
        truncated=report.truncated,
    )


def to_status(failure: RefreshFailure) -> status_pb2.Status:
    """Return why a run ended badly, with its reason as ErrorInfo."""
    detail = any_pb2.Any()
    detail.Pack(
        error_details_pb2.ErrorInfo(reason=failure.reason, domain=DOMAIN, metadata=dict(failure.metadata)),
    )
    return status_pb2.Status(code=code_of_reason(failure.reason), message=failure.message, details=[detail])


def to_refresh_status(notice: Notice, now: datetime) -> refresh_pb2.RefreshStatus:
    """Return one message of a watch."""
    message = refresh_pb2.RefreshStatus(
        sequence=notice.sequence,
        kind=_KINDS[notice.kind],
        phase=_PHASES[notice.phase] if notice.phase else refresh_pb2.RefreshStatus.PHASE_UNSPECIFIED,
        done=notice.done,
        total=notice.total,
        message=notice.message,
        event_time=to_timestamp(notice.happened_at or now),
        resume_token=notice.resume_token,
    )
    if notice.refresh is not None:
        message.refresh_id = str(notice.refresh.id)
        message.refresh.CopyFrom(to_refresh(notice.refresh, now))
    return message


def _to_price_change(change: PriceChange) -> refresh_pb2.PriceChange:
    return refresh_pb2.PriceChange(
        model_id=change.model_id,
        field=change.field,
        before=_to_price(change.before),
        after=_to_price(change.after),
    )


def _to_price(price: Decimal | None) -> str | None:
    return None if price is None else format_decimal(price)
