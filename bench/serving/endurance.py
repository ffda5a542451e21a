"""What a process keeps: memory when it is new, full and watched, and what a million calls leave behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import cycle

import grpc

from modelcatalog.v1 import model_catalog_service_pb2 as pb
from modelcatalog.v1 import refresh_service_pb2
from modelcatalog.v1.refresh_service_pb2_grpc import RefreshServiceStub
from modelcatalog_client import ModelCatalogClient
from serving import h2load
from serving.changing import refresh
from serving.h2load import Call
from serving.report import mb, table
from serving.stage import Process, Stage
from serving.throughput import GET_MODEL, LIST_20, SERVICE

# A process takes 500 streams, so a thousand is twice what these take.
STREAMS = 400

MIXED = (
    GET_MODEL,
    LIST_20,
    Call(f"{SERVICE}/SearchModels", pb.SearchModelsRequest(query="claude sonnet", page_size=20).SerializeToString()),
    GET_MODEL,
    Call(f"{SERVICE}/GetProvider", pb.GetProviderRequest(provider_id="openai").SerializeToString()),
    Call(f"{SERVICE}/GetModel", pb.GetModelRequest(model_id="openai/no-such-model").SerializeToString()),
    GET_MODEL,
    Call(f"{SERVICE}/GetCatalogInfo"),
)


def weigh(stage: Stage) -> None:
    """Print the resident size of a process that is new, warm, full, and watched by idle streams."""
    rows = []
    with stage.serve("--cache-hot-requests", "0", "--cache-entries", "0", pinned=False, warm=False) as server:
        rows.append(("ready, without a cache", mb(server.resident_bytes())))
    with stage.serve("--max-streams-per-caller", str(STREAMS), pinned=False) as server:
        rows.append(("with every model at hand", mb(server.resident_bytes())))
        fill(server)
        near = server.layers()["near"]
        full = server.resident_bytes()
        rows.append((f"cache full: {near.entries:,} entries, {mb(near.bytes)}", mb(full)))
        with streams(server, STREAMS):
            each = (server.resident_bytes() - full) / STREAMS
        rows.append((f"more for 1,000 idle streams, from {STREAMS}", mb(each * 1000)))
    print("\nresident memory of the serving process, shared libraries included\n")
    table(("", "memory"), rows)


def fill(server: Process) -> None:
    """Ask for so much that is different that something has to go."""
    with ModelCatalogClient(server.address, timeout=60) as client:
        ids = [model.id for model in client.list_models(read_mask=["id"], page_size=1000)]
        for size in cycle((100, 200)):
            for id_ in ids:
                if server_is_full(server, id_, ids):
                    return
                next(iter(client.list_models(filter=f'id >= "{id_}"', page_size=size).pages()))


def server_is_full(server: Process, id_: str, ids: list[str]) -> bool:
    """Look now and then: asking costs as much as a read."""
    return ids.index(id_) % 50 == 49 and server.layers()["near"].evictions > 0


@contextmanager
def streams(server: Process, count: int) -> Iterator[None]:
    """Watch refreshes, of which there are none, on ten connections."""
    with ExitStack() as stack:
        channels = [
            stack.enter_context(grpc.insecure_channel(server.address, options=[("grpc.use_local_subchannel_pool", 1)]))
            for _ in range(10)
        ]
        watches = [
            RefreshServiceStub(channels[number % 10]).WatchRefreshStatus(
                refresh_service_pb2.WatchRefreshStatusRequest()
            )
            for number in range(count)
        ]
        for watch in watches:
            next(watch)
            stack.callback(watch.cancel)
        time.sleep(1)
        yield


def soak(stage: Stage, calls: int) -> None:
    """Print what a process weighs while it answers so many calls of all kinds, refreshes and errors among them."""
    each = 2000
    sizes: list[tuple[int, int]] = []
    with stage.serve(pinned=False) as server, ModelCatalogClient(server.address, timeout=60) as client:
        made = 0
        begun = time.monotonic()
        kinds = cycle(MIXED)
        while made < calls:
            if made % (calls // 10) < each:
                sizes.append((made, server.resident_bytes()))
                thread = threading.Thread(target=refresh, args=(stage, client), kwargs={"every": 100})
                thread.start()
            load = h2load.run(server.address, next(kinds), core=stage.load_core, calls=each)
            assert load.failed == 0, load
            made += each
        thread.join()
        sizes.append((made, server.resident_bytes()))
        seconds = time.monotonic() - begun
    print(f"\n{made:,} calls of {len(set(MIXED))} kinds and {len(sizes) - 1} refreshes in {seconds:.0f} s\n")
    table(("after calls", "resident"), [(f"{calls:,}", mb(size)) for calls, size in sizes])
    half = [point for point in sizes if point[0] >= made / 2]
    print(f"\nslope of the second half: {slope(half):+.2f} bytes a call", flush=True)


def slope(points: list[tuple[int, int]]) -> float:
    """Return by how much a line through the points rises for one call (least squares)."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    above = sum((x - mean_x) * (y - mean_y) for x, y in points)
    return above / sum((x - mean_x) ** 2 for x, _ in points)
