"""A refresh as a row of ``models_refresh_history`` and back."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from modelcatalog_server.domain.ports.refreshes import KnownRequest
from modelcatalog_server.domain.refresh import (
    Attempt,
    EventKind,
    Phase,
    Refresh,
    RefreshCounts,
    RefreshEvent,
    RefreshFailure,
    RefreshRequest,
    RefreshType,
    State,
    Trigger,
)


def to_parameters(refresh: Refresh) -> dict[str, Any]:
    """Return the parameters of ``update_refresh``."""
    counts, failure = refresh.counts, refresh.failure
    return {
        "id": refresh.id,
        "status": refresh.state,
        "is_over": refresh.state.is_over,
        "phase": refresh.phase,
        "attempt": refresh.attempt,
        "attempts": Jsonb([_write_attempt(attempt) for attempt in refresh.attempts]),
        "models_seen": counts.seen,
        "models_added": counts.added,
        "models_changed": counts.changed,
        "models_removed": counts.removed,
        "models_revived": counts.revived,
        "models_unchanged": counts.unchanged,
        "models_failed": counts.quarantined,
        "error_reason": failure.reason if failure else None,
        "error_message": failure.message if failure else None,
        "error_metadata": Jsonb(dict(failure.metadata)) if failure else None,
        "warnings": list(refresh.warnings),
        "base_revision": refresh.base_revision,
        "result_revision": refresh.result_revision,
        "not_modified": refresh.not_modified,
    }


def to_request_parameters(request: RefreshRequest) -> dict[str, Any]:
    """Return the parameters of ``create_refresh`` that are what was asked for."""
    return {
        "refresh_type": request.type,
        "trigger": request.trigger,
        "provider_id": request.provider_id,
        "requested_by": request.requested_by,
        "request_id": request.request_id,
        "force": request.force,
        "validate_only": request.validate_only,
        "override_gate": request.override_gate,
        "fallback_of": request.fallback_of,
    }


def to_arguments(request: RefreshRequest) -> Jsonb:
    """Return what a caller asked for, to tell the same request from another one with its id."""
    return Jsonb(
        {
            "type": request.type,
            "provider_id": request.provider_id,
            "force": request.force,
            "validate_only": request.validate_only,
            "override_gate": request.override_gate,
        }
    )


def read_known_request(row: Mapping[str, Any]) -> KnownRequest:
    """Return the request of a row of ``find_request``."""
    arguments = row["arguments"]
    return KnownRequest(
        request=RefreshRequest(
            type=RefreshType(arguments["type"]),
            provider_id=arguments["provider_id"],
            force=arguments["force"],
            validate_only=arguments["validate_only"],
            override_gate=arguments["override_gate"],
        ),
        refresh=read_refresh(row["refresh"]),
        joined=row["joined"],
    )


def read_refresh(row: Mapping[str, Any]) -> Refresh:
    """Return the refresh of a history row that came as JSON, itself or inside an event."""
    return Refresh(
        id=UUID(row["id"]),
        request=_read_request(row),
        state=State(row["status"]),
        phase=Phase(row["phase"]) if row["phase"] else None,
        attempts=tuple(map(_read_attempt, row["attempts"])),
        counts=_read_counts(row),
        warnings=tuple(row["warnings"]),
        failure=_read_failure(row),
        started_at=datetime.fromisoformat(row["started_at"]),
        completed_at=datetime.fromisoformat(row["completed_at"]) if row["completed_at"] else None,
        base_revision=row["base_revision"],
        result_revision=row["result_revision"],
        not_modified=row["not_modified"],
        last_sequence=row["last_sequence"],
    )


def read_event(row: Mapping[str, Any]) -> RefreshEvent:
    """Return the event of a row of ``list_events``."""
    return RefreshEvent(
        id=row["id"],
        refresh=read_refresh(row["refresh"]),
        sequence=row["sequence"],
        kind=EventKind(row["kind"]),
        happened_at=row["happened_at"],
        phase=Phase(row["phase"]) if row["phase"] else None,
        done=row["done"],
        total=row["total"],
        message=row["message"],
    )


def _read_request(row: Mapping[str, Any]) -> RefreshRequest:
    return RefreshRequest(
        type=RefreshType(row["refresh_type"]),
        trigger=Trigger(row["trigger"]),
        provider_id=row["provider_id"],
        requested_by=row["requested_by"],
        request_id=UUID(row["request_id"]) if row["request_id"] else None,
        force=row["force"],
        validate_only=row["validate_only"],
        override_gate=row["override_gate"],
        fallback_of=UUID(row["fallback_of"]) if row["fallback_of"] else None,
    )


def _read_counts(row: Mapping[str, Any]) -> RefreshCounts:
    return RefreshCounts(
        seen=row["models_seen"],
        added=row["models_added"],
        changed=row["models_changed"],
        removed=row["models_removed"],
        revived=row["models_revived"],
        unchanged=row["models_unchanged"],
        quarantined=row["models_failed"],
    )


def _write_attempt(attempt: Attempt) -> dict[str, Any]:
    failure = attempt.failure
    return {
        "number": attempt.number,
        "started_at": attempt.started_at.isoformat(),
        "duration_ms": _to_ms(attempt.duration),
        "error_reason": failure.reason if failure else None,
        "error_message": failure.message if failure else None,
        "retry_delay_ms": _to_ms(attempt.retry_delay),
    }


def _read_attempt(row: Mapping[str, Any]) -> Attempt:
    reason = row["error_reason"]
    return Attempt(
        number=row["number"],
        started_at=datetime.fromisoformat(row["started_at"]),
        duration=_from_ms(row["duration_ms"]),
        failure=RefreshFailure(reason=reason, message=row["error_message"]) if reason else None,
        retry_delay=_from_ms(row["retry_delay_ms"]),
    )


def _to_ms(duration: timedelta | None) -> float | None:
    return None if duration is None else round(duration.total_seconds() * 1000, 3)


def _from_ms(milliseconds: float | None) -> timedelta | None:
    return None if milliseconds is None else timedelta(milliseconds=milliseconds)


def _read_failure(row: Mapping[str, Any]) -> RefreshFailure | None:
    if row["error_reason"] is None:
        return None
    return RefreshFailure(
        reason=row["error_reason"], message=row["error_message"], metadata=row["error_metadata"] or {}
    )
