from __future__ import annotations

from modelcatalog.v1.model_catalog_service_pb2 import CompareModelsResponse
from modelcatalog_client import (
    Benchmark,
    BenchmarkComparison,
    ComparisonRow,
    ComparisonValue,
    Facet,
    FacetValue,
    FieldValue,
    Limits,
    Model,
    ModelCost,
    ModelOffer,
    Pricing,
    Resolution,
)
from modelcatalog_server.commands.models import (
    benchmark_row,
    comparison_rows,
    describe_resolution,
    facet_row,
    offer_table,
)


def values(*texts: str | None) -> list[ComparisonValue]:
    return [ComparisonValue(value=text) for text in texts]


COMPARISON = CompareModelsResponse(
    models=[Model(id="lab/a"), Model(id="lab/b")],
    rows=[
        ComparisonRow(field="pricing.input", values=values("1.25", "0"), best=["lab/b"], differs=True),
        ComparisonRow(field="limits.context_window", values=values("400000", None), differs=True),
        ComparisonRow(field="capabilities.vision", values=values("true", "true")),
    ],
    costs=[ModelCost(model_id="lab/a", total="0.175"), ModelCost(model_id="lab/b")],
    benchmarks=[
        BenchmarkComparison(
            name="Bench", metric="pass rate", values=values("41.78", "51.9"), best=["lab/b"], differs=True
        )
    ],
)


def test_a_comparison_has_a_row_for_each_field_cost_and_benchmark() -> None:
    assert list(comparison_rows(COMPARISON, only_differences=False)) == [
        ["pricing.input", "$1.25", "free *"],
        ["limits.context_window", "400K", "unknown"],
        ["capabilities.vision", "yes", "yes"],
        ["cost of the workload", "$0.175", "unknown"],
        ["Bench, pass rate", "41.78", "51.9 *"],
    ]


def test_a_comparison_can_be_cut_to_what_differs() -> None:
    fields = [row[0] for row in comparison_rows(COMPARISON, only_differences=True)]
    assert fields == ["pricing.input", "limits.context_window", "cost of the workload", "Bench, pass rate"]


OFFERS = [
    ModelOffer(
        model=Model(id="a/m", pricing=Pricing(input="1", output="2"), limits=Limits(context_window=200_000)),
        blended_price="1.25",
        differences=[
            FieldValue(field="capabilities.vision", value="true"),
            FieldValue(field="limits.context_window", value="200000"),
        ],
    ),
    ModelOffer(model=Model(id="b/m"), price_unknown=True, differences=[FieldValue(field="capabilities.vision")]),
]
DIFFERING = ["capabilities.vision", "limits.context_window"]


def test_offers_have_their_prices_and_what_differs_once() -> None:
    columns, rows = offer_table(OFFERS, DIFFERING, [])
    assert [column.title for column in columns] == [
        "model",
        "blended/1M",
        "input/1M",
        "output/1M",
        "context",
        "max output",
        "vision",
    ]
    assert rows == [
        ["a/m", "$1.25", "$1.00", "$2.00", "200K", "unknown", "yes"],
        ["b/m", "unknown", "unknown", "unknown", "unknown", "unknown", "unknown"],
    ]


def test_offers_have_the_fields_that_were_asked_for_and_the_blended_price() -> None:
    columns, rows = offer_table(OFFERS, DIFFERING, ["id", "pricing.input"])
    assert [column.title for column in columns] == ["id", "pricing.input", "blended/1M"]
    assert rows[0] == ["a/m", "$1.00", "$1.25"]


def test_a_result_has_its_series_and_its_place_in_it() -> None:
    result = Benchmark(
        name="bench",
        canonical_name="Bench",
        metric="pass rate",
        score=41.78,
        score_text="41.78 %",
        rank=3,
        series_size=12,
        normalized_score=81.25,
        date="2025-08",
    )
    assert benchmark_row(result) == ["Bench, pass rate", "41.78 %", "3 of 12", "81.25", "2025-08", "unknown"]
    assert benchmark_row(Benchmark(name="bench")) == ["bench", "unknown", "unknown", "unknown", "unknown", "unknown"]


def test_a_facet_has_its_most_frequent_values_or_its_range() -> None:
    many = Facet(
        field="family",
        type="string",
        operators=["=", ":"],
        values=[FacetValue(value=f"v{number}", count=1000 - number) for number in range(7)],
        unset_count=1213,
    )
    told = "v0 (1,000), v1 (999), v2 (998), v3 (997), v4 (996), … 2 more"
    assert facet_row(many) == ["family", "string", "1,213", told, "= :"]
    prices = Facet(field="pricing.input", type="number", operators=["<"], min="0", max="150")
    assert facet_row(prices)[3] == "free to $150.00"
    assert facet_row(Facet(field="id", type="string"))[3] == ""


def test_a_resolution_is_told_with_its_rule() -> None:
    resolution = Resolution(reference="gpt5\x1b", model_id="openai/gpt-5", rule="punctuation", confidence=0.9506)
    assert describe_resolution(resolution) == (
        "gpt5\\x1b is taken for openai/gpt-5 (rule punctuation, confidence 0.95)"
    )
