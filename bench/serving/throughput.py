"""Near hits beside the ceiling, and what a call costs in each layer."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

import grpc

from modelcatalog.v1 import model_catalog_service_pb2 as pb
from modelcatalog.v1.model_pb2 import MODEL_VIEW_BASIC
from modelcatalog_client import ModelCatalogClient
from serving import h2load
from serving.h2load import Call
from serving.report import table
from serving.stage import Process, Stage

SERVICE = "/modelcatalog.v1.ModelCatalog"
GET_MODEL = Call(f"{SERVICE}/GetModel", pb.GetModelRequest(model_id="openai/gpt-5").SerializeToString())
LIST_20 = Call(f"{SERVICE}/ListModels", pb.ListModelsRequest(provider_id="openai", page_size=20).SerializeToString())
EVERY_CALL_LOGGED = ("--access-log-percent", "100")


@dataclass
class Contender:
    """Something that is loaded in turns with the others, and what came of it."""

    name: str
    server: Process
    call: Call
    ceiling: str = ""
    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def take_turn(self, stage: Stage, calls: int, connections: int, streams: int) -> None:
        before = self._hits()
        cpu = self.server.cpu_s()
        load = h2load.run(
            self.server.address,
            self.call,
            core=stage.load_core,
            calls=calls,
            connections=connections,
            streams=streams,
        )
        self.cpu.append((self.server.cpu_s() - cpu) / calls)
        assert load.failed == 0, load
        assert self._is_echo or self._hits() - before == calls, f"not every call of {self.name} was a near hit"
        self.rates.append(load.per_second)

    @property
    def _is_echo(self) -> bool:
        return not self.ceiling

    def _hits(self) -> int:
        return 0 if self._is_echo else int(self.server.layers()["near"].hits)


def compare(stage: Stage, rounds: int, calls: int, connections: int = 10, streams: int = 10) -> None:
    """Print throughput of near hits as a ratio to that of a bare server, in alternating rounds."""
    with ExitStack() as servers:
        plain = servers.enter_context(stage.serve())
        logging = servers.enter_context(stage.serve(*EVERY_CALL_LOGGED))
        bodies = {"get": plain.call(GET_MODEL), "list": plain.call(LIST_20)}
        identified = servers.enter_context(stage.serve_identified())
        for server in (logging, identified):
            server.call(GET_MODEL)
        echo = servers.enter_context(stage.echo(bodies))
        with_token = replace(GET_MODEL, metadata=identified.metadata)
        contenders = [
            Contender(f"echo of {len(bodies['get']):,} bytes", echo, Call("/echo/get", GET_MODEL.request)),
            Contender("GetModel, near hit", plain, GET_MODEL, "get"),
            Contender("echo of that, with a token", echo, replace(with_token, path="/echo/get")),
            Contender("GetModel, near hit, with a token", identified, with_token, "token"),
            Contender("GetModel, near hit, each call logged", logging, GET_MODEL, "get"),
            Contender(f"echo of {len(bodies['list']):,} bytes", echo, Call("/echo/list", LIST_20.request)),
            Contender("ListModels of 20, near hit", plain, LIST_20, "list"),
        ]
        for each in contenders:
            each.take_turn(stage, max(calls // 10, 100), connections, streams)  # a connection is new once
            each.rates.clear()
            each.cpu.clear()
        for _ in range(rounds):
            for each in contenders:
                each.take_turn(stage, calls, connections, streams)
    ceilings = {"get": contenders[0], "token": contenders[2], "list": contenders[5]}
    print(f"\n{rounds} rounds of {calls:,} calls each, {connections} connections of {streams} streams\n")
    table(
        ("", "calls/s", "slowest", "fastest", "of the echo", "CPU per call"),
        [
            (
                each.name,
                f"{statistics.median(each.rates):,.0f}",
                f"{min(each.rates):,.0f}",
                f"{max(each.rates):,.0f}",
                f"{ratio(each, ceilings[each.ceiling]):.2f}" if each.ceiling else "",
                f"{statistics.median(each.cpu) * 1e6:.0f} µs",
            )
            for each in contenders
        ],
    )


def ratio(contender: Contender, ceiling: Contender) -> float:
    """Return the median over the rounds: what disturbs a round disturbs both of it."""
    return statistics.median(mine / bare for mine, bare in zip(contender.rates, ceiling.rates, strict=True))


def climb(stage: Stage, calls: int) -> None:
    """Print what one call at a time takes out of each layer.

    The request says its view in so many words, which is another request than the one that is prepared.
    """
    with stage.serve() as server:
        with ModelCatalogClient(server.address) as client:
            ids = [model.id for model in client.list_models(read_mask=["id"], page_size=1000)][:calls]
        requests = [pb.GetModelRequest(model_id=id_, view=MODEL_VIEW_BASIC).SerializeToString() for id_ in ids]
        steps = [measure("SQL", server, requests, misses("redis"))]
    with stage.serve() as server:
        steps.append(measure("Redis hit", server, requests, hits("redis")))
        steps.append(measure("near hit", server, requests, hits("near")))
    print(f"\none GetModel at a time, {len(ids):,} of each, from the caller's side, and CPU of the serving process\n")
    table(("", "median", "p95", "p99", "CPU per call"), steps)


Figure = Callable[[Process], int]


def hits(layer: str) -> Figure:
    return lambda server: int(server.layers()[layer].hits)


def misses(layer: str) -> Figure:
    return lambda server: int(server.layers()[layer].misses)


def measure(name: str, server: Process, requests: list[bytes], figure: Figure) -> tuple[str, ...]:
    before, cpu = figure(server), server.cpu_s()
    times = []
    with grpc.insecure_channel(server.address) as channel:
        get_model: Any = channel.unary_unary(GET_MODEL.path)
        for request in requests:
            begun = perf_counter()
            get_model(request, timeout=30)
            times.append(perf_counter() - begun)
    cpu = server.cpu_s() - cpu
    counted = figure(server) - before
    assert counted >= len(requests) * 0.99, f"{counted} of {len(requests)} came from there"
    quantiles = statistics.quantiles(times, n=100)
    figures = statistics.median(times), quantiles[94], quantiles[98], cpu / len(requests)
    return (name, *(f"{figure * 1e3:.2f} ms" for figure in figures))
