"""Which results are of the same benchmark, which way its metric points, and what may be compared."""

from __future__ import annotations

import gzip
import json
import tomllib
from functools import cache
from importlib import resources
from typing import Any

import pytest

from modelcatalog_server.domain import scores
from modelcatalog_server.domain.models import BenchmarkRecord
from modelcatalog_server.modelsdev.benchmark_names import NAMES, read_names
from unit.test_derived_fields import DOCS
from unit.test_modelsdev_records import decode_catalog, provider

PACKAGE = resources.files("modelcatalog_server.modelsdev")
REVIEWED = tomllib.loads((PACKAGE / "benchmarks.toml").read_text(encoding="utf-8"))


@cache
def payload_results() -> list[dict[str, Any]]:
    document = json.loads(gzip.decompress((PACKAGE / "snapshot" / "catalog-2026-07-02.json.gz").read_bytes()))
    return [result for model in document["models"].values() for result in model.get("benchmarks", [])]


def read(**fields: object) -> BenchmarkRecord:
    result = {"name": "SWE-Bench Pro", "score": 50, "metric": "resolve rate"} | fields
    canonical: dict[str, object] = {"id": "lab/one", "name": "One", "benchmarks": [result]}
    (record,) = decode_catalog({"lab": provider()}, {"lab/one": canonical}).canonical_models or []
    (benchmark,) = record.benchmarks
    return benchmark


def test_every_name_of_the_payload_was_reviewed() -> None:
    reviewed = {name for name, _ in NAMES.by_spelling}
    assert {result["name"] for result in payload_results()} <= reviewed


def test_no_spelling_is_of_two_benchmarks_and_no_entry_is_given_twice() -> None:
    spellings = [name for entry in REVIEWED["benchmark"] for name in (entry["name"], *entry.get("spellings", ()))]
    assert len(spellings) == len(set(spellings))
    assert not NAMES.higher_is_better & NAMES.lower_is_better


@pytest.mark.parametrize(
    ("name", "version", "canonical_name"),
    [
        ("SWE Bench Pro", None, "SWE-Bench Pro"),
        ("SWE-Bench Pro", None, "SWE-Bench Pro"),
        ("SWE-Bench Verified", None, "SWE-Bench Verified"),
        ("Terminal Bench 2.1", None, "Terminal-Bench 2.1"),
        ("Terminal-Bench", "2.1", "Terminal-Bench 2.1"),
        ("Terminal-Bench", "3", "Terminal-Bench"),
        ("Terminal-Bench Hard", None, "Terminal-Bench Hard"),
        ("LiveCodeBench Pro", None, "LiveCodeBench Pro"),
        ("swe bench pro", None, "swe bench pro"),  # nobody has reviewed it
        ("Never heard of", "1", "Never heard of"),
    ],
)
def test_only_reviewed_spellings_are_joined(name: str, version: str | None, canonical_name: str) -> None:
    record = read(name=name, version=version)
    assert (record.name, record.canonical_name) == (name, canonical_name)


def test_spellings_of_one_version_are_of_one_series() -> None:
    alike = [
        {"name": "Terminal-Bench", "version": "2.1"},
        {"name": "Terminal-Bench 2.1"},
        {"name": "Terminal Bench 2.1", "version": "2.1"},
    ]
    (series,) = {read(metric="pass@1", **each).series for each in alike}
    assert series == '["Terminal-Bench 2.1", "2.1", null, "pass@1", null, null]'


@pytest.mark.parametrize("part", ["name", "version", "dataset", "metric", "harness", "variant"])
def test_results_that_differ_in_a_part_are_of_different_series(part: str) -> None:
    other = "pass@1" if part == "metric" else "another"
    assert read(**{part: other}).series not in (None, read().series)


def test_source_and_date_make_no_series() -> None:
    assert read(source="https://a", date="2026-01").series == read().series is not None


@pytest.mark.parametrize(
    ("fields", "higher_is_better"),
    [
        ({}, True),
        ({"metric": "error rate"}, False),
        ({"metric": None}, None),
        ({"metric": "score"}, None),
        ({"metric": "percent"}, None),
        ({"name": "SWE-Atlas Refactoring", "metric": "score"}, True),
        ({"name": "Artificial Analysis Coding Index", "metric": "index"}, True),
        ({"name": "Claw-eval", "metric": "percent"}, None),
        ({"score": "n/a"}, None),
    ],
)
def test_a_series_needs_a_number_and_a_metric_whose_direction_is_known(
    fields: dict[str, object], higher_is_better: bool | None
) -> None:
    record = read(**fields)
    assert record.higher_is_better is higher_is_better
    assert (record.series is None) is (higher_is_better is None)


def test_a_benchmark_may_say_that_less_is_better() -> None:
    entry = {"name": "Golf", "lower_is_better": ["score"]}
    names = read_names({"benchmark": [entry], "metrics": {"higher_is_better": [], "lower_is_better": []}})
    assert names.is_higher_better(names.find("Golf", None), "score") is False


def test_this_much_of_the_payload_may_be_compared() -> None:
    known = [
        NAMES.is_higher_better(NAMES.find(result["name"], result.get("version")), result.get("metric"))
        for result in payload_results()
    ]
    assert (known.count(True), known.count(False), known.count(None)) == (258, 0, 30)


def test_the_docs_have_the_twins_the_metrics_the_types_and_the_minimums() -> None:
    page = (DOCS / "derived.md").read_text()
    for entry in REVIEWED["benchmark"]:
        for spelling in entry.get("spellings", ()):
            assert f"| `{spelling}` | `{entry['name']}` |" in page
        if type_ := entry.get("type"):
            assert f"`{type_}`" in page
    for metric in NAMES.higher_is_better | NAMES.lower_is_better:
        assert f"`{metric}`" in page
    assert f"at least {scores.MIN_RANKED_MODELS} models" in page
    assert f"at least {scores.MIN_SCORED_MODELS} models" in page
    assert f"at least {scores.MIN_SCORED_BENCHMARKS} benchmarks" in page
    assert f"`{scores.POPULARITY_RULE}`" in page
    assert f"`{scores.BENCHMARK_RULE}`" in page
