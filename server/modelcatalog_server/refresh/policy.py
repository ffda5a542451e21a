"""How refreshes are retried and looked after, and how long what they leave is kept."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import timedelta

from modelcatalog_server.domain.errors import UpstreamUnavailableError


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often upstream is asked in one run, and how long is waited between. Times in seconds.

    The pause doubles from ``initial_s`` up to ``max_s``, less a jitter of up to half of it, and is at least what
    upstream asked for (``Retry-After``). If that is more than ``max_retry_after_s``, the run fails.
    """

    attempts: int = 3
    initial_s: float = 1.0
    max_s: float = 30.0
    max_retry_after_s: float = 60.0

    def is_worth_another(self, error: BaseException) -> bool:
        """Whether another attempt may better the outcome, soon enough for this run."""
        if not isinstance(error, UpstreamUnavailableError) or not error.passing:
            return False
        return (error.retry_after or 0) <= self.max_retry_after_s

    def get_pause_s(self, attempt: int, error: BaseException | None) -> float:
        """Return the seconds between an attempt, which failed with ``error``, and the next."""
        asked = error.retry_after if isinstance(error, UpstreamUnavailableError) else None
        backoff = min(self.initial_s * 2.0 ** (attempt - 1), self.max_s)
        return max(asked or 0.0, random.uniform(backoff / 2, backoff))  # noqa: S311 - jitter is no secret


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshPolicy:
    """How runs are looked after.

    Attributes:
        max_age: The catalog counts as stale beyond this age.
        heartbeat: Between two signs of life of a run.
        lease: A run without a sign of life for so long is ended. With ``sweep`` it makes up the 30 s within which the
            contract ends an orphan.
        sweep: Between two looks for orphans.
        fallback_delay: How long after a failed incremental run the full one starts; ``None``: never.
    """

    max_age: timedelta = timedelta(hours=24)
    heartbeat: timedelta = timedelta(seconds=5)
    lease: timedelta = timedelta(seconds=20)
    sweep: timedelta = timedelta(seconds=5)
    fallback_delay: timedelta | None = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionPolicy:
    """How long things are kept.

    Attributes:
        events: Of refreshes; resume tokens are good for 24 h. The event that ended a run is kept as long as the run.
        refreshes: Runs that made no revision; the others are kept for good.
        audit: Entries of the audit log.
    """

    events: timedelta = timedelta(days=7)
    refreshes: timedelta = timedelta(days=400)
    audit: timedelta = timedelta(days=400)
