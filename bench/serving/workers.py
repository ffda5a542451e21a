"""One process and two on the same port."""

from __future__ import annotations

import statistics
from pathlib import Path

from serving import h2load
from serving.report import table
from serving.stage import Process, Stage
from serving.throughput import GET_MODEL


def multiply(stage: Stage, rounds: int, calls: int) -> None:
    """Print throughput and processor time per call of one worker and of two, which share all cores with the load."""
    rows = []
    for workers in (1, 2):
        with stage.serve("--workers", str(workers), pinned=False, warm=workers == 1) as server:
            rates, cpu = [], []
            for _ in range(rounds + 1):
                before = family_cpu_s(server)
                load = h2load.run(server.address, GET_MODEL, core=stage.load_core, calls=calls, connections=50)
                assert load.failed == 0, load
                rates.append(load.per_second)
                cpu.append((family_cpu_s(server) - before) / calls)
            rows.append(
                (str(workers), f"{statistics.median(rates[1:]):,.0f}", f"{statistics.median(cpu[1:]) * 1e6:.0f} µs")
            )
    print(
        f"\nGetModel, near hits, {rounds} rounds of {calls:,} calls on 50 connections; nothing but the load is pinned\n"
    )
    table(("workers", "calls/s", "CPU per call"), rows)


def family_cpu_s(server: Process) -> float:
    """Seconds of processor of a process and of those below it."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(") ")[2].split()
        except OSError:
            continue  # it has ended meanwhile
        parents[int(path.parent.name)] = int(fields[1])
    family = [server.pid]
    for member in family:
        family += [child for child, parent in parents.items() if parent == member]
    return sum(Process(pid, "").cpu_s() for pid in family)
