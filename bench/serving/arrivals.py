"""Many connections: calls that arrive at a rate of their own, and callers that wait for an answer before they go on."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from serving import h2load
from serving.h2load import Answered, Call
from serving.report import ms, table
from serving.stage import Process, Stage
from serving.throughput import GET_MODEL, Contender, ratio

CONNECTIONS = 1000
P95_S = 0.1
#: Connections are made while calls begin already: the first calls are not counted.
SETTLING_S = 2.0


def quantiles(answers: Sequence[Answered], *percents: float) -> list[float]:
    """Return these percentiles of how long calls took, in seconds."""
    taken = sorted(answer.took for answer in answers)
    return [taken[min(int(len(taken) * percent / 100), len(taken) - 1)] for percent in percents]


def arrive(stage: Stage, rates: Sequence[float], seconds: float) -> None:
    """Print the latencies of calls that arrive at fixed rates on 1,000 connections, and the highest rate it bears."""
    rows = []
    with stage.serve() as server:
        server.call(GET_MODEL)
        for rate in rates:
            answers, made = offer(stage, server, rate, seconds)
            p50, p95, p99 = quantiles(answers, 50, 95, 99)
            rows.append((f"{rate:,.0f}", f"{made:,.0f}", ms(p50), ms(p95), ms(p99), ms(quantiles(answers, 100)[0])))
            if p95 > P95_S:
                break
    print(f"\nGetModel, near hits, on {CONNECTIONS:,} connections, evenly spaced, {seconds:.0f} s each\n")
    table(("calls/s arriving", "answered", "p50", "p95", "p99", "slowest"), rows)


def offer(stage: Stage, server: Process, rate: float, seconds: float) -> tuple[list[Answered], float]:
    """Have calls arrive; return those after the first moments, and how many were answered a second."""
    load = h2load.run(
        server.address,
        GET_MODEL,
        core=stage.load_core,
        calls=round(rate * (seconds + SETTLING_S) / CONNECTIONS) * CONNECTIONS,
        connections=CONNECTIONS,
        streams=100,
        per_second=rate,
        with_answers=True,
    )
    assert load.failed == 0, load
    begin = min(answer.begun for answer in load.answers) + SETTLING_S
    answers = [answer for answer in load.answers if answer.begun >= begin]
    over = max(answer.begun + answer.took for answer in answers)
    return answers, len(answers) / (over - begin)


def crowd(stage: Stage, rounds: int, calls: int) -> None:
    """Print what 1,000 callers get who each wait for an answer before they ask again, beside the echo."""
    with stage.serve() as server, stage.echo({"get": server.call(GET_MODEL)}) as echo:
        bare = Contender("echo", echo, Call("/echo/get", GET_MODEL.request))
        ours = Contender("GetModel, near hit", server, GET_MODEL, "get")
        for _ in range(rounds):
            for each in (bare, ours):
                each.take_turn(stage, calls, CONNECTIONS, 1)
    print(f"\n{CONNECTIONS:,} callers on a connection each, {rounds} rounds of {calls:,} calls\n")
    table(
        ("", "calls/s", "of the echo", "CPU per call"),
        [
            (
                each.name,
                f"{statistics.median(each.rates):,.0f}",
                f"{ratio(each, bare):.2f}" if each is ours else "",
                f"{statistics.median(each.cpu) * 1e6:.0f} µs",
            )
            for each in (bare, ours)
        ],
    )
