"""``modelcatalog models``: what each command asks for, and how the answer is shown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from modelcatalog.v1.model_catalog_service_pb2 import CompareModelsResponse
from modelcatalog_client import (
    Benchmark,
    BenchmarkComparison,
    ComparisonValue,
    Facet,
    Model,
    ModelCatalogClient,
    ModelOffer,
    Resolution,
    SearchResult,
    Workload,
)
from modelcatalog_server.commands.cells import UNKNOWN, format_text, is_known, text_of
from modelcatalog_server.commands.json_output import print_document, print_lines, select, to_document
from modelcatalog_server.commands.listing import (
    ListingOptions,
    Shown,
    collect,
    columns_of,
    fields_as_shown,
    print_items,
    rows_of,
    say_what_is_left,
)
from modelcatalog_server.commands.model_sheet import model_rows
from modelcatalog_server.commands.terminal import Column, print_sheet, print_table, sanitize, say

_LIMITS = (Shown("context", "limits.context_window"), Shown("max output", "limits.max_output_tokens"))
_PRICES = (Shown("input/1M", "pricing.input"), Shown("output/1M", "pricing.output"))
_MODEL = (
    Shown("model", "id"),
    *_LIMITS,
    *_PRICES,
    Shown("released", "release_date"),
    Shown("status", "status"),
    Shown("name", "name"),
)
_BENCHMARK = (
    Column("benchmark"),
    Column("score", is_number=True),
    Column("rank"),
    Column("normalized", is_number=True),
    Column("date"),
    Column("source"),
)
_FACET = (
    Column("field"),
    Column("type"),
    Column("unknown", is_number=True),
    Column("values"),
    Column("operators"),
)
_FACET_VALUES = 5  # of a field, when all fields are listed


def list_models(
    client: ModelCatalogClient, options: ListingOptions, *, provider_id: str, order_by: str, show_removed: bool
) -> None:
    """Print models."""
    pager = client.list_models(
        provider_id=provider_id,
        filter=options.filter,
        order_by=order_by,
        show_removed=show_removed,
        page=options.page,
        page_size=options.page_size,
        read_mask=options.fields,
    )
    print_items(Model, collect(pager, "models", options), _MODEL, options)


def get_model(
    client: ModelCatalogClient, model_id: str, *, fields: Sequence[str], with_raw: bool, as_json: bool
) -> None:
    """Print one model."""
    response = client.get_model(model_id, view="full" if with_raw else "basic", read_mask=fields)
    if as_json:
        document = to_document(response)
        print_document(document | {"model": select(document["model"], fields)})
        return
    if response.HasField("resolution"):
        say(describe_resolution(response.resolution))
    model = response.model
    print_sheet([(path, text_of(model, path)) for path in fields] or list(model_rows(model)))


def describe_resolution(resolution: Resolution) -> str:
    """Say what a reference was taken for, and why."""
    return (
        f"{sanitize(resolution.reference)} is taken for {sanitize(resolution.model_id)}"
        f" (rule {sanitize(resolution.rule)}, confidence {resolution.confidence:.2g})"
    )


# --- search ---------------------------------------------------------------------------------------------------


def search_models(client: ModelCatalogClient, query: str, options: ListingOptions) -> None:
    """Print models that fit a text, best first."""
    pager = client.search_models(
        query, filter=options.filter, page=options.page, page_size=options.page_size, read_mask=options.fields
    )
    listed = collect(pager, "results", options)
    if options.as_json:
        print_lines(_select_model(to_document(result), options.fields) for result in listed.items)
    else:
        shown = (*_models_fields(options.fields), Shown("score", "score"), Shown("found in", "matched_fields"))
        print_table(columns_of(SearchResult, shown), rows_of(listed.items, shown), may_drop=not options.fields)
    say_what_is_left(listed, options)


def _models_fields(fields: Sequence[str]) -> list[Shown]:
    usual = (*_MODEL[:5], _MODEL[-1])
    return fields_as_shown(fields, "model.") or [Shown(each.title, f"model.{each.path}") for each in usual]


def _select_model(document: dict[str, object], fields: Sequence[str]) -> dict[str, object]:
    model = document.get("model")
    return document | {"model": select(model, fields)} if isinstance(model, dict) else document


# --- compare --------------------------------------------------------------------------------------------------


def compare_models(
    client: ModelCatalogClient,
    model_ids: Sequence[str],
    *,
    workload: Workload | None,
    only_differences: bool,
    as_json: bool,
) -> None:
    """Print models side by side."""
    response = client.compare_models(model_ids, workload=workload)
    if as_json:
        print_document(to_document(response))
        return
    for resolution in response.resolutions:
        say(describe_resolution(resolution))
    ids = [model.id for model in response.models]
    print_table([Column("field"), *map(Column, ids)], list(comparison_rows(response, only_differences)))
    if any(row.best for row in response.rows):
        say("* is best where one is better than another; --json has what differs")
    for cost in response.costs:
        say(f"{sanitize(cost.model_id)}: {sanitize(cost.explanation)}")


def comparison_rows(response: CompareModelsResponse, only_differences: bool) -> Iterator[list[str]]:
    """Yield a row for each field, for what the workload costs, and for each benchmark that all share."""
    ids = [model.id for model in response.models]
    for row in response.rows:
        if row.differs or not only_differences:
            values = [_comparison_cell(row.field, value) for value in row.values]
            yield [row.field, *_mark(ids, values, row.best)]
    if response.costs:
        yield ["cost of the workload", *(text_of(cost, "total") for cost in response.costs)]
    for series in response.benchmarks:
        values = [value.value if value.HasField("value") else UNKNOWN for value in series.values]
        yield [_series_name(series), *_mark(ids, values, series.best)]


def _comparison_cell(field: str, value: ComparisonValue) -> str:
    return format_text(field, value.value) if value.HasField("value") else UNKNOWN


def _mark(ids: Sequence[str], values: Sequence[str], best: Iterable[str]) -> list[str]:
    marked = set(best)
    return [f"{value} *" if id_ in marked else value for id_, value in zip(ids, values, strict=True)]


def _series_name(series: BenchmarkComparison | Benchmark) -> str:
    names = ("version", "dataset", "metric", "harness", "variant")
    name = series.name if isinstance(series, BenchmarkComparison) else series.canonical_name or series.name
    return ", ".join([name, *(getattr(series, each) for each in names if is_known(series, each))])


# --- offers, resolve, benchmarks ------------------------------------------------------------------------------


def list_offers(
    client: ModelCatalogClient,
    reference: str,
    options: ListingOptions,
    *,
    is_canonical: bool,
    ratio: float | None,
) -> None:
    """Print who serves a model, cheapest first."""
    pager = client.list_model_offers(
        canonical_id=reference if is_canonical else "",
        model_id="" if is_canonical else reference,
        input_output_ratio=ratio,
        page_size=options.page_size,
        read_mask=options.fields,
    )
    listed = collect(pager, "offers", options)
    if options.as_json:
        print_lines(_select_model(to_document(offer), options.fields) for offer in listed.items)
    else:
        if listed.last.HasField("resolution"):
            say(describe_resolution(listed.last.resolution))
        columns, rows = offer_table(listed.items, listed.last.differing_fields, options.fields)
        print_table(columns, rows, may_drop=not options.fields)
    say_what_is_left(listed, options)


def offer_table(
    offers: Sequence[ModelOffer], differing: Sequence[str], fields: Sequence[str]
) -> tuple[list[Column], list[list[str]]]:
    """Return a table of offers: the prices, and the fields in which the offers differ."""
    shown = [
        *(fields_as_shown(fields, "model.") or [Shown("model", "model.id")]),
        Shown("blended/1M", "blended_price"),
    ]
    if not fields:
        shown += [Shown(each.title, f"model.{each.path}") for each in (*_PRICES, *_LIMITS)]
    told = {each.path.removeprefix("model.") for each in shown}
    more = [field for field in differing if field not in told] if not fields else []
    columns = columns_of(ModelOffer, shown) + [Column(field.rpartition(".")[2]) for field in more]
    return columns, [
        [*row, *_differences(offer, more)] for offer, row in zip(offers, rows_of(offers, shown), strict=True)
    ]


def _differences(offer: ModelOffer, fields: Iterable[str]) -> list[str]:
    values = {each.field: each.value for each in offer.differences if each.HasField("value")}
    return [format_text(field, values[field]) if field in values else UNKNOWN for field in fields]


def resolve_model(
    client: ModelCatalogClient, reference: str, *, preferred_provider_ids: Sequence[str], as_json: bool
) -> None:
    """Print what a reference stands for."""
    response = client.resolve_model(reference, preferred_provider_ids=preferred_provider_ids)
    if as_json:
        print_document(to_document(response))
        return
    rows = [
        ("model", response.model.id),
        ("canonical model", text_of(response, "canonical_id")),
        ("rule", text_of(response, "rule")),
        ("confidence", text_of(response, "confidence")),
    ]
    rows += [("or" if position else "could have been", each.id) for position, each in enumerate(response.candidates)]
    print_sheet(rows)


def list_benchmarks(client: ModelCatalogClient, model_id: str, *, as_json: bool) -> None:
    """Print published results of the model itself, whoever serves it."""
    response = client.list_model_benchmarks(model_id)
    if as_json:
        print_document(to_document(response))
        return
    if response.HasField("resolution"):
        say(describe_resolution(response.resolution))
    if not response.benchmarks:
        say(f"no results are known of {sanitize(response.canonical_id or model_id)}")
        return
    titles = [
        Column("benchmark"),
        Column("score", is_number=True),
        Column("rank"),
        Column("normalized", is_number=True),
    ]
    print_table(
        [*titles, Column("date"), Column("source")], list(map(benchmark_row, response.benchmarks)), may_drop=True
    )


def benchmark_row(result: Benchmark) -> list[str]:
    """Return a result as it is shown: the score as upstream wrote it, the place within its series."""
    rank = text_of(result, "rank")
    if result.HasField("series_size") and result.HasField("rank"):
        rank = f"{rank} of {result.series_size}"
    others = [text_of(result, name) for name in ("normalized_score", "date", "source")]
    return [_series_name(result), result.score_text or text_of(result, "score"), rank, *others]


# --- facets ---------------------------------------------------------------------------------------------------


def list_facets(client: ModelCatalogClient, field: str, *, filter: str, as_json: bool) -> bool:  # noqa: A002 -- the request's
    """Print what a filter can ask for: all fields, or the values of one. False when there is no such field."""
    response = client.list_model_facets(filter=filter)
    facets = [facet for facet in response.facets if field in ("", facet.field)]
    if not facets:
        known = ", ".join(facet.field for facet in response.facets)
        say(f"no filter takes a field {sanitize(field)!r}; there are: {sanitize(known)}")
        return False
    if as_json:
        print_lines(map(to_document, facets))
    elif field:
        _print_facet(facets[0])
    else:
        titles = [
            Column("field"),
            Column("type"),
            Column("unknown", is_number=True),
            Column("values"),
            Column("operators"),
        ]
        print_table(titles, list(map(facet_row, facets)), may_drop=True)
        say(f"of {response.total_size:,} models; `modelcatalog models facets FIELD` lists the values of one field")
    return True


def facet_row(facet: Facet) -> list[str]:
    """Return a field with its range, or its most frequent values."""
    values = [f"{each.value} ({each.count:,})" for each in facet.values[:_FACET_VALUES]]
    if len(facet.values) > _FACET_VALUES:
        values.append(f"… {len(facet.values) - _FACET_VALUES} more")
    told = ", ".join(values) or " to ".join(_range(facet))
    return [facet.field, facet.type, f"{facet.unset_count:,}", told, " ".join(facet.operators)]


def _range(facet: Facet) -> Iterator[str]:
    for name in ("min", "max"):
        if is_known(facet, name):
            yield format_text(facet.field, getattr(facet, name))


def _print_facet(facet: Facet) -> None:
    operators = " ".join(facet.operators)
    say(f"{sanitize(facet.field)}: {sanitize(facet.type)}, takes {operators}; unknown for {facet.unset_count:,} models")
    if facet.values:
        rows = [[each.value, f"{each.count:,}"] for each in facet.values]
        print_table([Column(facet.field), Column("models", is_number=True)], rows)
    else:
        print_sheet(list(zip(("from", "to"), _range(facet), strict=False)))
