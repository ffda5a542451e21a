"""``RedisCache`` on a real Valkey: what it holds it gives, and when it is away nobody waits for it."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import pytest
import uvloop
from redis.asyncio import Redis
from structlog.testing import capture_logs

from conftest import Services
from modelcatalog_server.cache.redis_cache import RedisCache
from modelcatalog_server.domain.errors import StartupError
from modelcatalog_server.domain.ports.caching import SharedCache
from small_catalog import until

# Less than what there is without time-outs (minutes, or for ever), more than what a stalled machine adds to a tenth.
UNBOUNDED_S = 10


def patient_cache(url: str, **more: Any) -> RedisCache:
    """A cache for the tests that are not about its time-outs: a busy machine may take longer than 50 ms to answer."""
    return RedisCache(url, **{"read_budget_s": 20, **more})


def hasty_cache(url: str, **more: Any) -> RedisCache:
    """A cache whose readers go away long before an answer is given up, but not for a moment's busyness."""
    return patient_cache(url, connect_timeout_s=20, answer_timeout_s=20, read_budget_s=1.5, **more)


@pytest.fixture
async def cache(services: Services) -> AsyncIterator[RedisCache]:
    async with patient_cache(services.redis_url) as cache:
        yield cache


@pytest.fixture
def key() -> str:
    return f"test:{uuid4().hex}"


@pytest.fixture
async def redis(services: Services) -> AsyncIterator[Redis]:
    async with Redis.from_url(services.redis_url) as redis:
        yield redis


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Relay:
    """A unix socket in front of the real one, that may be silent, slow or gone."""

    path: Path
    target: str
    silent: bool = False
    answering: asyncio.Event = field(default_factory=asyncio.Event)
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _relaying: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._take_on, self.path)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in list(self._writers):
            writer.close()
        if self._relaying:
            await asyncio.wait(self._relaying)
        if self._server is not None:
            await self._server.wait_closed()
        self.path.unlink(missing_ok=True)

    def _take_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        task = asyncio.create_task(self._relay(reader, writer))
        self._relaying.add(task)
        task.add_done_callback(self._relaying.discard)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            up_reader, up_writer = await asyncio.open_unix_connection(self.target)
            await asyncio.gather(self._copy(reader, up_writer), self._copy(up_reader, writer, answers=True))
        self._writers.discard(writer)

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool = False) -> None:
        with suppress(ConnectionError):
            while chunk := await reader.read(65536):
                if answers and self.silent:
                    await self.answering.wait()
                writer.write(chunk)
                await writer.drain()
        writer.close()


@pytest.fixture
async def relay(services: Services, work_dir: Path) -> AsyncIterator[Relay]:
    parts = urlsplit(services.redis_url)
    relay = Relay(work_dir / f"{uuid4().hex[:8]}.sock", parts.path or parse_qs(parts.query)["path"][0])
    await relay.start()
    yield relay
    relay.answering.set()
    await relay.stop()


def conforms(cache: SharedCache) -> SharedCache:
    """For the type checker: the adapter fills its port."""
    return cache


async def test_gives_what_it_was_given(cache: RedisCache, key: str) -> None:
    assert conforms(cache) is cache
    assert await cache.get(key) is None
    for value in (b"", b"\0\xff\r\n", b"x" * 2_000_000):
        await cache.set(key, value, ttl_s=60)
        assert await cache.get(key) == value
    assert (cache.hits, cache.misses, cache.failures) == (3, 1, 0)
    assert cache.available


async def test_what_it_holds_expires(cache: RedisCache, redis: Redis, key: str) -> None:
    await cache.set(key, b"x", ttl_s=3600)
    assert 3590 <= await redis.ttl(key) <= 3600
    await cache.set(key, b"y", ttl_s=60)
    assert 50 <= await redis.ttl(key) <= 60


async def test_processes_share_it(cache: RedisCache, services: Services, key: str) -> None:
    await cache.set(key, b"x", ttl_s=60)
    async with patient_cache(services.redis_url) as other:
        assert await other.get(key) == b"x"


async def test_it_speaks_nothing_that_redis_6_2_does_not_know(cache: RedisCache, redis: Redis, key: str) -> None:
    await redis.config_resetstat()
    await cache.set(key, b"x", ttl_s=60)
    await cache.get(key)
    await cache.check()
    used = {name.removeprefix("cmdstat_") for name in await redis.info("commandstats")}
    assert {"set", "get"} <= used
    assert used <= {"set", "get", "info", "select", "auth", "config|resetstat", "client|setinfo"}


async def test_many_at_once_share_few_connections(cache: RedisCache, redis: Redis, key: str) -> None:
    keys = [f"{key}:{number}" for number in range(200)]
    for each in keys:
        await cache.set(each, each.encode(), ttl_s=60)
    before = (await redis.info("stats"))["total_connections_received"]
    for start in range(0, 200, 16):
        some = keys[start : start + 16]
        assert await asyncio.gather(*map(cache.get, some)) == [each.encode() for each in some]
    assert (await redis.info("stats"))["total_connections_received"] - before <= 16


async def test_a_reader_that_goes_away_never_leaves_its_answer_to_another(relay: Relay, key: str) -> None:
    """What was asked for on a connection and not read there must not be the answer to the next question."""
    async with patient_cache(relay.url, max_connections=1) as cache:
        for name in ("one", "two"):
            await cache.set(f"{key}:{name}", name.encode(), ttl_s=60)
        for turns in range(12):
            leaving = asyncio.create_task(cache.get(f"{key}:one"))
            for _ in range(turns):
                await asyncio.sleep(0)
            leaving.cancel()
            with suppress(asyncio.CancelledError):
                await leaving
            assert await cache.get(f"{key}:two") == b"two", turns


def nobody_there(path: Path) -> str:
    return f"unix://{path / 'nobody.sock'}"


@pytest.mark.parametrize(
    "address",
    [nobody_there, lambda _path: "redis://127.0.0.1:1/0", lambda _path: "redis://192.0.2.1:6379/0"],
    ids=["no socket", "refused", "no route"],
)
async def test_when_it_is_down_nobody_waits_and_one_line_says_so(
    tmp_path: Path, address: Callable[[Path], str]
) -> None:
    clock = Clock()
    with capture_logs() as logs:
        async with RedisCache(address(tmp_path), clock=clock) as cache:
            for second in range(3):
                clock.now = 2.0 * second
                started = time.monotonic()
                assert await cache.get("key") is None
                assert time.monotonic() - started < UNBOUNDED_S
                await cache.set("key", b"x", ttl_s=60)
                assert not await cache.check()
            assert not cache.available
    (line,) = logs
    assert line["event"] == "redis is down: reads go on without it"
    assert line["log_level"] == "warning"


async def test_a_failure_is_remembered_for_a_second(tmp_path: Path) -> None:
    clock = Clock()
    async with patient_cache(nobody_there(tmp_path), clock=clock) as cache:
        assert cache.failures == 1
        for _ in range(1000):
            assert await cache.get("key") is None
        assert cache.failures == 1, "it was asked again at once"
        assert cache.misses == 1000
        clock.now += 1.1
        assert await cache.get("key") is None
        assert cache.failures == 2


async def test_while_it_is_down_a_reader_loses_far_less_than_a_millisecond(tmp_path: Path) -> None:
    taken = []
    async with RedisCache(nobody_there(tmp_path), clock=Clock()) as cache:
        for _ in range(1000):
            begun = time.perf_counter()
            assert await cache.get("key") is None
            taken.append(time.perf_counter() - begun)
    assert statistics.median(taken) < 0.0001  # asking nobody takes a microsecond, on a busy machine too


async def test_it_goes_away_and_comes_back(relay: Relay, key: str) -> None:
    clock = Clock()
    with capture_logs() as logs:
        async with patient_cache(relay.url, clock=clock) as cache:
            await cache.set(key, b"x", ttl_s=60)
            assert await cache.get(key) == b"x"
            await relay.stop()
            assert await cache.get(key) is None
            assert await cache.get(key) is None
            assert cache.failures == 1
            await relay.start()
            assert await cache.get(key) is None, "left alone for a second"
            clock.now += 1.1
            assert await cache.get(key) == b"x"
            assert cache.available
    assert [line["event"] for line in logs] == ["redis is down: reads go on without it", "redis is back"]


def test_a_connection_that_is_reset_before_something_is_sent_on_it_is_a_failure_like_any_other(
    services: Services, key: str
) -> None:
    async def ask() -> None:
        async with patient_cache(services.redis_url) as cache:

            async def send_on_one_that_is_reset() -> bool:
                connection = await cache.commands.connection_pool.get_connection()
                connection._writer.transport.abort()
                await connection.send_command("GET", key)
                return True

            assert await cache.ask(send_on_one_that_is_reset) is None
            assert cache.failures == 1

    uvloop.run(ask())  # as the server does: asyncio's own loop takes what it cannot send


async def test_a_reader_that_may_wait_longer_than_answers_usually_take_does(relay: Relay, key: str) -> None:
    async with patient_cache(relay.url) as cache:
        await cache.set(key, b"x", ttl_s=60)
        relay.silent = True
        reading = asyncio.create_task(cache.get(key))
        await asyncio.wait({reading}, timeout=0.5)
        assert not reading.done()
        relay.silent = False
        relay.answering.set()
        assert await reading == b"x"
        assert (cache.failures, cache.late, cache.available) == (0, 0, True)


async def test_one_that_is_silent_costs_a_moment_once(relay: Relay, key: str) -> None:
    clock = Clock()
    async with RedisCache(relay.url, connect_timeout_s=20, answer_timeout_s=3, read_budget_s=20, clock=clock) as cache:
        await cache.set(key, b"x", ttl_s=60)
        relay.silent = True
        started = time.monotonic()
        assert await cache.get(key) is None
        assert await cache.get(key) is None
        assert time.monotonic() - started < UNBOUNDED_S
        assert cache.failures == 1
        relay.silent = False
        relay.answering.set()
        clock.now += 1.1
        assert await cache.get(key) == b"x", "the late answer to the first question is not the answer to this one"


@asynccontextmanager
async def full(services: Services) -> AsyncIterator[None]:
    """Have no memory for anything new."""
    async with Redis.from_url(services.redis_url) as redis:
        before: Any = await redis.config_get("maxmemory*")
        await redis.config_set("maxmemory-policy", "noeviction")
        await redis.config_set("maxmemory", "1")
        try:
            yield
        finally:
            for name in ("maxmemory", "maxmemory-policy"):
                await redis.config_set(name, before[name])


async def test_one_that_is_full_stores_nothing_and_is_read_on(services: Services, cache: RedisCache, key: str) -> None:
    await cache.set(f"{key}:before", b"x", ttl_s=60)
    async with full(services):
        await cache.set(key, b"x", ttl_s=60)
        assert await cache.get(key) is None
        assert await cache.get(f"{key}:before") == b"x"
    assert (cache.refused, cache.failures, cache.available) == (1, 0, True)


async def test_a_reader_does_not_wait_for_a_late_answer_and_the_next_one_has_the_connection(
    relay: Relay, redis: Redis, key: str
) -> None:
    async with hasty_cache(relay.url) as cache:
        await redis.set(key, b"x")
        relay.silent = True
        started = time.monotonic()
        assert await cache.get(key) is None
        assert time.monotonic() - started < UNBOUNDED_S, "the answer is waited for 20 s"
        assert (cache.late, cache.available) == (1, True), "one late answer may be a moment's busyness"
        relay.silent = False
        relay.answering.set()

        async def has_it() -> bool:
            return await cache.get(key) == b"x"

        await until(has_it)
        assert cache.failures == 0, "the connection was kept"


async def test_one_that_is_late_three_times_in_a_row_is_left_alone_until_it_is_quick(
    relay: Relay, redis: Redis, key: str
) -> None:
    clock = Clock()
    with capture_logs() as logs:
        async with hasty_cache(relay.url, clock=clock) as cache:
            await redis.set(key, b"x")
            relay.silent = True
            await asyncio.gather(*(cache.get(key) for _ in range(3)))
            for _ in range(10):
                assert await cache.get(key) is None
            assert (cache.late, cache.available) == (3, False), "those after them did not ask"
            clock.now += 1.1
            for _ in range(10):
                assert await cache.get(key) is None
            assert cache.late == 4, "one found out that it is as slow as before"
            relay.silent = False
            relay.answering.set()

            async def has_it() -> bool:
                clock.now += 1.1
                return await cache.get(key) == b"x"

            await until(has_it)
            assert cache.available
    assert [(line["event"], line.get("reason")) for line in logs] == [
        ("redis is down: reads go on without it", "slow"),
        ("redis is back", None),
    ]


@pytest.mark.parametrize("url", ["localhost:6379", "http://localhost", "redis://host:port", ""])
def test_an_address_that_is_none_is_refused_with_the_setting(url: str) -> None:
    with pytest.raises(StartupError, match="MODELCATALOG_REDIS_URL"):
        RedisCache(url)
