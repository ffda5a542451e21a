"""``RedisCache`` on a server that restarts, a master that Sentinels watch, and a cluster, with real failovers."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from fault_proxy import FaultProxy, stop_listening
from modelcatalog_server.cache.quotas import SharedQuotas
from modelcatalog_server.cache.redis_cache import RedisCache
from modelcatalog_server.domain.errors import StartupError
from modelcatalog_server.domain.limits import RateLimit
from redis_nodes import Cluster, Node, Watched, alone, clustered, watched
from redis_nodes import until as nodes_until
from small_catalog import until

DOWN, BACK = "redis is down: reads go on without it", "redis is back"
OWED = "redis is down: what was invalidated is deleted there before it is used again"
UNDELETED = "redis refuses to delete what was invalidated: it stays until its time is over"
UNKNOWN_AUTH = b"-ERR unknown command 'AUTH', with args beginning with: 'hunter2'\r\n"
KEYS = [f"test:{number}" for number in range(40)]


@pytest.fixture
def topology(tmp_path: Path) -> Iterator[Watched]:
    with watched(tmp_path) as topology:
        yield topology


@pytest.fixture
def mortal_cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster of one test, which may change who has which keys."""
    with clustered(tmp_path) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with clustered(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def patient_cache(url: str, **more: Any) -> RedisCache:
    """A cache whose readers wait: a busy machine may take longer than 5 ms to answer."""
    return RedisCache(url, **{"connect_timeout_s": 5, "answer_timeout_s": 5, "read_budget_s": 5, **more})


def impatient_cache(url: str) -> RedisCache:
    """A cache whose readers give up within the time of a test, but not for a moment's busyness."""
    return RedisCache(url, connect_timeout_s=1, answer_timeout_s=1, read_budget_s=1)


async def fill(cache: RedisCache, keys: list[str] = KEYS) -> None:
    for key in keys:
        await cache.set(key, key.encode(), ttl_s=60)


async def holds(cache: RedisCache, keys: list[str] = KEYS) -> bool:
    """Fill it and tell whether all of that is in it, as it is when everything is well."""
    await fill(cache, keys)
    return [await cache.get(key) for key in keys] == [key.encode() for key in keys]


async def reads_quickly(cache: RedisCache) -> None:
    """Read what may be there or not; nobody waits for it long."""
    for key in KEYS:
        begun = time.monotonic()
        await cache.get(key)
        assert time.monotonic() - begun < 4, "a call that nobody waits for may take longer"
        await asyncio.sleep(0)


async def test_one_that_is_flushed_is_filled_again_and_one_that_is_restarted_is_found_again(tmp_path: Path) -> None:
    with capture_logs() as logs, alone(tmp_path) as node:
        async with patient_cache(f"redis://{node.address}") as cache:
            assert await holds(cache)
            node.ask("FLUSHALL")
            assert await cache.get(KEYS[0]) is None
            assert (await holds(cache), logs) == (True, [])
            node.kill()
            assert await cache.get(KEYS[0]) is None
            node.restart()
            await until(lambda: cache.check())
            assert await cache.get(KEYS[0]) is None, "it keeps nothing"
            assert await holds(cache)
    assert [line["event"] for line in logs] == [DOWN, BACK]


def wants_a_replica(node: Node) -> str:
    node.ask("CONFIG", "SET", "min-replicas-to-write", 1)
    return "redis://"


def cannot_save(node: Node) -> str:
    """Have a place for its file that is taken."""
    Path(node.ask("CONFIG", "GET", "dir")["dir"], "dump.rdb").mkdir()
    node.ask("CONFIG", "SET", "save", "3600 1")
    node.ask("BGSAVE")
    nodes_until(lambda: node.ask("INFO", "persistence")["rdb_last_bgsave_status"] == "err")
    return "redis://"


def has_a_user_who_only_reads(node: Node) -> str:
    node.ask("ACL", "SETUSER", "reader", "on", ">secret", "~*", "-@all", "+get")
    return "redis://reader:secret@"


@pytest.mark.parametrize("prepare", [wants_a_replica, cannot_save, has_a_user_who_only_reads])
async def test_one_that_answers_writes_with_an_error_is_read_on(tmp_path: Path, prepare: Callable[[Node], str]) -> None:
    with capture_logs() as logs, alone(tmp_path) as node:
        node.ask("SET", KEYS[0], "x")
        async with patient_cache(f"{prepare(node)}{node.address}") as cache:
            quotas = SharedQuotas(cache, secret=b"of this catalog")
            for _ in range(3):
                await cache.set(KEYS[1], b"y", ttl_s=60)
                assert await quotas.take(RateLimit(10, 60), "principal:ann", 1), "counted by the process for itself"
                assert await cache.get(KEYS[0]) == b"x"
            assert await cache.get(KEYS[1]) is None
            assert (cache.refused, cache.failures, logs) == (6, 0, [])


def documented_commands(*parts: str) -> list[str]:
    """Return what the table in the docs says that a user must be allowed to do."""
    text = (Path(__file__).parents[2] / "docs/caching.md").read_text()
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| commands, ")]
    found = [row[2] for row in rows if row[1].strip().removeprefix("commands, ") in parts]
    assert len(found) == len(parts)
    return re.findall(r"(?<!not )`([A-Z]+(?: [A-Z]+)?)`", " ".join(found))


def allow(node: Node, commands: list[str]) -> str:
    """Have a user who may do that and nothing else, and return the beginning of their address."""
    rules = ["+" + command.lower().replace(" ", "|") for command in commands]
    node.ask("ACL", "SETUSER", "cat", "reset", "on", ">secret", "~modelcatalog:*", "-@all", *rules)
    return "cat:secret@"


ALWAYS, SWEEPS, LIMITS = "always", "for figures and letting go", "for rate limits"
SENTINELS, CLUSTERS = "of Sentinels", "of a cluster"


async def uses_all_of_it(cache: RedisCache) -> None:
    """Use all there is of it, of 20 keys, and have nothing refused."""
    keys = [f"modelcatalog:{number}" for number in range(20)]
    assert await holds(cache, keys)
    assert await count_shared(cache, cache, ["principal:ann"]) == {10}
    quotas = SharedQuotas(cache, secret=b"of another catalog")
    assert await quotas.take(RateLimit(10, 1), "principal:ann", 10)
    await asyncio.sleep(1.1)  # the window moves on, which renames the key
    await quotas.take(RateLimit(10, 1), "principal:ann", 1)
    assert await quotas.get_delay(RateLimit(10, 1), "principal:ann") < 1
    assert await cache.measure("modelcatalog") is not None
    assert await cache.delete("modelcatalog", b"modelcatalog:7") == 1
    assert await cache.delete("modelcatalog") >= 19
    assert (cache.refused, cache.failures, cache.available) == (0, 0, True)


async def test_a_user_who_may_do_what_the_docs_say_can_do_everything(tmp_path: Path) -> None:
    with capture_logs() as logs, alone(tmp_path) as node:
        user = allow(node, documented_commands(ALWAYS, SWEEPS, LIMITS))
        async with patient_cache(f"redis://{user}{node.address}/1") as cache:
            await uses_all_of_it(cache)
        assert (node.ask("ACL", "LOG"), logs) == ([], [])


async def test_a_user_of_sentinels_who_may_do_what_the_docs_say_finds_the_master(topology: Watched) -> None:
    allow(topology.sentinel, documented_commands(SENTINELS))
    login = "sentinel_username=cat&sentinel_password=secret"
    async with patient_cache(f"redis+sentinel://{topology.sentinel.address}/catalog?{login}") as cache:
        assert await holds(cache)


async def test_a_user_of_a_cluster_who_may_do_what_the_docs_say_can_do_everything(cluster: Cluster) -> None:
    commands = documented_commands(ALWAYS, SWEEPS, LIMITS, CLUSTERS)
    (user,) = {allow(node, commands) for node in [*cluster.primaries, cluster.replica]}
    with capture_logs() as logs:
        async with patient_cache(f"redis+cluster://{user}{cluster.primaries[0].address}") as cache:
            await uses_all_of_it(cache)
    assert ([node.ask("ACL", "LOG") for node in cluster.primaries], logs) == ([[], [], []], [])


@pytest.mark.parametrize(
    ("missing", "measured"),
    [("INFO", True), ("STRLEN", False), ("SCAN", False)],
)
async def test_figures_that_a_user_may_not_ask_for_are_not_known_and_it_is_read_on(
    tmp_path: Path, missing: str, measured: bool
) -> None:
    with capture_logs() as logs, alone(tmp_path) as node:
        commands = documented_commands(ALWAYS, SWEEPS)
        user = allow(node, [command for command in commands if command != missing])
        async with patient_cache(f"redis://{user}{node.address}") as cache:
            keys = [key.replace("test", "modelcatalog") for key in KEYS]
            await fill(cache, keys)
            size = sum(map(len, keys))
            assert await cache.measure("modelcatalog") == ((len(keys), size, 0) if measured else None)
            assert await cache.get(keys[0]) == keys[0].encode()
            assert (cache.refused, cache.failures, cache.available) == (0, 0, True)
    assert [line["event"] for line in logs] == ["redis does not give its figures"]


async def test_one_that_answers_reads_with_an_error_is_down(tmp_path: Path) -> None:
    with capture_logs() as logs, alone(tmp_path) as node:
        node.ask("ACL", "SETUSER", "writer", "on", ">secret", "~*", "-@all", "+set")
        clock = Clock()
        async with patient_cache(f"redis://writer:secret@{node.address}", clock=clock) as cache:
            for _ in range(3):
                clock.now += 1.1
                await cache.set(KEYS[0], b"x", ttl_s=60)
                assert await cache.get(KEYS[0]) is None
            assert (cache.refused, cache.available) == (0, False)
    assert [line["event"] for line in logs] == [DOWN]


@pytest.mark.parametrize(
    ("owed", "left"),
    [
        ([b""], []),
        ([b":3"], [b"test:1", b"test:2"]),
        ([b":3", b":1"], [b"test:2"]),
        ([b":3", b"", b":1"], []),
        ([b"no %d" % number for number in range(100)], []),
    ],
    ids=["everything", "one name", "two names", "everything and names", "many names"],
)
async def test_what_cannot_be_deleted_while_it_is_down_is_before_it_is_read_again(
    tmp_path: Path, owed: list[bytes], left: list[bytes]
) -> None:
    keys, clock = KEYS[1:4], Clock()
    with capture_logs() as logs, alone(tmp_path) as node:
        async with (
            FaultProxy("127.0.0.1", node.port) as proxy,
            patient_cache(f"redis://127.0.0.1:{proxy.port}", clock=clock) as cache,
        ):
            await fill(cache, [*keys, "another:3"])
            proxy.cut()
            assert [await cache.delete("test", needle) for needle in owed] == [0] * len(owed)
            clock.now += 1.1
            assert await cache.get(KEYS[1]) is None, "it is down still"
            proxy.mend()
            assert await cache.delete("none") == 0, "as while it is left alone"
            assert not cache.available
            clock.now += 1.1
            assert [value for key in keys if (value := await cache.get(key))] == left
            assert node.ask("DBSIZE") == len(left) + 1
    events = [line["event"] for line in logs]
    assert (events[0], events[-1], set(events[1:-1])) == (DOWN, BACK, {OWED})


async def test_one_that_refuses_to_delete_is_read_on_and_the_log_says_so(tmp_path: Path) -> None:
    with capture_logs() as logs, alone(tmp_path) as node:
        node.ask("ACL", "SETUSER", "cat", "on", ">secret", "~*", "-@all", "+get", "+set", "+scan")
        clock = Clock()
        async with (
            FaultProxy("127.0.0.1", node.port) as proxy,
            patient_cache(f"redis://cat:secret@127.0.0.1:{proxy.port}", clock=clock) as cache,
        ):
            await fill(cache)
            assert await cache.delete("test") == 0
            assert (cache.available, cache.refused) == (True, 1)
            proxy.cut()
            await cache.delete("test")
            proxy.mend()
            clock.now += 1.1
            assert await cache.get(KEYS[0]) == KEYS[0].encode()
    assert [line["event"] for line in logs] == [UNDELETED, DOWN, OWED, UNDELETED, BACK]


async def test_a_failover_is_one_line_and_then_one_more_and_the_new_master_is_found(topology: Watched) -> None:
    # The second Sentinel is not there, as while its machine is replaced.
    url = f"redis+sentinel://127.0.0.1:1,{topology.sentinel.address}/catalog"
    with capture_logs() as logs:
        async with impatient_cache(url) as cache:
            assert await holds(cache)
            topology.master.kill()
            for _ in range(3):
                await reads_quickly(cache)
            await until(lambda: holds(cache))
    assert [line["event"] for line in logs] == [DOWN, BACK]
    assert topology.replica.ask("GET", KEYS[0]) == KEYS[0], "it is where the Sentinel says"


async def test_a_master_that_hangs_is_left_for_the_new_one(topology: Watched) -> None:
    url = f"redis+sentinel://{topology.sentinel.address}/catalog"
    with capture_logs() as logs:
        async with impatient_cache(url) as cache:
            assert await holds(cache)
            topology.master.stop_for_a_while()
            try:
                await until(lambda: holds(cache))
                assert topology.replica.ask("GET", KEYS[0]) == KEYS[0]
            finally:
                topology.master.go_on()
            assert await holds(cache), "and who is demoted is not asked again"
    assert [line["event"] for line in logs] == [DOWN, BACK]


async def test_where_no_sentinel_answers_it_is_down_like_any_other() -> None:
    with capture_logs() as logs:
        async with RedisCache("redis+sentinel://127.0.0.1:1,127.0.0.1:2/catalog") as cache:
            assert await cache.get("key") is None
            assert not cache.available
    assert [line["event"] for line in logs] == [DOWN]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis://{address}/99", "DB index is out of range"),
        ("redis://ann:hunter2@{address}", "invalid username-password pair or user is disabled"),
        ("redis://:hunter2@127.0.0.1:1", "no server answers at 127.0.0.1:1: Connection refused"),
        ("unix://:hunter2@/nobody.sock", "no server answers at /nobody.sock: No such file or directory"),
        ("redis+sentinel://:hunter2@127.0.0.1:1/catalog", "no Sentinel that answers names a master for the service"),
        (
            "redis+cluster://:hunter2@127.0.0.1:1",
            "no node of the cluster answers: no server answers at 127.0.0.1:1: Connection refused",
        ),
        ("redis://:hunter2@{stranger}", "what answers is no Redis"),
        ("redis://:hunter2@{echo}", "unknown command 'AUTH'"),
    ],
)
async def test_the_log_says_what_is_wrong_and_no_password(tmp_path: Path, url: str, reason: str) -> None:
    with capture_logs() as logs, alone(tmp_path) as node:
        async with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as stranger, answering(UNKNOWN_AUTH) as echo:
            address = url.format(address=node.address, stranger=stranger, echo=echo)
            async with patient_cache(address) as cache:
                assert not cache.available
    assert [(line["event"], line["reason"]) for line in logs] == [(DOWN, reason)]


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[str]:
    """Listen, and answer whatever is said with this."""

    async def take_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(answer)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(take_on, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        await stop_listening(server)


async def test_a_service_that_the_sentinels_do_not_know_is_down(topology: Watched) -> None:
    async with patient_cache(f"redis+sentinel://{topology.sentinel.address}/another") as cache:
        assert not cache.available


async def test_a_cluster_holds_keys_wherever_they_belong(cluster: Cluster) -> None:
    assert {cluster.holder_of(key).port for key in KEYS} == {node.port for node in cluster.primaries}
    # One of the nodes that it is told of is not there.
    async with patient_cache(f"redis+cluster://127.0.0.1:1,{cluster.primaries[1].address}") as cache:
        assert await holds(cache)
        assert (cache.hits, cache.failures, cache.available) == (len(KEYS), 0, True)
        await asyncio.gather(*(cache.get(key) for key in KEYS * 10))
        assert (cache.failures, cache.available) == (0, True), "more at once than there are connections wait their turn"


async def test_quotas_are_counted_on_whichever_node_a_subject_belongs_to(cluster: Cluster) -> None:
    url = f"redis+cluster://{cluster.primaries[1].address}"
    async with patient_cache(url) as one, patient_cache(url) as other:
        assert await count_shared(one, other, [f"principal:{number}" for number in range(20)]) == {10}


async def test_quotas_are_counted_at_the_master_that_sentinels_name(topology: Watched) -> None:
    url = f"redis+sentinel://{topology.sentinel.address}/catalog"
    async with patient_cache(url) as one, patient_cache(url) as other:
        assert await count_shared(one, other, ["principal:ann"]) == {10}


async def count_shared(one: RedisCache, other: RedisCache, subjects: list[str]) -> set[int]:
    """Return how often each may do what it may 10 times, asking two processes by turns."""
    limit = RateLimit(10, 86_400)
    quotas = [SharedQuotas(cache, secret=b"of this catalog") for cache in (one, other)]
    taken = {sum([await quotas[turn % 2].take(limit, subject, 1) for turn in range(15)]) for subject in subjects}
    assert one.failures == other.failures == 0, "else each has counted for itself"
    return taken


async def test_figures_and_letting_go_are_of_all_nodes(cluster: Cluster) -> None:
    async with patient_cache(f"redis+cluster://{cluster.primaries[0].address}") as cache:
        await fill(cache, [f"sweep:{number}" for number in range(600)])
        size = sum(len(f"sweep:{number}") for number in range(600))
        assert await cache.measure("sweep") == (600, size, 0)
        assert await cache.delete("sweep", b"sweep:59") == 11
        assert await cache.delete("sweep") == 589
        assert await cache.measure("sweep") == (0, 0, 0)


async def test_a_slot_that_moves_to_another_node_is_followed(mortal_cluster: Cluster) -> None:
    cluster = mortal_cluster
    async with patient_cache(f"redis+cluster://{cluster.primaries[0].address}") as cache:
        key = next(key for key in KEYS if cluster.holder_of(key) is cluster.primaries[1])
        assert await holds(cache, [key])
        slot, target = cluster.replica.ask("CLUSTER", "KEYSLOT", key), cluster.primaries[2]
        cluster.primaries[1].ask("FLUSHALL")
        for node in (target, cluster.primaries[1], cluster.primaries[0]):
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", target.ask("CLUSTER", "MYID"))
        assert await holds(cache, [key])
        assert target.ask("GET", key) == key
        assert cache.failures == 0


async def test_one_node_that_is_full_refuses_its_keys_and_is_read_on(cluster: Cluster) -> None:
    async with patient_cache(f"redis+cluster://{cluster.primaries[0].address}") as cache:
        assert await holds(cache)
        full = cluster.holder_of(KEYS[0])
        full.ask("CONFIG", "SET", "maxmemory", "1")
        try:
            await fill(cache)
            assert cache.refused > 0
            assert [await cache.get(key) for key in KEYS] == [key.encode() for key in KEYS]
        finally:
            full.ask("CONFIG", "SET", "maxmemory", "0")
        assert (cache.failures, cache.available) == (0, True)


async def test_a_node_that_dies_is_one_line_until_its_replica_has_its_place(mortal_cluster: Cluster) -> None:
    cluster = mortal_cluster
    url = f"redis+cluster://{cluster.primaries[0].address},{cluster.primaries[1].address}"
    with capture_logs() as logs:
        async with impatient_cache(url) as cache:
            assert await holds(cache)
            cluster.primaries[0].kill()
            for _ in range(3):
                await reads_quickly(cache)
            await until(lambda: holds(cache))
    assert [line["event"] for line in logs] == [DOWN, BACK]


async def test_a_cluster_is_back_when_every_node_of_it_can_be_read_not_when_all_answer(
    mortal_cluster: Cluster,
) -> None:
    cluster = mortal_cluster
    returning = cluster.primaries[1]
    with capture_logs() as logs:
        async with impatient_cache(f"redis+cluster://{cluster.primaries[0].address}") as cache:
            assert await holds(cache)
            returning.kill()
            await reads_quickly(cache)
            await asyncio.to_thread(returning.restart)
            assert "cluster_state:fail" in returning.ask("CLUSTER", "INFO")
            await until(lambda: cache.check())
            assert await holds(cache)
    assert [line["event"] for line in logs] == [DOWN, BACK]


@pytest.mark.parametrize("kind", ["redis", "redis+sentinel", "redis+cluster"])
def test_an_option_that_there_is_not_is_refused(kind: str) -> None:
    path = "/catalog" if kind == "redis+sentinel" else ""
    with pytest.raises(StartupError, match="of a Redis: there is no option 'patience': those of redis-py are"):
        RedisCache(f"{kind}://localhost{path}?patience=none")
