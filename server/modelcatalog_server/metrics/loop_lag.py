"""How late the event loop is: what a call may have to wait before anything of it is done."""

from __future__ import annotations

import asyncio
import time

from modelcatalog_server.domain.measures import Histogram

_INTERVAL_S = 0.1


async def measure_loop_lag(lag: Histogram) -> None:
    """Sleep again and again until cancelled, and count how much longer than asked each sleep took."""
    while True:
        begun = time.perf_counter()
        await asyncio.sleep(_INTERVAL_S)
        lag.observe(max(time.perf_counter() - begun - _INTERVAL_S, 0.0))
