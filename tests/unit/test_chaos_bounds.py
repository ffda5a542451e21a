"""`make chaos` comes to an end, whatever hangs, and fails for what is a fault and not for what is late."""

from __future__ import annotations

import asyncio

import pytest

from chaos.__main__ import bounded
from chaos.faults import find_fault
from chaos.load import Window
from chaos.striking import _judge


async def test_what_does_not_end_is_ended_and_tells_where_it_stood(capsys: pytest.CaptureFixture[str]) -> None:
    async def wait_for_ever() -> str:
        await asyncio.Event().wait()
        return "report"

    assert await bounded(wait_for_ever(), 0.05) is None
    told = capsys.readouterr().err
    assert "not over after 0 s" in told
    assert "in wait_for_ever" in told


async def test_what_ends_in_time_is_returned_and_what_fails_fails() -> None:
    async def fail() -> None:
        raise LookupError("no fault")

    assert await bounded(asyncio.sleep(0, "report"), 30) == "report"
    with pytest.raises(LookupError):
        await bounded(fail(), 30)


@pytest.mark.parametrize(
    ("answered", "codes", "unready", "violations"),
    [
        (100, {}, 0, 0),
        (96, {"DEADLINE_EXCEEDED": 4}, 1, 0),
        (90, {"DEADLINE_EXCEEDED": 10}, 0, 1),
        (99, {"UNAVAILABLE": 1}, 0, 1),
        (100, {}, 40, 1),
    ],
)
def test_what_spares_calls_may_make_few_of_them_late_and_nothing_else(
    answered: int, codes: dict[str, int], unready: int, violations: int
) -> None:
    window = Window("redis cut", mended_at=1.0, refreshed_at=2.0, probes=50, unready=unready)
    window.answered["get"] = answered
    window.failed["get"] = sum(codes.values())
    window.codes.update(codes)
    assert len(list(_judge(find_fault("redis cut"), window))) == violations
