"""Places, normalised scores and scores of models: right over the whole payload, and kept right by each refresh."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from conftest import Services, StartApp
from modelcatalog.v1 import model_pb2
from modelcatalog_client import AsyncModelCatalogClient
from modelcatalog_server.domain.refresh import Refresh, RefreshType
from small_catalog import Stage, clone_small, follow

SERIES = ("canonical_name", "version", "dataset", "metric", "harness", "variant")
#: Metrics of the payload that say themselves, or of which it is known for the benchmark, that more is better.
MORE_IS_BETTER = {"average pass@1", "pass@1", "percent correct", "percent resolved", "resolve rate", "resolved"} | {
    "success rate"
}
MORE_IS_BETTER_FOR = {
    ("Artificial Analysis Coding Index", "index"),
    ("SWE-Atlas Codebase QnA", "score"),
    ("SWE-Atlas Refactoring", "score"),
    ("SWE-Atlas Test Writing", "score"),
    ("Terminal-Bench 2.0", "score"),
    ("Terminal-Bench 2.1", "percent"),
}

Row = dict[str, Any]


@pytest.fixture(scope="module")
def loaded(templates: Services) -> Iterator[psycopg.Connection[Row]]:
    """The full catalog of 2026-07-02, as the first load left it."""
    url = templates.clone("mc_loaded")
    with psycopg.connect(url, row_factory=dict_row) as connection:
        yield connection
    templates.drop(url)


@pytest.fixture(scope="module")
def results(loaded: psycopg.Connection[Row]) -> list[Row]:
    rows = loaded.execute("SELECT * FROM model_benchmarks WHERE removed_at IS NULL").fetchall()
    assert len(rows) == 288
    return rows


def find_series(results: list[Row]) -> Mapping[tuple[Any, ...], list[Row]]:
    """Return what may be compared, worked out from upstream's fields."""
    series = defaultdict(list)
    for row in results:
        name, metric = row["canonical_name"], row["metric"]
        if metric in MORE_IS_BETTER or (name, metric) in MORE_IS_BETTER_FOR:
            version = name.partition("Terminal-Bench ")[2] if name.endswith((" 2.0", " 2.1")) else row["version"]
            series[(name, version, *(row[part] for part in SERIES[2:]))].append(row)
    return series


# --- the whole payload ---------------------------------------------------------------------------------------------


def test_twins_of_spelling_have_one_name_and_keep_their_own(results: list[Row]) -> None:
    joined = Counter(
        (row["benchmark_name"], row["version"], row["canonical_name"])
        for row in results
        if row["benchmark_name"] != row["canonical_name"]
    )
    assert joined == {
        ("SWE Bench Pro", None, "SWE-Bench Pro"): 2,
        ("Terminal Bench 2.0", None, "Terminal-Bench 2.0"): 1,
        ("Terminal Bench 2.1", None, "Terminal-Bench 2.1"): 2,
        ("Terminal-Bench", "2.1", "Terminal-Bench 2.1"): 18,
    }


def test_places_and_normalized_scores_are_those_within_the_series(results: list[Row]) -> None:
    ranked = 0
    for rows in find_series(results).values():
        scores = [row["score"] for row in rows]
        assert len({row["canonical_id"] for row in rows}) == len(rows)
        worst, best = min(scores), max(scores)
        for row in rows:
            if len(rows) < 3:
                assert (row["rank"], row["normalized_score"], row["series_size"]) == (None, None, None)
                continue
            ranked += 1
            exact = Fraction(row["score"] - worst) / Fraction(best - worst) * 100
            assert row["rank"] == 1 + sum(score > row["score"] for score in scores)
            assert abs(Fraction(row["normalized_score"]) - exact) <= Fraction(1, 200)
            assert row["series_size"] == len(rows)
    assert ranked == sum(row["rank"] is not None for row in results) == 217


def test_popularity_is_the_number_of_providers_that_list_the_model(loaded: psycopg.Connection[Row]) -> None:
    providers = defaultdict(set)
    for row in loaded.execute("SELECT canonical_id, provider_id FROM models_metadata").fetchall():
        providers[row["canonical_id"]].add(row["provider_id"])
    rows = loaded.execute("SELECT id, popularity_score FROM canonical_models").fetchall()
    assert {row["id"]: row["popularity_score"] for row in rows} == {
        row["id"]: len(providers[row["id"]]) for row in rows
    }
    assert max(row["popularity_score"] for row in rows) > 10


def test_a_benchmark_score_is_the_mean_over_benchmarks_of_large_series(
    loaded: psycopg.Connection[Row], results: list[Row]
) -> None:
    normalized: dict[str, dict[str, list[Decimal]]] = defaultdict(lambda: defaultdict(list))
    for rows in find_series(results).values():
        for row in rows if len(rows) >= 10 else []:
            normalized[row["canonical_id"]][row["canonical_name"]].append(row["normalized_score"])
    expected = {
        id_: sum(sum(scores) / len(scores) for scores in by_name.values()) / len(by_name)
        for id_, by_name in normalized.items()
        if len(by_name) >= 3
    }
    scored = loaded.execute("SELECT id, benchmark_score FROM canonical_models WHERE benchmark_score IS NOT NULL")
    found = {row["id"]: row["benchmark_score"] for row in scored.fetchall()}
    assert found == {id_: pytest.approx(score, abs=Decimal("0.005")) for id_, score in expected.items()}
    assert len(found) == 21


# --- refreshes -----------------------------------------------------------------------------------------------------


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


async def get(client: AsyncModelCatalogClient, model_id: str) -> model_pb2.Model:
    return (await client.get_model(model_id)).model


async def popularity_versions(stage: Stage, canonical_id: str) -> list[tuple[int, int | None, int, str]]:
    return await stage.fetch(
        "SELECT revision, valid_to_revision, popularity_score::integer, change FROM canonical_model_versions"
        " WHERE id = %s ORDER BY revision",
        canonical_id,
    )


def figures(refresh: Refresh) -> tuple[int, int, int, int | None]:
    counts = refresh.counts
    return counts.added, counts.changed, counts.removed, refresh.result_revision


def result(name: str, score: object, **fields: object) -> dict[str, object]:
    return {"name": name, "score": score, "metric": "pass@1"} | fields


async def places(client: AsyncModelCatalogClient, canonical_id: str, name: str) -> list[tuple[Any, ...]]:
    """Return score, rank, normalised score and size of a model's results of a benchmark; None for what is unset."""

    def optional(each: Any, field: str) -> Any:
        return getattr(each, field) if each.HasField(field) else None

    listed = (await client.list_model_benchmarks(canonical_id)).benchmarks
    fields = ("score", "rank", "normalized_score", "series_size")
    return [tuple(optional(each, field) for field in fields) for each in listed if each.canonical_name == name]


async def test_another_provider_moves_the_score_of_every_offer_and_changes_none_of_them(
    stage: Stage, client: AsyncModelCatalogClient
) -> None:
    before = await get(client, "openai/gpt-5")
    assert before.performance.popularity_score_rule == "provider_count"
    providers = before.performance.popularity_score

    stage.catalog.add("zeldoc/openai/gpt-5")["canonical_model_id"] = "openai/gpt-5"
    assert figures(await stage.refresh()) == (1, 0, 0, 2)

    after = await get(client, "openai/gpt-5")
    assert after.performance.popularity_score == providers + 1
    assert after.revision == before.revision
    assert after.etag != before.etag
    other = await get(client, "openai/gpt-4o-mini")
    assert other.revision == 1
    assert await popularity_versions(stage, "openai/gpt-5") == [
        (1, 2, providers, "ADDED"),
        (2, None, providers + 1, "CHANGED"),
    ]

    stage.catalog.remove("zeldoc/openai/gpt-5")
    assert figures(await stage.refresh()) == (0, 0, 1, 3)
    assert (await get(client, "openai/gpt-5")).performance == before.performance


async def test_a_model_that_is_linked_elsewhere_counts_there_and_no_more_here(
    stage: Stage, client: AsyncModelCatalogClient
) -> None:
    stage.catalog.add("zeldoc/one")["canonical_model_id"] = "openai/gpt-5"
    await stage.refresh()
    gpt_5 = (await get(client, "openai/gpt-5")).performance.popularity_score
    gpt_4o = (await get(client, "openai/gpt-4o")).performance.popularity_score

    stage.catalog.model("zeldoc/one")["canonical_model_id"] = "openai/gpt-4o"
    assert figures(await stage.refresh(provider_id="zeldoc")) == (0, 1, 0, 3)

    assert (await get(client, "openai/gpt-5")).performance.popularity_score == gpt_5 - 1
    assert (await get(client, "openai/gpt-4o")).performance.popularity_score == gpt_4o + 1


async def test_a_hidden_provider_still_counts(stage: Stage, client: AsyncModelCatalogClient) -> None:
    before = await get(client, "openai/gpt-5")
    await client.update_provider("openrouter", enabled=False)
    assert (await get(client, "openai/gpt-5")).performance == before.performance


async def test_a_listing_that_began_before_shows_the_scores_of_its_revision(
    stage: Stage, client: AsyncModelCatalogClient
) -> None:
    order = "performance.popularity_score desc"
    expected = [model async for model in client.list_models(order_by=order)]
    listing = client.list_models(order_by=order, page_size=2).pages()
    first = await anext(listing)
    stage.catalog.add("zeldoc/new")["canonical_model_id"] = expected[3].canonical_id
    await stage.refresh()
    second = await anext(listing)
    assert [*first.models, *second.models] == expected[:4]
    assert (await get(client, expected[3].id)).performance != expected[3].performance


async def test_a_result_moves_the_places_of_all_in_its_series(stage: Stage, client: AsyncModelCatalogClient) -> None:
    models = stage.catalog.canonical_models
    ids = ["openai/gpt-5", "openai/gpt-4o", "openai/gpt-4o-mini", "openai/o3"]
    for id_, score in zip(ids, (50, 40, 30, 30), strict=True):
        models[id_]["benchmarks"] = [result("New", score)]
    assert figures(await stage.refresh()) == (0, 0, 0, 2)
    assert [await places(client, id_, "New") for id_ in ids] == [
        [(50, 1, 100, 4)],
        [(40, 2, 50, 4)],
        [(30, 3, 0, 4)],
        [(30, 3, 0, 4)],
    ]

    models["openai/gpt-5"]["benchmarks"] = [result("New", 35)]
    await stage.refresh()
    assert [await places(client, id_, "New") for id_ in ids] == [
        [(35, 2, 50, 4)],
        [(40, 1, 100, 4)],
        [(30, 3, 0, 4)],
        [(30, 3, 0, 4)],
    ]

    for id_ in ids[:2]:
        models[id_]["benchmarks"] = []
    await stage.refresh()
    assert [await places(client, id_, "New") for id_ in ids[2:]] == [[(30, None, None, None)]] * 2


async def test_of_several_results_in_one_series_the_best_has_the_place(
    stage: Stage, client: AsyncModelCatalogClient
) -> None:
    models = stage.catalog.canonical_models
    error = {"metric": "error rate"}
    models["openai/gpt-5"]["benchmarks"] = [
        result("New", 8, source="https://a", **error),
        result("New", 4, source="https://b", **error),
    ]
    models["openai/gpt-4o"]["benchmarks"] = [result("New", 6, **error)]
    models["openai/o3"]["benchmarks"] = [result("New", 12, **error)]
    await stage.refresh()
    assert await places(client, "openai/gpt-5", "New") == [(8, None, None, None), (4, 1, 100, 3)]
    assert await places(client, "openai/gpt-4o", "New") == [(6, 2, 75, 3)]
    assert await places(client, "openai/o3", "New") == [(12, 3, 0, 3)]


@pytest.mark.parametrize(
    "fields",
    [[{}] * 2, [{"metric": None}] * 3, [{"metric": "points"}] * 3, [{"score": "high"}] * 3, [{}, {}, {"variant": "x"}]],
    ids=["too few", "no metric", "of unknown direction", "no numbers", "of different variants"],
)
async def test_what_cannot_be_compared_has_no_place(
    stage: Stage, client: AsyncModelCatalogClient, fields: list[dict[str, object]]
) -> None:
    ids = ["openai/gpt-5", "openai/gpt-4o", "openai/o3"]
    for number, (id_, more) in enumerate(zip(ids, fields, strict=False)):
        stage.catalog.canonical_models[id_]["benchmarks"] = [{**result("New", number), **more}]
    await stage.refresh()
    for id_, _ in zip(ids, fields, strict=False):
        assert [place[1:] for place in await places(client, id_, "New")] == [(None, None, None)]


async def test_equal_results_share_the_first_place_and_have_nothing_to_be_scaled_by(
    stage: Stage, client: AsyncModelCatalogClient
) -> None:
    ids = ["openai/gpt-5", "openai/gpt-4o", "openai/o3"]
    for id_ in ids:
        stage.catalog.canonical_models[id_]["benchmarks"] = [result("New", 7)]
    await stage.refresh()
    assert [await places(client, id_, "New") for id_ in ids] == [[(7, 1, None, 3)]] * 3


async def test_a_full_refresh_mends_scores_in_a_revision_that_changes_no_model(
    stage: Stage, client: AsyncModelCatalogClient
) -> None:
    before = await get(client, "openai/gpt-5")
    await stage.fetch("UPDATE canonical_models SET popularity_score = 99, benchmark_score = 99")
    await stage.fetch("UPDATE model_benchmarks SET rank = 99")
    assert figures(await stage.refresh(type=RefreshType.FULL)) == (0, 0, 0, 2)
    after = await get(client, "openai/gpt-5")
    assert after.performance == before.performance
    assert after.revision == before.revision
    assert await stage.fetch("SELECT count(*) FROM model_benchmarks WHERE rank = 99") == [0]
    assert figures(await stage.refresh(type=RefreshType.FULL)) == (0, 0, 0, 2)
