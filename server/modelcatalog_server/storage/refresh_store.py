"""History, events and writes of refreshes: port ``RefreshStore`` over PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, LiteralString
from uuid import UUID

import psycopg
from psycopg.rows import DictRow

from modelcatalog_server.domain.errors import CatalogError, OwnerLostError, RefreshCancelledError, SlotTakenError
from modelcatalog_server.domain.models import Prices, RecordKind
from modelcatalog_server.domain.ports import CatalogState, KnownRequest, MessageEncoder, Progress
from modelcatalog_server.domain.query import Expression, Selection
from modelcatalog_server.domain.refresh import (
    Difference,
    EventKind,
    KnownState,
    Payload,
    Phase,
    Refresh,
    RefreshEvent,
    RefreshReport,
    RefreshRequest,
    State,
)
from modelcatalog_server.storage import queries, staging
from modelcatalog_server.storage.catalog_store import read_state
from modelcatalog_server.storage.composition import REFRESH_COLUMNS, Statement, compose
from modelcatalog_server.storage.pools import Connection, Pool, Pools, translate_errors
from modelcatalog_server.storage.refresh_rows import (
    read_event,
    read_known_request,
    read_refresh,
    to_arguments,
    to_parameters,
    to_request_parameters,
)
from modelcatalog_server.storage.report_rows import read_report, write_report

_REFRESHES = queries.load("refreshes")
_APPLY = queries.load("apply")
_LISTINGS = queries.load("listings")

# Advisory locks: any constants of our own.
_OWNER_LOCK = 7_306_421_002
_EVENT_LOCK = 7_306_421_003

_PRUNE_LIMIT = 1000


class PostgresOwnership:
    """Port ``RefreshOwnership``: a session lock, which PostgreSQL drops with the connection."""

    def __init__(self, pool: Pool, connection: Connection) -> None:
        self._pool = pool
        self._connection: Connection | None = connection

    async def release(self) -> None:
        """Unlock and give the connection back."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            await connection.execute(_REFRESHES["disown_refresh"], {"lock": _OWNER_LOCK})
            await connection.commit()
        except BaseException as error:
            # A connection that did not unlock has lost the lock with its session, or loses it by being closed.
            await connection.close()
            if not isinstance(error, psycopg.Error):
                raise
        finally:
            await self._pool.putconn(connection)


class PostgresRefreshes:
    """Port ``RefreshStore``."""

    def __init__(self, pools: Pools, encode: MessageEncoder, *, owner: str) -> None:
        """Prepare a store; ``owner`` tells people which process runs what it creates."""
        self._pools = pools
        self._encode = encode
        self._owner = owner

    async def try_own(self) -> PostgresOwnership | None:
        """Return the session lock of the one runner, or ``None`` while another session has it."""
        pool = self._pools.write
        with translate_errors():
            connection = await pool.getconn()
            try:
                row = await _fetch_one(connection, _REFRESHES["try_own_refresh"], lock=_OWNER_LOCK)
                await connection.commit()
            except BaseException:
                # The lock may have been taken (a caller may go away at any moment), and would outlive a rollback.
                await connection.close()
                await pool.putconn(connection)
                raise
            if row is not None and row["owned"]:
                return PostgresOwnership(pool, connection)
            await pool.putconn(connection)
            return None

    async def create(
        self, refresh_id: UUID, request: RefreshRequest, slots: Mapping[str, datetime] = MappingProxyType({})
    ) -> Refresh:
        """Write an accepted run and its first STATE event, and take slots of the schedule."""
        async with self._pools.writing() as connection:
            if not await _take_slots(connection, slots):
                raise SlotTakenError("another process has started what is due")
            parameters = {"id": refresh_id, "owner": self._owner, **to_request_parameters(request)}
            await connection.execute(_REFRESHES["create_refresh"], parameters)
            await _remember_request(connection, request, refresh_id, joined=False)
            return await _append_event(connection, refresh_id, EventKind.STATE, message="accepted")

    async def find_request(self, request_id: UUID) -> KnownRequest | None:
        """Return what a request id stands for."""
        async with self._pools.asking() as connection:
            row = await _fetch_one(connection, _REFRESHES["find_request"], request_id=request_id)
        return read_known_request(row) if row else None

    async def remember_joined(self, request: RefreshRequest, refresh_id: UUID) -> None:
        """Note that a request joined a run."""
        async with self._pools.writing() as connection:
            await _remember_request(connection, request, refresh_id, joined=True)

    async def beat(self, refresh_id: UUID) -> None:
        """Note a sign of life of a run under way."""
        async with self._pools.writing() as connection:
            await connection.execute(_REFRESHES["beat_refresh"], {"refresh_id": refresh_id})

    async def cancel(self, refresh_id: UUID) -> Refresh | None:
        """Ask a run to stop; return it as it is now."""
        async with self._pools.writing() as connection:
            await connection.execute(_REFRESHES["lock_events"], {"lock": _EVENT_LOCK})
            row = await _fetch_one(connection, _REFRESHES["cancel_refresh"], refresh_id=refresh_id)
            if row is not None:
                phase = Phase(row["phase"]) if row["phase"] else None
                await _append_event(
                    connection, refresh_id, EventKind.STATE, phase=phase, message="asked to stop", locked=True
                )
            found = await _fetch_one(connection, _REFRESHES["get_refresh"], refresh_id=refresh_id)
            return read_refresh(found["refresh"]) if found else None

    async def end_expired(self, lease: timedelta) -> Refresh | None:
        """End the run under way if its owner gave no sign of life for so long, and the owner's session with it."""
        message = f"the process that ran it gave no sign of life for {lease.total_seconds():g} s"
        async with self._pools.writing() as connection:
            await connection.execute(_REFRESHES["lock_events"], {"lock": _EVENT_LOCK})
            row = await _fetch_one(connection, _REFRESHES["end_expired_refresh"], lease=lease, error_message=message)
            if row is None:
                return None
            phase = Phase(row["phase"]) if row["phase"] else None
            await connection.execute(
                _REFRESHES["terminate_owner"], {"lock": _OWNER_LOCK, "started_at": row["started_at"]}
            )
            return await _append_event(
                connection, row["id"], EventKind.TERMINAL, phase=phase, message=message, locked=True
            )

    async def get_slots(self) -> Mapping[str, datetime]:
        """Return the newest slot of each timer that was taken."""
        async with self._pools.asking() as connection:
            rows = await _fetch_all(connection, _REFRESHES["get_slots"])
        return {row["timer"]: row["slot"] for row in rows}

    async def take_slots(self, slots: Mapping[str, datetime]) -> None:
        """Note slots as taken."""
        async with self._pools.writing() as connection:
            await _take_slots(connection, slots)

    async def set_upstream_not_before(self, at: datetime) -> None:
        """Note that upstream is to be left alone until then."""
        async with self._pools.writing() as connection:
            await connection.execute(_REFRESHES["set_upstream_not_before"], {"at": at})

    async def prune(self, *, events_before: datetime, refreshes_before: datetime) -> int:
        """Delete what is older than its retention."""
        async with self._pools.writing() as connection:
            await connection.execute(_REFRESHES["prune_events"], {"before": events_before})
            rows = await _fetch_all(
                connection, _REFRESHES["find_old_refreshes"], before=refreshes_before, limit=_PRUNE_LIMIT
            )
            old = {"refresh_ids": [row["id"] for row in rows]}
            for name in ("refresh_events", "refresh_reports", "refresh_requests", "refreshes"):
                await connection.execute(_REFRESHES[f"delete_{name}"], old)
        return len(rows)

    async def record(
        self,
        refresh: Refresh,
        kind: EventKind,
        *,
        done: int = 0,
        total: int | None = None,
        message: str = "",
    ) -> Refresh:
        """Write the run as it is now with an event."""
        async with self._pools.writing() as connection:
            return await _record(connection, refresh, kind, done=done, total=total, message=message)

    async def get_known_state(self, provider_id: str | None) -> KnownState:
        """Return the hashes of what the catalog holds."""
        async with self._pools.reading() as connection:
            models = await _read_known(connection, _APPLY["get_known_models"], provider_id=provider_id)
            providers = await _read_known(connection, _APPLY["get_known_providers"], provider_id=provider_id)
            canonical = await _read_known(connection, _APPLY["get_known_canonical_models"])
        return KnownState(
            models=models.listed,
            removed_models=models.removed,
            providers=providers.listed,
            removed_providers=frozenset(providers.removed),
            canonical_models=canonical.listed,
            removed_canonical_models=frozenset(canonical.removed),
            source_hashes={
                RecordKind.PROVIDER: providers.source_hashes,
                RecordKind.MODEL: models.source_hashes,
                RecordKind.CANONICAL_MODEL: canonical.source_hashes,
            },
        )

    async def get_prices(self, model_ids: Sequence[str]) -> Mapping[str, Prices]:
        """Return the base prices now of the models that exist among the ids, removed ones too."""
        async with self._pools.asking() as connection:
            rows = await _fetch_all(connection, _APPLY["get_prices"], model_ids=list(model_ids))
        return {row.pop("model_id"): Prices(**row) for row in rows}

    async def save_report(self, refresh_id: UUID, report: RefreshReport) -> None:
        """Write what a run found, over what was written before."""
        async with self._pools.writing() as connection:
            await connection.execute(
                _REFRESHES["save_report"], {"refresh_id": refresh_id, "report": write_report(report)}
            )

    async def get_report(self, refresh_id: UUID) -> RefreshReport | None:
        """Return what a run found, ``None`` before it has compared or when the report is gone."""
        async with self._pools.asking() as connection:
            row = await _fetch_one(connection, _REFRESHES["get_report"], refresh_id=refresh_id)
        return read_report(row) if row else None

    async def get_catalog_state(self) -> CatalogState:
        """Return the current revision and source."""
        async with self._pools.asking() as connection:
            return await read_state(connection)

    async def apply(
        self,
        refresh: Refresh,
        difference: Difference,
        payload: Payload,
        *,
        progress: Progress,
        message: str,
    ) -> Refresh:
        """Write the difference, the run's end and its TERMINAL event in one transaction."""
        async with self._pools.writing() as connection:
            await self._stage(connection, difference, progress)
            # Also when no revision comes of it: a full run rewrites rows that a change of policy may want.
            await connection.execute(_APPLY["lock_state"])
            before = await read_state(connection)
            at = await _now(connection)
            if difference.is_empty:
                revision = before.revision
            else:
                revision = await _bump_revision(connection, at)
            parameters = {
                "revision": revision,
                "at": at,
                "source_url": payload.source.url,
                "source_snapshot": payload.source.snapshot,
            }
            await _merge(connection, difference, parameters)
            if not difference.is_empty:
                await _write_versions(connection, parameters)
                await connection.execute(_APPLY["append_revision"], {**parameters, "refresh_id": refresh.id})
            if before.revision == 0:
                await connection.execute(_APPLY["analyze_catalog"])
            if refresh.request.provider_id is None:
                await _set_source(connection, payload, at)
            elif not difference.is_empty:
                # What the catalog holds now is no document that upstream ever had: "not modified" would be no answer.
                await connection.execute(_APPLY["remove_etag"])
            finished = replace(refresh, base_revision=before.revision, result_revision=revision)
            return await _record(connection, finished, EventKind.TERMINAL, message=message)

    async def finish_not_modified(self, refresh: Refresh, *, message: str) -> Refresh:
        """Write that upstream still says what it said, and the run's end."""
        async with self._pools.writing() as connection:
            row = await _fetch_one(connection, _APPLY["set_checked"])
            assert row is not None, "catalog_state always has its row"  # noqa: S101 - a broken invariant, not a check
            revision = row["revision"]
            finished = replace(refresh, base_revision=revision, result_revision=revision, not_modified=True)
            return await _record(connection, finished, EventKind.TERMINAL, message=message)

    async def get(self, refresh_id: UUID) -> Refresh | None:
        """Return one run."""
        return await self._get_one(_REFRESHES["get_refresh"], refresh_id=refresh_id)

    async def get_active(self) -> Refresh | None:
        """Return the run under way."""
        return await self._get_one(_REFRESHES["get_active_refresh"])

    async def get_last_finished(self, *, only_success: bool) -> Refresh | None:
        """Return the newest run that is over."""
        return await self._get_one(_REFRESHES["get_last_finished_refresh"], only_success=only_success)

    async def list_refreshes(
        self, matching: Expression | None = None, *, before: tuple[datetime, UUID] | None, limit: int
    ) -> list[Refresh]:
        """Return runs newest first."""
        started_at, refresh_id = before or (None, None)
        composition = compose(Selection(filter=matching), REFRESH_COLUMNS)
        async with self._pools.asking() as connection:
            rows = await _fetch_all(
                connection,
                composition.fill(_LISTINGS["list_refreshes"]),
                **composition.parameters,
                before_started_at=started_at,
                before_id=refresh_id,
                limit=limit,
            )
        return [read_refresh(row["refresh"]) for row in rows]

    async def get_last_event_id(self) -> int:
        """Return the id of the newest event, 0 when there is none."""
        async with self._pools.asking() as connection:
            row = await _fetch_one(connection, _REFRESHES["get_last_event_id"])
        return int(row["id"]) if row else 0

    async def get_terminal_event_id(self, refresh_id: UUID) -> int | None:
        """Return the id of the event that ended a run."""
        async with self._pools.asking() as connection:
            row = await _fetch_one(connection, _REFRESHES["get_terminal_event_id"], refresh_id=refresh_id)
        return int(row["id"]) if row else None

    async def get_event_at(self, event_id: int, refresh_id: UUID | None) -> RefreshEvent | None:
        """Return the newest event at or before ``event_id``."""
        async with self._pools.asking() as connection:
            row = await _fetch_one(connection, _REFRESHES["get_event_at"], at_id=event_id, refresh_id=refresh_id)
        return read_event(row) if row else None

    async def list_events(self, after_id: int, refresh_id: UUID | None, limit: int) -> list[RefreshEvent]:
        """Return events after ``after_id`` in commit order."""
        async with self._pools.asking() as connection:
            rows = await _fetch_all(
                connection, _REFRESHES["list_events"], after_id=after_id, refresh_id=refresh_id, limit=limit
            )
        return [read_event(row) for row in rows]

    async def _get_one(self, statement: LiteralString, **parameters: Any) -> Refresh | None:
        async with self._pools.asking() as connection:
            row = await _fetch_one(connection, statement, **parameters)
        return read_refresh(row["refresh"]) if row else None

    async def _stage(self, connection: Connection, difference: Difference, progress: Progress) -> None:
        """Fill the staging tables, before anything is locked. What there is nothing of has no table."""
        total = len(difference.models)
        canonical = difference.canonical_models
        if difference.providers:
            await _fill(connection, "providers", map(staging.provider_row, difference.providers))
        if difference.models:
            models = (staging.model_row(record, self._encode(record)) for record in difference.models)
            await _fill(connection, "models", models, lambda done: progress(done, total))
        if canonical:
            await _fill(connection, "canonical_models", map(staging.canonical_row, canonical))
        if canonical or difference.removed_canonical_models:
            await _fill(connection, "benchmarks", staging.benchmark_rows(canonical))
        if any(difference.source_hashes.values()):
            await _fill(connection, "source_hashes", staging.source_hash_rows(difference.source_hashes))


async def _fill(
    connection: Connection, table: str, rows: Iterable[staging.Row], progress: Callable[[int], None] | None = None
) -> None:
    await connection.execute(_APPLY[f"create_staged_{table}"])
    await staging.copy_rows(connection, _APPLY[f"copy_staged_{table}"], rows, progress)


async def _merge(connection: Connection, difference: Difference, parameters: dict[str, Any]) -> None:
    """Bring the current rows to what the payload says. Providers first: models refer to them."""
    removed_canonical_ids = list(difference.removed_canonical_models)
    canonical_ids = [record.id for record in difference.canonical_models] + removed_canonical_ids
    hashes = any(difference.source_hashes.values())
    steps: list[tuple[str, object, dict[str, Any]]] = [
        ("merge_providers", difference.providers, {}),
        ("merge_models", difference.models, {}),
        ("merge_canonical_models", difference.canonical_models, {}),
        ("remove_providers", difference.removed_providers, {"ids": list(difference.removed_providers)}),
        ("remove_models", difference.removed_models, {"ids": list(difference.removed_models)}),
        ("remove_canonical_models", removed_canonical_ids, {"ids": removed_canonical_ids}),
        ("remove_benchmarks", canonical_ids, {"canonical_ids": canonical_ids}),
        ("merge_benchmarks", canonical_ids, {}),
        ("merge_source_hashes", hashes, {}),
        ("delete_source_hashes", hashes, {}),
    ]
    for name, is_needed, extra in steps:
        if is_needed:
            await connection.execute(_APPLY[name], {**parameters, **extra})


async def _write_versions(connection: Connection, parameters: dict[str, Any]) -> None:
    """Count what providers list, then close and append the versions of all that this revision touched."""
    await connection.execute(_APPLY["count_provider_models"], parameters)
    for table in ("provider_versions", "model_versions", "canonical_model_versions"):
        await connection.execute(_APPLY[f"close_{table}"], parameters)
        await connection.execute(_APPLY[f"append_{table}"], parameters)


async def _bump_revision(connection: Connection, at: datetime) -> int:
    row = await _fetch_one(connection, _APPLY["bump_revision"], at=at)
    assert row is not None, "catalog_state always has its row"  # noqa: S101 - a broken invariant, not a check
    return int(row["revision"])


async def _set_source(connection: Connection, payload: Payload, at: datetime) -> None:
    await connection.execute(
        _APPLY["set_source"],
        {
            "checked_at": None if payload.is_bundled else at,
            "source_url": payload.source.url,
            "source_etag": payload.etag,
            "source_snapshot": payload.source.snapshot,
        },
    )


async def _record(
    connection: Connection,
    refresh: Refresh,
    kind: EventKind,
    *,
    done: int = 0,
    total: int | None = None,
    message: str = "",
) -> Refresh:
    """Write the run and an event in the transaction at hand. The event lock comes first and is held until commit."""
    async with connection.pipeline():  # with the BEGIN before it, one round trip
        await connection.execute(_REFRESHES["lock_events"], {"lock": _EVENT_LOCK})
        updated = await _fetch_one(connection, _REFRESHES["update_refresh"], **to_parameters(refresh))
    if updated is None:
        raise await _why_not(connection, refresh.id)
    return await _append_event(
        connection, refresh.id, kind, phase=refresh.phase, done=done, total=total, message=message, locked=True
    )


async def _why_not(connection: Connection, refresh_id: UUID) -> CatalogError:
    """Return why a run cannot be written any more."""
    row = await _fetch_one(connection, _REFRESHES["get_refresh"], refresh_id=refresh_id)
    if row is not None and read_refresh(row["refresh"]).state is State.CANCELLING:
        return RefreshCancelledError("the refresh was asked to stop")
    return OwnerLostError("the refresh is over already")


async def _take_slots(connection: Connection, slots: Mapping[str, datetime]) -> bool:
    """Take slots, in one order; return whether all of them were free."""
    rows = [
        await _fetch_one(connection, _REFRESHES["take_slot"], timer=timer, slot=slot)
        for timer, slot in sorted(slots.items())
    ]
    return None not in rows


async def _remember_request(connection: Connection, request: RefreshRequest, refresh_id: UUID, *, joined: bool) -> None:
    if request.request_id is None:
        return
    await connection.execute(
        _REFRESHES["remember_request"],
        {
            "request_id": request.request_id,
            "refresh_id": refresh_id,
            "joined": joined,
            "arguments": to_arguments(request),
        },
    )


async def _append_event(
    connection: Connection,
    refresh_id: UUID,
    kind: EventKind,
    *,
    phase: Phase | None = None,
    done: int = 0,
    total: int | None = None,
    message: str = "",
    locked: bool = False,
) -> Refresh:
    """Write an event and return the run as it was written with it."""
    if not locked:
        await connection.execute(_REFRESHES["lock_events"], {"lock": _EVENT_LOCK})
    row = await _fetch_one(
        connection,
        _REFRESHES["append_event"],
        refresh_id=refresh_id,
        kind=kind,
        phase=phase,
        done=done,
        total=total,
        message=message,
    )
    assert row is not None, "the run is locked, or was created, in this transaction"  # noqa: S101 - an invariant
    return read_refresh(row["refresh"])


async def _now(connection: Connection) -> datetime:
    """Return the time to write: one clock, the database's, read once everything is staged."""
    row = await _fetch_one(connection, "SELECT clock_timestamp() AS at")
    assert row is not None, "SELECT without FROM gives one row"  # noqa: S101 - a broken invariant, not a check
    at: datetime = row["at"]
    return at


@dataclass(slots=True)
class _Known:
    """Hashes of the records of one kind, by id."""

    listed: dict[str, str] = field(default_factory=dict)
    removed: dict[str, str] = field(default_factory=dict)
    source_hashes: dict[str, bytes] = field(default_factory=dict)


async def _read_known(connection: Connection, statement: LiteralString, **parameters: Any) -> _Known:
    known = _Known()
    for row in await _fetch_all(connection, statement, **parameters):
        ids = row["ids"].split("\n")
        content_hashes = dict(zip(ids, row["content_hashes"].split("\n"), strict=True))
        if row["removed"]:
            known.removed = content_hashes
            continue
        known.listed = content_hashes
        sources = zip(ids, row["source_hashes"].split("\n"), strict=True)
        known.source_hashes = {id_: bytes.fromhex(hash_) for id_, hash_ in sources if hash_}
    return known


async def _fetch_one(connection: Connection, statement: LiteralString, **parameters: Any) -> DictRow | None:
    return await (await connection.execute(statement, parameters)).fetchone()


async def _fetch_all(connection: Connection, statement: Statement, **parameters: Any) -> list[DictRow]:
    return await (await connection.execute(statement, parameters)).fetchall()
