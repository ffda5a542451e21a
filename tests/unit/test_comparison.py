"""Rows of a comparison: what is best, what differs, and which results of benchmarks stand side by side."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from modelcatalog_server.catalog.comparison import Facts, compare_benchmarks, compare_fields, find_best
from modelcatalog_server.catalog.fields import MODEL_FIELDS
from modelcatalog_server.domain.models import (
    Benchmark,
    BenchmarkRecord,
    PriceMode,
    Prices,
    PriceTier,
    Pricing,
    ReasoningOption,
)

NOTHING: dict[str, Any] = dict.fromkeys(MODEL_FIELDS.fields)


def facts(model_id: str, values: dict[str, Any] | None = None, **more: Any) -> Facts:
    return Facts(model_id=model_id, values={**NOTHING, **(values or {})}, **more)


def row_of(models: list[Facts], field: str) -> Any:
    (row,) = [row for row in compare_fields(models) if row.field == field]
    return row


@pytest.mark.parametrize(
    ("values", "lowest", "highest"),
    [
        ([1, 2, 3], ["a"], ["c"]),
        ([2, 1, 1], ["b", "c"], ["a"]),
        ([None, 1, 2], ["b"], ["c"]),
        ([0, None, 2], ["a"], ["c"]),
        ([1, 1, 1], [], []),
        ([1, 1, None], [], []),
        ([1, None, None], [], []),
        ([None, None, None], [], []),
        ([Decimal("1.0"), Decimal("1.00"), Decimal(1)], [], []),
    ],
)
def test_best_is_among_known_values_that_differ(values: list[Any], lowest: list[str], highest: list[str]) -> None:
    models = [facts(name) for name in "abc"]
    assert list(find_best(models, values, min)) == lowest
    assert list(find_best(models, values, max)) == highest


def test_equal_prices_do_not_differ_however_they_are_written() -> None:
    models = [facts(name, {"pricing.input": Decimal(text)}) for name, text in (("a", "1.5"), ("b", "1.50"))]
    row = row_of(models, "pricing.input")
    assert list(row.values) == ["1.5", "1.5"]
    assert not row.differs


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("capabilities.vision", False, "false"),
        ("limits.context_window", 200_000, "200000"),
        ("pricing.output", Decimal("2E-8"), "0.00000002"),
        ("modalities.input", ("text", "image"), "text, image"),
        ("tags", (), ""),
        ("name", "", ""),
        ("family", None, None),
    ],
)
def test_a_value_is_a_text_and_empty_is_not_unknown(field: str, value: Any, text: str | None) -> None:
    row = row_of([facts("a", {field: value}), facts("b")], field)
    assert list(row.values) == [text, None]
    assert row.differs is (text is not None)
    assert list(row.best) == []


def test_more_is_not_better_where_nobody_says_so() -> None:
    models = [facts("a", {"release_date": "2025", "performance.popularity_score": Decimal(1)})]
    models.append(facts("b", {"release_date": "2026", "performance.popularity_score": Decimal(2)}))
    assert not any(row.best for row in compare_fields(models))


def test_tiers_modes_and_ways_to_reason_are_told_on_a_line() -> None:
    tier = PriceTier(min_context_tokens=10, prices=Prices(input=Decimal(3)))
    mode = PriceMode(prices=Prices(input=Decimal(9)), tiers=(tier,))
    options = [
        ReasoningOption(type="toggle"),
        ReasoningOption(type="effort", values=("low", "high"), accepts_null=True),
        ReasoningOption(type="budget_tokens", min_tokens=0, max_tokens=99),
    ]
    modes = {"slow": PriceMode(prices=Prices()), "fast": mode}
    pricing = Pricing(prices=Prices(input=Decimal(1)), tiers=(tier,), modes=modes)
    models = [facts("a", pricing=pricing, reasoning_options=options), facts("b", reasoning_options=()), facts("c")]
    assert list(row_of(models, "pricing.tiers").values) == ["above 10: input 3", None, None]
    assert row_of(models, "pricing.modes").values[0] == "fast: input 9; above 10: input 3; slow: "
    described = "toggle; effort low/high/null; budget_tokens from 0 to 99"
    assert list(row_of(models, "reasoning_options").values) == [described, "", None]


# --- benchmarks ----------------------------------------------------------------------------------------------------


def result(name: str, score: str, **more: Any) -> Benchmark:
    number = Decimal(score) if score.replace(".", "").isdigit() else None
    more.setdefault("canonical_name", name)
    record = BenchmarkRecord(name=name, score_text=score, score=number, raw="{}", **more)
    return Benchmark(canonical_id="lab/model", record=record)


def scores(*models: list[Benchmark]) -> list[tuple[str, list[str]]]:
    rows = compare_benchmarks([facts(str(number), benchmarks=results) for number, results in enumerate(models)])
    return [(row.results[0].record.name, [each.record.score_text for each in row.results]) for row in rows]


def test_only_series_that_all_have_are_rows_by_name() -> None:
    first = [result("B", "1"), result("A", "2"), result("C", "3")]
    second = [result("A", "4"), result("B", "5")]
    assert scores(first, second) == [("A", ["2", "4"]), ("B", ["1", "5"])]
    assert scores(first, second, []) == []


@pytest.mark.parametrize("part", ["version", "dataset", "metric", "harness", "variant"])
def test_another_series_is_not_the_same(part: str) -> None:
    known, unknown = result("A", "1", **{part: "x"}), result("A", "1")
    assert scores([known], [known]) == [("A", ["1", "1"])]
    assert scores([known], [unknown]) == []
    assert scores([known], [result("A", "1", **{part: "y"})]) == []
    assert len(scores([known, unknown], [unknown, known])) == 2


def test_of_several_results_in_a_series_the_newest_counts() -> None:
    results = [result("A", "1", date="2026-01", source="x"), result("A", "2", date="2025-12", source="y")]
    assert scores(results, [result("A", "3")]) == [("A", ["1", "3"])]
    assert scores(results[::-1], [result("A", "3")]) == [("A", ["1", "3"])]


def test_scores_differ_as_numbers_and_texts_as_texts() -> None:
    def differs(first: str, second: str) -> bool:
        models = [facts(score, benchmarks=[result("A", score)]) for score in (first, second)]
        (row,) = compare_benchmarks(models)
        return row.differs

    assert not differs("88", "88.0")
    assert differs("88", "88.5")
    assert differs("pass", "fail")
    assert not differs("pass", "pass")


def test_spellings_of_one_benchmark_are_one_series() -> None:
    first = [result("SWE-Bench Pro", "1", canonical_name="SWE-bench Pro")]
    second = [result("SWE Bench Pro", "2", canonical_name="SWE-bench Pro")]
    assert scores(first, second) == [("SWE-Bench Pro", ["1", "2"])]


@pytest.mark.parametrize(
    ("directions", "best"),
    [([True, True], ["1"]), ([False, False], ["0"]), ([None, None], []), ([True, None], []), ([True, False], [])],
)
def test_a_score_is_best_only_where_the_direction_is_known(directions: list[bool | None], best: list[str]) -> None:
    results = [
        result("A", score, higher_is_better=higher) for score, higher in zip(("9", "10"), directions, strict=True)
    ]
    (row,) = compare_benchmarks([facts(str(number), benchmarks=[each]) for number, each in enumerate(results)])
    assert list(row.best) == best
