"""What is not decoded again, and that nothing is missed by that: the hashes of the texts that records come from."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from conftest import Services, StartApp, refresh_to_end
from modelcatalog_server.domain.refresh import RefreshType, State
from small_catalog import CATALOG_TABLES, SmallCatalog, Stage, clone_small, follow, marks_of_rows

TABLES = (*CATALOG_TABLES, "source_hashes")
ALL = 87


@pytest.fixture
def database(templates: Services) -> Iterator[str]:
    yield from clone_small(templates)


@pytest.fixture
async def stage(start_app: StartApp, database: str) -> AsyncIterator[Stage]:
    async with follow(start_app, database) as stage:
        yield stage


async def read_hashes(stage: Stage) -> dict[tuple[str, str], bytes]:
    rows = await stage.fetch("SELECT kind, id, source_hash FROM source_hashes")
    return {(kind, id_): hash_ for kind, id_, hash_ in rows}


async def has_hash(stage: Stage, *ids: str) -> list[bool]:
    hashes = await read_hashes(stage)
    return [("MODEL", id_) in hashes for id_ in ids]


async def link_of(stage: Stage, model_id: str) -> str | None:
    (link,) = await stage.fetch("SELECT canonical_id FROM models_metadata WHERE model_id = %s", model_id)
    return str(link) if link else None


async def test_a_load_stores_a_hash_of_each_record(stage: Stage) -> None:
    assert (await read_hashes(stage)).keys() == {
        *(("MODEL", id_) for id_ in stage.catalog.model_ids),
        *(("PROVIDER", id_) for id_ in stage.catalog.providers),
        *(("CANONICAL_MODEL", id_) for id_ in stage.catalog.canonical_models),
    }


async def test_the_same_body_again_writes_nothing_at_all(stage: Stage) -> None:
    before = await marks_of_rows(stage.database_url, TABLES)
    for _ in range(2):
        refresh = await stage.refresh(force=True)
        assert (refresh.counts.seen, refresh.counts.unchanged) == (ALL, ALL)
    assert await marks_of_rows(stage.database_url, TABLES) == before


async def test_the_same_text_is_not_decoded_again_but_by_a_full_run(stage: Stage) -> None:
    await stage.fetch("UPDATE models_metadata SET content_hash = 'forged' WHERE model_id = 'openai/gpt-5'")
    refresh = await stage.refresh(force=True)
    assert (refresh.counts.changed, refresh.result_revision) == (0, 1)
    refresh = await stage.refresh(type=RefreshType.FULL)
    assert (refresh.counts.changed, refresh.result_revision) == (1, 2)


async def test_only_what_changed_gets_another_hash(stage: Stage) -> None:
    before = await read_hashes(stage)
    stage.catalog.model("openai/gpt-5")["name"] = "new"
    stage.catalog.providers["zeldoc"]["doc"] = "https://example.com"
    stage.catalog.canonical_models["openai/gpt-5.5"]["name"] = "new"
    await stage.refresh()
    after = await read_hashes(stage)
    assert {key for key in after if after[key] != before[key]} == {
        ("MODEL", "openai/gpt-5"),
        ("PROVIDER", "zeldoc"),
        ("CANONICAL_MODEL", "openai/gpt-5.5"),
    }


async def test_another_text_of_the_same_records_gets_hashes_and_no_revision(stage: Stage) -> None:
    before, hashes = await marks_of_rows(stage.database_url), await read_hashes(stage)

    def reverse(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: reverse(value[key]) for key in reversed(value)}
        return [reverse(each) for each in value] if isinstance(value, list) else value

    stage.upstream.serve("/catalog.json", json.dumps(reverse(stage.catalog.document)).encode())
    for _ in range(2):
        refresh = await refresh_to_end(stage.running, force=True)
        assert (refresh.counts.unchanged, refresh.result_revision) == (ALL, 1)
    after = await read_hashes(stage)
    assert after.keys() == hashes.keys()
    assert not set(after.values()) & set(hashes.values())
    assert await marks_of_rows(stage.database_url) == before
    stored = await marks_of_rows(stage.database_url, ["source_hashes"])
    await refresh_to_end(stage.running, force=True)
    assert await marks_of_rows(stage.database_url, ["source_hashes"]) == stored


async def test_another_decoder_decodes_everything_once(stage: Stage) -> None:
    """As after an upgrade: no stored hash fits. What became of a record by the old rules is found and mended."""
    hashes = await read_hashes(stage)
    await stage.fetch("UPDATE source_hashes SET source_hash = sha256(source_hash)")
    await stage.fetch(
        "UPDATE models_metadata SET model_name = 'by old rules', content_hash = 'old' WHERE model_id = 'openai/gpt-5'"
    )
    refresh = await stage.refresh(force=True)
    assert (refresh.counts.changed, refresh.counts.unchanged) == (1, ALL - 1)
    assert await stage.fetch("SELECT model_name FROM models_metadata WHERE model_id = 'openai/gpt-5'") == ["GPT-5"]
    assert await read_hashes(stage) == hashes


async def test_another_encoder_writes_the_messages_that_differ_in_their_old_revision(stage: Stage) -> None:
    """As after an upgrade: the records are what they were, but one was encoded otherwise."""
    message = "SELECT message FROM models_metadata WHERE model_id = 'openai/gpt-5'"
    encoded = await stage.fetch(message)
    await stage.fetch("UPDATE source_hashes SET source_hash = sha256(source_hash)")
    await stage.fetch("UPDATE models_metadata SET message = 'old' WHERE model_id = 'openai/gpt-5'")
    before = await stage.fetch("SELECT xmin::text FROM models_metadata")
    refresh = await stage.refresh(force=True)
    assert (refresh.counts.changed, refresh.counts.unchanged, refresh.result_revision) == (0, ALL, 1)
    assert await stage.fetch(message) == encoded
    after = await stage.fetch("SELECT xmin::text FROM models_metadata")
    assert len(set(after) - set(before)) == 1


async def test_a_full_run_stores_every_hash_anew(stage: Stage) -> None:
    hashes = await read_hashes(stage)
    await stage.fetch("UPDATE source_hashes SET source_hash = sha256(source_hash)")
    await stage.refresh(type=RefreshType.FULL)
    assert await read_hashes(stage) == hashes
    written = "SELECT count(DISTINCT xmin::text) FROM source_hashes"
    assert await stage.fetch(written) == [1]


async def test_what_is_gone_has_no_hash_until_it_is_back(stage: Stage) -> None:
    hashes = await read_hashes(stage)
    whole = SmallCatalog().document
    stage.catalog.providers.pop("anthropic")
    stage.catalog.remove("openai/gpt-5")
    stage.catalog.canonical_models.pop("openai/gpt-5.5")
    await stage.refresh()
    left = await read_hashes(stage)
    assert not [id_ for kind, id_ in left if kind != "CANONICAL_MODEL" and id_.startswith("anthropic")]
    assert not {("MODEL", "openai/gpt-5"), ("CANONICAL_MODEL", "openai/gpt-5.5")} & left.keys()
    assert len(left) == len(hashes) - 25 - 2
    stage.catalog.document = whole
    refresh = await stage.refresh()
    assert refresh.counts.revived == 25
    assert await read_hashes(stage) == hashes


async def test_what_is_set_aside_has_no_hash_until_it_is_mended(stage: Stage) -> None:
    hashes = await read_hashes(stage)
    name = stage.catalog.model("openai/gpt-5").pop("name")
    refresh = await stage.refresh()
    assert refresh.state is State.PARTIALLY_SUCCEEDED
    assert await has_hash(stage, "openai/gpt-5", "openai/gpt-4") == [False, True]
    before = await marks_of_rows(stage.database_url, TABLES)
    again = await stage.refresh(force=True)
    assert (again.state, len(again.warnings)) == (State.PARTIALLY_SUCCEEDED, 1)
    assert await marks_of_rows(stage.database_url, TABLES) == before
    stage.catalog.model("openai/gpt-5")["name"] = name
    assert (await stage.refresh()).state is State.SUCCEEDED
    assert (await read_hashes(stage)).keys() == hashes.keys()


async def test_a_dry_run_stores_nothing(stage: Stage) -> None:
    before = await marks_of_rows(stage.database_url, TABLES)
    stage.catalog.model("openai/gpt-5")["name"] = "new"
    refresh = await stage.refresh(validate_only=True, type=RefreshType.FULL)
    assert refresh.counts.changed == 1
    assert await marks_of_rows(stage.database_url, TABLES) == before


async def test_a_run_for_one_provider_stores_only_its_own(stage: Stage) -> None:
    before = await read_hashes(stage)
    for id_ in ("openai/gpt-5", "anthropic/claude-opus-4-5"):
        stage.catalog.model(id_)["name"] = "new"
    stage.catalog.remove("openai/gpt-4")
    stage.catalog.canonical_models["openai/gpt-5"]["name"] = "new"
    await stage.refresh(provider_id="openai")
    after = await read_hashes(stage)
    assert before.keys() - after.keys() == {("MODEL", "openai/gpt-4")}
    assert {key for key in after if after[key] != before[key]} == {("MODEL", "openai/gpt-5")}
    assert (await stage.refresh(provider_id="openai", type=RefreshType.FULL)).counts.seen == 50
    assert await read_hashes(stage) == after


async def test_a_link_to_a_new_canonical_model_waits_until_that_is_mended(stage: Stage) -> None:
    """Its own text does not change meanwhile, and the day that the other is mended it may itself be set aside."""
    stage.catalog.add("openai/gpt-6")
    stage.catalog.canonical_models["openai/gpt-6"] = {"id": "openai/gpt-6"}
    refresh = await stage.refresh()
    assert refresh.counts.added == 1
    assert "/models/openai~1gpt-6: object missing required field name" in refresh.warnings[0]
    assert await link_of(stage, "openai/gpt-6") is None
    assert await has_hash(stage, "openai/gpt-6", "openai/gpt-5") == [False, True]

    before = await marks_of_rows(stage.database_url, TABLES)
    await stage.refresh(force=True)
    assert await marks_of_rows(stage.database_url, TABLES) == before

    stage.catalog.canonical_models["openai/gpt-6"]["name"] = "GPT-6"
    provider = stage.catalog.providers["openai"].pop("name")
    await stage.refresh()
    assert await link_of(stage, "openai/gpt-6") is None
    stage.catalog.providers["openai"]["name"] = provider
    refresh = await stage.refresh()
    assert (refresh.state, refresh.counts.changed) == (State.SUCCEEDED, 1)
    assert await link_of(stage, "openai/gpt-6") == "openai/gpt-6"
    assert await has_hash(stage, "openai/gpt-6") == [True]


async def test_a_link_goes_with_its_canonical_model_also_when_that_comes_back_bad(stage: Stage) -> None:
    canonical = stage.catalog.canonical_models.pop("openai/gpt-5.5")
    provider = stage.catalog.providers["openai"].pop("name")
    await stage.refresh()
    assert await link_of(stage, "openai/gpt-5.5") == "openai/gpt-5.5", "its provider could not be read"
    stage.catalog.providers["openai"]["name"] = provider
    stage.catalog.canonical_models["openai/gpt-5.5"] = {"id": "openai/gpt-5.5"}
    await stage.refresh()
    assert await link_of(stage, "openai/gpt-5.5") is None
    stage.catalog.canonical_models["openai/gpt-5.5"] = canonical
    await stage.refresh()
    assert await link_of(stage, "openai/gpt-5.5") == "openai/gpt-5.5"


async def test_a_run_that_fails_to_write_stores_no_hash(stage: Stage) -> None:
    before = await marks_of_rows(stage.database_url, TABLES)
    await stage.fetch("ALTER TABLE model_versions ADD CONSTRAINT none CHECK (model_name <> 'new') NOT VALID")
    stage.catalog.model("openai/gpt-5")["name"] = "new"
    assert (await stage.refresh()).state is State.FAILED
    assert await marks_of_rows(stage.database_url, TABLES) == before
    await stage.fetch("ALTER TABLE model_versions DROP CONSTRAINT none")
    assert (await stage.refresh()).counts.changed == 1
