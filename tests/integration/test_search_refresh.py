"""What is searched follows the catalog: in one transaction with it, only where it differs, and later pages stay."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from conftest import Services, StartApp
from modelcatalog_client import AsyncModelCatalogClient
from modelcatalog_client.errors import ModelNotFoundError, PageTokenExpiredError
from modelcatalog_server.domain.refresh import RefreshType
from modelcatalog_server.storage.pools import Pools
from modelcatalog_server.storage.search_store import PostgresSearchDocuments
from small_catalog import Stage, clone_small, follow, marks_of_rows

TABLES = ("search_documents", "search_vocabulary")
STALE = """
    SELECT coalesce(d.model_id, s.model_id)
    FROM (SELECT * FROM search_documents WHERE valid_to_revision IS NULL) AS d
    FULL JOIN search_sources AS s ON s.model_id = d.model_id
    WHERE
        (d.provider_id, d.words, d.is_own, d.is_dated, d.status, d.released, d.digest)
        IS DISTINCT FROM (s.provider_id, s.words, s.is_own, s.is_dated, s.status, s.released, s.digest)
"""


@pytest.fixture
def small_database(templates: Services) -> Iterator[str]:
    yield from clone_small(templates)


@pytest.fixture
async def stage(start_app: StartApp, small_database: str) -> AsyncIterator[Stage]:
    async with follow(start_app, small_database) as stage:
        yield stage


@pytest.fixture
async def client(stage: Stage) -> AsyncIterator[AsyncModelCatalogClient]:
    async with AsyncModelCatalogClient(stage.running.server.address) as client:
        yield client


async def find(client: AsyncModelCatalogClient, query: str, **arguments: Any) -> list[str]:
    return [result.model.id async for result in client.search_models(query, page_size=1000, **arguments)]


async def test_a_first_load_makes_all_documents(stage: Stage) -> None:
    assert await stage.fetch("SELECT count(*) FROM search_documents") == [87]
    assert await stage.fetch(STALE) == []
    assert "claude" in await stage.fetch("SELECT word FROM search_vocabulary")


async def test_a_new_price_writes_nothing_that_is_searched(stage: Stage) -> None:
    before = await marks_of_rows(stage.database_url, TABLES)
    priced = [id_ for id_ in stage.catalog.model_ids if stage.catalog.model(id_).get("cost", {}).get("input")]
    for id_ in priced:  # a price that comes to be, or ends to be zero, would change the tag free
        stage.catalog.model(id_)["cost"] = {"input": 7, "output": 9}
    assert (await stage.refresh()).counts.changed == len(priced) > 70
    assert await marks_of_rows(stage.database_url, TABLES) == before


async def test_whatever_is_searched_of_a_model_gives_it_another_document(stage: Stage) -> None:
    changes: list[dict[str, Any]] = [
        {"name": "New"},
        {"family": "new"},
        {"description": "new"},
        {"status": "beta"},
        {"release_date": "2026-01-01"},
        {"attachment": True, "open_weights": True},  # a tag
        {"canonical_model_id": "new/new"},
    ]
    changed = stage.catalog.model_ids[: len(changes)]
    for id_, change in zip(changed, changes, strict=True):
        stage.catalog.model(id_).update(change)
    await stage.refresh()
    assert await stage.fetch(STALE) == []
    closed = "SELECT model_id FROM search_documents WHERE valid_to_revision IS NOT NULL ORDER BY model_id"
    assert await stage.fetch(closed) == changed


async def test_new_changed_removed_and_revived_models_are_found_as_they_are(
    stage: Stage, client: AsyncModelCatalogClient
) -> None:
    assert await find(client, "zymurgist") == []
    stage.catalog.add("openai/zymurgist-1", name="Zymurgist 1")
    await stage.refresh()
    assert await find(client, "zymurgist 1") == await find(client, "zymurgits") == ["openai/zymurgist-1"]
    stage.catalog.model("openai/zymurgist-1")["name"] = "Brewer"
    await stage.refresh()
    assert await find(client, "brewer") == ["openai/zymurgist-1"]
    kept = stage.catalog.remove("openai/zymurgist-1")
    await stage.refresh()
    assert await find(client, "brewer") == []
    with pytest.raises(ModelNotFoundError) as caught:
        await client.get_model("openai/zymurgist-11")
    assert "openai/zymurgist-1" not in caught.value.candidates
    stage.catalog.providers["openai"]["models"]["zymurgist-1"] = kept
    await stage.refresh()
    assert await find(client, "brewer") == ["openai/zymurgist-1"]
    assert await stage.fetch(STALE) == []


async def test_a_provider_by_another_name_is_found_by_that(stage: Stage, client: AsyncModelCatalogClient) -> None:
    stage.catalog.providers["zeldoc"]["name"] = "Quokka Cloud"
    await stage.refresh()
    assert [id_.partition("/")[0] for id_ in await find(client, "quokka")] == ["zeldoc"]
    assert await stage.fetch(STALE) == []
    closed = await stage.fetch("SELECT model_id FROM search_documents WHERE valid_to_revision IS NOT NULL")
    assert [id_.partition("/")[0] for id_ in closed] == ["zeldoc"]


async def test_a_full_refresh_mends_what_was_derived_otherwise(stage: Stage) -> None:
    await stage.fetch("UPDATE search_documents SET digest = gen_random_uuid(), words = '' WHERE provider_id = 'openai'")
    stage.catalog.model("anthropic/claude-opus-4-6")["name"] = "Opus"
    await stage.refresh()
    assert len(await stage.fetch(STALE)) > 30
    stage.catalog.model("anthropic/claude-opus-4-6")["name"] = "Claude Opus 4.6"
    await stage.refresh(type=RefreshType.FULL)
    assert await stage.fetch(STALE) == []


@pytest.mark.parametrize("query", ["claude", "cluade"])
async def test_a_search_across_refreshes_neither_skips_nor_repeats(
    stage: Stage, client: AsyncModelCatalogClient, query: str
) -> None:
    whole = await find(client, query)
    assert len(whole) > 20
    seen: list[str] = []
    token = ""
    number = 0
    while True:
        pages = client.search_models(query, page_size=5, page_token=token).pages()
        page = await anext(aiter(pages))
        assert (page.total_size, page.catalog_revision) == (len(whole), 1)
        seen += [result.model.id for result in page.results]
        token = page.next_page_token
        if not token:
            break
        number += 1
        stage.catalog.add(f"anthropic/claude-{number}", name=f"Claude {number}", release_date="2027-01-01")
        stage.catalog.add(f"openai/cluade-{number}", name="Cluade")  # a word there was not, as the query spells it
        if number == 2:
            stage.catalog.remove(whole[-1])
            stage.catalog.model(whole[-2])["name"] = "Another"
            await client.update_provider("openrouter", enabled=False)
        await stage.refresh()
    assert seen == whole
    assert whole[-1] not in await find(client, query)


async def test_past_models_are_filtered_and_read_as_they_were(stage: Stage, client: AsyncModelCatalogClient) -> None:
    pages = client.search_models("claude", filter="pricing.input <= 5", page_size=3).pages()
    first = await anext(aiter(pages))
    whole = await find(client, "claude", filter="pricing.input <= 5")
    for id_ in stage.catalog.model_ids:
        stage.catalog.model(id_)["cost"] = {"input": 7, "output": 9}
    await stage.refresh()
    rest = [
        result.model
        async for result in client.search_models(
            "claude", filter="pricing.input <= 5", page_size=1000, page_token=first.next_page_token
        )
    ]
    assert [result.model.id for result in first.results] + [model.id for model in rest] == whole
    assert all(float(model.pricing.input) <= 5 for model in rest)
    assert await find(client, "claude", filter="pricing.input <= 5") == []


async def test_retention_deletes_what_no_token_may_ask_for(stage: Stage, client: AsyncModelCatalogClient) -> None:
    first = await anext(aiter(client.search_models("claude", page_size=3).pages()))
    for name in ("Opus", "Magnum Opus"):
        stage.catalog.model("anthropic/claude-opus-4-6")["name"] = name
        await stage.refresh()
    closed = "SELECT valid_to_revision FROM search_documents WHERE valid_to_revision IS NOT NULL ORDER BY 1"
    assert await stage.fetch(closed) == [2, 3]
    await stage.fetch("UPDATE catalog_revisions SET committed_at = now() - interval '23 hours' WHERE revision = 2")
    assert await anext(aiter(client.search_models("claude", page_size=3, page_token=first.next_page_token).pages()))
    await stage.fetch("UPDATE catalog_revisions SET committed_at = now() - interval '25 hours' WHERE revision = 2")
    async with Pools(stage.database_url) as pools:
        documents = PostgresSearchDocuments(pools)
        assert await documents.prune(before=datetime.now(UTC) - timedelta(hours=26)) == 0
        assert await documents.prune(before=datetime.now(UTC) - timedelta(hours=24)) == 1
    assert await stage.fetch(closed) == [3]
    with pytest.raises(PageTokenExpiredError):  # of another size: the page of before may still be cached
        await anext(aiter(client.search_models("claude", page_size=4, page_token=first.next_page_token).pages()))
    assert "anthropic/claude-opus-4-6" in await find(client, "magnum opus")


async def test_nothing_waits_outside_the_index_of_words_after_a_refresh(loaded_database: str) -> None:
    """Every search would read it, until a vacuum comes by."""
    async with await psycopg.AsyncConnection.connect(loaded_database, autocommit=True) as connection:
        await connection.execute("CREATE EXTENSION pgstattuple")
        row = await (
            await connection.execute("SELECT pending_tuples FROM pgstatginindex('search_documents_words')")
        ).fetchone()
        assert row == (0,)
