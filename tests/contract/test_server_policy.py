"""Hiding a provider's models: at once, in every read, whatever refreshes and restarts come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import psycopg
import pytest

from conftest import Services, StartApp
from modelcatalog.v1 import catalog_admin_service_pb2 as pb
from modelcatalog.v1.catalog_admin_service_pb2_grpc import CatalogAdminStub
from modelcatalog.v1.provider_pb2 import Provider
from modelcatalog_client import AsyncModelCatalogClient
from modelcatalog_client.errors import (
    CatalogNotReadyError,
    InvalidQueryError,
    ModelNotFoundError,
    ProviderNotFoundError,
)
from modelcatalog_server.domain.refresh import RefreshType, State
from small_catalog import SmallCatalog, Stage, clone_small, follow, marks_of_rows, until

ALL = 87
OF_ANTHROPIC = 24
MODEL_TABLES = ("models_metadata", "model_versions", "canonical_models", "canonical_model_versions", "model_benchmarks")


@pytest.fixture
def database(templates: Services) -> Iterator[str]:
    yield from clone_small(templates)


@pytest.fixture
async def stage(start_app: StartApp, database: str) -> AsyncIterator[Stage]:
    async with follow(start_app, database) as stage:
        yield stage


@pytest.fixture
async def client(stage: Stage) -> AsyncIterator[AsyncModelCatalogClient]:
    """A client without retries, which would hide that PostgreSQL ended a deadlock."""
    options = [("grpc.enable_retries", 0)]
    async with AsyncModelCatalogClient(stage.running.server.address, options=options) as client:
        yield client


async def ids_of(client: AsyncModelCatalogClient, **listing: Any) -> list[str]:
    return [model.id async for model in client.list_models(read_mask=["id"], page_size=1000, **listing)]


def without(catalog: SmallCatalog, provider_id: str) -> list[str]:
    return [id_ for id_ in catalog.model_ids if not id_.startswith(f"{provider_id}/")]


async def revisions(stage: Stage) -> list[tuple[int, str]]:
    return await stage.fetch("SELECT revision, kind FROM catalog_revisions ORDER BY revision")


# --- hidden --------------------------------------------------------------------------------------------------------


async def test_a_disabled_providers_models_leave_every_default_read_at_once(
    stage: Stage, client: AsyncModelCatalogClient
) -> None:
    assert (await client.update_provider("anthropic", enabled=False)).catalog_revision == 2

    assert await ids_of(client) == without(stage.catalog, "anthropic")
    assert await ids_of(client, show_removed=True) == without(stage.catalog, "anthropic")
    assert await ids_of(client, provider_id="anthropic") == []
    assert (await anext(client.list_models(page=1).pages())).total_size == ALL - OF_ANTHROPIC
    assert (await anext(client.list_models(provider_id="anthropic").pages())).total_size == 0
    hidden = "anthropic/claude-opus-4-5"
    with pytest.raises(ModelNotFoundError) as raised:
        await client.get_model(hidden)
    assert raised.value.candidates
    assert not [id_ for id_ in raised.value.candidates if id_.startswith("anthropic/")]
    batch = await client.batch_get_models([hidden, "openai/gpt-5"])
    assert (list(batch.missing_model_ids), [model.id for model in batch.models]) == ([hidden], ["openai/gpt-5"])


async def test_benchmarks_go_with_the_served_id_and_stay_with_the_canonical_one(
    stage: Stage, client: AsyncModelCatalogClient
) -> None:
    offered, canonical_id = "openrouter/openai/gpt-5.5", "openai/gpt-5.5"
    stage.catalog.add(offered)
    await stage.refresh()
    own = await client.list_model_benchmarks(canonical_id, min_revision=2)
    assert own.benchmarks
    assert await client.list_model_benchmarks(offered) == own
    await client.update_provider("openrouter", enabled=False)
    with pytest.raises(ModelNotFoundError):
        await client.list_model_benchmarks(offered)
    still = await client.list_model_benchmarks(canonical_id)
    assert list(still.benchmarks) == list(own.benchmarks)


async def test_the_provider_itself_stays_and_says_that_it_is_disabled(
    stage: Stage, client: AsyncModelCatalogClient
) -> None:
    before = (await client.get_provider("anthropic")).provider
    response = await client.update_provider("anthropic", enabled=False)
    after = (await client.get_provider("anthropic")).provider
    assert response.provider == after
    expected = Provider()
    expected.CopyFrom(before)
    expected.enabled, expected.enabled_model_count = False, 0
    expected.revision, expected.etag = 2, after.etag
    assert after == expected, "last_sync_time among them: no refresh wrote it"
    assert after.etag != before.etag
    assert [provider async for provider in client.list_providers() if not provider.enabled] == [after]


async def test_counts_tell_what_is_listed_from_what_is_shown(stage: Stage, client: AsyncModelCatalogClient) -> None:
    await client.update_provider("anthropic", enabled=False)
    info = await client.get_catalog_info()
    assert (info.counts.providers, info.counts.models) == (4, ALL)
    assert (info.counts.enabled_models, info.counts.removed_models) == (ALL - OF_ANTHROPIC, 0)
    assert (info.catalog_revision, info.upstream_etag != "") == (2, True)


async def test_a_listing_under_way_goes_on_as_it_began(stage: Stage, client: AsyncModelCatalogClient) -> None:
    everything = stage.catalog.model_ids
    pages = client.list_models(page_size=10, read_mask=["id"]).pages()
    providers = client.list_providers(page_size=1).pages()
    first, first_providers = await anext(pages), await anext(providers)
    await client.update_provider("anthropic", enabled=False)
    await client.update_provider("zeldoc", enabled=False)
    rest, rest_providers = [page async for page in pages], [page async for page in providers]
    assert [model.id for page in [first, *rest] for model in page.models] == everything
    assert {(page.total_size, page.catalog_revision) for page in [first, *rest]} == {(ALL, 1)}
    assert all(provider.enabled for page in [first_providers, *rest_providers] for provider in page.providers)

    between = client.list_models(page_size=10, read_mask=["id"]).pages()
    first = await anext(between)
    await client.update_provider("anthropic", enabled=True)
    seen = [model.id for page in [first, *[page async for page in between]] for model in page.models]
    assert seen == [id_ for id_ in without(stage.catalog, "anthropic") if not id_.startswith("zeldoc/")]


async def test_no_model_row_is_touched(stage: Stage, client: AsyncModelCatalogClient) -> None:
    before = await marks_of_rows(stage.database_url, MODEL_TABLES)
    await client.update_provider("openai", enabled=False)
    await client.update_provider("openai", enabled=True)
    assert await marks_of_rows(stage.database_url, MODEL_TABLES) == before


# --- shown again ---------------------------------------------------------------------------------------------------


async def test_shown_again_everything_is_as_it_was(stage: Stage, client: AsyncModelCatalogClient) -> None:
    before = [model async for model in client.list_models()]
    await client.update_provider("anthropic", enabled=False)
    response = await client.update_provider("anthropic", enabled=True)
    assert (response.catalog_revision, response.provider.revision) == (3, 3)
    assert (response.provider.enabled, response.provider.enabled_model_count) == (True, OF_ANTHROPIC)
    assert [model async for model in client.list_models()] == before
    assert await revisions(stage) == [(1, "REFRESH"), (2, "POLICY"), (3, "POLICY")]
    versions = "SELECT revision, valid_to_revision, enabled, enabled_models, change FROM provider_versions"
    assert await stage.fetch(f"{versions} WHERE id = 'anthropic' ORDER BY revision") == [
        (1, 2, True, OF_ANTHROPIC, "ADDED"),
        (2, 3, False, 0, "CHANGED"),
        (3, None, True, OF_ANTHROPIC, "CHANGED"),
    ]
    assert await stage.fetch(f"{versions} WHERE id = 'openai'") == [(1, None, True, 51, "ADDED")]


@pytest.mark.parametrize("enabled", [True, None])
async def test_what_is_so_already_makes_no_revision(
    stage: Stage, client: AsyncModelCatalogClient, enabled: bool | None
) -> None:
    before = await marks_of_rows(stage.database_url)
    current = (await client.get_provider("openai")).provider
    response = await client.update_provider("openai", enabled=enabled)
    assert (response.catalog_revision, response.provider) == (1, current)
    await client.update_provider("zeldoc", enabled=False)
    again = await client.update_provider("zeldoc", enabled=False)
    assert (again.catalog_revision, again.provider.revision) == (2, 2)
    unset = await client.update_provider("zeldoc")
    assert (unset.catalog_revision, unset.provider.enabled) == (2, False)
    await client.update_provider("zeldoc", enabled=True)
    after = await marks_of_rows(stage.database_url)
    assert {table for table in before if before[table] != after[table]} == {
        "llm_providers",
        "provider_versions",
        "catalog_revisions",
    }


# --- what is refused -----------------------------------------------------------------------------------------------


async def test_a_provider_that_does_not_exist_comes_with_near_ones(
    stage: Stage, client: AsyncModelCatalogClient
) -> None:
    for enabled in (True, False, None):
        with pytest.raises(ProviderNotFoundError) as raised:
            await client.update_provider("opnai", enabled=enabled)
        assert raised.value.candidates[0] == "openai"
    assert await revisions(stage) == [(1, "REFRESH")]


@pytest.mark.parametrize("bad", ["", "a/b", "x" * 200, "a\0b"], ids=ascii)
async def test_what_cannot_be_an_id_is_refused(client: AsyncModelCatalogClient, bad: str) -> None:
    with pytest.raises(InvalidQueryError) as raised:
        await client.update_provider(bad, enabled=False)
    assert [each.field for each in raised.value.field_violations] == ["provider_id"]


async def test_before_the_first_catalog_there_is_nothing_to_hide(start_app: StartApp, empty_database: str) -> None:
    async with (
        start_app(empty_database, offline=True) as running,
        grpc.aio.insecure_channel(running.server.address, options=[("grpc.enable_retries", 0)]) as channel,
    ):
        client = AsyncModelCatalogClient(running.server.address, options=[("grpc.enable_retries", 0)])
        async with client:
            with pytest.raises(CatalogNotReadyError):
                await client.update_provider("openai", enabled=False)
        # An audit log has something to say before there is a catalog.
        listed = await CatalogAdminStub(channel).ListAuditEvents(pb.ListAuditEventsRequest())
        assert [(event.code, event.target) for event in listed.audit_events] == [("UNAVAILABLE", "openai")]
        assert listed.catalog_revision == 0


# --- refreshes, restarts, replicas ---------------------------------------------------------------------------------


@pytest.mark.parametrize("type_", RefreshType)
async def test_policy_survives_a_refresh(stage: Stage, client: AsyncModelCatalogClient, type_: RefreshType) -> None:
    await client.update_provider("anthropic", enabled=False)
    stage.catalog.model("anthropic/claude-opus-4-5")["name"] = "new"
    stage.catalog.providers["anthropic"]["doc"] = "https://example.com"
    stage.catalog.add("anthropic/brand-new")
    assert (await stage.refresh(type=type_)).result_revision == 3
    provider = (await client.get_provider("anthropic", min_revision=3)).provider
    assert (provider.enabled, provider.model_count, provider.enabled_model_count) == (False, OF_ANTHROPIC + 1, 0)
    assert provider.documentation_url == "https://example.com"
    assert await ids_of(client) == without(stage.catalog, "anthropic")

    shown = await client.update_provider("anthropic", enabled=True)
    assert (shown.catalog_revision, shown.provider.enabled_model_count) == (4, OF_ANTHROPIC + 1)
    assert await ids_of(client) == stage.catalog.model_ids
    assert (await client.get_model("anthropic/claude-opus-4-5")).model.name == "new"


@pytest.mark.parametrize("type_", RefreshType)
async def test_a_refresh_that_finds_nothing_new_says_so_after_a_change_of_policy(
    stage: Stage, client: AsyncModelCatalogClient, type_: RefreshType
) -> None:
    await stage.refresh()  # of this upstream the catalog knows nothing before
    await client.update_provider("anthropic", enabled=False)
    refresh = await stage.refresh(type=type_)
    assert (refresh.state, refresh.result_revision) == (State.SUCCEEDED, 2)
    assert refresh.not_modified is (type_ is RefreshType.INCREMENTAL)
    assert await ids_of(client) == without(stage.catalog, "anthropic")


async def test_policy_holds_for_a_provider_that_goes_and_comes_back(
    stage: Stage, client: AsyncModelCatalogClient
) -> None:
    zeldoc = stage.catalog.providers.pop("zeldoc")
    await stage.refresh()
    response = await client.update_provider("zeldoc", enabled=False)
    assert (response.provider.status, response.provider.enabled) == (Provider.STATUS_REMOVED, False)
    assert response.catalog_revision == 3
    assert "zeldoc/z-code" not in await ids_of(client, show_removed=True)
    stage.catalog.providers["zeldoc"] = zeldoc
    await stage.refresh()
    provider = (await client.get_provider("zeldoc", min_revision=4)).provider
    assert (provider.status, provider.enabled) == (Provider.STATUS_ACTIVE, False)
    assert (provider.model_count, provider.enabled_model_count) == (1, 0)
    assert (await client.update_provider("zeldoc", enabled=True)).provider.enabled_model_count == 1
    changes = "SELECT change FROM provider_versions WHERE id = 'zeldoc' ORDER BY revision"
    assert await stage.fetch(changes) == ["ADDED", "REMOVED", "CHANGED", "REVIVED", "CHANGED"]


async def test_a_disabled_provider_can_be_refreshed_by_itself(stage: Stage, client: AsyncModelCatalogClient) -> None:
    await client.update_provider("anthropic", enabled=False)
    stage.catalog.add("anthropic/brand-new")
    assert (await stage.refresh(provider_id="anthropic")).result_revision == 3
    provider = (await client.get_provider("anthropic", min_revision=3)).provider
    assert (provider.model_count, provider.enabled_model_count) == (OF_ANTHROPIC + 1, 0)


async def test_policy_survives_a_restart(start_app: StartApp, database: str) -> None:
    for expected in (True, False):
        async with (
            start_app(database, offline=True) as running,
            AsyncModelCatalogClient(running.server.address) as client,
        ):
            assert (await client.get_provider("anthropic")).provider.enabled is expected
            assert ("anthropic/claude-opus-4-5" in await ids_of(client)) is expected
            await client.update_provider("anthropic", enabled=False)


async def test_every_replica_sees_it(stage: Stage, start_app: StartApp, client: AsyncModelCatalogClient) -> None:
    async with (
        start_app(stage.database_url, offline=True) as other,
        AsyncModelCatalogClient(other.server.address) as there,
    ):
        page = await anext(client.list_models(page_size=10, read_mask=["id"]).pages())
        revision = (await client.update_provider("anthropic", enabled=False)).catalog_revision
        with pytest.raises(ModelNotFoundError):
            await there.get_model("anthropic/claude-opus-4-5", min_revision=revision)
        assert (await there.get_provider("anthropic", min_revision=revision)).provider.enabled is False
        rest = [model.id async for model in there.list_models(page_token=page.next_page_token, read_mask=["id"])]
        assert [model.id for model in page.models] + rest == stage.catalog.model_ids, "a token is good on any replica"
        assert (await there.update_provider("anthropic", enabled=True)).catalog_revision == revision + 1
        assert (await client.get_model("anthropic/claude-opus-4-5", min_revision=revision + 1)).model.id


# --- beside a refresh that writes ----------------------------------------------------------------------------------

WAITING = (
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND wait_event_type = 'Lock' AND application_name = 'modelcatalog-write'"
)
Act = Callable[[], Coroutine[Any, Any, Any]]


@asynccontextmanager
async def locked(stage: Stage, statement: str) -> AsyncIterator[Any]:
    """Hold what a statement locks, until ``rollback`` of what is yielded."""
    async with await psycopg.AsyncConnection.connect(stage.database_url) as other:
        await other.execute(statement.encode())
        yield other
        await other.rollback()


async def waiting(stage: Stage, writers: int) -> None:
    async def is_so() -> bool:
        return await stage.fetch(WAITING) == [writers]

    await until(is_so)


async def assert_counts(stage: Stage) -> None:
    """What each provider says it has and shows is what there is, now and in its open version."""
    wrong = (
        "SELECT p.id FROM llm_providers AS p JOIN provider_versions AS v"
        " ON v.id = p.id AND v.valid_to_revision IS NULL WHERE p.total_models <>"
        " (SELECT count(*) FROM models_metadata AS m WHERE m.provider_id = p.id AND m.removed_at IS NULL)"
        " OR p.enabled_models <> CASE WHEN p.enabled THEN p.total_models ELSE 0 END"
        " OR (v.enabled, v.total_models, v.enabled_models, v.revision)"
        " <> (p.enabled, p.total_models, p.enabled_models, p.revision)"
    )
    assert await stage.fetch(wrong) == []


@pytest.mark.parametrize("type_", RefreshType)
@pytest.mark.parametrize("first", ["REFRESH", "POLICY"])
async def test_whichever_commits_first_policy_and_counts_are_right(
    stage: Stage, client: AsyncModelCatalogClient, first: str, type_: RefreshType
) -> None:
    stage.catalog.add("anthropic/brand-new")
    stage.catalog.providers["anthropic"]["doc"] = "https://example.com"
    acts: dict[str, Act] = {
        "REFRESH": lambda: stage.refresh(type=type_),
        "POLICY": lambda: client.update_provider("anthropic", enabled=False, timeout=60),
    }
    second = "POLICY" if first == "REFRESH" else "REFRESH"
    async with locked(stage, "SELECT FROM catalog_state FOR UPDATE") as lock, asyncio.TaskGroup() as group:
        # PostgreSQL hands the row to whoever waits first.
        for writers, kind in enumerate((first, second), start=1):
            group.create_task(acts[kind]())
            await waiting(stage, writers)
        await lock.rollback()
    assert await revisions(stage) == [(1, "REFRESH"), (2, first), (3, second)]
    provider = (await client.get_provider("anthropic", min_revision=3)).provider
    assert (provider.enabled, provider.model_count, provider.enabled_model_count) == (False, OF_ANTHROPIC + 1, 0)
    assert provider.documentation_url == "https://example.com"
    assert await ids_of(client) == without(stage.catalog, "anthropic")
    await assert_counts(stage)


async def test_a_full_run_without_a_difference_and_policy_never_wait_for_each_other(
    stage: Stage, client: AsyncModelCatalogClient
) -> None:
    """Such a run writes no revision, but it rewrites every provider: it must have catalog_state before it does."""
    zeldoc = "SELECT FROM llm_providers WHERE id = 'zeldoc' FOR UPDATE"
    async with locked(stage, zeldoc) as lock, asyncio.TaskGroup() as group:
        refresh = group.create_task(stage.refresh(type=RefreshType.FULL))
        await waiting(stage, 1)
        policy = group.create_task(client.update_provider("openai", enabled=False, timeout=60))
        await waiting(stage, 2)
        await lock.rollback()
    assert (refresh.result().state, refresh.result().result_revision) == (State.SUCCEEDED, 1)
    assert policy.result().catalog_revision == 2
    await assert_counts(stage)


async def test_a_hundred_changes_beside_refreshes_keep_every_revision_and_count_right(
    stage: Stage, client: AsyncModelCatalogClient
) -> None:
    async def change(provider_id: str) -> None:
        for number in range(25):
            response = await client.update_provider(provider_id, enabled=number % 2 == 1, timeout=60)
            assert response.provider.enabled is (number % 2 == 1)
            assert response.provider.revision == response.catalog_revision

    async with asyncio.TaskGroup() as group:
        for provider_id in stage.catalog.providers:
            group.create_task(change(provider_id))
        for number in range(3):
            stage.catalog.add(f"openai/new-{number}")
            assert (await stage.refresh(type=RefreshType.FULL)).state is State.SUCCEEDED
    kinds = await revisions(stage)
    assert [revision for revision, _ in kinds] == list(range(1, 1 + 3 + 100 + 1))
    assert [kind for _, kind in kinds].count("POLICY") == 100
    assert not any([provider.enabled async for provider in client.list_providers()])
    await assert_counts(stage)


async def test_the_cost_does_not_grow_with_the_models(client: AsyncModelCatalogClient, stage: Stage) -> None:
    """Nothing of models is even read: a change goes through while nobody may touch them."""
    await client.update_provider("openai", enabled=False)
    async with locked(stage, "LOCK TABLE models_metadata, model_versions IN ACCESS EXCLUSIVE MODE"):
        assert (await client.update_provider("openai", enabled=True, timeout=20)).provider.enabled
