"""Models, providers and benchmarks as the contract's messages. Unset stays unset."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Protocol

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from modelcatalog.v1 import benchmark_pb2, model_pb2, provider_pb2
from modelcatalog_server.catalog.etags import model_etag, provider_etag
from modelcatalog_server.domain.errors import InvalidFieldMaskError
from modelcatalog_server.domain.models import (
    Benchmark,
    Capabilities,
    Limits,
    Model,
    ModelRecord,
    PriceMode,
    Prices,
    PriceTier,
    Pricing,
    Provider,
    ReasoningOption,
)
from modelcatalog_server.domain.money import format_decimal
from modelcatalog_server.domain.resolution import Resolution
from modelcatalog_server.domain.scores import BENCHMARK_RULE, POPULARITY_RULE

PRICE_FIELDS = Prices.__slots__
CAPABILITY_FIELDS = Capabilities.__slots__
LIMIT_FIELDS = Limits.__slots__

#: Upstream's types by their names, and the names others use for the same.
TYPES = {
    "chat": model_pb2.Model.TYPE_CHAT,
    "embedding": model_pb2.Model.TYPE_EMBEDDING,
    "rerank": model_pb2.Model.TYPE_RERANK,
    "image": model_pb2.Model.TYPE_IMAGE,
    "video": model_pb2.Model.TYPE_VIDEO,
    "speech": model_pb2.Model.TYPE_SPEECH,
    "transcription": model_pb2.Model.TYPE_TRANSCRIPTION,
    "moderation": model_pb2.Model.TYPE_MODERATION,
}

STATUSES = {
    "active": model_pb2.Model.STATUS_ACTIVE,
    "alpha": model_pb2.Model.STATUS_ALPHA,
    "beta": model_pb2.Model.STATUS_BETA,
    "deprecated": model_pb2.Model.STATUS_DEPRECATED,
}


class _PriceList(Protocol):
    """What Pricing, PriceTier and PriceMode have in common."""

    input: str
    output: str


def encode_model(record: ModelRecord) -> bytes:
    """Return a record as an encoded Model, without what the catalog knows only on reading.

    Deterministic: equal records give equal bytes, whatever the process.
    """
    canonical = record.canonical
    message = model_pb2.Model(
        id=record.id,
        provider_id=record.provider_id,
        upstream_id=record.upstream_id,
        canonical_id=canonical.canonical_id if canonical else "",
        name=record.name,
        description=record.description,
        family=record.family,
        version=record.version,
        type=TYPES.get(record.type, model_pb2.Model.TYPE_OTHER),
        status=STATUSES.get(record.status, model_pb2.Model.STATUS_OTHER),
        limits=model_pb2.Limits(**{name: getattr(record.limits, name) for name in LIMIT_FIELDS}),
        capabilities=model_pb2.Capabilities(**{name: getattr(record.capabilities, name) for name in CAPABILITY_FIELDS}),
        modalities=model_pb2.Modalities(input=record.modalities.input, output=record.modalities.output),
        tags=record.tags,
        release_date=record.release_date,
        last_updated=record.last_updated,
        knowledge_cutoff=record.knowledge_cutoff,
        derived=sorted(_derived_fields(record), key=lambda derived: derived.field),
    )
    if record.pricing is not None:
        message.pricing.CopyFrom(_to_pricing(record.pricing))
    if record.reasoning_options is not None:
        options = [_to_reasoning_option(option) for option in record.reasoning_options]
        message.reasoning_options.CopyFrom(model_pb2.ReasoningOptions(options=options))
    return message.SerializeToString(deterministic=True)


def _derived_fields(record: ModelRecord) -> Iterator[model_pb2.DerivedField]:
    """Yield the fields that are not what upstream says, each with its rule."""
    if (link := record.canonical) and link.rule != "upstream":
        yield model_pb2.DerivedField(field="canonical_id", rule=link.rule, confidence=link.confidence)
    for derived in record.derived:
        yield model_pb2.DerivedField(field=derived.field, rule=derived.rule, confidence=derived.confidence)


def to_model(model: Model) -> model_pb2.Model:
    """Return a model as read; ``raw`` is in it when it was read."""
    message = model_pb2.Model.FromString(model.message)
    message.provider_name = model.provider_name
    message.source.url = model.source_url
    message.source.key = _pointer("providers", message.provider_id, "models", message.upstream_id)
    message.source.snapshot = model.source_snapshot
    message.etag = model_etag(model)
    message.revision = model.revision
    message.first_seen_time.CopyFrom(_refresh_time(model.first_seen_at))
    message.last_changed_time.CopyFrom(_refresh_time(model.last_changed_at))
    if model.removed_at is not None:
        message.status = model_pb2.Model.STATUS_REMOVED
        message.removed_time.FromDatetime(model.removed_at)
    if model.popularity_score is not None:
        message.performance.popularity_score = float(model.popularity_score)
        message.performance.popularity_score_rule = POPULARITY_RULE
    if model.benchmark_score is not None:
        message.performance.benchmark_score = float(model.benchmark_score)
        message.performance.benchmark_score_rule = BENCHMARK_RULE
    if model.raw is not None:
        message.raw.update(json.loads(model.raw))  # less than half the time of json_format.Parse
    return message


class ModelShape:
    """Which fields of Model a response holds: a view, or a mask that overrides it."""

    def __init__(self, view: model_pb2.ModelView.ValueType, read_mask: FieldMask) -> None:
        self._mask = _checked_mask(read_mask)
        if self._mask is None:
            self.with_raw = view == model_pb2.MODEL_VIEW_FULL
        else:
            self.with_raw = any(path.partition(".")[0] == "raw" for path in self._mask.paths)
        if list(read_mask.paths) == ["*"]:
            self.with_raw = True

    def to_model(self, model: Model) -> model_pb2.Model:
        """Return the fields of a model that were asked for."""
        message = to_model(model)
        if self._mask is None:
            return message
        cut = model_pb2.Model()
        self._mask.MergeMessage(message, cut)
        return cut

    def to_models(self, models: Iterable[Model]) -> list[model_pb2.Model]:
        """Return the fields of some models that were asked for."""
        return [self.to_model(model) for model in models]


def to_provider(provider: Provider) -> provider_pb2.Provider:
    """Return a provider."""
    record = provider.record
    return provider_pb2.Provider(
        id=record.id,
        name=record.name,
        documentation_url=record.documentation_url,
        api_base_url=record.api_base_url,
        npm_package=record.npm_package,
        env_vars=record.env_vars,
        enabled=provider.enabled,
        model_count=provider.model_count,
        enabled_model_count=provider.enabled_model_count,
        status=provider_pb2.Provider.STATUS_REMOVED if provider.removed_at else provider_pb2.Provider.STATUS_ACTIVE,
        last_sync_time=to_timestamp(provider.last_sync_at),
        etag=provider_etag(provider),
        revision=provider.revision,
    )


def to_benchmark(benchmark: Benchmark) -> benchmark_pb2.Benchmark:
    """Return a published result."""
    record = benchmark.record
    return benchmark_pb2.Benchmark(
        canonical_id=benchmark.canonical_id,
        name=record.name,
        type=record.type,
        score=_to_float(record.score),
        score_text=record.score_text,
        metric=record.metric,
        harness=record.harness,
        variant=record.variant,
        dataset=record.dataset,
        version=record.version,
        source=record.source,
        date=record.date,
        rank=benchmark.rank,
        normalized_score=_to_float(benchmark.normalized_score),
        canonical_name=record.canonical_name,
        series_size=benchmark.series_size,
    )


def to_resolution(reference: str, resolution: Resolution | None) -> model_pb2.Resolution | None:
    """Return how a reference was resolved, unset for an exact id."""
    if resolution is None:
        return None
    return model_pb2.Resolution(
        reference=reference,
        model_id=resolution.model_id or "",
        canonical_id=resolution.canonical_id or "",
        rule=resolution.rule,
        confidence=resolution.confidence,
    )


@lru_cache(maxsize=1024)
def _refresh_time(at: datetime) -> Timestamp:
    """Return the time of a refresh, which many models share; to be copied."""
    timestamp = Timestamp()
    timestamp.FromDatetime(at)
    return timestamp


def to_timestamp(at: datetime | None) -> Timestamp | None:
    """Return a time, unset when there is none."""
    if at is None:
        return None
    timestamp = Timestamp()
    timestamp.FromDatetime(at)
    return timestamp


def _to_pricing(pricing: Pricing) -> model_pb2.Pricing:
    message = model_pb2.Pricing(
        currency="USD",
        unit="1M_TOKENS",
        tiers=[_to_tier(tier) for tier in pricing.tiers],
        modes={name: _to_mode(mode) for name, mode in pricing.modes.items()},
    )
    _fill_prices(message, pricing.prices)
    return message


def _to_tier(tier: PriceTier) -> model_pb2.PriceTier:
    message = model_pb2.PriceTier(min_context_tokens=tier.min_context_tokens)
    _fill_prices(message, tier.prices)
    return message


def _to_mode(mode: PriceMode) -> model_pb2.PriceMode:
    message = model_pb2.PriceMode(tiers=[_to_tier(tier) for tier in mode.tiers])
    _fill_prices(message, mode.prices)
    return message


def _fill_prices(message: _PriceList, prices: Prices) -> None:
    for name in PRICE_FIELDS:
        price = getattr(prices, name)
        if price is not None:
            setattr(message, name, format_decimal(price))


def _to_reasoning_option(option: ReasoningOption) -> model_pb2.ReasoningOption:
    return model_pb2.ReasoningOption(
        type=option.type,
        values=option.values,
        accepts_null=option.accepts_null,
        min_tokens=option.min_tokens,
        max_tokens=option.max_tokens,
    )


def _to_float(value: Decimal | None) -> float | None:
    return None if value is None else float(value)


def _pointer(*keys: str) -> str:
    """Return a JSON pointer (RFC 6901)."""
    return "".join("/" + key.replace("~", "~0").replace("/", "~1") for key in keys)


def _checked_mask(mask: FieldMask) -> FieldMask | None:
    if not mask.paths or list(mask.paths) == ["*"]:
        return None
    for path in mask.paths:
        if not FieldMask(paths=[path]).IsValidForDescriptor(model_pb2.Model.DESCRIPTOR):
            raise InvalidFieldMaskError("read_mask", f"{path[:100]!r} is no field of Model")
    return mask
