"""The fields that filters and orders may name, one table for each message of the contract."""

from __future__ import annotations

from collections.abc import Iterable

from modelcatalog_server.domain.models import Capabilities, Prices
from modelcatalog_server.domain.query import Field, FieldCatalogue, FieldType

#: Model.Type and Model.Status of the contract. A test holds them against it.
MODEL_TYPES = (
    "CHAT",
    "EMBEDDING",
    "RERANK",
    "IMAGE",
    "VIDEO",
    "SPEECH",
    "TRANSCRIPTION",
    "MODERATION",
    "OTHER",
)
MODEL_STATUSES = ("ACTIVE", "ALPHA", "BETA", "DEPRECATED", "REMOVED", "OTHER")
PROVIDER_STATUSES = ("ACTIVE", "REMOVED")
REFRESH_STATES = ("PENDING", "RUNNING", "CANCELLING", "SUCCEEDED", "PARTIALLY_SUCCEEDED", "FAILED", "CANCELLED")
REFRESH_TYPES = ("FULL", "INCREMENTAL")
REFRESH_TRIGGERS = ("SCHEDULED", "MANUAL", "STARTUP")

_COUNTS = ("seen", "added", "changed", "removed", "revived", "unchanged", "quarantined")


def _string(path: str, *, nullable: bool = False) -> Field:
    return Field(path=path, type=FieldType.STRING, nullable=nullable)


def _enum(path: str, values: tuple[str, ...]) -> Field:
    return Field(path=path, type=FieldType.ENUM, values=values)


def _bool(path: str, *, nullable: bool = False) -> Field:
    return Field(path=path, type=FieldType.BOOL, nullable=nullable)


def _integer(path: str, *, nullable: bool = False) -> Field:
    return Field(path=path, type=FieldType.INTEGER, nullable=nullable)


def _decimal(path: str) -> Field:
    return Field(path=path, type=FieldType.DECIMAL, nullable=True)


def _date(path: str) -> Field:
    return Field(path=path, type=FieldType.DATE, nullable=True)


def _list(path: str) -> Field:
    return Field(path=path, type=FieldType.LIST)


def _time(path: str, *, nullable: bool = False) -> Field:
    return Field(path=path, type=FieldType.TIME, nullable=nullable)


def _catalogue(message: str, fields: Iterable[Field]) -> FieldCatalogue:
    return FieldCatalogue(message, {field.path: field for field in fields})


MODEL_FIELDS = _catalogue(
    "Model",
    [
        _string("id"),
        _string("provider_id"),
        _string("provider_name"),
        _string("upstream_id"),
        _string("canonical_id", nullable=True),
        _string("name"),
        _string("description", nullable=True),
        _string("family", nullable=True),
        _string("version", nullable=True),
        _enum("type", MODEL_TYPES),
        _enum("status", MODEL_STATUSES),
        _integer("limits.context_window", nullable=True),
        _integer("limits.max_input_tokens", nullable=True),
        _integer("limits.max_output_tokens", nullable=True),
        _string("pricing.currency", nullable=True),
        *(_decimal(f"pricing.{name}") for name in Prices.__slots__),
        *(_bool(f"capabilities.{name}", nullable=True) for name in Capabilities.__slots__),
        _list("modalities.input"),
        _list("modalities.output"),
        _decimal("performance.benchmark_score"),
        _decimal("performance.popularity_score"),
        _decimal("performance.reliability_score"),
        _list("tags"),
        _date("release_date"),
        _date("last_updated"),
        _date("knowledge_cutoff"),
        _integer("revision"),
        _time("first_seen_time"),
        _time("last_changed_time"),
        _time("removed_time", nullable=True),
    ],
)

PROVIDER_FIELDS = _catalogue(
    "Provider",
    [
        _string("id"),
        _string("name"),
        _string("documentation_url", nullable=True),
        _string("api_base_url", nullable=True),
        _string("npm_package", nullable=True),
        _list("env_vars"),
        _bool("enabled"),
        _integer("model_count"),
        _integer("enabled_model_count"),
        _enum("status", PROVIDER_STATUSES),
        _time("last_sync_time"),
        _integer("revision"),
    ],
)

REFRESH_FIELDS = _catalogue(
    "Refresh",
    [
        _string("id"),
        _enum("state", REFRESH_STATES),
        _enum("type", REFRESH_TYPES),
        _string("provider_id", nullable=True),
        _enum("trigger", REFRESH_TRIGGERS),
        _string("requested_by", nullable=True),
        *(_integer(f"counts.{name}") for name in _COUNTS),
        _integer("attempt"),
        _list("warnings"),
        _time("start_time"),
        _time("end_time", nullable=True),
        _integer("base_revision", nullable=True),
        _integer("result_revision", nullable=True),
        _bool("not_modified"),
        _bool("validate_only"),
        _bool("force"),
        _string("override_gate", nullable=True),
        _string("fallback_of", nullable=True),
    ],
)

AUDIT_EVENT_FIELDS = _catalogue(
    "AuditEvent",
    [
        _integer("id"),
        _time("event_time"),
        _string("principal"),
        _string("method"),
        _string("target", nullable=True),
        _string("code"),
    ],
)
