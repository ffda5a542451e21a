"""Two replicas, and a PostgreSQL, a Redis and an upstream of their own that they reach through proxies with faults."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from psycopg.conninfo import conninfo_to_dict

from conftest import Services, make_settings, scratch
from fault_proxy import FaultProxy
from modelcatalog_server import app
from replicas import Replica, StartReplica, replicas
from standby import TESTS, Node

REPLICAS = 2
#: What the drain of a server may take at most.
END_WITHIN_S = 30.0


class UpstreamNode(Node):
    """Its process is the server itself and not what starts it."""

    @property
    def processes(self) -> list[int]:
        assert self._process is not None
        return [self._process.pid]


@dataclass
class Ground:
    """What a fault can strike.

    Attributes:
        nodes: The services' processes, by name: postgres, redis, upstream.
        proxies: What is between them and the replicas.
        replicas: Those that run now.
        lives: How often each was started.
        logs: What every replica that ever ran has written to standard error.
    """

    document: Path
    nodes: dict[str, Node]
    proxies: dict[str, FaultProxy]
    _start: StartReplica
    replicas: list[Replica] = field(default_factory=list)
    lives: list[int] = field(default_factory=list)
    logs: list[Path] = field(default_factory=list)

    @property
    def database_url(self) -> str:
        """PostgreSQL itself, without a proxy before it."""
        return self.nodes["postgres"].url

    def publish(self, body: bytes) -> None:
        """Have upstream serve this document from now on, whole."""
        new = self.document.with_suffix(".new")
        new.write_bytes(body)
        new.replace(self.document)

    async def start_replica(self, place: int, listen: str = "") -> None:
        replica = await self._start(
            f"postgresql://modelcatalog@127.0.0.1:{self.proxies['postgres'].port}/modelcatalog?sslmode=disable",
            f"http://127.0.0.1:{self.proxies['upstream'].port}",
            listen=listen,
            UPSTREAM_TIMEOUT_SECONDS="5",
            REFRESH_FALLBACK_SECONDS="2",
            LOG_FORMAT="json",
        )
        self.replicas[place : place + 1] = [replica]
        self.lives[place : place + 1] = [sum(self.lives[place : place + 1]) + 1]
        self.logs.append(replica.log)

    async def end_replicas(self) -> list[int]:
        """End them as an operator would, with what they have under way, and return their exit codes."""
        for replica in self.replicas:
            replica.send(signal.SIGTERM)
        return [await asyncio.to_thread(replica.process.wait, END_WITHIN_S) for replica in self.replicas]

    def count_log_lines(self) -> int:
        return sum(log.read_bytes().count(b"\n") for log in self.logs)


@asynccontextmanager
async def prepare_ground(first_document: bytes) -> AsyncIterator[Ground]:
    """Start everything, on an empty database: the replicas load the first document."""
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(_make_folder())
        nodes = _make_nodes(folder)
        (folder / "catalog.json").write_bytes(first_document)
        for node in nodes.values():
            stack.push_async_callback(asyncio.to_thread, node.stop)
        await asyncio.gather(*(asyncio.to_thread(node.start) for node in nodes.values()))
        nodes["postgres"].execute("ALTER SYSTEM SET fsync = off")
        nodes["postgres"].execute("SELECT pg_reload_conf()")
        proxies = {
            name: await stack.enter_async_context(FaultProxy(str(_socket_of(node)))) for name, node in nodes.items()
        }
        services = Services(nodes["postgres"].url, f"redis://127.0.0.1:{proxies['redis'].port}")
        await app.migrate_database(make_settings(services, services.database_url))
        start = await stack.enter_async_context(replicas(services, folder))
        ground = Ground(folder / "catalog.json", nodes, proxies, start)
        for place in range(REPLICAS):
            await ground.start_replica(place)
        yield ground


@contextmanager
def _make_folder() -> Iterator[Path]:
    """Yield a folder that PostgreSQL's user can reach, too."""
    with TemporaryDirectory(prefix="modelcatalog-chaos-", dir=scratch()) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def _make_nodes(folder: Path) -> dict[str, Node]:
    services = str(TESTS / "services.py")
    return {
        "postgres": Node([sys.executable, services, str(folder / "postgres"), "postgres"]),
        "redis": Node([sys.executable, services, str(folder / "redis"), "valkey"]),
        "upstream": UpstreamNode([sys.executable, str(TESTS / "chaos/upstream.py"), str(folder / "catalog.json")]),
    }


def _socket_of(node: Node) -> Path:
    if "database_url" in node.address:
        return Path(str(conninfo_to_dict(node.url)["host"]), ".s.PGSQL.5432")
    if "redis_url" in node.address:
        return Path(node.address["redis_url"].removeprefix("unix://"))
    return Path(node.address["socket"])
