"""What people have in hand instead of an id, asked of a real server: the model that is meant, or an honest refusal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from conftest import Services, StartApp, make_settings
from known_links import derived_links
from modelcatalog.v1.model_pb2 import DerivedField, Resolution
from modelcatalog_client import AsyncModelCatalogClient
from modelcatalog_client.errors import (
    AmbiguousModelError,
    CatalogError,
    InvalidModelIdError,
    InvalidQueryError,
    ModelNotFoundError,
)
from modelcatalog_server import app
from modelcatalog_server.catalog.current import CurrentRevision
from modelcatalog_server.catalog.indexing import ReferenceIndexes
from modelcatalog_server.catalog.snapshots import ANY_REVISION, Snapshots
from modelcatalog_server.domain.signal import Signal
from modelcatalog_server.storage.catalog_store import PostgresCatalog
from modelcatalog_server.storage.pools import Pools
from small_catalog import Stage, clone_small, fetch, follow, until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def url(templates: Services) -> Iterator[str]:
    url = templates.clone("mc_loaded")
    yield url
    templates.drop(url)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(templates: Services, url: str) -> AsyncIterator[AsyncModelCatalogClient]:
    """A client of a server with the full catalog, which these tests only read."""
    async with (
        app.start(make_settings(templates, url, offline=True)) as running,
        AsyncModelCatalogClient(running.server.address) as client,
    ):
        yield client


@pytest.fixture
def small_database(templates: Services) -> Iterator[str]:
    yield from clone_small(templates)


@pytest_asyncio.fixture(loop_scope="module")
async def stage(start_app: StartApp, small_database: str) -> AsyncIterator[Stage]:
    """A server whose catalog changes."""
    async with follow(start_app, small_database) as stage:
        yield stage


@pytest_asyncio.fixture(loop_scope="module")
async def moving(stage: Stage) -> AsyncIterator[AsyncModelCatalogClient]:
    async with AsyncModelCatalogClient(stage.running.server.address) as client:
        yield client


# --- what a refresh stores ------------------------------------------------------------------------------------------


async def test_a_refresh_stores_the_links_that_the_rules_make(url: str) -> None:
    rows = await fetch(
        url,
        "SELECT model_id, canonical_id, canonical_rule, canonical_confidence FROM models_metadata"
        " WHERE canonical_id IS NOT NULL",
    )
    links = derived_links()
    assert len(rows) == len(links) == 3181
    assert {model_id: tuple(link) for model_id, *link in rows} == {
        id_: (link.canonical_id, link.rule, link.confidence) for id_, link in links.items()
    }


async def test_a_link_says_its_rule_and_confidence(client: AsyncModelCatalogClient) -> None:
    model = (await client.get_model("amazon-bedrock/us.anthropic.claude-opus-4-6-v1")).model
    assert model.canonical_id == "anthropic/claude-opus-4-6"
    (derived,) = (each for each in model.derived if each.field == "canonical_id")
    assert derived == DerivedField(field="canonical_id", rule="region", confidence=0.9506)


# --- what people have in hand ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reference", "model_id"),
    [
        ("gpt-5", "openai/gpt-5"),
        ("OpenAI/GPT-5", "openai/gpt-5"),
        ("gpt-5-mini", "openai/gpt-5-mini"),
        ("claude-opus-4.6", "anthropic/claude-opus-4-6"),
        ("claude-opus-4-6", "anthropic/claude-opus-4-6"),
        ("us.anthropic.claude-opus-4-6-v1", "amazon-bedrock/us.anthropic.claude-opus-4-6-v1"),
        ("us.anthropic.claude-opus-4-6-v1:0", "anthropic/claude-opus-4-6"),
        ("claude-opus-4-5@20251101", "anthropic/claude-opus-4-5-20251101"),
        ("claude-opus-4-5-20251101", "anthropic/claude-opus-4-5-20251101"),
        ("openrouter/openai/gpt-oss-120b:free", "openrouter/openai/gpt-oss-120b:free"),
        ("GLM-5.1-FP8", "zhipuai/glm-5.1"),
        ("glm-5-tee", "zhipuai/glm-5"),
        ("qwen-3-7-plus", "alibaba/qwen3.7-plus"),
        ("minimax-m25", "minimax/MiniMax-M2.5"),
        ("gpt-5-chat-latest", "openai/gpt-5-chat-latest"),
        ("gpt-5-2025-08-07", "openai/gpt-5"),
    ],
)
async def test_finds_what_is_meant_and_says_how(client: AsyncModelCatalogClient, reference: str, model_id: str) -> None:
    resolved = await client.resolve_model(reference)
    assert resolved.model.canonical_id == resolved.canonical_id
    found = await client.get_model(reference)
    assert found.model == resolved.model
    if reference == model_id:
        assert (resolved.rule, found.HasField("resolution")) == ("exact", False)
    else:
        assert found.resolution == Resolution(
            reference=reference,
            model_id=resolved.model.id,
            canonical_id=resolved.canonical_id,
            rule=resolved.rule,
            confidence=resolved.confidence,
        )
        assert 0.5 < resolved.confidence < 1
    own, expected = resolved.model.canonical_id, (await client.get_model(model_id)).model.canonical_id
    assert own == expected
    if "/" not in reference or reference == model_id:
        assert resolved.model.id == model_id


async def test_names_other_offers_of_the_same_model(client: AsyncModelCatalogClient) -> None:
    others = (await client.resolve_model("claude-opus-4.6")).candidates
    assert len(others) == 10
    assert {other.canonical_id for other in others} == {"anthropic/claude-opus-4-6"}
    assert "anthropic/claude-opus-4-6" not in {other.id for other in others}


@pytest.mark.parametrize("reference", ["gpt-5-micro", "gpt-5-mini-2", "claude-opus-9", "gpt-oss-21b", "zzz", "🦆"])
async def test_what_nobody_serves_is_refused_with_hints(client: AsyncModelCatalogClient, reference: str) -> None:
    for call in (client.get_model, client.resolve_model, client.list_model_benchmarks):
        with pytest.raises(ModelNotFoundError) as raised:
            await call(reference)
        assert 1 <= len(raised.value.candidates) <= 10
        assert len(set(raised.value.candidates)) == len(raised.value.candidates)


@pytest.mark.parametrize(
    ("reference", "hint"),
    [
        ("anthropic/claude-sonet-4-5", "anthropic/claude-sonnet-4-5"),
        ("claude-sonet-4-5", "anthropic/claude-sonnet-4-5"),
        ("openrouter/anthropic/claude-sonet-4.5", "openrouter/anthropic/claude-sonnet-4.5"),
    ],
)
async def test_the_first_hint_is_what_is_spelt_most_alike(
    client: AsyncModelCatalogClient, reference: str, hint: str
) -> None:
    with pytest.raises(ModelNotFoundError) as raised:
        await client.get_model(reference)
    assert raised.value.candidates[0] == hint


async def test_what_several_serve_and_its_lab_does_not_is_ambiguous(client: AsyncModelCatalogClient) -> None:
    for call in (client.get_model, client.resolve_model):
        with pytest.raises(AmbiguousModelError) as raised:
            await call("gpt-oss-120b")
        candidates = raised.value.candidates
        assert len(candidates) == 10
        for candidate in candidates:
            assert (await client.get_model(candidate)).model.canonical_id == "openai/gpt-oss-120b"
    preferred = await client.resolve_model("gpt-oss-120b", preferred_provider_ids=["nobody", "groq", "deepinfra"])
    assert preferred.model.id == "groq/openai/gpt-oss-120b"


@pytest.mark.parametrize("preferred", [["a/b"], [""], ["x"] * 21, ["x" * 129]], ids=["slash", "empty", "many", "long"])
async def test_what_cannot_be_preferred_is_refused(client: AsyncModelCatalogClient, preferred: list[str]) -> None:
    with pytest.raises(InvalidQueryError) as raised:
        await client.resolve_model("gpt-5", preferred_provider_ids=preferred)
    assert raised.value.field_violations[0].field.startswith("preferred_provider_ids")


@pytest.mark.parametrize("reference", ["", "  ", "x" * 513, "a\nb"])
async def test_what_cannot_be_a_reference_is_refused(client: AsyncModelCatalogClient, reference: str) -> None:
    with pytest.raises(InvalidModelIdError) as raised:
        await client.resolve_model(reference)
    assert raised.value.field_violations[0].field == "reference"


async def test_benchmarks_are_found_by_whatever_names_the_model(client: AsyncModelCatalogClient) -> None:
    own = await client.list_model_benchmarks("openai/gpt-5")
    assert own.benchmarks
    assert not own.HasField("resolution")
    meant = await client.list_model_benchmarks("gpt-5")
    assert (list(meant.benchmarks), meant.canonical_id) == (list(own.benchmarks), "openai/gpt-5")
    assert meant.resolution.model_id == "openai/gpt-5"


async def test_benchmarks_are_those_of_one_model_however_many_serve_it(client: AsyncModelCatalogClient) -> None:
    own = await client.list_model_benchmarks("groq/openai/gpt-oss-120b")
    meant = await client.list_model_benchmarks("gpt-oss-120b")
    assert (list(meant.benchmarks), meant.canonical_id) == (list(own.benchmarks), "openai/gpt-oss-120b")
    assert (meant.resolution.canonical_id, meant.resolution.model_id) == ("openai/gpt-oss-120b", "")


# --- as the catalog changes -----------------------------------------------------------------------------------------


async def test_a_new_revision_changes_what_is_meant(stage: Stage, moving: AsyncModelCatalogClient) -> None:
    with pytest.raises(ModelNotFoundError):
        await moving.get_model("gpt-6")
    stage.catalog.add("openrouter/openai/gpt-6")
    revision = (await stage.refresh()).result_revision
    assert (await moving.get_model("gpt-6", min_revision=revision)).model.id == "openrouter/openai/gpt-6"
    stage.catalog.add("openai/gpt-6")
    revision = (await stage.refresh()).result_revision
    assert (await moving.get_model("gpt-6", min_revision=revision)).model.id == "openai/gpt-6"


async def test_a_removed_model_is_found_by_its_exact_id_alone(stage: Stage, moving: AsyncModelCatalogClient) -> None:
    assert (await moving.get_model("gpt-5.5")).model.id == "openai/gpt-5.5"
    stage.catalog.remove("openai/gpt-5.5")
    revision = (await stage.refresh()).result_revision
    assert (await moving.get_model("openai/gpt-5.5", min_revision=revision)).model.id == "openai/gpt-5.5"
    with pytest.raises(CatalogError) as raised:
        await moving.get_model("gpt-5.5", min_revision=revision)
    assert raised.value.reason in {"MODEL_NOT_FOUND", "AMBIGUOUS_MODEL"}
    assert "openai/gpt-5.5" not in raised.value.metadata["candidates"].split(",")


async def test_models_of_a_disabled_provider_are_no_answers(stage: Stage, moving: AsyncModelCatalogClient) -> None:
    assert (await moving.get_model("claude-opus-4.5")).model.provider_id == "anthropic"
    await moving.update_provider("anthropic", enabled=False)
    for reference in ("claude-opus-4.5", "Anthropic/claude-opus-4.5"):
        with pytest.raises(ModelNotFoundError) as raised:
            await moving.get_model(reference)
        assert not [id_ for id_ in raised.value.candidates if id_.startswith("anthropic/")]
    await moving.update_provider("anthropic", enabled=True)
    assert (await moving.get_model("claude-opus-4.5")).model.provider_id == "anthropic"


# --- the index of a revision ----------------------------------------------------------------------------------------


async def test_the_index_is_built_once_whoever_asks_and_again_for_a_new_revision(
    stage: Stage, small_database: str
) -> None:
    changed = Signal()
    async with Pools(small_database) as pools:
        snapshots = Snapshots(PostgresCatalog(pools), changed, CurrentRevision())
        async with ReferenceIndexes(snapshots, changed) as indexes:

            async def ask() -> object:
                async with snapshots.open(ANY_REVISION) as snapshot:
                    return await indexes.get(snapshot)

            impatient = asyncio.create_task(ask())
            others = [asyncio.create_task(ask()) for _ in range(20)]
            await asyncio.sleep(0)
            impatient.cancel()
            found = await asyncio.gather(*others)
            assert len({id(index) for index in found}) == 1

            stage.catalog.add("openai/gpt-6")
            await stage.refresh()
            await snapshots.get_state()
            changed.notify()
            await until(lambda: indexes._newest == 2)
            assert await ask() is not found[0]


async def test_a_build_that_failed_is_begun_again_by_whoever_asks_next(small_database: str) -> None:
    async with Pools(small_database) as pools:
        snapshots = Snapshots(PostgresCatalog(pools), Signal(), CurrentRevision())
        async with ReferenceIndexes(snapshots, Signal()) as indexes, snapshots.open(ANY_REVISION) as snapshot:
            asked = asyncio.create_task(indexes.get(snapshot))
            build = None
            while build is None:  # one turn of the loop each, so that it is found before it has done anything
                await asyncio.sleep(0)
                build = next((task for task in asyncio.all_tasks() if task.get_name() == "reference-index-1"), None)
            build.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked
            assert (await indexes.get(snapshot)).alternatives("openai/gpt-5") is not None
