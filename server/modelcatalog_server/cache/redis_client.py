"""The clients of redis-py behind one face, for what is different between one server, Sentinel and a cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff

from modelcatalog_server.cache.redis_address import Address, parse_address

# Sweeps take so many keys at a time.
_BATCH = 500
# Nobody has it. It begins as all keys do, which may be all that a user may read.
_PROBE = "modelcatalog:probe"
# For each primary of a cluster, to find a key of every one.
_TRIES = 16


class RedisClient:
    """A client of one Redis, or of the one that is the master now by what Sentinels say.

    Args:
        commands: The client of redis-py.
        closing: What closes it, in order.
        has_to_search: Whether somebody has to be asked first where it is.
    """

    def __init__(self, commands: Any, *closing: Callable[[], Awaitable[None]], has_to_search: bool = False) -> None:
        self.commands = commands
        self.has_to_search = has_to_search
        self._closing = closing

    async def probe(self) -> None:
        """Raise unless it can be read."""
        await self.commands.get(_PROBE)

    async def scan(self, prefix: str) -> AsyncIterator[list[Any]]:
        """Yield the keys that begin so, some at a time."""
        keys: list[Any] = []
        async for key in self.commands.scan_iter(match=f"{prefix}:*", count=_BATCH):
            keys.append(key)
            if len(keys) == _BATCH:
                yield keys
                keys = []
        if keys:
            yield keys

    async def count_evicted(self) -> int:
        """Return how many keys it has dropped for room since its start."""
        return int((await self.commands.info("stats"))["evicted_keys"])

    async def close(self) -> None:
        """Close all connections."""
        for close in self._closing:
            await close()


class _SingleKeys:
    """Where keys are in commands: all that are sent here have one, behind their name; EVALSHA, redis-py knows itself.

    Its own parser asks for the list of all commands each time that something about the cluster has failed. To decode
    that stops the event loop for longer than a hundred cached answers take.
    """

    async def initialize(self, node: ClusterNode | None = None) -> None:
        """Be ready."""

    async def get_keys(self, *args: Any) -> tuple[Any, ...]:
        """Return the keys of a command."""
        return args[1:2]


class ClusterClient(RedisClient):
    """A client of a cluster. It finds out by itself which node has which keys, and when that has changed."""

    async def probe(self) -> None:
        """Raise unless every primary can be read: else it would be down and back again with each key that is asked for.

        A node that has just come back answers PING, but for no key until it has found the others.
        """
        await self.commands.ping(target_nodes=RedisCluster.PRIMARIES)
        for key in self._list_probes():
            await self.commands.get(key)

    def _list_probes(self) -> list[str]:
        """Return a key of each primary; of one that has hardly any slots perhaps none."""
        keys: dict[str, str] = {}
        primaries = len(self.commands.get_primaries())
        for number in range(_TRIES * primaries):
            key = f"{_PROBE}:{number}"
            keys.setdefault(self.commands.get_node_from_key(key).name, key)
            if len(keys) == primaries:
                break
        return list(keys.values())

    async def count_evicted(self) -> int:
        """Return how many keys the primaries have dropped."""
        found = [await self.commands.info("stats", target_nodes=node) for node in self.commands.get_primaries()]
        return sum(int(each["evicted_keys"]) for each in found)


def make_client(url: str, *, max_connections: int, connect_timeout_s: float, answer_timeout_s: float) -> RedisClient:
    """Return a client that has not connected yet.

    Raises:
        ValueError: The address is none, or has an option that redis-py does not know.
    """
    try:
        return _make_client(parse_address(url), max_connections, connect_timeout_s, answer_timeout_s)
    except TypeError as error:
        name = str(error).rpartition("unexpected keyword argument ")[2]
        raise ValueError(f"there is no option {name}: those of redis-py are, ssl_… where TLS is") from error


def _make_client(
    address: Address, max_connections: int, connect_timeout_s: float, answer_timeout_s: float
) -> RedisClient:
    # redis-py's defaults make a read on a dead Redis cost seconds: ten retries and long time-outs. To set these is not
    # left to the address.
    bounds: dict[str, Any] = {
        "socket_connect_timeout": connect_timeout_s,
        "socket_timeout": answer_timeout_s,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        "driver_info": None,  # would send CLIENT SETINFO, which Redis 6.2 does not have
    }
    if address.kind == "cluster":
        return _make_cluster(address, {**address.options, **bounds}, max_connections)
    if address.kind == "sentinel":
        return _make_master(address, bounds, max_connections)
    pool = ConnectionPool(**{**address.options, **bounds}, max_connections=max_connections)
    pool.make_connection()  # type: ignore[no-untyped-call] # it has no types; it refuses options that there are not
    redis = Redis(connection_pool=pool)
    return RedisClient(redis, redis.aclose, pool.disconnect)


def _make_cluster(address: Address, options: dict[str, Any], max_connections: int) -> RedisClient:
    nodes = [ClusterNode(host, port) for host, port in address.hosts]
    # To each node; one more asks for the nodes while all others are in use.
    cluster = RedisCluster(startup_nodes=nodes, **options, max_connections=max_connections + 1)
    cluster.commands_parser = _SingleKeys()  # type: ignore[assignment] # what redis-py asks of one
    return ClusterClient(cluster, cluster.aclose, has_to_search=True)


def _make_master(address: Address, bounds: dict[str, Any], max_connections: int) -> RedisClient:
    asking = {**address.sentinel_options, **bounds}
    sentinel = Sentinel(list(address.hosts), sentinel_kwargs=asking)  # type: ignore[no-untyped-call] # it has no types
    options = {**address.options, **bounds}
    pool = SentinelConnectionPool(  # type: ignore[no-untyped-call] # it has no types
        address.service, sentinel, **options, max_connections=max_connections
    )
    pool.make_connection()  # type: ignore[no-untyped-call] # as above
    redis = Redis(connection_pool=pool)
    return RedisClient(redis, redis.aclose, pool.disconnect, sentinel.aclose, has_to_search=True)
