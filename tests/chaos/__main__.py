"""Faults of every kind, one after the other, under a load whose every answer is checked.

    python -m chaos --minutes 2 --seed 7 --json

Exit code 1 where something was wrong, or where it does not come to its end: then it says what it waits for. The faults
come from a shuffled deck: each comes once before any comes again.
"""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import json
import random
import sys
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from chaos.faults import find_fault
from chaos.striking import run, shuffle
from modelcatalog_server.domain.tasks import end_tasks
from modelcatalog_server.logs import set_up_logs

_T = TypeVar("_T")

#: More than the time that was asked for: to start, to be well after the last fault, to end and to be judged.
GRACE_S = 300.0
#: Who cannot even be cancelled is ended by a thread that waits for nobody.
_END_S = 30.0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=2.0, help="how long to go on; the last fault is ended")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6), help="repeats a run")
    parser.add_argument("--pace", type=float, default=1.0, help="0.2: faults last five times as long")
    parser.add_argument("--only", action="append", metavar="FAULT", help="this fault, which may be given several times")
    parser.add_argument("--json", action="store_true", help="print figures for programs")
    options = parser.parse_args(arguments)
    set_up_logs("error", "console")
    deck = map(find_fault, options.only) if options.only else shuffle(random.Random(options.seed))  # noqa: S311
    limit_s = 60 * options.minutes + GRACE_S
    faulthandler.dump_traceback_later(limit_s + _END_S, exit=True)
    report = asyncio.run(bounded(run(options.seed, deck, seconds=60 * options.minutes, pace=options.pace), limit_s))
    if report is None:
        return 1
    print(json.dumps(report.as_json(), indent=2) if options.json else report.as_text())
    return 1 if report.violations else 0


async def bounded(work: Coroutine[Any, Any, _T], limit_s: float) -> _T | None:
    """Return what comes of it; ``None`` where that takes too long, and on standard error where each task stood."""
    task = asyncio.create_task(work, name="chaos")
    try:
        if (await asyncio.wait({task}, timeout=limit_s))[0]:
            return task.result()
        print(f"not over after {limit_s:.0f} s, and this is what it waits for:", file=sys.stderr)
        for each in asyncio.all_tasks():
            each.print_stack(file=sys.stderr)
        return None
    finally:
        await end_tasks(task)


if __name__ == "__main__":
    sys.exit(main())
