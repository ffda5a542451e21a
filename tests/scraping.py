"""Scraping a service as Prometheus does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from modelcatalog_server.app import App
from modelcatalog_server.metrics.listening import address_of, listening, to_socket_name
from modelcatalog_server.metrics.serving import showing_metrics


@dataclass
class Scrape:
    """What one answer had."""

    families: Mapping[str, Metric]

    def value(self, name: str, **labels: str) -> float:
        """Return the sum of the samples of this name that have these labels."""
        samples = [sample for family in self.families.values() for sample in family.samples if sample.name == name]
        assert samples, f"{name} is not shown"
        return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())

    @property
    def labels(self) -> dict[str, set[str]]:
        """The labels of each metric by the name that its samples have, those of a histogram's by that of it."""
        found: dict[str, set[str]] = {}
        for family in self.families.values():
            for sample in family.samples:
                name = family.name if family.type == "histogram" else sample.name
                found.setdefault(name, set()).update(sample.labels.keys() - {"le"})
        return found


@dataclass
class Target:
    """Where a service shows its metrics."""

    address: str

    async def get(self, path: str) -> tuple[int, str]:
        """Return status and body of an answer."""
        host, connector = self.address, None
        if self.address.startswith("unix:"):
            host, connector = "localhost", aiohttp.UnixConnector(to_socket_name(self.address.removeprefix("unix:")))
        async with (
            aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(10)) as session,
            session.get(f"http://{host}{path}") as response,
        ):
            return response.status, await response.text()

    async def scrape(self) -> Scrape:
        status, text = await self.get("/metrics")
        assert status == 200
        return Scrape({family.name: family for family in text_string_to_metric_families(text)})


@asynccontextmanager
async def shown(running: App) -> AsyncIterator[Target]:
    """Show the metrics of a service in this process, as ``serve`` does."""
    ready = asyncio.Event()
    ready.set()
    with listening("127.0.0.1:0") as bound:
        assert bound is not None
        async with showing_metrics(bound, running.sources, ready):
            yield Target(address_of(bound))
