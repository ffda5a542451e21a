# ruff: noqa: S105, S106 -- page and resume tokens, and one that opens nothing

from __future__ import annotations

import pytest

from modelcatalog_client import (
    RefreshStatus,
    ResumeTokenExpiredError,
    ServerDrainingError,
    SlowConsumerError,
    UnavailableError,
)
from modelcatalog_client._watching import Cursor, ReconnectPolicy, Recovery

SNAPSHOT, STATE, TERMINAL = (
    RefreshStatus.KIND_SNAPSHOT,
    RefreshStatus.KIND_STATE,
    RefreshStatus.KIND_TERMINAL,
)


def status(kind: RefreshStatus.Kind.ValueType, sequence: int, token: str = "", run: str = "a") -> RefreshStatus:
    return RefreshStatus(kind=kind, sequence=sequence, refresh_id=run, resume_token=token or f"{run}{sequence}")


def heartbeat(token: str) -> RefreshStatus:
    return RefreshStatus(kind=RefreshStatus.KIND_HEARTBEAT, resume_token=token)


def test_an_event_that_was_seen_is_no_news() -> None:
    cursor = Cursor()
    assert [cursor.accept(status(STATE, sequence)) for sequence in (1, 2, 1, 2, 3)] == [
        True,
        True,
        False,
        False,
        True,
    ]


def test_sequences_of_different_runs_have_nothing_to_do_with_each_other() -> None:
    cursor = Cursor()
    assert cursor.accept(status(STATE, 5, run="a"))
    assert cursor.accept(status(STATE, 1, run="b"))


def test_the_terminal_event_of_the_watched_run_is_the_end() -> None:
    cursor = Cursor("a")
    cursor.accept(status(SNAPSHOT, 9))
    assert cursor.accept(status(TERMINAL, 9)), "the snapshot of a run that is over does not hide its end"
    assert cursor.finished


@pytest.mark.parametrize("refresh_id", ["", "b"])
def test_the_end_of_another_run_is_not(refresh_id: str) -> None:
    cursor = Cursor(refresh_id)
    cursor.accept(status(TERMINAL, 9, run="a"))
    assert not cursor.finished


def test_the_first_snapshot_is_news_and_has_the_token() -> None:
    cursor = Cursor()
    assert cursor.accept(status(SNAPSHOT, 3, "t"))
    assert cursor.resume_token == "t"


def test_a_snapshot_that_answers_a_token_hides_no_event_before_it() -> None:
    cursor = Cursor()
    cursor.accept(status(SNAPSHOT, 1, "t1"))
    cursor.accept(status(STATE, 2, "t2"))

    assert not cursor.accept(status(SNAPSHOT, 4, "t4"))
    assert cursor.resume_token == "t2"
    assert cursor.accept(status(STATE, 3))
    assert cursor.accept(status(STATE, 4))


def test_the_first_snapshot_after_a_callers_token_is_news_but_not_where_to_go_on() -> None:
    cursor = Cursor(resume_token="t2")
    assert cursor.accept(status(SNAPSHOT, 4, "t4"))
    assert cursor.resume_token == "t2"


@pytest.mark.parametrize("wanted", [True, False])
def test_a_heartbeat_moves_the_token_and_shows_only_when_wanted(wanted: bool) -> None:
    cursor = Cursor(heartbeats=wanted)
    assert cursor.accept(heartbeat("t9")) is wanted
    assert cursor.resume_token == "t9"


def test_a_watch_without_end_does_not_remember_every_run() -> None:
    cursor = Cursor()
    for run in range(1000):
        cursor.accept(status(STATE, 1, run=str(run)))
    assert len(cursor._sequences) < 1000


@pytest.mark.parametrize(("asked", "silence"), [(None, 45), (10, 30), (1, 15), (3600, 180)])
def test_silence_is_three_heartbeats_of_those_the_server_sends(asked: float | None, silence: float) -> None:
    assert ReconnectPolicy().silence(asked) == silence


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("error", [UnavailableError("x"), ServerDrainingError("x"), SlowConsumerError("x")])
def test_a_lost_stream_is_worth_another_try(error: UnavailableError) -> None:
    assert Recovery(ReconnectPolicy(), 60).pause_after(error) is not None


def test_another_error_is_not() -> None:
    assert Recovery(ReconnectPolicy(), 60).pause_after(ResumeTokenExpiredError("x")) is None


def test_pauses_grow_to_a_maximum() -> None:
    recovery = Recovery(ReconnectPolicy(initial_backoff=1, max_backoff=8), 1000, Clock())
    pauses = [recovery.pause_after(UnavailableError()) or 0 for _ in range(6)]
    for pause, longest in zip(pauses, (1, 2, 4, 8, 8, 8), strict=True):
        assert longest / 2 <= pause <= longest


def test_the_time_to_get_back_is_bounded_and_starts_anew_with_a_message() -> None:
    clock = Clock()
    recovery = Recovery(ReconnectPolicy(), 60, clock)
    assert recovery.pause_after(UnavailableError()) is not None
    clock.now += 60
    assert recovery.pause_after(UnavailableError()) is None

    recovery.succeeded()
    assert recovery.pause_after(UnavailableError()) is not None


def test_no_pause_outlasts_the_time_to_get_back() -> None:
    recovery = Recovery(ReconnectPolicy(initial_backoff=10), 1, Clock())
    assert recovery.pause_after(UnavailableError()) == 1


def test_a_delay_the_server_asks_for_is_kept() -> None:
    recovery = Recovery(ReconnectPolicy(), 60, Clock())
    assert recovery.pause_after(UnavailableError(retry_delay=20)) == 20


def test_a_silent_server_is_given_less_time_once_the_stream_was_lost() -> None:
    clock = Clock()
    recovery = Recovery(ReconnectPolicy(), 60, clock)
    assert recovery.patience(45) == 45
    recovery.pause_after(UnavailableError())
    clock.now += 50
    assert recovery.patience(45) == 10
