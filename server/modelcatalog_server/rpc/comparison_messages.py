"""Comparisons: from the messages of models to what is compared, and back to the contract's rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import Any, Protocol

from modelcatalog.v1 import model_catalog_service_pb2 as pb
from modelcatalog.v1 import model_pb2
from modelcatalog_server.catalog.comparison import BenchmarkRow, Facts, Row, compare_benchmarks, compare_fields
from modelcatalog_server.catalog.costs import Cost, Workload, compute_cost
from modelcatalog_server.catalog.fields import MODEL_FIELDS
from modelcatalog_server.domain.models import (
    Benchmark,
    PriceMode,
    Prices,
    PriceTier,
    Pricing,
    ReasoningOption,
)
from modelcatalog_server.domain.money import format_decimal
from modelcatalog_server.domain.query import Field, FieldType
from modelcatalog_server.rpc.model_messages import PRICE_FIELDS


class _PriceList(Protocol):
    """What Pricing, PriceTier and PriceMode have in common."""

    def HasField(self, field_name: Any) -> bool: ...  # noqa: N802 - protobuf's name


def read_workload(request: pb.CompareModelsRequest) -> Workload | None:
    """Return the workload of a request, if it has one."""
    if not request.HasField("workload"):
        return None
    return Workload(
        input_tokens=request.workload.input_tokens,
        output_tokens=request.workload.output_tokens,
        cached_tokens=request.workload.cached_tokens,
    )


def to_comparison(
    models: Sequence[model_pb2.Model], benchmarks: Sequence[Benchmark], workload: Workload | None
) -> pb.CompareModelsResponse:
    """Return models side by side."""
    facts = [read_facts(model, benchmarks) for model in models]
    return pb.CompareModelsResponse(
        models=models,
        rows=[_to_row(row) for row in compare_fields(facts)],
        costs=[_to_cost(each.model_id, compute_cost(each.pricing, workload)) for each in facts] if workload else [],
        benchmarks=[_to_benchmark_row(row) for row in compare_benchmarks(facts)],
    )


def read_facts(model: model_pb2.Model, benchmarks: Iterable[Benchmark] = ()) -> Facts:
    """Return what a message says of a model; of the benchmarks those of its canonical model are its own."""
    options = model.reasoning_options.options if model.HasField("reasoning_options") else None
    return Facts(
        model_id=model.id,
        values={path: read(model) for path, read in _READERS.items()},
        pricing=_read_pricing(model.pricing) if model.HasField("pricing") else None,
        reasoning_options=None if options is None else [_read_option(option) for option in options],
        benchmarks=[each for each in benchmarks if each.canonical_id == model.canonical_id],
    )


def _make_reader(field: Field) -> Callable[[model_pb2.Model], Any]:
    """Return what reads a field of a model, ``None`` where it is unknown."""
    *path, name = field.path.split(".")
    owner: Any = model_pb2.Model.DESCRIPTOR
    for step in path:
        owner = owner.fields_by_name[step].message_type
    descriptor = owner.fields_by_name[name]
    has_presence, convert = descriptor.has_presence, _make_converter(field, descriptor)

    def read(model: model_pb2.Model) -> Any:
        message: Any = model
        for step in path:
            message = getattr(message, step)
        if has_presence and not message.HasField(name):
            return None
        value = getattr(message, name)
        # Without presence, an empty text is one that is not known.
        return convert(value) if has_presence or value != "" else None

    return read


def _make_converter(field: Field, descriptor: Any) -> Callable[[Any], Any]:
    match field.type:
        case FieldType.ENUM:
            names = {
                number: value.name.partition("_")[2] for number, value in descriptor.enum_type.values_by_number.items()
            }
            return names.__getitem__
        case FieldType.DECIMAL:
            return lambda value: Decimal(str(value))
        case FieldType.LIST:
            return tuple
        case _:
            return lambda value: value


_READERS = {path: _make_reader(field) for path, field in MODEL_FIELDS.fields.items()}


def _read_pricing(message: model_pb2.Pricing) -> Pricing:
    modes = {
        name: PriceMode(prices=_read_prices(mode), tiers=_read_tiers(mode.tiers))
        for name, mode in message.modes.items()
    }
    return Pricing(prices=_read_prices(message), tiers=_read_tiers(message.tiers), modes=modes)


def _read_tiers(tiers: Iterable[model_pb2.PriceTier]) -> tuple[PriceTier, ...]:
    return tuple(PriceTier(min_context_tokens=tier.min_context_tokens, prices=_read_prices(tier)) for tier in tiers)


def _read_prices(message: _PriceList) -> Prices:
    return Prices(**{name: Decimal(getattr(message, name)) for name in PRICE_FIELDS if message.HasField(name)})


def _read_option(option: model_pb2.ReasoningOption) -> ReasoningOption:
    return ReasoningOption(
        type=option.type,
        values=tuple(option.values),
        accepts_null=option.accepts_null,
        min_tokens=option.min_tokens if option.HasField("min_tokens") else None,
        max_tokens=option.max_tokens if option.HasField("max_tokens") else None,
    )


def _to_row(row: Row) -> pb.ComparisonRow:
    values = [pb.ComparisonValue(value=value) for value in row.values]
    return pb.ComparisonRow(field=row.field, values=values, best=row.best, differs=row.differs)


def _to_benchmark_row(row: BenchmarkRow) -> pb.BenchmarkComparison:
    record = row.results[0].record
    return pb.BenchmarkComparison(
        name=record.canonical_name,
        metric=record.metric,
        harness=record.harness,
        variant=record.variant,
        dataset=record.dataset,
        version=record.version,
        values=[pb.ComparisonValue(value=result.record.score_text) for result in row.results],
        best=row.best,
        differs=row.differs,
    )


def _to_cost(model_id: str, cost: Cost) -> pb.ModelCost:
    return pb.ModelCost(
        model_id=model_id,
        total=None if cost.total is None else format_decimal(cost.total),
        currency="USD",
        explanation=cost.explanation,
        tier_min_context_tokens=cost.tier,
    )
