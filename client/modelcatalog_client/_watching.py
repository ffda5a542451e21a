"""What a watch decides, without I/O: which events are news, and whether and when to subscribe again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from modelcatalog.v1.refresh_pb2 import RefreshStatus
from modelcatalog_client.errors import CallCancelledError, CatalogError, SlowConsumerError, UnavailableError

DEFAULT_HEARTBEAT = 15.0

# CANCELLED, where we have not cancelled: what comes in just when a server stops listening gets that from its gRPC.
_PASSING = (UnavailableError, SlowConsumerError, CallCancelledError)

# Runs of which the last sequence is remembered: more than any stream interleaves, few enough to forget nothing about.
_REMEMBERED_RUNS = 256


class Cursor:
    """Where a watch stands: what has been delivered, and the token to go on from."""

    def __init__(self, refresh_id: str = "", resume_token: str = "", *, heartbeats: bool = False) -> None:
        self.resume_token = resume_token
        self.finished = False
        self._refresh_id = refresh_id
        self._heartbeats = heartbeats
        self._started = False
        self._sequences: dict[str, int] = {}

    def accept(self, status: RefreshStatus) -> bool:
        """Takes note of a message. True when it is news for the caller."""
        if status.kind == RefreshStatus.KIND_SNAPSHOT:
            return self._accept_snapshot(status)
        self._started = True
        self.resume_token = status.resume_token or self.resume_token
        if status.kind == RefreshStatus.KIND_HEARTBEAT:
            return self._heartbeats
        return self._accept_event(status)

    def _accept_snapshot(self, status: RefreshStatus) -> bool:
        # A snapshot that answers a token says where the refresh is now, which may be ahead of events that the same
        # stream has yet to deliver: neither its token nor its sequence may count, or those would be lost.
        self.resume_token = self.resume_token or status.resume_token
        first, self._started = not self._started, True
        return first

    def _accept_event(self, status: RefreshStatus) -> bool:
        if status.sequence <= self._sequences.get(status.refresh_id, -1):
            return False
        self._sequences.pop(status.refresh_id, None)  # so that the run that was quiet longest comes first
        self._sequences[status.refresh_id] = status.sequence
        if len(self._sequences) > _REMEMBERED_RUNS:
            del self._sequences[next(iter(self._sequences))]
        terminal = status.kind == RefreshStatus.KIND_TERMINAL
        self.finished = terminal and status.refresh_id == self._refresh_id
        return True


@dataclass(frozen=True, slots=True)
class ReconnectPolicy:
    """How a watch gets back. Seconds.

    Attributes:
        initial_backoff: Longest pause before the first attempt; doubled for each further one.
        max_backoff: Longest pause of all.
        silent_heartbeats: Heartbeats that may fail to come before the stream counts as lost.
        min_heartbeat: What the server takes a shorter heartbeat interval for.
        max_heartbeat: What the server takes a longer heartbeat interval for.
    """

    initial_backoff: float = 0.5
    max_backoff: float = 10.0
    silent_heartbeats: int = 3
    min_heartbeat: float = 5.0
    max_heartbeat: float = 60.0

    def silence(self, heartbeat_interval: float | None) -> float:
        """Seconds without a message after which the stream counts as lost."""
        asked = DEFAULT_HEARTBEAT if heartbeat_interval is None else heartbeat_interval
        return self.silent_heartbeats * min(max(asked, self.min_heartbeat), self.max_heartbeat)


class Recovery:
    """Counts the attempts to get back since the last message."""

    def __init__(
        self, policy: ReconnectPolicy, max_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._policy = policy
        self._max_seconds = max_seconds
        self._clock = clock
        self._attempts = 0
        self._lost_at: float | None = None

    def succeeded(self) -> None:
        """A message came."""
        self._attempts = 0
        self._lost_at = None

    def pause_after(self, error: CatalogError) -> float | None:
        """Seconds to wait before subscribing again; None when the error is to be raised instead."""
        if not isinstance(error, _PASSING):
            return None
        now = self._clock()
        if self._lost_at is None:
            self._lost_at = now
        remaining = self._lost_at + self._max_seconds - now
        if remaining <= 0:
            return None
        longest = min(self._policy.max_backoff, self._policy.initial_backoff * 2**self._attempts)
        self._attempts += 1
        # Jitter, so that the watchers of a server that went away do not come back all at once.
        pause = max(random.uniform(longest / 2, longest), error.retry_delay or 0)  # noqa: S311 -- no secret
        return min(pause, remaining)

    def patience(self, silence: float) -> float:
        """Seconds to wait for a message: less than ``silence`` when the time to get back ends before."""
        if self._lost_at is None:
            return silence
        remaining = self._lost_at + self._max_seconds - self._clock()
        return min(silence, max(remaining, self._policy.min_heartbeat))
