"""What is counted in plain numbers, and how it is named."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import grpc
import pytest

from modelcatalog_server.domain.errors import StartupError
from modelcatalog_server.domain.measures import Histogram
from modelcatalog_server.domain.refresh import (
    Attempt,
    Refresh,
    RefreshCounts,
    RefreshFailure,
    RefreshRequest,
    RefreshType,
    State,
    Trigger,
)
from modelcatalog_server.metrics.families import go_code
from modelcatalog_server.metrics.listening import listening
from modelcatalog_server.refresh.measures import RefreshMeasures

BEGUN = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_value_is_in_the_bucket_whose_bound_it_does_not_exceed() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 2.5):
        histogram.observe(value)
    assert histogram.counts == [2, 2, 1]
    assert histogram.sum == 7.5


def test_codes_are_spelt_as_in_go() -> None:
    spelt = {code.name: go_code(code.name) for code in grpc.StatusCode}
    assert spelt["OK"] == "OK"
    assert spelt["CANCELLED"] == "Canceled"
    assert spelt["NOT_FOUND"] == "NotFound"
    assert spelt["RESOURCE_EXHAUSTED"] == "ResourceExhausted"
    assert len(set(spelt.values())) == 17


def test_a_run_is_counted_by_how_it_ended_with_its_attempts_and_the_gates_that_refused_it() -> None:
    measures = RefreshMeasures()
    ok = Attempt(number=2, started_at=BEGUN)
    failed = replace(ok, number=1, failure=RefreshFailure(reason="UPSTREAM_UNAVAILABLE", message=""))
    refused = RefreshFailure(
        reason="GATE_REFUSED", message="", metadata={"gate": "quarantine", "gates": "quarantine,price_unit"}
    )
    run = Refresh(
        id=uuid4(),
        request=RefreshRequest(type=RefreshType.FULL, trigger=Trigger.SCHEDULED),
        state=State.FAILED,
        started_at=BEGUN,
        completed_at=BEGUN + timedelta(seconds=3),
        attempts=(failed, ok),
        counts=RefreshCounts(quarantined=7),
        failure=refused,
    )
    measures.note_end(run)
    measures.note_end(replace(run, state=State.SUCCEEDED, failure=None, not_modified=True, attempts=(ok,)))
    ended = {labels: count for labels, count in measures.runs.items() if count}
    assert ended == {("full", "scheduled", "failed"): 1, ("full", "scheduled", "not_modified"): 1}
    assert {name: count for name, count in measures.attempts.items() if count} == {"ok": 2, "upstream_unavailable": 1}
    assert {name: count for name, count in measures.refusals.items() if count} == {"quarantine": 1, "price_unit": 1}
    assert measures.seconds["full"].sum == 6
    assert measures.quarantined == 14


def test_an_address_that_is_taken_is_refused_with_what_to_do() -> None:
    with listening("127.0.0.1:0") as bound:
        assert bound is not None
        taken = f"127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(StartupError, match=r"Address already in use.*--metrics-listen, or off"), listening(taken):
            pass


def test_a_file_that_is_no_socket_stays(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("mine")
    with pytest.raises(StartupError, match="Address already in use"), listening(f"unix:{file}"):
        pass
    assert file.read_text() == "mine"


def test_off_is_no_address() -> None:
    with listening("off") as bound:
        assert bound is None
