"""When refreshes are due: cron expressions in UTC, put off by a jitter that every replica computes alike."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from cronsim import CronSim, CronSimError

from modelcatalog_server.domain.refresh import RefreshType

#: Instead of an expression: never.
OFF = "off"

# A jitter may be longer than the time between two slots; beyond this many back none is looked for.
_SLOTS_BACK = 100


class Timer(StrEnum):
    """The two cron expressions, by the name that their last slot is stored under."""

    FULL = "FULL"
    INCREMENTAL = "INCREMENTAL"

    @property
    def refresh_type(self) -> RefreshType:
        """The type of refresh that it starts."""
        return RefreshType(self.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The times at which a full and an incremental refresh are due.

    A *slot* is a time of a cron expression. It is due after a jitter: up to ``jitter`` for incremental refreshes, so
    that installations do not ask upstream all at once, none for full ones. The jitter follows from ``seed`` and the
    slot, so replicas with the same seed agree.
    """

    full_cron: str = OFF
    incremental_cron: str = OFF
    jitter: timedelta = timedelta(0)
    seed: bytes = field(default=b"", repr=False)

    def get_due_slot(self, timer: Timer, now: datetime) -> datetime | None:
        """Return the newest slot that is due, whether or not it has been taken; ``None`` when it is off."""
        return next((slot for slot in self._slots_before(timer, now) if self._due_time(timer, slot) <= now), None)

    def get_next_time(self, now: datetime, taken: Mapping[Timer, datetime] | None = None) -> datetime | None:
        """Return when the next slot is due; ``now`` when one is that nobody has taken. ``None`` when all is off."""
        times = (self._next_time(timer, now, (taken or {}).get(timer)) for timer in Timer)
        return min((time for time in times if time is not None), default=None)

    def _next_time(self, timer: Timer, now: datetime, taken: datetime | None) -> datetime | None:
        expression = self._expression(timer)
        if expression == OFF:
            return None
        due = self.get_due_slot(timer, now)
        if taken is not None and due is not None and due > taken:
            return now
        times = (self._due_time(timer, slot) for slot in CronSim(expression, due or now))
        return next(time for time in times if time > now)

    def _slots_before(self, timer: Timer, now: datetime) -> Iterator[datetime]:
        """Yield slots up to now, newest first."""
        expression = self._expression(timer)
        if expression == OFF:
            return
        # A second ahead: going backwards leaves out the very second that it starts at.
        backwards = CronSim(expression, now + timedelta(seconds=1), reverse=True)
        for slot, _ in zip(backwards, range(_SLOTS_BACK), strict=False):
            if slot <= now:
                yield slot

    def _due_time(self, timer: Timer, slot: datetime) -> datetime:
        if timer is Timer.FULL or not self.jitter:
            return slot
        digest = hashlib.blake2b(slot.isoformat().encode(), key=self.seed[:64], digest_size=8).digest()
        return slot + self.jitter * (int.from_bytes(digest) / 2**64)

    def _expression(self, timer: Timer) -> str:
        return self.full_cron if timer is Timer.FULL else self.incremental_cron


def check_cron(expression: str) -> str:
    """Return the expression if it has a time, or ``off``.

    Raises:
        ValueError: it has none; says why.
    """
    if expression == OFF:
        return expression
    try:
        next(CronSim(expression, datetime(2026, 1, 1, tzinfo=UTC)))
    except (CronSimError, StopIteration) as error:
        why = str(error) or "has no time"
        raise ValueError(f"is no cron expression of five fields (UTC), nor {OFF}: {why}") from error
    return expression
