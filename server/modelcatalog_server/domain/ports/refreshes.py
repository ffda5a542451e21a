"""What refreshes ask of the database: who may run, what there is, what is written, and what watchers see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Protocol
from uuid import UUID

from modelcatalog_server.domain.models import ModelRecord, Prices
from modelcatalog_server.domain.ports.catalog import CatalogState
from modelcatalog_server.domain.query import Expression
from modelcatalog_server.domain.refresh import (
    Difference,
    EventKind,
    KnownState,
    Payload,
    Refresh,
    RefreshEvent,
    RefreshReport,
    RefreshRequest,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownRequest:
    """What a request id stands for: what was asked for, and the run that was started or joined."""

    request: RefreshRequest
    refresh: Refresh
    joined: bool


class RefreshOwnership(Protocol):
    """The right to run a refresh: at most one exists in the cluster, and it dies with its holder's connection."""

    async def release(self) -> None:
        """Give it back. Safe to call twice and after the connection is gone."""
        ...


class CatalogWrite(Protocol):
    """One transaction that writes the catalog, if it comes to that. An async context manager.

    What was not committed by ``apply`` is undone when it is left.
    """

    async def __aenter__(self) -> CatalogWrite: ...

    async def __aexit__(self, *exc_info: object) -> None: ...

    async def stage(self, models: Sequence[tuple[ModelRecord, bytes]]) -> None:
        """Bring models to the database, before it is known what becomes of them. Nobody has to wait for that."""
        ...

    async def apply(self, refresh: Refresh, difference: Difference, payload: Payload, *, message: str) -> Refresh:
        """Write the difference, the run's end and its TERMINAL event, and commit; return the run as stored.

        All models of the difference have been staged, and no others. The revision rises by one if the difference is not
        empty. ``refresh`` comes in its final state; base and result revision are filled in here.

        Raises:
            OwnerLostError: the run is over already; nothing was written.
            RefreshCancelledError: it was asked to stop; nothing was written.
        """
        ...


class RefreshStore(Protocol):
    """History, events and writes of refreshes."""

    async def try_own(self) -> RefreshOwnership | None:
        """Return the ownership, or ``None`` while another run holds it."""
        ...

    async def create(
        self, refresh_id: UUID, request: RefreshRequest, slots: Mapping[str, datetime] = MappingProxyType({})
    ) -> Refresh:
        """Write an accepted run, its first heartbeat and its first STATE event. Needs the ownership.

        ``slots`` of the schedule, by timer, are taken with it.

        Raises:
            SlotTakenError: one of them is taken already; nothing was written.
        """
        ...

    async def find_request(self, request_id: UUID) -> KnownRequest | None:
        """Return what a request id stands for."""
        ...

    async def remember_joined(self, request: RefreshRequest, refresh_id: UUID) -> None:
        """Note that a request, which has an id, joined a run. The first note of an id stays."""
        ...

    async def beat(self, refresh_id: UUID) -> None:
        """Note a sign of life of a run under way."""
        ...

    async def cancel(self, refresh_id: UUID) -> Refresh | None:
        """Ask a run to stop, with a STATE event if it is under way; return it as it is now."""
        ...

    async def end_expired(self, lease: timedelta) -> Refresh | None:
        """End the run under way as OWNER_LOST if it gave no sign of life within ``lease``; return it as ended.

        Its owner loses the ownership, however alive it may turn out to be.
        """
        ...

    async def end_idle_owner(self, lease: timedelta) -> bool:
        """Take the ownership from who has had it for ``lease`` while no run is under way; return whether there was one.

        Whoever has it starts a run at once, or gives it back, which a network may have lost.
        """
        ...

    async def get_slots(self) -> Mapping[str, datetime]:
        """Return the newest slot of each timer of the schedule that was taken."""
        ...

    async def take_slots(self, slots: Mapping[str, datetime]) -> None:
        """Note slots as taken, by timer, unless newer ones are."""
        ...

    async def forget_future_slots(self, now: datetime) -> list[str]:
        """Forget slots that are an hour or more after both ``now`` and the store's own clock; return their timers."""
        ...

    async def give_back_slots(self, slots: Mapping[str, datetime], refresh_id: UUID) -> None:
        """Have slots be due again that were taken with this run, if it was cancelled and no newer ones are taken."""
        ...

    async def set_upstream_not_before(self, at: datetime, source_url: str) -> None:
        """Note that the upstream with this address is to be left alone until then."""
        ...

    async def prune(self, *, events_before: datetime, refreshes_before: datetime) -> int:
        """Delete what is older than its retention, a bounded number at a time; return how many refreshes.

        A refresh that made a revision stays, and the event that ended a refresh as long as the refresh.
        """
        ...

    async def record(
        self,
        refresh: Refresh,
        kind: EventKind,
        *,
        done: int = 0,
        total: int | None = None,
        message: str = "",
    ) -> Refresh:
        """Write the run as it is now with an event, in one transaction, and return it as stored.

        Raises:
            OwnerLostError: the run is over already.
            RefreshCancelledError: it was asked to stop, and this is not its end as CANCELLED or FAILED.
        """
        ...

    async def get_known_state(self, provider_id: str | None) -> KnownState:
        """Return the hashes of what the catalog holds; with ``provider_id`` only that provider's models."""
        ...

    async def get_prices(self, model_ids: Sequence[str]) -> Mapping[str, Prices]:
        """Return the base prices now of the models that exist among the ids, removed ones too."""
        ...

    async def get_catalog_state(self) -> CatalogState:
        """Return the current revision and source."""
        ...

    async def save_report(self, refresh_id: UUID, report: RefreshReport) -> None:
        """Write what a run found, over what was written before. The run exists; it may be over or come to nothing."""
        ...

    async def get_report(self, refresh_id: UUID) -> RefreshReport | None:
        """Return what a run found, ``None`` before it has compared or when the report is gone."""
        ...

    def writing(self) -> CatalogWrite:
        """Return what writes the catalog, once."""
        ...

    async def finish_not_modified(self, refresh: Refresh, *, message: str) -> Refresh:
        """Write that upstream still says what it said, the run's end and its TERMINAL event, in one transaction."""
        ...

    async def get(self, refresh_id: UUID) -> Refresh | None:
        """Return one run."""
        ...

    async def get_active(self) -> Refresh | None:
        """Return the run under way."""
        ...

    async def get_last_finished(self, *, only_success: bool) -> Refresh | None:
        """Return the newest run that is over."""
        ...

    async def get_last_applied(self) -> Refresh | None:
        """Return the newest run that applied a whole document: the one that "not modified" is about."""
        ...

    async def list_refreshes(
        self, matching: Expression | None = None, *, before: tuple[datetime, UUID] | None, limit: int
    ) -> list[Refresh]:
        """Return runs newest first, those that started before ``before``, all or those that match."""
        ...

    async def get_last_event_id(self) -> int:
        """Return the id of the newest event, 0 when there is none."""
        ...

    async def get_terminal_event_id(self, refresh_id: UUID) -> int | None:
        """Return the id of the event that ended a run, ``None`` while it is not over."""
        ...

    async def get_event_at(self, event_id: int, refresh_id: UUID | None) -> RefreshEvent | None:
        """Return the newest event at or before ``event_id``, of one run or of all."""
        ...

    async def list_events(self, after_id: int, refresh_id: UUID | None, limit: int) -> list[RefreshEvent]:
        """Return events after ``after_id`` in commit order, of one run or of all."""
        ...
