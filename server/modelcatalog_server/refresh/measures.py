"""The runs that ended in this process, in plain numbers."""

from __future__ import annotations

from collections import Counter
from itertools import product

from modelcatalog_server.domain.measures import Histogram
from modelcatalog_server.domain.refresh import Refresh, RefreshType, State, Trigger
from modelcatalog_server.refresh.gates import Gate

#: Bounds in seconds: "not modified" takes some milliseconds, three attempts with their pauses a minute or more.
RUN_SECONDS = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)

#: How a run may end: its state, or that upstream had nothing new.
RESULTS = ("succeeded", "not_modified", "partially_succeeded", "failed", "cancelled")
_NOT_MODIFIED = "not_modified"


class RefreshMeasures:
    """Counts the runs that this process carried out, and those of other processes that it ended for them.

    Attributes:
        runs: By type, trigger and result.
        seconds: How long they took, by type.
        attempts: At fetching, by how they ended: ``ok``, or the reason of the failure in small letters.
        quarantined: Records that were set aside, all runs together.
        refusals: By gate.
    """

    def __init__(self) -> None:
        self.runs = Counter(dict.fromkeys(product(_lower(RefreshType), _lower(Trigger), RESULTS), 0))
        self.seconds = {type_: Histogram(RUN_SECONDS) for type_ in _lower(RefreshType)}
        self.attempts = Counter(dict.fromkeys(("ok", "upstream_unavailable", "upstream_invalid"), 0))
        self.quarantined = 0
        self.refusals = Counter(dict.fromkeys(map(str, Gate), 0))

    def note_end(self, refresh: Refresh) -> None:
        """Count a run that is over."""
        type_, trigger = refresh.request.type.lower(), refresh.request.trigger.lower()
        self.runs[type_, trigger, _result_of(refresh)] += 1
        if refresh.completed_at is not None:
            self.seconds[type_].observe((refresh.completed_at - refresh.started_at).total_seconds())
        for attempt in refresh.attempts:
            self.attempts[attempt.failure.reason.lower() if attempt.failure else "ok"] += 1
        self.quarantined += refresh.counts.quarantined
        if refresh.failure is not None and refresh.failure.reason == "GATE_REFUSED":
            self.refusals.update(refresh.failure.metadata["gates"].split(","))


def _result_of(refresh: Refresh) -> str:
    if refresh.not_modified and refresh.state is State.SUCCEEDED:
        return _NOT_MODIFIED
    return refresh.state.lower()


def _lower(names: type[RefreshType] | type[Trigger]) -> tuple[str, ...]:
    return tuple(name.value.lower() for name in names)
