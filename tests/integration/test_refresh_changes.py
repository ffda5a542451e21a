"""What a refresh does to the catalog: nothing, where upstream says nothing new, and otherwise just what changed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from google.protobuf import json_format

from conftest import Services, StartApp, refresh_to_end
from modelcatalog_client import AsyncModelCatalogClient
from modelcatalog_server.domain.refresh import Refresh, RefreshCounts, RefreshType, State
from small_catalog import CATALOG_TABLES, Stage, clone_small, follow, marks_of_rows
from upstream_server import UpstreamServer

HISTORY = ("model_versions", "provider_versions", "canonical_model_versions", "catalog_revisions")
CURRENT = ("models_metadata", "llm_providers", "canonical_models")
ALL = 87


@pytest.fixture
def database(templates: Services) -> Iterator[str]:
    yield from clone_small(templates)


@pytest.fixture
async def stage(start_app: StartApp, database: str) -> AsyncIterator[Stage]:
    async with follow(start_app, database) as stage:
        yield stage


@pytest.fixture
async def client(stage: Stage) -> AsyncIterator[AsyncModelCatalogClient]:
    async with AsyncModelCatalogClient(stage.running.server.address) as client:
        yield client


def shown(refresh: Refresh) -> dict[str, int]:
    """Return the counts that are not zero."""
    names = ("seen", "added", "changed", "removed", "revived", "unchanged", "quarantined")
    return {name: count for name in names if (count := getattr(refresh.counts, name))}


async def read_versions(stage: Stage, model_id: str) -> list[tuple[Any, ...]]:
    return await stage.fetch(
        "SELECT revision, valid_to_revision, change, model_name FROM model_versions"
        " WHERE model_id = %s ORDER BY revision",
        model_id,
    )


async def ids_of(client: AsyncModelCatalogClient, **listing: Any) -> list[str]:
    return [model.id async for model in client.list_models(page_size=1000, **listing)]


# --- nothing new ---------------------------------------------------------------------------------------------------


async def test_the_same_body_again_touches_no_row(stage: Stage) -> None:
    before = await marks_of_rows(stage.database_url)
    refresh = await stage.refresh(force=True)
    assert refresh.state is State.SUCCEEDED
    assert shown(refresh) == {"seen": ALL, "unchanged": ALL}
    assert not refresh.not_modified
    assert (refresh.base_revision, refresh.result_revision) == (1, 1)
    assert await marks_of_rows(stage.database_url) == before


async def test_another_order_of_keys_and_other_spacing_are_nothing_new(stage: Stage) -> None:
    before = await marks_of_rows(stage.database_url)

    def reverse(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: reverse(value[key]) for key in reversed(value)}
        return [reverse(each) for each in value] if isinstance(value, list) else value

    stage.upstream.serve("/catalog.json", json.dumps(reverse(stage.catalog.document), indent=3).encode())
    refresh = await refresh_to_end(stage.running)
    assert shown(refresh) == {"seen": ALL, "unchanged": ALL}
    assert await marks_of_rows(stage.database_url) == before


async def test_a_full_refresh_of_the_same_body_rewrites_every_row_in_its_revision(stage: Stage) -> None:
    before = await marks_of_rows(stage.database_url)
    values = await stage.fetch("SELECT to_jsonb(m) - 'raw_metadata' FROM models_metadata AS m ORDER BY model_id")
    refresh = await stage.refresh(type=RefreshType.FULL)
    assert shown(refresh) == {"seen": ALL, "unchanged": ALL}
    assert (refresh.base_revision, refresh.result_revision) == (1, 1)
    after = await marks_of_rows(stage.database_url)
    assert {table: after[table] for table in HISTORY} == {table: before[table] for table in HISTORY}
    for table in CURRENT:
        assert after[table][0] == before[table][0]
        assert after[table] != before[table], f"{table} was not written again"
    assert await stage.fetch("SELECT count(DISTINCT xmin::text) FROM models_metadata") == [1]
    assert (
        await stage.fetch("SELECT to_jsonb(m) - 'raw_metadata' FROM models_metadata AS m ORDER BY model_id") == values
    )


async def test_a_full_refresh_mends_what_does_not_follow_from_the_record(stage: Stage) -> None:
    """As after a mistake of ours, or of a hand in the database: the hash still says that nothing differs."""
    marks = "SELECT md5(string_agg(t::text, '' ORDER BY t::text)) FROM {} AS t"
    tables = ("models_metadata", "llm_providers", "canonical_models", "model_benchmarks")
    before = [await stage.fetch(marks.format(table)) for table in tables]
    await stage.fetch("UPDATE models_metadata SET pricing_input = 0, message = '', model_name = 'forged'")
    await stage.fetch("UPDATE llm_providers SET name = 'forged'")
    await stage.fetch("UPDATE canonical_models SET name = 'forged'")
    await stage.fetch("UPDATE model_benchmarks SET score = 0, score_text = 'forged', benchmark_date = 'forged'")

    await stage.refresh(force=True)
    assert await stage.fetch("SELECT DISTINCT model_name FROM models_metadata") == ["forged"]
    await stage.refresh(type=RefreshType.FULL)
    assert [await stage.fetch(marks.format(table)) for table in tables] == before


async def test_not_modified_ends_the_run_and_says_when_upstream_was_asked(stage: Stage) -> None:
    await stage.refresh()  # the catalog came from another upstream
    await stage.fetch("UPDATE catalog_state SET checked_at = '2026-01-01T00:00:00Z'")
    before = await marks_of_rows(stage.database_url)
    etag = stage.publish()
    refresh = await stage.refresh()
    assert refresh.state is State.SUCCEEDED
    assert refresh.not_modified
    assert shown(refresh) == {}
    assert (refresh.base_revision, refresh.result_revision) == (1, 1)
    assert stage.upstream.requests[-1].headers["If-None-Match"] == etag
    assert await marks_of_rows(stage.database_url) == before
    (fresh,) = await stage.fetch("SELECT checked_at > now() - interval '1 minute' FROM catalog_state")
    assert fresh


@pytest.mark.parametrize(
    "request_",
    [
        {"force": True},
        {"type": RefreshType.FULL},
        {"validate_only": True},
        {"provider_id": "openai"},
    ],
    ids=["force", "full", "validate_only", "provider"],
)
async def test_asks_for_the_body_whatever_the_etag(stage: Stage, request_: dict[str, Any]) -> None:
    refresh = await stage.refresh(**request_)
    assert refresh.state is State.SUCCEEDED
    assert not refresh.not_modified
    assert refresh.counts.seen > 0
    assert "If-None-Match" not in stage.upstream.requests[-1].headers


async def test_the_etag_of_one_upstream_is_not_sent_to_another(stage: Stage, start_app: StartApp) -> None:
    """Another site may have the same one for another document, and "not modified" would be believed."""
    async with UpstreamServer() as other, start_app(stage.database_url, upstream_url=other.url) as moved:
        other.serve("/catalog.json", stage.catalog.body)
        for condition, is_unmodified in ((False, False), (True, True)):
            refresh = await refresh_to_end(moved)
            assert ("If-None-Match" in other.requests[-1].headers) is condition
            assert refresh.not_modified is is_unmodified


async def test_validate_only_tells_the_difference_and_changes_nothing(stage: Stage) -> None:
    before = await marks_of_rows(stage.database_url, [*CATALOG_TABLES, "catalog_state"])
    stage.catalog.add("openai/gpt-6")
    stage.catalog.model("openai/gpt-5")["name"] = "GPT-5 (new)"
    stage.catalog.remove("zeldoc/" + next(iter(stage.catalog.providers["zeldoc"]["models"])))
    refresh = await stage.refresh(validate_only=True)
    assert refresh.state is State.SUCCEEDED
    assert shown(refresh) == {"seen": ALL, "added": 1, "changed": 1, "removed": 1, "unchanged": ALL - 2}
    assert (refresh.base_revision, refresh.result_revision) == (1, None)
    assert await marks_of_rows(stage.database_url, [*CATALOG_TABLES, "catalog_state"]) == before
    success = await stage.running.refreshes.get_overview()
    assert success.last_finished is not None
    assert success.last_finished.id == refresh.id
    assert success.last_success is None or success.last_success.id != refresh.id
    applied = await stage.refresh()
    assert applied.counts == refresh.counts
    assert applied.result_revision == 2


# --- models --------------------------------------------------------------------------------------------------------


async def test_a_changed_model_gets_exactly_one_new_version(stage: Stage, client: AsyncModelCatalogClient) -> None:
    others = "SELECT md5(string_agg(concat(ctid, xmin), ',' ORDER BY ctid)) FROM models_metadata WHERE model_id <> %s"
    before = await stage.fetch(others, "openai/gpt-5")
    first_seen = (await client.get_model("openai/gpt-5")).model.first_seen_time
    stage.catalog.model("openai/gpt-5")["name"] = "GPT-5 (new)"

    refresh = await stage.refresh()

    assert shown(refresh) == {"seen": ALL, "changed": 1, "unchanged": ALL - 1}
    assert (refresh.base_revision, refresh.result_revision) == (1, 2)
    assert await read_versions(stage, "openai/gpt-5") == [
        (1, 2, "ADDED", "GPT-5"),
        (2, None, "CHANGED", "GPT-5 (new)"),
    ]
    assert await stage.fetch("SELECT count(*) FROM model_versions") == [ALL + 1]
    assert await stage.fetch(others, "openai/gpt-5") == before, "another row was written"
    model = (await client.get_model("openai/gpt-5", min_revision=2)).model
    assert (model.name, model.revision, model.first_seen_time) == ("GPT-5 (new)", 2, first_seen)
    assert model.last_changed_time.ToDatetime() > first_seen.ToDatetime()


async def test_a_change_of_presence_alone_is_a_change(stage: Stage) -> None:
    """Absent, null, empty and false are four things; only the first two mean the same."""
    model = stage.catalog.model("openai/gpt-5")
    for field, value in (("structured_output", False), ("reasoning_options", []), ("open_weights", None)):
        model[field] = value
        assert shown(await stage.refresh())["changed"] == 1, field
    model.pop("structured_output")
    assert shown(await stage.refresh())["changed"] == 1
    assert len(await read_versions(stage, "openai/gpt-5")) == 5


async def test_a_field_that_the_service_does_not_know_is_a_change_and_is_kept(
    stage: Stage, client: AsyncModelCatalogClient
) -> None:
    stage.catalog.model("openai/gpt-5")["telepathy"] = {"range_km": 7}
    assert shown(await stage.refresh())["changed"] == 1
    raw = (await client.get_model("openai/gpt-5", view="full", min_revision=2)).model.raw
    assert json_format.MessageToDict(raw)["telepathy"] == {"range_km": 7}


async def test_a_model_that_is_gone_is_marked_and_hidden_and_found_by_id(
    stage: Stage, client: AsyncModelCatalogClient
) -> None:
    gone = stage.catalog.remove("openai/gpt-5")
    refresh = await stage.refresh()
    assert shown(refresh) == {"seen": ALL - 1, "removed": 1, "unchanged": ALL - 1}
    assert await read_versions(stage, "openai/gpt-5") == [(1, 2, "ADDED", "GPT-5"), (2, None, "REMOVED", "GPT-5")]

    model = (await client.get_model("openai/gpt-5", min_revision=2)).model
    assert model.status == model.STATUS_REMOVED
    assert model.removed_time == model.last_changed_time
    assert model.name == gone["name"]
    assert await ids_of(client) == stage.catalog.model_ids
    assert "openai/gpt-5" not in await ids_of(client, provider_id="openai")
    assert "openai/gpt-5" in await ids_of(client, provider_id="openai", show_removed=True)
    assert (await anext(client.list_models(show_removed=True).pages())).total_size == ALL
    assert (await anext(client.list_models().pages())).total_size == ALL - 1

    again = await stage.refresh(force=True)
    assert shown(again) == {"seen": ALL - 1, "unchanged": ALL - 1}
    assert again.result_revision == 2, "it was removed twice"


async def test_a_model_that_comes_back_has_its_history(stage: Stage, client: AsyncModelCatalogClient) -> None:
    first_seen = (await client.get_model("openai/gpt-5")).model.first_seen_time
    gone = stage.catalog.remove("openai/gpt-5")
    await stage.refresh()
    stage.catalog.providers["openai"]["models"]["gpt-5"] = gone
    refresh = await stage.refresh()
    assert shown(refresh) == {"seen": ALL, "revived": 1, "unchanged": ALL - 1}
    assert await read_versions(stage, "openai/gpt-5") == [
        (1, 2, "ADDED", "GPT-5"),
        (2, 3, "REMOVED", "GPT-5"),
        (3, None, "REVIVED", "GPT-5"),
    ]
    model = (await client.get_model("openai/gpt-5", min_revision=3)).model
    assert model.status == model.STATUS_ACTIVE
    assert not model.HasField("removed_time")
    assert model.first_seen_time == first_seen
    assert await ids_of(client) == stage.catalog.model_ids


async def test_a_new_model_is_served_with_its_revision(stage: Stage, client: AsyncModelCatalogClient) -> None:
    stage.catalog.add("openai/gpt-6", name="GPT-6")
    refresh = await stage.refresh()
    assert shown(refresh) == {"seen": ALL + 1, "added": 1, "unchanged": ALL}
    assert await read_versions(stage, "openai/gpt-6") == [(2, None, "ADDED", "GPT-6")]
    model = (await client.get_model("openai/gpt-6", min_revision=2)).model
    assert model.revision == 2
    assert model.source.url.startswith(stage.upstream.url)
    assert model.source.key == "/providers/openai/models/gpt-6"


async def test_every_change_of_one_run_has_one_revision_that_names_the_run(stage: Stage) -> None:
    stage.catalog.add("openai/gpt-6")
    stage.catalog.remove("anthropic/claude-opus-4-5")
    stage.catalog.providers["zeldoc"]["name"] = "Zeldoc (new)"
    refresh = await stage.refresh()
    assert await stage.fetch("SELECT revision, kind, refresh_id FROM catalog_revisions ORDER BY revision OFFSET 1") == [
        (2, "REFRESH", refresh.id)
    ]
    for table in ("models_metadata", "llm_providers"):
        assert await stage.fetch(f"SELECT DISTINCT revision FROM {table} ORDER BY 1") == [1, 2]


async def test_no_two_versions_of_one_thing_are_valid_at_a_revision(stage: Stage) -> None:
    for name in ("one", "two", "three"):
        stage.catalog.model("openai/gpt-5")["name"] = name
        stage.catalog.providers["openai"]["doc"] = f"https://example.com/{name}"
        stage.catalog.canonical_models["openai/gpt-5"]["name"] = name
        await stage.refresh()
    for table, key in (("model_versions", "model_id"), ("provider_versions", "id"), ("canonical_model_versions", "id")):
        gaps = await stage.fetch(
            f"SELECT {key} FROM (SELECT {key}, valid_to_revision,"
            f" lead(revision) OVER (PARTITION BY {key} ORDER BY revision) AS next FROM {table}) AS v"
            " WHERE valid_to_revision IS DISTINCT FROM next"
        )
        assert gaps == [], table
        open_ones = await stage.fetch(f"SELECT count(*) FROM {table} WHERE valid_to_revision IS NULL")
        assert open_ones == await stage.fetch(f"SELECT count(DISTINCT {key}) FROM {table}")


# --- providers -----------------------------------------------------------------------------------------------------


async def test_a_provider_counts_what_it_lists(stage: Stage, client: AsyncModelCatalogClient) -> None:
    counts = {provider.id: provider.model_count async for provider in client.list_providers()}
    assert counts == {id_: len(provider["models"]) for id_, provider in stage.catalog.providers.items()}
    stage.catalog.add("zeldoc/one")
    stage.catalog.add("zeldoc/two")
    stage.catalog.remove("openai/gpt-5")
    await stage.refresh()
    providers = {provider.id: provider async for provider in client.list_providers(min_revision=2)}
    assert {id_: provider.model_count for id_, provider in providers.items()} == {
        id_: len(provider["models"]) for id_, provider in stage.catalog.providers.items()
    }
    assert {id_ for id_, provider in providers.items() if provider.revision == 2} == {"openai", "zeldoc"}
    assert all(provider.model_count == provider.enabled_model_count for provider in providers.values())
    info = await client.get_catalog_info()
    assert (info.counts.models, info.counts.removed_models) == (ALL + 1, 1)


async def test_a_run_for_one_provider_leaves_the_others_alone(stage: Stage, client: AsyncModelCatalogClient) -> None:
    await stage.fetch("UPDATE catalog_state SET checked_at = '2026-01-01T00:00:00Z'")
    state = await stage.fetch("SELECT checked_at, source_snapshot FROM catalog_state")
    for id_ in ("openai/gpt-5", "anthropic/claude-opus-4-5"):
        stage.catalog.model(id_)["name"] = "new"
    stage.catalog.remove("anthropic/claude-opus-4-1")
    stage.catalog.remove("openai/gpt-4")
    stage.catalog.canonical_models["openai/gpt-5"]["name"] = "new"
    refresh = await stage.refresh(provider_id="openai")
    assert shown(refresh) == {"seen": 50, "changed": 1, "removed": 1, "unchanged": 49}
    assert await stage.fetch("SELECT model_id FROM models_metadata WHERE revision = 2 ORDER BY 1") == [
        "openai/gpt-4",
        "openai/gpt-5",
    ]
    assert await stage.fetch("SELECT id FROM llm_providers WHERE revision = 2") == ["openai"]
    # Not GPT-5 itself, which is not the provider's; GPT-4 has a provider less.
    assert await stage.fetch("SELECT id FROM canonical_models WHERE revision = 2") == ["openai/gpt-4"]
    # The rest of the catalog is what it was: it must not pass for checked, nor the next run for not modified.
    assert await stage.fetch("SELECT checked_at, source_snapshot FROM catalog_state") == state
    rest = await stage.refresh()
    assert shown(rest) == {"seen": ALL - 2, "changed": 1, "removed": 1, "unchanged": ALL - 3}


async def test_what_a_run_for_one_provider_changed_is_no_document_that_upstream_had(stage: Stage) -> None:
    before = stage.catalog.model("openai/gpt-5")["name"]
    stage.catalog.model("openai/gpt-5")["name"] = "new"
    await stage.refresh(provider_id="openai")
    stage.catalog.model("openai/gpt-5")["name"] = before
    refresh = await stage.refresh()  # the very body, and so the ETag, of the first load
    assert not refresh.not_modified
    assert shown(refresh) == {"seen": ALL, "changed": 1, "unchanged": ALL - 1}
    assert await stage.fetch("SELECT model_name FROM models_metadata WHERE model_id = 'openai/gpt-5'") == [before]


async def test_a_provider_that_is_gone_takes_its_models_along_and_brings_them_back(
    stage: Stage, client: AsyncModelCatalogClient
) -> None:
    gone = stage.catalog.providers.pop("anthropic")
    refresh = await stage.refresh()
    assert shown(refresh) == {"seen": ALL - 24, "removed": 24, "unchanged": ALL - 24}
    provider = (await client.get_provider("anthropic", min_revision=2)).provider
    assert provider.status == provider.STATUS_REMOVED
    assert (provider.model_count, provider.enabled_model_count) == (0, 0)
    assert "anthropic" not in [each.id async for each in client.list_providers()]
    assert "anthropic" in [each.id async for each in client.list_providers(show_removed=True)]
    assert await ids_of(client, provider_id="anthropic") == []
    assert len(await ids_of(client, provider_id="anthropic", show_removed=True)) == 24
    assert await ids_of(client) == stage.catalog.model_ids

    stage.catalog.providers["anthropic"] = gone
    back = await stage.refresh()
    assert shown(back) == {"seen": ALL, "revived": 24, "unchanged": ALL - 24}
    provider = (await client.get_provider("anthropic", min_revision=3)).provider
    assert (provider.status, provider.model_count) == (provider.STATUS_ACTIVE, 24)
    assert await stage.fetch("SELECT change FROM provider_versions WHERE id = 'anthropic' ORDER BY revision") == [
        "ADDED",
        "REMOVED",
        "REVIVED",
    ]
    assert await ids_of(client) == stage.catalog.model_ids


async def test_a_provider_that_somebody_disabled_stays_disabled(stage: Stage, client: AsyncModelCatalogClient) -> None:
    await stage.fetch("UPDATE llm_providers SET enabled = false, enabled_models = 0 WHERE id = 'anthropic'")
    stage.catalog.model("anthropic/claude-opus-4-5")["name"] = "new"
    stage.catalog.providers["anthropic"]["doc"] = "https://example.com"
    await stage.refresh(type=RefreshType.FULL)
    provider = (await client.get_provider("anthropic", min_revision=2)).provider
    assert (provider.enabled, provider.model_count, provider.enabled_model_count) == (False, 24, 0)
    assert provider.documentation_url == "https://example.com"
    assert not [id_ for id_ in await ids_of(client) if id_.startswith("anthropic/")]
    assert (await anext(client.list_models().pages())).total_size == ALL - 24


# --- canonical models and benchmarks -------------------------------------------------------------------------------


async def read_benchmarks(stage: Stage) -> list[tuple[Any, ...]]:
    return await stage.fetch(
        "SELECT benchmark_name, score, removed_at IS NULL, revision FROM model_benchmarks"
        " WHERE canonical_id = 'openai/gpt-5.5' ORDER BY id"
    )


async def test_benchmarks_come_change_go_and_come_back(stage: Stage, client: AsyncModelCatalogClient) -> None:
    results = stage.catalog.canonical_models["openai/gpt-5.5"]["benchmarks"]
    before = await read_benchmarks(stage)
    assert len(before) == len(results) > 1
    others = "SELECT count(*) FROM model_benchmarks WHERE canonical_id <> 'openai/gpt-5.5' AND revision > 1"

    first = results[0]
    score, first["score"] = first["score"], 1.5
    results.append({"name": "Mind reading", "score": "7 of 9"})
    refresh = await stage.refresh()
    assert shown(refresh) == {"seen": ALL, "unchanged": ALL}
    assert refresh.result_revision == 2
    served = (await client.list_model_benchmarks("openai/gpt-5.5", min_revision=2)).benchmarks
    assert len(served) == len(results)
    (mind,) = [each for each in served if each.name == "Mind reading"]
    assert (mind.score_text, mind.HasField("score")) == ("7 of 9", False)
    assert sorted(row[3] for row in await read_benchmarks(stage)) == [*[1] * (len(before) - 1), 2, 2]

    results.pop()
    kept, results[:] = list(results), []
    await stage.refresh()
    assert not (await client.list_model_benchmarks("openai/gpt-5.5", min_revision=3)).benchmarks
    assert {row[2] for row in await read_benchmarks(stage)} == {False}

    results[:] = [{**kept[0], "score": score}, *kept[1:]]
    await stage.refresh()
    served = (await client.list_model_benchmarks("openai/gpt-5.5", min_revision=4)).benchmarks
    assert len(served) == len(kept)
    assert [row[:3] for row in await read_benchmarks(stage)][:-1] == [row[:3] for row in before]
    assert await stage.fetch(others) == [0]


async def test_a_canonical_model_goes_with_its_benchmarks_and_comes_back(
    stage: Stage, client: AsyncModelCatalogClient
) -> None:
    count = (await client.get_catalog_info()).counts
    gone = stage.catalog.canonical_models.pop("openai/gpt-5.5")
    await stage.refresh()
    info = (await client.get_catalog_info(min_revision=2)).counts
    assert info.canonical_models == count.canonical_models - 1
    assert info.benchmarks == count.benchmarks - len(gone["benchmarks"])
    # The served model is not linked to what is not there any more.
    assert not (await client.get_model("openai/gpt-5.5")).model.canonical_id

    stage.catalog.canonical_models["openai/gpt-5.5"] = gone
    await stage.refresh()
    assert (await client.get_catalog_info(min_revision=3)).counts == count
    assert (await client.get_model("openai/gpt-5.5")).model.canonical_id == "openai/gpt-5.5"
    changes = "SELECT change FROM canonical_model_versions WHERE id = 'openai/gpt-5.5' ORDER BY revision"
    assert await stage.fetch(changes) == ["ADDED", "REMOVED", "REVIVED"]


async def test_a_mirror_without_canonical_models_does_not_take_them_away(
    stage: Stage, client: AsyncModelCatalogClient
) -> None:
    before = (await client.get_catalog_info()).counts
    stage.catalog.canonical_models.clear()
    refresh = await stage.refresh()
    assert (refresh.state, refresh.counts.changed) == (State.SUCCEEDED, 0)
    assert (await client.get_catalog_info()).counts == before


# --- the run itself ------------------------------------------------------------------------------------------------


async def test_the_first_load_is_revision_one(stage: Stage) -> None:
    assert await stage.fetch("SELECT revision, kind FROM catalog_revisions") == [(1, "REFRESH")]
    assert await stage.fetch("SELECT DISTINCT revision FROM model_versions") == [1]
    assert await stage.fetch("SELECT DISTINCT change FROM model_versions") == ["ADDED"]


async def test_a_run_tells_its_phases_in_order(stage: Stage) -> None:
    stage.catalog.model("openai/gpt-5")["name"] = "new"
    refresh = await stage.refresh()
    assert await stage.fetch(
        "SELECT kind, phase, refresh ->> 'status' FROM refresh_events"
        " WHERE refresh_id = %s AND kind <> 'PROGRESS' ORDER BY id",
        refresh.id,
    ) == [
        ("STATE", None, "PENDING"),
        ("STATE", "FETCH", "RUNNING"),
        ("STATE", "VALIDATE", "RUNNING"),
        ("STATE", "COMPARE", "RUNNING"),
        ("STATE", "APPLY", "RUNNING"),
        ("TERMINAL", "PUBLISH", "SUCCEEDED"),
    ]
    assert refresh.completed_at is not None
    assert refresh.completed_at >= refresh.started_at
    assert refresh.attempt == 1
    assert refresh.counts == RefreshCounts(seen=ALL, changed=1, unchanged=ALL - 1)
