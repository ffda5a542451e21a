"""When refreshes are due: the same answer on every replica, and one for however many times were missed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from modelcatalog_server.domain.errors import StartupError
from modelcatalog_server.domain.refresh import RefreshType
from modelcatalog_server.refresh.schedule import OFF, Schedule, Timer, check_cron
from modelcatalog_server.settings import load_settings

JITTER = timedelta(minutes=10)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def hourly(jitter: timedelta = timedelta(0), seed: bytes = b"one") -> Schedule:
    return Schedule(full_cron="0 2 * * *", incremental_cron="0 * * * *", jitter=jitter, seed=seed)


def jitter_of(schedule: Schedule, slot: datetime) -> timedelta:
    """Return how long after a slot it is due."""
    before = slot - timedelta(seconds=1)
    due = Schedule(incremental_cron=schedule.incremental_cron, jitter=schedule.jitter, seed=schedule.seed)
    time = due.get_next_time(max(before, slot - timedelta(minutes=49)))
    assert time is not None
    return time - slot


# --- slots --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "full", "incremental"),
    [
        ("2026-07-02 02:00:00", "2026-07-02 02:00", "2026-07-02 02:00"),
        ("2026-07-02 01:59:59.999", "2026-07-01 02:00", "2026-07-02 01:00"),
        ("2026-07-02 02:00:00.001", "2026-07-02 02:00", "2026-07-02 02:00"),
        ("2026-01-01 00:30", "2025-12-31 02:00", "2026-01-01 00:00"),
    ],
)
def test_the_newest_slot_up_to_now_is_due(now: str, full: str, incremental: str) -> None:
    assert hourly().get_due_slot(Timer.FULL, at(now)) == at(full)
    assert hourly().get_due_slot(Timer.INCREMENTAL, at(now)) == at(incremental)


def test_days_that_were_missed_are_one_slot() -> None:
    taken = {Timer.FULL: at("2026-06-01 02:00"), Timer.INCREMENTAL: at("2026-06-01 05:00")}
    now = at("2026-07-02 09:30")
    assert hourly().get_due_slot(Timer.INCREMENTAL, now) == at("2026-07-02 09:00")
    assert hourly().get_next_time(now, taken) == now, "something is due that nobody has taken"
    taken = {Timer.FULL: at("2026-07-02 02:00"), Timer.INCREMENTAL: at("2026-07-02 09:00")}
    assert hourly().get_next_time(now, taken) == at("2026-07-02 10:00")


def test_the_next_time_is_that_of_whichever_timer_comes_first() -> None:
    schedule = Schedule(full_cron="0 2 * * *", incremental_cron="30 */6 * * *")
    assert schedule.get_next_time(at("2026-07-02 01:00")) == at("2026-07-02 02:00")
    assert schedule.get_next_time(at("2026-07-02 02:00")) == at("2026-07-02 06:30")


@pytest.mark.parametrize("now", ["2026-03-29 01:30", "2026-10-25 01:30"])
def test_days_on_which_clocks_change_elsewhere_have_24_hours(now: str) -> None:
    schedule, time = hourly(), at(now)
    times = []
    for _ in range(24):
        following = schedule.get_next_time(time)
        assert following is not None
        times.append(following)
        time = following
    assert {later - earlier for earlier, later in pairwise(times)} == {timedelta(hours=1)}


def test_off_is_never() -> None:
    now = at("2026-07-02 09:30")
    assert Schedule().get_next_time(now) is None
    assert Schedule().get_due_slot(Timer.FULL, now) is None
    only_full = Schedule(full_cron="0 2 * * *", incremental_cron=OFF)
    assert only_full.get_next_time(now) == at("2026-07-03 02:00")
    assert only_full.get_due_slot(Timer.INCREMENTAL, now) is None


def test_a_timer_starts_what_it_is_named_after() -> None:
    assert [timer.refresh_type for timer in Timer] == [RefreshType.FULL, RefreshType.INCREMENTAL]


# --- jitter -------------------------------------------------------------------------------------------------------


def test_the_jitter_follows_from_seed_and_slot_and_stays_in_its_bounds() -> None:
    slots = [at("2026-07-02 00:00") + timedelta(hours=number) for number in range(200)]
    found = [jitter_of(hourly(JITTER), slot) for slot in slots]
    assert found == [jitter_of(hourly(JITTER), slot) for slot in slots], "another replica"
    assert all(timedelta(0) <= jitter < JITTER for jitter in found)
    assert len(set(found)) == len(slots), "each slot has its own"
    other = [jitter_of(hourly(JITTER, seed=b"two"), slot) for slot in slots]
    assert sum(one == another for one, another in zip(found, other, strict=True)) == 0, "another installation"
    # Spread out: the point of it.
    assert min(found) < JITTER * 0.1
    assert max(found) > JITTER * 0.9


def test_a_slot_is_not_due_before_its_jitter_is_over() -> None:
    schedule, slot = hourly(JITTER), at("2026-07-02 09:00")
    due_at = slot + jitter_of(schedule, slot)
    just_before = due_at - timedelta(microseconds=1)
    assert schedule.get_due_slot(Timer.INCREMENTAL, just_before) == at("2026-07-02 08:00")
    assert schedule.get_due_slot(Timer.INCREMENTAL, due_at) == slot
    assert schedule.get_next_time(just_before, {Timer.INCREMENTAL: at("2026-07-02 08:00")}) == due_at


def test_a_full_refresh_has_none() -> None:
    schedule = Schedule(full_cron="0 2 * * *", jitter=JITTER, seed=b"one")
    assert schedule.get_next_time(at("2026-07-02 01:00")) == at("2026-07-02 02:00")


def test_a_jitter_longer_than_the_time_between_slots_still_has_one_due() -> None:
    schedule = Schedule(incremental_cron="* * * * *", jitter=timedelta(days=1), seed=b"one")
    now = at("2026-07-02 09:30")
    due = schedule.get_due_slot(Timer.INCREMENTAL, now)
    assert due is not None
    assert due <= now
    following = schedule.get_next_time(now)
    assert following is not None
    assert following > now


# --- expressions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("expression", ["0 2 * * *", "*/15 * * * *", "0 2 * * 1-5", "0 2 1 jan *", "0 0 29 2 *", OFF])
def test_an_expression_that_has_a_time_is_taken(expression: str) -> None:
    assert check_cron(expression) == expression


@pytest.mark.parametrize(
    "expression", ["", "daily", "* * * *", "60 * * * *", "0 24 * * *", "0 0 30 2 *", "0 0 * * 8", "on", "OFF"]
)
@pytest.mark.parametrize("setting", ["refresh_full_cron", "refresh_incremental_cron"])
def test_one_that_has_none_is_refused_by_the_name_of_its_setting(setting: str, expression: str) -> None:
    with pytest.raises(ValueError, match="no cron expression"):
        check_cron(expression)
    if expression:  # which stands for: not given
        with pytest.raises(StartupError, match=f"MODELCATALOG_{setting.upper()}: is no cron expression"):
            load_settings(**{setting: expression})


def test_offline_has_no_schedule_and_online_that_of_the_settings() -> None:
    now = at("2026-07-02 00:30")
    assert load_settings(offline=True).make_schedule(b"seed").get_next_time(now) is None
    online = load_settings(refresh_jitter_seconds=0).make_schedule(b"seed")
    assert online.get_next_time(now) == at("2026-07-02 01:00")
    assert online.get_next_time(at("2026-07-02 01:30")) == at("2026-07-02 02:00")
