"""A refresh: one run that brings the catalog up to date with upstream, and what watchers see of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

from modelcatalog_server.domain.models import CanonicalRecord, ModelRecord, ProviderRecord, RecordKind, Source


class State(StrEnum):
    """PENDING, RUNNING, then one of the last four, for good."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    CANCELLING = "CANCELLING"
    SUCCEEDED = "SUCCEEDED"
    PARTIALLY_SUCCEEDED = "PARTIALLY_SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def is_over(self) -> bool:
        """Whether the refresh has ended."""
        return self not in {State.PENDING, State.RUNNING, State.CANCELLING}


class RefreshType(StrEnum):
    """INCREMENTAL writes what differs; FULL derives and writes every row again."""

    FULL = "FULL"
    INCREMENTAL = "INCREMENTAL"


class Trigger(StrEnum):
    """Why a refresh was started."""

    SCHEDULED = "SCHEDULED"
    MANUAL = "MANUAL"
    STARTUP = "STARTUP"


class Phase(StrEnum):
    """What the runner is doing."""

    FETCH = "FETCH"
    VALIDATE = "VALIDATE"
    COMPARE = "COMPARE"
    APPLY = "APPLY"
    PUBLISH = "PUBLISH"


class EventKind(StrEnum):
    """STATE and TERMINAL are never lost; PROGRESS may be. SNAPSHOT and HEARTBEAT exist only on a stream."""

    SNAPSHOT = "SNAPSHOT"
    STATE = "STATE"
    PROGRESS = "PROGRESS"
    HEARTBEAT = "HEARTBEAT"
    TERMINAL = "TERMINAL"


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshCounts:
    """Models of a refresh by what became of them. All but ``removed`` add up to ``seen``."""

    seen: int = 0
    added: int = 0
    changed: int = 0
    removed: int = 0
    revived: int = 0
    unchanged: int = 0
    quarantined: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshFailure:
    """Why a refresh ended badly. ``reason`` is a name of the contract's ErrorReason; ``message`` is for callers."""

    reason: str
    message: str
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshRequest:
    """What somebody asked for. The same ``request_id`` with other arguments is an error."""

    type: RefreshType = RefreshType.INCREMENTAL
    trigger: Trigger = Trigger.MANUAL
    provider_id: str | None = None
    requested_by: str | None = None
    request_id: UUID | None = None
    force: bool = False
    validate_only: bool = False
    override_gate: str | None = None
    fallback_of: UUID | None = None

    def asks_the_same(self, other: RefreshRequest) -> bool:
        """Whether both ask for the same, whoever asks, why and under which id."""
        return (self.type, self.provider_id, self.force, self.validate_only, self.override_gate) == (
            other.type,
            other.provider_id,
            other.force,
            other.validate_only,
            other.override_gate,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt at fetching. ``duration`` is ``None`` while it is under way."""

    number: int
    started_at: datetime
    duration: timedelta | None = None
    failure: RefreshFailure | None = None
    retry_delay: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refresh:
    """One run, as of now."""

    id: UUID
    request: RefreshRequest
    state: State
    started_at: datetime
    attempts: tuple[Attempt, ...] = ()
    counts: RefreshCounts = field(default_factory=RefreshCounts)
    phase: Phase | None = None
    warnings: tuple[str, ...] = ()
    failure: RefreshFailure | None = None
    completed_at: datetime | None = None
    base_revision: int | None = None
    result_revision: int | None = None
    not_modified: bool = False
    last_sequence: int = 0

    @property
    def attempt(self) -> int:
        """Number of the latest attempt at fetching, from 1; 0 before the first."""
        return len(self.attempts)


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshEvent:
    """Something that happened. ``id`` rises in commit order over all refreshes, ``sequence`` within one."""

    id: int
    refresh: Refresh
    sequence: int
    kind: EventKind
    happened_at: datetime
    phase: Phase | None = None
    done: int = 0
    total: int | None = None
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """A fetched document: one body (``catalog.json``) or two (``api.json`` and ``models.json``), uncompressed.

    ``is_bundled``: the snapshot that ships with the package, which says nothing about upstream now.
    """

    source: Source
    catalog: bytes | None = None
    api: bytes | None = None
    models: bytes | None = None
    etag: str | None = None
    is_bundled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownState:
    """Content hashes of what the catalog holds, by id. Removed ones are apart, so that their return is noticed.

    ``release_dates`` are those of the listed canonical models, as upstream wrote them.
    ``source_hashes`` tell of listed records from which text they were decoded: the same text need not be decoded again.
    """

    models: Mapping[str, str]
    removed_models: Mapping[str, str]
    providers: Mapping[str, str]
    removed_providers: frozenset[str]
    canonical_models: Mapping[str, str]
    removed_canonical_models: frozenset[str]
    release_dates: Mapping[str, str | None] = field(default_factory=dict)
    source_hashes: Mapping[RecordKind, Mapping[str, bytes]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """A record that was set aside: where it is in the document (a JSON pointer) and what is wrong with it."""

    pointer: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceChange:
    """A base price before and after, in US dollars per 1,000,000 tokens. ``field`` is one of ``Prices``."""

    model_id: str
    field: str
    before: Decimal | None
    after: Decimal | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshReport:
    """What a run found, each list in order and cut at a bound; ``truncated`` says whether one was."""

    added_model_ids: tuple[str, ...] = ()
    changed_model_ids: tuple[str, ...] = ()
    removed_model_ids: tuple[str, ...] = ()
    revived_model_ids: tuple[str, ...] = ()
    price_changes: tuple[PriceChange, ...] = ()
    quarantined: tuple[Quarantined, ...] = ()
    truncated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What has to be written so that the catalog says what the payload says.

    ``models`` are the records to write: all that were decoded, for one that says the same may be encoded otherwise;
    ``touched_models`` are the ids among them that get a new version. ``source_hashes`` are those to store from now on,
    ``None`` for one to forget; they may differ where no record does. ``duplicate_ids`` are JSON pointers of the keys
    that the payload has more than once, the first hundred: all but one of their values went unseen.
    """

    counts: RefreshCounts
    models: tuple[ModelRecord, ...] = ()
    touched_models: frozenset[str] = frozenset()
    removed_models: tuple[str, ...] = ()
    providers: tuple[ProviderRecord, ...] = ()
    touched_providers: frozenset[str] = frozenset()
    removed_providers: tuple[str, ...] = ()
    canonical_models: tuple[CanonicalRecord, ...] = ()
    touched_canonical_models: frozenset[str] = frozenset()
    removed_canonical_models: tuple[str, ...] = ()
    quarantined: tuple[Quarantined, ...] = ()
    source_hashes: Mapping[RecordKind, Mapping[str, bytes | None]] = field(default_factory=dict)
    duplicate_ids: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether the catalog already says what the payload says."""
        return not (
            self.touched_models
            or self.removed_models
            or self.touched_providers
            or self.removed_providers
            or self.touched_canonical_models
            or self.removed_canonical_models
        )
