"""What traces cost a near hit: each call traced, one in a hundred, and none."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import grpc

from serving.report import table
from serving.stage import Stage
from serving.throughput import GET_MODEL, Contender

_SAMPLERS = {
    "each traced": {"OTEL_TRACES_SAMPLER": "parentbased_always_on"},
    "one in a hundred": {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.01"},
}


class _Sink(grpc.GenericRpcHandler):
    """A collector that takes everything and keeps nothing."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:  # noqa: ARG002 -- grpc passes it
        return grpc.unary_unary_rpc_method_handler(lambda request, context: b"")  # noqa: ARG005


@contextmanager
def collector() -> Iterator[str]:
    """Yield where spans may be sent to; it shares a core with the load."""
    server = grpc.server(ThreadPoolExecutor(1), handlers=(_Sink(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"http://127.0.0.1:{port}"
    server.stop(None)


def compare(stage: Stage, rounds: int, calls: int, connections: int = 10, streams: int = 10) -> None:
    """Print throughput of near hits in alternating rounds."""
    with ExitStack() as servers:
        endpoint = servers.enter_context(collector())
        contenders = [Contender("off", servers.enter_context(stage.serve()), GET_MODEL, "get")]
        for name, variables in _SAMPLERS.items():
            server = servers.enter_context(stage.serve("--traces-endpoint", endpoint, more=variables))
            contenders.append(Contender(name, server, GET_MODEL, "get"))
        for each in contenders:
            each.server.call(GET_MODEL)
            each.take_turn(stage, max(calls // 10, 100), connections, streams)
            each.rates.clear()
            each.cpu.clear()
        for _ in range(rounds):
            for each in contenders:
                each.take_turn(stage, calls, connections, streams)
    off = contenders[0]
    print(f"\n{rounds} rounds of {calls:,} calls of GetModel, near hit, each\n")
    table(
        ("traces", "calls/s", "of those without", "CPU per call"),
        [
            (
                each.name,
                f"{statistics.median(each.rates):,.0f}",
                f"{statistics.median(mine / bare for mine, bare in zip(each.rates, off.rates, strict=True)):.2f}",
                f"{statistics.median(each.cpu) * 1e6:.0f} µs",
            )
            for each in contenders
        ],
    )
