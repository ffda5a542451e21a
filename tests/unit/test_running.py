"""How a process runs what it does."""

from __future__ import annotations

import sys

from modelcatalog_server.running import run


async def switch_interval() -> float:
    return sys.getswitchinterval()


def test_the_thread_that_brings_calls_soon_gets_its_turn() -> None:
    before = sys.getswitchinterval()
    try:
        assert run(switch_interval()) <= 0.0005
    finally:
        sys.setswitchinterval(before)
