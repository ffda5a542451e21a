"""What reads cost that are served from the cache, beside a bare server and peers. `make bench` prints the tables.

The load generator (h2load) has one core to itself and the server another. Parts: all of them, or those that are named.
"""

from __future__ import annotations

import argparse
import subprocess
from collections.abc import Callable
from importlib.metadata import version

from machine import describe_machine
from serving import arrivals, changing, endurance, h2load, peers, throughput, tracing, workers
from serving.stage import Stage, open_stage

Part = Callable[[Stage, argparse.Namespace], None]

PARTS: dict[str, tuple[str, Part]] = {
    "throughput": (
        "near hits as a ratio to a bare grpc.aio server that answers with the same bytes",
        lambda stage, sizes: throughput.compare(stage, sizes.rounds, sizes.calls),
    ),
    "traces": (
        "near hits that are traced, as a ratio to near hits that are not",
        lambda stage, sizes: tracing.compare(stage, sizes.rounds, sizes.calls),
    ),
    "ladder": (
        "one call at a time: near hit, Redis hit, SQL",
        lambda stage, sizes: throughput.climb(stage, sizes.ladder_calls),
    ),
    "arrivals": (
        "latencies on 1,000 connections by the rate at which calls arrive",
        lambda stage, sizes: arrivals.arrive(stage, sizes.rates, sizes.seconds),
    ),
    "crowd": (
        "1,000 callers that wait for an answer before they ask again",
        lambda stage, sizes: arrivals.crowd(stage, sizes.rounds, sizes.calls),
    ),
    "zipf": (
        "how much of a mixed load the cache answers while the catalog changes",
        lambda stage, sizes: changing.zipf(stage, sizes.zipf_seconds, sizes.zipf_pause),
    ),
    "refresh": (
        "latencies while a tenth of the catalog changes, and while the cache is filled",
        lambda stage, sizes: changing.disturb(stage, sizes.rounds, sizes.refresh_rate),
    ),
    "replicas": (
        "from a commit to every replica",
        lambda stage, sizes: changing.spread(stage, sizes.changes),
    ),
    "workers": (
        "one process and two on the same port",
        lambda stage, sizes: workers.multiply(stage, sizes.rounds, sizes.calls),
    ),
    "memory": (
        "resident size of a process that is new, full, watched",
        lambda stage, _: endurance.weigh(stage),
    ),
    "peers": (
        "one model from nginx, from the LiteLLM proxy, and out of the whole file",
        lambda stage, sizes: peers.beside(stage, sizes.rounds, sizes.calls, sizes.litellm),
    ),
    "soak": (
        "what a million mixed calls leave behind",
        lambda stage, sizes: endurance.soak(stage, sizes.soak_calls),
    ),
}


def arguments() -> argparse.Namespace:
    parts = "\n".join(f"  {name:<12} {what}" for name, (what, _) in PARTS.items())
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\n\n{parts}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], metavar="part", help="which; none: all")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is loaded, in turns")
    parser.add_argument("--calls", type=int, default=8000, help="of each round")
    parser.add_argument("--seconds", type=float, default=12, help="of each load at a rate of its own")
    parser.add_argument("--rates", type=float, nargs="+", default=[1000, 2000, 4000, 6000, 7000, 8000, 9000])
    parser.add_argument("--zipf-seconds", type=float, default=45, help="of each mix of reads")
    parser.add_argument("--zipf-pause", type=float, default=15, help="seconds between its refreshes")
    parser.add_argument("--refresh-rate", type=float, default=500, help="calls a second while the catalog changes")
    parser.add_argument("--changes", type=int, default=200, help="revisions that replicas are to hear of")
    parser.add_argument("--ladder-calls", type=int, default=1000, help="of each layer")
    parser.add_argument("--soak-calls", type=int, default=1_000_000, help="of all kinds")
    parser.add_argument("--litellm", default="", help="the command litellm of an environment that has its proxy")
    return parser.parse_args()


def describe_versions() -> str:
    first_line = subprocess.run(["h2load", "--version"], capture_output=True, text=True, check=True).stdout.splitlines()
    return f"grpcio {version('grpcio')}, uvloop {version('uvloop')}, {first_line[0]}"


def main() -> None:
    sizes = arguments()
    h2load.require()
    print(f"{describe_machine()}; {describe_versions()}", flush=True)
    with open_stage() as stage:
        for name in sizes.parts or PARTS:
            PARTS[name][1](stage, sizes)


if __name__ == "__main__":
    main()
