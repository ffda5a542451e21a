"""Models side by side: a row for each field, and for each benchmark that all of them have a result in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from modelcatalog_server.catalog.costs import describe_prices, describe_tiers
from modelcatalog_server.catalog.fields import MODEL_FIELDS
from modelcatalog_server.catalog.references import References
from modelcatalog_server.catalog.snapshots import ANY_REVISION, AtLeast, Read, Snapshots
from modelcatalog_server.domain.errors import InvalidQueryError
from modelcatalog_server.domain.models import Benchmark, Limits, Model, Prices, Pricing, ReasoningOption
from modelcatalog_server.domain.money import format_decimal
from modelcatalog_server.domain.ports.catalog import CatalogSnapshot
from modelcatalog_server.domain.resolution import Resolution

# What tells one from another, and what is about the catalog rather than about the model.
_NOT_COMPARED = {"id", "revision", "first_seen_time", "last_changed_time", "removed_time"}
_LOWER_IS_BETTER = {f"pricing.{name}" for name in Prices.__slots__}
_HIGHER_IS_BETTER = {
    *(f"limits.{name}" for name in Limits.__slots__),
    "performance.benchmark_score",
    "performance.reliability_score",
}

Score = int | Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of one model. ``values``: by path, of each of ``MODEL_FIELDS``; ``None`` is unknown."""

    model_id: str
    values: Mapping[str, Any]
    pricing: Pricing | None = None
    reasoning_options: Sequence[ReasoningOption] | None = None
    benchmarks: Sequence[Benchmark] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One field: as text in the order of the models, and the ids of those that are best in it."""

    field: str
    values: Sequence[str | None]
    best: Sequence[str] = ()

    @property
    def differs(self) -> bool:
        """Whether not all values are equal; unknown differs from any."""
        return len(set(self.values)) > 1


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkRow:
    """One series: the newest result of each model in it."""

    results: Sequence[Benchmark]
    best: Sequence[str] = ()

    @property
    def differs(self) -> bool:
        """Whether not all scores are equal."""
        return len({_score_of(result) for result in self.results}) > 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Models to be compared, in the order asked for, and the results of their canonical models.

    ``resolutions``: by reference, of those that were no exact ids, in the same order.
    """

    models: Sequence[Model]
    benchmarks: Sequence[Benchmark]
    resolutions: Mapping[str, Resolution]


class ComparisonReader:
    """Reads what comparisons are made of."""

    def __init__(self, snapshots: Snapshots, references: References) -> None:
        self._snapshots = snapshots
        self._references = references

    async def get_compared(self, model_ids: Sequence[str], *, at_least: AtLeast = ANY_REVISION) -> Read[Compared]:
        """Return two to ten different models.

        Raises:
            InvalidQueryError: two ids are one model.
            AmbiguousModelError, ModelNotFoundError: with up to ten candidates.
        """
        async with self._snapshots.open(at_least) as snapshot:
            models, resolutions = await self._find_models(snapshot, model_ids)
            benchmarks = await snapshot.list_benchmarks_of_models([model.model_id for model in models])
        compared = Compared(models=models, benchmarks=benchmarks, resolutions=resolutions)
        return Read(state=snapshot.state, value=compared)

    async def _find_models(
        self, snapshot: CatalogSnapshot, references: Sequence[str]
    ) -> tuple[list[Model], dict[str, Resolution]]:
        found = await snapshot.get_models(references, with_raw=False)
        resolutions = {
            reference: await self._references.require(snapshot, reference)
            for reference in references
            if reference not in found
        }
        meant = [resolutions[each].model_id or "" if each in resolutions else each for each in references]
        for index, model_id in enumerate(meant):
            if (first := meant.index(model_id)) < index:
                raise InvalidQueryError(f"model_ids[{index}]", f"is the same model as model_ids[{first}]: {model_id}")
        if resolutions:
            found |= await snapshot.get_models([id_ for id_ in meant if id_ not in found], with_raw=False)
        return [found[model_id] for model_id in meant], resolutions


def compare_fields(models: Sequence[Facts]) -> list[Row]:
    """Return a row for each field that models are compared in."""
    paths = [path for path in MODEL_FIELDS.fields if path not in _NOT_COMPARED]
    rows = [_compare_field(path, models) for path in paths]
    for name, describe in _DESCRIBED.items():
        rows.append(Row(field=name, values=[describe(model) for model in models]))
    return rows


def compare_benchmarks(models: Sequence[Facts]) -> list[BenchmarkRow]:
    """Return a row for each series in which every model has a result, by name.

    A series is the same canonical name, version, dataset, metric, harness and variant. Of several results of a model in
    one of them the newest counts.
    """
    by_model = [_by_series(model.benchmarks) for model in models]
    shared = set.intersection(*map(set, by_model))
    ordered = sorted(shared, key=lambda series: [part or "" for part in series])
    return [_compare_results(models, [results[series] for results in by_model]) for series in ordered]


def _compare_results(models: Sequence[Facts], results: Sequence[Benchmark]) -> BenchmarkRow:
    """Return one row; a score is best only where all results say which direction is better, and the same."""
    directions = {result.record.higher_is_better for result in results}
    if directions not in ({True}, {False}):
        return BenchmarkRow(results=results)
    scores = [result.record.score for result in results]
    return BenchmarkRow(results=results, best=find_best(models, scores, max if True in directions else min))


def _compare_field(path: str, models: Sequence[Facts]) -> Row:
    values = [model.values[path] for model in models]
    best: Sequence[str] = ()
    if path in _LOWER_IS_BETTER:
        best = find_best(models, values, min)
    elif path in _HIGHER_IS_BETTER:
        best = find_best(models, values, max)
    return Row(field=path, values=[_to_text(value) for value in values], best=best)


def find_best(models: Sequence[Facts], values: Sequence[Score | None], choose: Callable[..., Score]) -> Sequence[str]:
    """Return the ids of the models with the best known value, none unless two known ones differ."""
    known = {value for value in values if value is not None}
    if len(known) < 2:
        return ()
    best = choose(known)
    return [model.model_id for model, value in zip(models, values, strict=True) if value == best]


def _to_text(value: Any) -> str | None:
    match value:
        case None:
            return None
        case bool():
            return "true" if value else "false"
        case Decimal():
            return format_decimal(value)
        case tuple():
            return ", ".join(value)
        case _:
            return str(value)


def _describe_tiers(model: Facts) -> str | None:
    return None if model.pricing is None else describe_tiers(model.pricing.tiers)


def _describe_modes(model: Facts) -> str | None:
    if model.pricing is None:
        return None
    modes = [(name, mode) for name, mode in sorted(model.pricing.modes.items())]
    texts = [(name, describe_prices(mode.prices), describe_tiers(mode.tiers)) for name, mode in modes]
    return "; ".join(f"{name}: {'; '.join(filter(None, parts))}" for name, *parts in texts)


def _describe_reasoning(model: Facts) -> str | None:
    if model.reasoning_options is None:
        return None
    return "; ".join(_describe_option(option) for option in model.reasoning_options)


def _describe_option(option: ReasoningOption) -> str:
    values = [*option.values, *(["null"] if option.accepts_null else [])]
    bounds = [
        f"{word} {tokens}"
        for word, tokens in (("from", option.min_tokens), ("to", option.max_tokens))
        if tokens is not None
    ]
    return " ".join([option.type, *(["/".join(values)] if values else []), *bounds])


#: Fields that are no single value, on a line each.
_DESCRIBED: Mapping[str, Callable[[Facts], str | None]] = {
    "pricing.tiers": _describe_tiers,
    "pricing.modes": _describe_modes,
    "reasoning_options": _describe_reasoning,
}


def _by_series(benchmarks: Sequence[Benchmark]) -> dict[tuple[str | None, ...], Benchmark]:
    """Return the newest result of each series; sources decide where dates do not."""
    results = sorted(benchmarks, key=lambda each: (each.record.date or "", each.record.source or ""))
    return {_series_of(result): result for result in results}


def _series_of(benchmark: Benchmark) -> tuple[str | None, ...]:
    record = benchmark.record
    return (record.canonical_name, record.version, record.dataset, record.metric, record.harness, record.variant)


def _score_of(benchmark: Benchmark) -> Decimal | str:
    record = benchmark.record
    return record.score_text if record.score is None else record.score
