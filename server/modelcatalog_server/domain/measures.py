"""What is counted where it happens, in plain numbers: a call answered from memory has no time for more.

They are of one process, from its start on. Whoever shows them reads them when it is asked.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

#: Bounds of durations in seconds, from an answer out of memory to the longest call.
CALL_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Histogram:
    """How many values there were up to each bound.

    Attributes:
        bounds: Rising; each bound is in the bucket that it closes.
        counts: Values of each bucket by itself; the last one has those above all bounds.
        sum: Of the values.
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float] = CALL_SECONDS) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class MethodCalls:
    """The calls of one RPC.

    Attributes:
        service: Its full name.
        method: The name within the service.
        kind: ``unary``, ``client_stream``, ``server_stream`` or ``bidi_stream``.
        started: How many calls have begun.
        handled: How many have ended, by code as gRPC spells it (``NOT_FOUND``).
        seconds: How long they took; streams to their end.
    """

    __slots__ = ("handled", "kind", "method", "seconds", "service", "started")

    def __init__(self, service: str, method: str, kind: str, codes: Iterable[str]) -> None:
        self.service = service
        self.method = method
        self.kind = kind
        self.started = 0
        self.handled = dict.fromkeys(codes, 0)
        self.seconds = Histogram()

    def note_end(self, code: str, seconds: float) -> None:
        """Count the end of a call that was counted as started."""
        self.handled[code] += 1
        self.seconds.observe(seconds)


class CallMeasures(Protocol):
    """The calls of a process."""

    @property
    def methods(self) -> Iterable[MethodCalls]:
        """Every RPC that there is, and one that stands for all that there are not."""
        ...

    @property
    def errors(self) -> Counter[str]:
        """How many calls ended with an error, by its reason; every reason is in it."""
        ...

    @property
    def rejections(self) -> Iterable[str]:
        """Those of the reasons with which a call is refused before it is handled."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStats:
    """A pool of connections to PostgreSQL.

    Attributes:
        name: What it is for.
        size: Connections that there are.
        max_size: Connections that there may be.
        in_use: Those that somebody has.
        waiting: Who waits for one.
        waits: How often one was waited for.
        wait_s: How long, all together.
        timeouts: How often in vain.
    """

    name: str
    size: int
    max_size: int
    in_use: int
    waiting: int
    waits: int
    wait_s: float
    timeouts: int


#: There are scores of queries, so few bounds: what is usual, what is slow, what the time-out ends.
QUERY_SECONDS = (0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0)


@dataclass(slots=True)
class QueryMeasures:
    """How long PostgreSQL took for each named query, as its caller waited for it."""

    seconds: dict[str, Histogram] = field(default_factory=dict)

    def note(self, name: str, seconds: float) -> None:
        """Count a query."""
        known = self.seconds.get(name)
        if known is None:
            known = self.seconds[name] = Histogram(QUERY_SECONDS)
        known.observe(seconds)


#: What stands for a status where upstream did not answer.
NO_ANSWER = "none"
UPSTREAM_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class UpstreamMeasures:
    """The requests to upstream.

    Attributes:
        requests: How many, by status; :data:`NO_ANSWER` is one.
        seconds: How long they took, with the body.
    """

    def __init__(self) -> None:
        self.requests = Counter(dict.fromkeys(("200", "304", "429", NO_ANSWER), 0))
        self.seconds = Histogram(UPSTREAM_SECONDS)

    def note(self, status: str, seconds: float) -> None:
        """Count a request."""
        self.requests[status] += 1
        self.seconds.observe(seconds)
