"""The response cache of a real server: what it saves, and that it is never wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import psycopg
import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from conftest import Services, StartApp
from modelcatalog.v1 import model_catalog_service_pb2 as pb
from modelcatalog.v1.model_catalog_service_pb2_grpc import ModelCatalogStub
from modelcatalog_client import AsyncModelCatalogClient
from modelcatalog_client.errors import (
    CatalogError,
    DatabaseUnavailableError,
    DeadlineExceededError,
    InvalidQueryError,
    ModelNotFoundError,
    RevisionNotAvailableError,
)
from modelcatalog_server import app
from small_catalog import Stage, clone_small, fetch, follow, until, wait_in_vain

GPT_5 = "openai/gpt-5"
#: What a read that needs PostgreSQL comes to while that is away, by whose patience is the shorter.
UNANSWERED = (DatabaseUnavailableError, DeadlineExceededError)
WAITING = (
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND wait_event_type = 'Lock' AND application_name = 'modelcatalog-read'"
)


@pytest.fixture
def database(templates: Services) -> Iterator[str]:
    yield from clone_small(templates)


@pytest.fixture
async def stage(start_app: StartApp, database: str) -> AsyncIterator[Stage]:
    async with follow(start_app, database) as stage:
        yield stage


@pytest.fixture
async def client(stage: Stage) -> AsyncIterator[AsyncModelCatalogClient]:
    async with talk_to(stage.running) as client:
        yield client


@pytest.fixture
async def redis(services: Services) -> AsyncIterator[Redis]:
    async with Redis.from_url(services.redis_url) as redis:
        await redis.flushall()
        yield redis


@asynccontextmanager
async def talk_to(running: app.App) -> AsyncIterator[AsyncModelCatalogClient]:
    """A client without retries, which would hide failures."""
    options = [("grpc.enable_retries", 0)]
    async with AsyncModelCatalogClient(running.server.address, options=options) as client:
        yield client


@asynccontextmanager
async def away(templates: Services, database_url: str) -> AsyncIterator[None]:
    """Let nobody into a database, and throw out who is in: a read that needs SQL fails."""
    name = database_url.rpartition("?")[0].rpartition("/")[2]
    await asyncio.to_thread(templates.execute, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    await asyncio.to_thread(
        templates.execute, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    )
    try:
        yield
    finally:
        await asyncio.to_thread(templates.execute, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")


@asynccontextmanager
async def locked(database_url: str) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    """Let no statement read models."""
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        await connection.execute("LOCK TABLE models_metadata IN ACCESS EXCLUSIVE MODE")
        yield connection
        await connection.rollback()


async def commands(redis: Redis) -> dict[str, int]:
    """Return how often Redis was asked what."""
    stats: Any = await redis.info("commandstats")
    return {name: stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("get", "set")}


async def ids_of(client: AsyncModelCatalogClient, **listing: Any) -> list[str]:
    return [model.id async for model in client.list_models(read_mask=["id"], page_size=10, **listing)]


# --- what it saves --------------------------------------------------------------------------------------------------


async def test_a_near_hit_asks_neither_postgresql_nor_redis(
    templates: Services, stage: Stage, client: AsyncModelCatalogClient, redis: Redis
) -> None:
    async def read_all() -> list[Any]:
        return [
            await client.get_model(GPT_5),
            await client.get_model(GPT_5, view="full"),
            await client.batch_get_models([GPT_5, "openai/nothing"]),
            await client.list_model_benchmarks(GPT_5),
            await client.get_provider("openai"),
            [page async for page in client.list_models(page_size=30, filter="pricing.input > 1").pages()],
            [page async for page in client.list_providers(page_size=2).pages()],
        ]

    made = await read_all()
    await stage.running.responses.shared.flushed()
    before, hits = await commands(redis), stage.running.responses.near.hits
    async with away(templates, stage.database_url):
        assert await read_all() == made
    assert await commands(redis) == before
    assert stage.running.responses.near.hits - hits >= 9


async def test_a_process_that_has_it_not_takes_it_from_redis(
    templates: Services, start_app: StartApp, stage: Stage, client: AsyncModelCatalogClient, redis: Redis
) -> None:
    made = await client.get_model(GPT_5)
    await stage.running.responses.shared.flushed()
    async with start_app(stage.database_url, offline=True) as other, talk_to(other) as there:
        await there.get_provider("openai")
        async with away(templates, stage.database_url):
            assert await there.get_model(GPT_5) == made
            assert other.responses.shared.hits == 1
            with pytest.raises(UNANSWERED):
                await there.get_model("openai/gpt-4o", timeout=0.5)


@pytest.mark.usefixtures("patient_pools")
async def test_a_hundred_who_ask_at_once_cause_one_question_to_each_layer(
    stage: Stage, client: AsyncModelCatalogClient, redis: Redis
) -> None:
    await client.get_provider("openai")
    await stage.running.responses.shared.flushed()
    before = await commands(redis)
    async with locked(stage.database_url) as lock:
        calls = [asyncio.create_task(client.get_model(GPT_5)) for _ in range(100)]

        async def somebody_waits() -> bool:
            return bool((await stage.fetch(WAITING))[0]) and stage.running.responses.near_misses >= 101

        await until(somebody_waits)
        assert await stage.fetch(WAITING) == [1]
        await lock.rollback()
    first, *others = await asyncio.gather(*calls)
    assert others == [first] * 99
    await stage.running.responses.shared.flushed()
    after = await commands(redis)
    assert (after["get"] - before["get"], after["set"] - before["set"]) == (1, 1)


@pytest.mark.usefixtures("patient_pools")
async def test_each_of_them_waits_no_longer_than_it_said(stage: Stage, client: AsyncModelCatalogClient) -> None:
    """The one that began it leaves first, and takes nothing along."""
    await client.get_provider("openai")
    async with locked(stage.database_url) as lock:
        hasty = asyncio.create_task(client.get_model(GPT_5, timeout=3))

        async def waits() -> bool:
            return await stage.fetch(WAITING) == [1]

        await until(waits)
        patient = asyncio.create_task(client.get_model(GPT_5, timeout=60))
        with pytest.raises(DeadlineExceededError):
            await hasty
        await until(waits)  # the same question goes on for the other one, or is put again
        await lock.rollback()
    assert (await patient).model.id == GPT_5


async def test_what_nobody_waits_for_any_more_is_not_asked_on(stage: Stage, client: AsyncModelCatalogClient) -> None:
    await client.get_provider("openai")
    async with locked(stage.database_url):
        with pytest.raises(DeadlineExceededError):
            await client.get_model(GPT_5, timeout=0.3)

        async def nobody_waits() -> bool:
            return await stage.fetch(WAITING) == [0]

        await until(nobody_waits)


async def test_the_trailers_of_a_hit_are_those_of_a_call_of_its_own(stage: Stage) -> None:
    await stage.refresh()
    await stage.running.reader.get_state()  # or it may hear of the new check between the two calls
    async with grpc.aio.insecure_channel(stage.running.server.address) as channel:
        stub = ModelCatalogStub(channel)
        trailers = []
        for _ in range(2):
            call = stub.GetModel(pb.GetModelRequest(model_id=GPT_5))
            await call
            trailers.append(dict(await call.trailing_metadata()))
    made, hit = trailers
    assert made.pop("x-request-id") != hit.pop("x-request-id")
    assert made == hit
    assert set(hit) == {"x-catalog-revision", "x-catalog-checked-at"}


async def test_a_check_that_finds_nothing_new_shows_in_the_trailers_of_hits(stage: Stage) -> None:
    await stage.refresh()
    async with grpc.aio.insecure_channel(stage.running.server.address) as channel:
        stub = ModelCatalogStub(channel)

        async def checked_at() -> Any:
            call = stub.GetModel(pb.GetModelRequest(model_id=GPT_5))
            await call
            return dict(await call.trailing_metadata())["x-catalog-checked-at"]

        before = await checked_at()
        hits = stage.running.responses.near.hits
        await stage.refresh()

        async def is_newer() -> bool:
            return bool(await checked_at() > before)

        await until(is_newer)
        assert stage.running.responses.near.hits > hits, "the response itself is as good as before"


async def test_bytes_that_are_no_request_are_refused_as_such(stage: Stage) -> None:
    async with grpc.aio.insecure_channel(stage.running.server.address) as channel:
        get_model: Any = channel.unary_unary("/modelcatalog.v1.ModelCatalog/GetModel")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await get_model(b"\xff\xff\xff")
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_without_room_every_read_is_made_anew(
    templates: Services, start_app: StartApp, database: str, redis: Redis
) -> None:
    async with start_app(database, offline=True, cache_entries=0) as running, talk_to(running) as client:
        before = await commands(redis)  # a start reads a key, to see whether it may
        assert (await client.get_model(GPT_5)).model.id == GPT_5
        async with away(templates, database):
            with pytest.raises(UNANSWERED):
                await client.get_model(GPT_5, timeout=0.5)
    assert await commands(redis) == before


async def test_the_memory_of_a_process_is_bounded(start_app: StartApp, database: str) -> None:
    async with start_app(database, offline=True, cache_entries=10) as running, talk_to(running) as client:
        ids = await ids_of(client)
        for id_ in ids:
            await client.get_model(id_)
        assert len(running.responses.near) == 10
        assert running.responses.near.evictions >= len(ids) - 10


# --- never wrong ----------------------------------------------------------------------------------------------------


async def test_who_was_told_of_a_new_revision_sees_it_at_once(stage: Stage, client: AsyncModelCatalogClient) -> None:
    for number in range(4):
        await client.get_model(GPT_5)
        stage.catalog.model(GPT_5)["name"] = f"new {number}"
        refresh = await stage.refresh()
        response = await client.get_model(GPT_5)
        assert (response.model.name, response.catalog_revision) == (f"new {number}", refresh.result_revision)


async def test_a_watcher_on_another_replica_sees_what_it_was_told_of(
    stage: Stage, start_app: StartApp, client: AsyncModelCatalogClient
) -> None:
    async with start_app(stage.database_url, offline=True) as other, talk_to(other) as there:
        for number in range(3):
            assert (await there.get_model(GPT_5)).model.name
            stage.catalog.model(GPT_5)["name"] = f"new {number}"
            stage.publish()
            started = await client.start_refresh()
            async with there.watch_refresh_status(started.refresh.id) as watch:
                async for status in watch:
                    if status.refresh.result_revision:
                        seen = await there.get_model(GPT_5)
                        assert seen.catalog_revision >= status.refresh.result_revision
            assert (await there.get_model(GPT_5)).model.name == f"new {number}"


async def test_policy_counts_like_any_revision(stage: Stage, client: AsyncModelCatalogClient) -> None:
    everything = await ids_of(client)
    assert (await client.get_model(GPT_5)).model.id
    await client.update_provider("openai", enabled=False)
    with pytest.raises(ModelNotFoundError):
        await client.get_model(GPT_5)
    assert await ids_of(client) == [id_ for id_ in everything if not id_.startswith("openai/")]
    await client.update_provider("openai", enabled=True)
    assert (await client.get_model(GPT_5)).model.id
    assert await ids_of(client) == everything


async def test_a_caller_that_asks_for_a_revision_gets_no_older_one(
    stage: Stage, start_app: StartApp, client: AsyncModelCatalogClient
) -> None:
    async with start_app(stage.database_url, offline=True) as other, talk_to(other) as there:
        for number in range(10):
            await there.get_model(GPT_5)
            revision = (await client.update_provider("anthropic", enabled=number % 2 == 1)).catalog_revision
            seen = await there.get_model(GPT_5, min_revision=revision)
            assert seen.catalog_revision == revision
        hits = other.responses.near.hits
        assert (await there.get_model(GPT_5, min_revision=revision)).catalog_revision == revision
        assert other.responses.near.hits == hits + 1, "a revision that is there already costs nothing"


async def test_a_revision_that_never_comes_is_waited_for_and_refused(client: AsyncModelCatalogClient) -> None:
    await client.get_model(GPT_5)
    with pytest.raises(RevisionNotAvailableError):
        await wait_in_vain(client, revision=99)


@pytest.mark.parametrize("asked", [("99", "1"), ("1", "99")])
async def test_of_several_revisions_the_largest_counts_though_the_answer_is_at_hand(
    stage: Stage, asked: tuple[str, ...]
) -> None:
    key, request = "x-catalog-min-revision", pb.GetModelRequest(model_id=GPT_5)
    async with grpc.aio.insecure_channel(stage.running.server.address) as channel:
        stub = ModelCatalogStub(channel)
        await stub.GetModel(request)
        call = stub.GetModel(request, metadata=[(key, value) for value in asked], timeout=3)
        assert "revision 99 " in await call.details()
        hits = stage.running.responses.near.hits
        await stub.GetModel(request, metadata=[(key, value.replace("99", "1")) for value in asked])
        assert stage.running.responses.near.hits == hits + 1


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "9" * 19])
async def test_a_revision_that_is_none_is_refused_though_the_answer_is_at_hand(stage: Stage, text: str) -> None:
    async with grpc.aio.insecure_channel(stage.running.server.address) as channel:
        stub = ModelCatalogStub(channel)
        await stub.GetModel(pb.GetModelRequest(model_id=GPT_5))
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.GetModel(pb.GetModelRequest(model_id=GPT_5), metadata=[("x-catalog-min-revision", text)])
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_pages_of_a_past_revision_are_kept_as_well(stage: Stage, client: AsyncModelCatalogClient) -> None:
    everything = stage.catalog.model_ids
    first = await anext(client.list_models(page_size=10, read_mask=["id"]).pages())
    stage.catalog.add("anthropic/brand-new")
    await stage.refresh()

    async def rest() -> list[str]:
        listing = client.list_models(page_size=10, read_mask=["id"], page_token=first.next_page_token)
        return [model.id async for model in listing]

    once = await rest()
    hits = stage.running.responses.near.hits
    assert await rest() == once == everything[10:]
    assert stage.running.responses.near.hits > hits


async def test_that_there_is_nothing_is_remembered_until_there_is_something(
    stage: Stage, client: AsyncModelCatalogClient
) -> None:
    with pytest.raises(ModelNotFoundError) as first:
        await client.get_model("openai/no-such-model")
    async with locked(stage.database_url):
        with pytest.raises(ModelNotFoundError) as again:
            await client.get_model("openai/no-such-model")
    assert again.value.candidates == first.value.candidates
    assert again.value.candidates
    assert again.value.request_id != first.value.request_id
    stage.catalog.add("openai/no-such-model")
    await stage.refresh()
    assert (await client.get_model("openai/no-such-model")).model.id == "openai/no-such-model"


async def test_other_errors_are_not_kept(templates: Services, stage: Stage, client: AsyncModelCatalogClient) -> None:
    async with away(templates, stage.database_url):
        with pytest.raises(UNANSWERED):
            await client.get_model(GPT_5, timeout=0.5)

    async def is_back() -> bool:
        try:
            return bool((await client.get_model(GPT_5)).model.id)
        except CatalogError:
            return False

    await until(is_back)
    with pytest.raises(InvalidQueryError):
        await client.get_provider("")
    with pytest.raises(InvalidQueryError):
        await client.get_provider("")


async def test_readers_see_revisions_rise_and_exactly_what_sql_says_of_each(
    stage: Stage, start_app: StartApp, client: AsyncModelCatalogClient
) -> None:
    """Two replicas, writers of both kinds, readers of a model, a listing and a provider, all at once."""
    seen: dict[int, set[tuple[str, str]]] = {}
    over = asyncio.Event()

    async def keep_reading(there: AsyncModelCatalogClient) -> None:
        newest = 0
        while not over.is_set():
            model = await there.get_model(GPT_5)
            assert model.catalog_revision >= newest
            seen.setdefault(model.catalog_revision, set()).add(("name", model.model.name))
            page = await anext(there.list_models(provider_id="zeldoc", read_mask=["id"]).pages())
            assert page.catalog_revision >= model.catalog_revision
            seen.setdefault(page.catalog_revision, set()).add(("zeldoc", str(page.total_size)))
            newest = page.catalog_revision

    async with (
        start_app(stage.database_url, offline=True) as other,
        talk_to(other) as there,
        asyncio.TaskGroup() as group,
    ):
        readers = [group.create_task(keep_reading(each)) for each in (client, there) for _ in range(4)]
        for number in range(6):
            await client.update_provider("zeldoc", enabled=number % 2 == 1)
            stage.catalog.model(GPT_5)["name"] = f"name {number}"
            await stage.refresh()
        over.set()
        await asyncio.wait(readers)
    name_at = "SELECT model_name FROM model_versions WHERE model_id = 'openai/gpt-5' AND revision <= %s"
    listed_at = "SELECT enabled_models FROM provider_versions WHERE id = 'zeldoc' AND revision <= %s"
    assert len(seen) > 3
    for revision, facts in seen.items():
        for kind, value in facts:
            statement = name_at if kind == "name" else listed_at
            expected = await stage.fetch(f"{statement} ORDER BY revision DESC LIMIT 1", revision)
            assert [value] == list(map(str, expected)), (revision, kind)


# --- the shared layer -----------------------------------------------------------------------------------------------


@pytest.fixture
def copy(templates: Services) -> Iterator[str]:
    """Another copy of the database."""
    yield from clone_small(templates)


async def test_two_catalogs_that_share_a_redis_never_mix(
    start_app: StartApp, database: str, copy: str, redis: Redis
) -> None:
    """Copies of one database: the same key of tokens, the same revision, the same requests."""
    await fetch(copy, "UPDATE llm_providers SET name = 'Another' WHERE id = 'openai'")
    names = {}
    for url in (database, copy, database):
        async with start_app(url, offline=True) as running, talk_to(running) as client:
            names[url] = (await client.get_model(GPT_5)).model.provider_name
            await running.responses.shared.flushed()
    assert names == {database: "OpenAI", copy: "Another"}


@pytest.mark.parametrize("damage", ["cut", "flipped", "foreign", "empty"])
async def test_a_damaged_value_in_redis_is_a_miss(
    stage: Stage, start_app: StartApp, client: AsyncModelCatalogClient, redis: Redis, damage: str
) -> None:
    made = await client.get_model(GPT_5)
    await client.get_model("openai/gpt-4o")
    await stage.running.responses.shared.flushed()
    values: Any = {key: await redis.get(key) for key in await redis.keys("*")}
    (key,) = [key for key, value in values.items() if b"openai/gpt-5" in value]
    (foreign,) = [value for value in values.values() if b"openai/gpt-4o" in value]
    value = values[key]
    damaged = {
        "cut": value[:-1],
        "flipped": value[:-1] + bytes([value[-1] ^ 1]),
        "foreign": foreign,
        "empty": b"",
    }[damage]
    await redis.set(key, damaged)
    async with start_app(stage.database_url, offline=True) as other, talk_to(other) as there:
        assert await there.get_model(GPT_5) == made
        assert (other.responses.shared.hits, other.responses.shared.misses) == (0, 1)
        await other.responses.shared.flushed()
    assert await redis.get(key) == value, "what is right is there again"


async def test_what_is_in_redis_goes_by_itself_within_an_hour(
    stage: Stage, client: AsyncModelCatalogClient, redis: Redis
) -> None:
    await client.get_model(GPT_5)
    await stage.running.responses.shared.flushed()
    (key,) = await redis.keys("*")
    assert 3500 < await redis.ttl(key) <= 3600
    assert b"GetModel" in key


async def test_redis_may_be_flushed_full_or_gone_while_reads_go_on(
    stage: Stage, start_app: StartApp, redis: Redis
) -> None:
    ids = stage.catalog.model_ids
    with capture_logs() as logs:
        async with (
            start_app(stage.database_url, offline=True, redis_url="redis://127.0.0.1:1/0") as other,
            talk_to(other) as there,
        ):
            for id_ in ids:
                assert (await there.get_model(id_)).model.id == id_
            assert not other.cache.available
            assert other.responses.shared.hits == 0
            asked = other.cache.misses
            assert (await there.get_model(ids[0])).model.id == ids[0]
            assert other.cache.misses == asked, "what is at hand is not looked for in Redis, dead or alive"
    assert [line["event"] for line in logs if "redis" in line["event"]] == ["redis is down: reads go on without it"]
    async with talk_to(stage.running) as client:
        for id_ in ids[:10]:
            await client.get_model(id_)
        await redis.flushall()
        await redis.config_set("maxmemory", "1")
        try:
            for id_ in ids:
                assert (await client.get_model(id_)).model.id == id_
            await stage.running.responses.shared.flushed()
        finally:
            await redis.config_set("maxmemory", "64mb")
        assert stage.running.cache.available
