"""The metrics of several workers as those of one target: each sample with the label ``worker``.

They are not added up here: what is a sum, a maximum or a share is for the query to say, and a counter that begins anew
with a replaced worker is one that Prometheus knows how to go on from.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families

from modelcatalog_server.metrics.endpoint import Answers
from modelcatalog_server.metrics.listening import to_socket_name

# Of a scrape, which Prometheus gives up after 10 s. One that hangs keeps nobody from seeing the others.
_TIMEOUT_S = 5.0


def answers_of_workers(addresses: Sequence[str]) -> Answers:
    """Return answers out of those that workers give at unix sockets, the first worker at the first."""
    names = [to_socket_name(address.removeprefix("unix:")) for address in addresses]

    async def render() -> bytes:
        texts = await asyncio.gather(*(_get(name, "/metrics") for name in names))
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Merged(texts))
        return generate_latest(registry)

    async def is_ready() -> bool:
        return any(await asyncio.gather(*(_get(name, "/readyz") for name in names)))

    return Answers(render, is_ready)


async def _get(name: str, path: str) -> str | None:
    """Return an answer; ``None``: the worker does not give one, or says no."""
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            return await _ask(name, path)
    except (OSError, TimeoutError):
        return None


async def _ask(name: str, path: str) -> str | None:
    """Ask as simply as HTTP allows: the answer ends with its connection. Clients do not get to abstract sockets."""
    reader, writer = await asyncio.open_unix_connection(sock=await _connect(name))
    try:
        writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.close()
    return body.decode() if b" 200 " in head.partition(b"\r\n")[0] else None


async def _connect(name: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(connection, name)
    except BaseException:
        connection.close()
        raise
    return connection


class _Merged:
    """A collector of what workers said."""

    def __init__(self, texts: Iterable[str | None]) -> None:
        self._texts = list(texts)

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("modelcatalog_worker_up", "Whether the worker showed its metrics.", labels=["worker"])
        merged: dict[str, Metric] = {}
        for number, text in enumerate(self._texts, start=1):
            up.add_metric([str(number)], float(text is not None))
            for family in text_string_to_metric_families(text or ""):
                known = merged.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                known.samples += [
                    sample._replace(labels={"worker": str(number), **sample.labels}) for sample in family.samples
                ]
        yield from merged.values()
        yield up
