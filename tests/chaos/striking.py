"""Strikes one fault after the other while the load runs, and judges what came of it."""

from __future__ import annotations

import asyncio
import math
import random
import sys
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import suppress

from chaos.faults import FAULTS, Fault
from chaos.ground import Ground, prepare_ground
from chaos.load import Load, Window
from chaos.numbered import NumberedCatalog
from chaos.report import Report, as_line
from small_catalog import until

#: So long a run may wait for a write that the network has swallowed, before it is given up; and some more for the next.
WELL_WITHIN_S = 90.0
#: What a call may come to on a machine that does everything else as well, and of how many: whose fault it is not.
LATE, MAX_LATE = {"DEADLINE", "DEADLINE_EXCEEDED", "REVISION_NOT_AVAILABLE"}, 0.05
#: So long nothing may have failed for all to count as well.
QUIET_S = 1.0


async def run(seed: int, deck: Iterable[Fault], *, seconds: float = math.inf, pace: float = 1.0) -> Report:
    """Strike until the time, or the deck, is over, and judge what came of it. ``pace`` 2: faults last half as long."""
    random_ = random.Random(seed)  # noqa: S311 -- no secret
    begun = time.monotonic()
    catalog = NumberedCatalog()
    async with prepare_ground(catalog.make_body(1)) as ground:
        load = Load(ground, catalog, random_)
        windows, violations = list[Window](), list[str]()
        async with load.running():
            async for fault, window in _strikes(ground, load, deck, random_, seconds, pace):
                windows.append(window)
                violations += _judge(fault, window)
        if any(codes := await ground.end_replicas()):
            violations.append(f"the replicas ended with {codes}")
        await load.oracle.judge(ground.database_url, load.everything)
        violations += [*load.undocumented, *_judge_logs(ground)]
    oracle = load.oracle
    violations += [*oracle.wrong, *oracle.backwards, *oracle.lost, *oracle.gaps]
    return Report(seed, time.monotonic() - begun, windows, oracle, violations)


def shuffle(random_: random.Random) -> Iterator[Fault]:
    """Yield faults for ever."""
    while True:
        yield from random_.sample(FAULTS, len(FAULTS))


async def _strikes(
    ground: Ground, load: Load, deck: Iterable[Fault], random_: random.Random, seconds: float, pace: float
) -> AsyncIterator[tuple[Fault | None, Window]]:
    """Yield each window when it is over."""
    load.window.mended_at = time.monotonic()
    await _wait_until_well(load)
    yield None, load.window
    until_ = time.monotonic() + seconds
    for fault in deck:
        if time.monotonic() > until_:
            return
        lines, window = ground.count_log_lines(), Window(fault.name)
        load.window = window
        async with fault.strike(ground, random_):
            await asyncio.sleep(fault.seconds * random_.uniform(0.7, 1.3) / pace)
        window.mended_at = time.monotonic()
        await _wait_until_well(load)
        window.log_lines = ground.count_log_lines() - lines
        print(as_line(window), file=sys.stderr, flush=True)
        yield fault, window


async def _wait_until_well(load: Load) -> None:
    """Wait until a new run has succeeded, all replicas are ready, and no call has failed for a while.

    Nor may a call of the time before still be under way: it could fail when it is not the fault's any more.
    """
    window = load.window

    def is_well() -> bool:
        quiet_s = time.monotonic() - max(window.last_failure_at, window.mended_at or 0)
        is_over = load.oldest_call_at > (window.mended_at or 0)
        return window.refreshed_at is not None and all(load.serving.values()) and quiet_s > QUIET_S and is_over

    with suppress(TimeoutError):  # the window tells
        await until(is_well, seconds=WELL_WITHIN_S)


def _judge(fault: Fault | None, window: Window) -> Iterator[str]:
    if window.refreshed_at is None:
        yield f"{window.name}: no refresh succeeded within {WELL_WITHIN_S:.0f} s after it"
    if window.last_failure_at - (window.mended_at or 0) > WELL_WITHIN_S - QUIET_S:
        yield f"{window.name}: calls still failed {WELL_WITHIN_S:.0f} s after it"
    if fault is None or fault.spares_calls:
        if window.codes.keys() - LATE or window.codes.total() > window.calls * MAX_LATE:
            yield f"{window.name}: calls failed: {dict(window.codes)}"
        if window.unready > window.probes * MAX_LATE:
            yield f"{window.name}: replicas were not ready {window.unready} of {window.probes} times"


def _judge_logs(ground: Ground) -> Iterator[str]:
    """Yield the faults of the service itself: what it did not foresee leaves a traceback."""
    for log in ground.logs:
        for line in log.read_text().splitlines():
            if '"exception"' in line or "Traceback" in line:
                yield f"in the log of a replica: {line}"
