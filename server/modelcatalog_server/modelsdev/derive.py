"""What upstream's records mean: wire shapes to domain records. Nothing is invented: without a source it is ``None``."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_EVEN, Decimal
from functools import lru_cache
from typing import Any, TypeVar

from msgspec.json import Encoder

from modelcatalog_server.catalog.resolver.linking import LinkCandidate, ModelFacts, pick_link
from modelcatalog_server.catalog.resolver.spelling import find_date
from modelcatalog_server.domain.models import (
    DEFAULT_STATUS,
    BenchmarkRecord,
    CanonicalLink,
    CanonicalRecord,
    Capabilities,
    DerivedField,
    Limits,
    Modalities,
    ModelRecord,
    PriceMode,
    Prices,
    PriceTier,
    Pricing,
    ProviderRecord,
    ReasoningOption,
)
from modelcatalog_server.modelsdev import tags, wire
from modelcatalog_server.modelsdev.benchmark_names import NAMES, series_of
from modelcatalog_server.modelsdev.model_types import derive_type

#: Above the largest price (600) by more than the unit slips that a later gate looks for.
MAX_PRICE = 1_000_000

#: The threshold of upstream's legacy ``context_over_200k``, as its name has it.
LEGACY_TIER_TOKENS = 200_000

# Exact for every genuine price in upstream's history; takes the binary residue off 0.060000000000000005.
_PRICE_STEP = Decimal("1e-9")
_ZERO = Decimal(0)
_PLAIN_NUMBER = re.compile(r"-?[0-9]{1,30}(\.[0-9]{1,30})?")
_MAX_SERIES_BYTES = 2000  # an index entry of PostgreSQL holds 2,704

_canonical_json = Encoder(order="deterministic", decimal_format="number")


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A record before it was typed: its JSON text and its plain values."""

    raw: str
    values: Any


def provider_record(provider: wire.Provider, text: Text) -> ProviderRecord:
    """Return a provider; ``text`` is without its models."""
    record = ProviderRecord(
        id=provider.id,
        name=provider.name,
        raw="",
        content_hash="",
        documentation_url=provider.doc,
        api_base_url=provider.api,
        npm_package=provider.npm,
        env_vars=provider.env or (),
    )
    return _complete(record, text)


def model_record(
    model: wire.ServedModel, text: Text, provider_id: str, candidates: Sequence[LinkCandidate]
) -> ModelRecord:
    """Return a served model. ``candidates`` are the canonical models that its id may mean.

    Raises:
        InvalidRecordError: A price, a tier or the canonical id is out of its bounds.
    """
    modalities = Modalities(input=model.modalities.input, output=model.modalities.output)
    type_, type_derived = _type(model, modalities)
    version, version_derived = _version(model.id)
    facts = tags.Facts(
        status=(model.status or DEFAULT_STATUS).lower(),
        limits=_limits(model.limit),
        capabilities=_capabilities(model),
        modalities=modalities,
        pricing=_pricing(model),
    )
    record = ModelRecord(
        provider_id=provider_id,
        upstream_id=model.id,
        name=model.name,
        type=type_,
        version=version,
        tags=tags.derive_tags(facts),
        derived=type_derived + version_derived,
        **facts._asdict(),
        release_date=model.release_date,
        last_updated=model.last_updated,
        raw="",
        content_hash="",
        canonical=canonical_link(model, candidates),
        description=model.description,
        family=model.family,
        reasoning_options=_reasoning_options(model.reasoning_options),
        knowledge_cutoff=model.knowledge,
    )
    return _complete(record, text)


def canonical_record(model: wire.CanonicalModel, text: Text, benchmark_texts: Sequence[bytes]) -> CanonicalRecord:
    """Return a canonical model; ``benchmark_texts`` are the JSON texts of its benchmarks, in order.

    Raises:
        InvalidRecordError: Two results cannot be told apart, or one is out of its bounds.
    """
    results = model.benchmarks or ()
    benchmarks = tuple(_benchmark(result, raw) for result, raw in zip(results, benchmark_texts, strict=True))
    _check_series(benchmarks)
    record = CanonicalRecord(
        id=model.id,
        name=model.name,
        raw="",
        content_hash="",
        family=model.family,
        license=model.license,
        benchmarks=benchmarks,
    )
    return replace(
        record,
        raw=text.raw,
        content_hash=_content_hash(text.values, record),
        benchmarks=tuple(
            replace(benchmark, raw=raw.decode()) for benchmark, raw in zip(benchmarks, benchmark_texts, strict=True)
        ),
    )


def canonical_link(model: wire.ServedModel, candidates: Sequence[LinkCandidate]) -> CanonicalLink | None:
    """Return which canonical model a served one is: what upstream itself says, else what the resolver's rules say.

    What upstream says counts even where the canonical model is unknown.
    """
    if named := model.canonical_model_id:
        wire.check_id(named, "canonical_model_id")
        return CanonicalLink(canonical_id=named, rule="upstream", confidence=1.0)
    return pick_link(candidates, ModelFacts(release_date=model.release_date))


@lru_cache(maxsize=4096)  # a whole catalog has some hundred figures, and what is equal gives the same
def price(number: wire.Number | None) -> Decimal | None:
    """Return a price, rounded to 9 decimals and without trailing zeros.

    Raises:
        InvalidRecordError: It is negative, absurdly high, or so low that rounding would make it free.
    """
    if number is None:
        return None
    if not 0 <= number <= MAX_PRICE:
        raise wire.InvalidRecordError(f"cost: a price of {number:,} is not within 0 and {MAX_PRICE:,}")
    rounded = Decimal(number).quantize(_PRICE_STEP, rounding=ROUND_HALF_EVEN)
    if not rounded:
        if number:
            raise wire.InvalidRecordError(f"cost: a price of {number:,} is too small to be one")
        return _ZERO  # also for -0.0
    short = rounded.normalize()
    # normalize() makes 10 out of 10.000000000 by way of 1E+1
    return short if int(short.as_tuple().exponent) <= 0 else short.quantize(Decimal(1))


_R = TypeVar("_R", ModelRecord, ProviderRecord)


def _complete(record: _R, text: Text) -> _R:
    """Put a record's text and hash into it, once it has everything else."""
    content_hash = _content_hash(text.values, record)
    # It is frozen, but nobody has it yet. replace() would take a sixth of the time of decoding.
    object.__setattr__(record, "raw", text.raw)
    object.__setattr__(record, "content_hash", content_hash)
    return record


def _content_hash(values: Any, record: ModelRecord | ProviderRecord | CanonicalRecord) -> str:
    """Return the hash of a record's values and of what this version of the service derives from them.

    The values alone would do until a rule in this module changes; with the derived record in it, the first refresh of a
    new version finds what has to be written again.
    """
    return hashlib.sha256(_canonical_json.encode((values, record))).hexdigest()


def _type(model: wire.ServedModel, modalities: Modalities) -> tuple[str, tuple[DerivedField, ...]]:
    if model.type:
        return model.type.lower(), ()
    type_, derived = derive_type(model.id, model.family, modalities, model.reasoning)
    return type_, (derived,)


def _version(upstream_id: str) -> tuple[str | None, tuple[DerivedField, ...]]:
    """The date that an id names is what providers tell the versions of a model apart by."""
    date = find_date(upstream_id)
    return date, (DerivedField(field="version", rule="date_suffix"),) if date else ()


def _limits(limit: wire.Limit) -> Limits:
    return Limits(
        context_window=limit.context or None,
        max_input_tokens=limit.input or None,
        max_output_tokens=limit.output or None,
    )


def _capabilities(model: wire.ServedModel) -> Capabilities:
    """Modalities are always given, so what follows from them is known; ``attachment`` disagrees with them at times."""
    input_, output = model.modalities.input, model.modalities.output
    audio_input, audio_output = "audio" in input_, "audio" in output
    return Capabilities(
        vision="image" in input_ or "video" in input_,
        function_calling=model.tool_call,
        structured_output=model.structured_output,
        image_generation="image" in output,
        audio=audio_input or audio_output,
        audio_input=audio_input,
        audio_output=audio_output,
        video_input="video" in input_,
        pdf_input="pdf" in input_,
        reasoning=model.reasoning,
        tool_use=model.tool_call,
        attachments=model.attachment,
        temperature=model.temperature,
        open_weights=model.open_weights,
    )


def _reasoning_options(options: tuple[wire.ReasoningOption, ...] | None) -> tuple[ReasoningOption, ...] | None:
    if options is None:
        return None
    return tuple(
        ReasoningOption(
            type=option.type,
            values=tuple(value for value in option.values or () if value is not None),
            accepts_null=None in (option.values or ()),
            min_tokens=option.min,
            max_tokens=option.max,
        )
        for option in options
    )


def _pricing(model: wire.ServedModel) -> Pricing | None:
    """No cost, or one without a single price, is an unknown price, which is not a free model."""
    cost = model.cost or wire.Cost()
    pricing = Pricing(prices=_prices(cost), tiers=_tiers(cost), modes=_modes(model.experimental))
    return None if pricing == Pricing(prices=Prices()) else pricing


def _modes(experimental: wire.Experimental | None) -> dict[str, PriceMode]:
    modes = (experimental and experimental.modes) or {}
    return {
        name: PriceMode(prices=_prices(mode.cost), tiers=_tiers(mode.cost)) for name, mode in modes.items() if mode.cost
    }


def _prices(prices: wire.PriceList) -> Prices:
    return Prices(
        input=price(prices.input),
        output=price(prices.output),
        reasoning=price(prices.reasoning),
        cache_read=price(prices.cache_read),
        cache_write=price(prices.cache_write),
        input_audio=price(prices.input_audio),
        output_audio=price(prices.output_audio),
    )


def _tiers(cost: wire.Cost) -> tuple[PriceTier, ...]:
    """Return the tiers by context, smallest first.

    ``context_over_200k`` is derived from ``tiers`` upstream, and wrongly where the bound is another: it counts only
    where there are no tiers, which is before June 2026. Tiers by anything but context stay in ``raw``.
    """
    if cost.tiers:
        tiers = (_tier(tier) for tier in cost.tiers if tier.tier.type == "context")
        return tuple(sorted(tiers, key=lambda tier: tier.min_context_tokens))
    if cost.context_over_200k:
        return (PriceTier(min_context_tokens=LEGACY_TIER_TOKENS, prices=_prices(cost.context_over_200k)),)
    return ()


def _tier(tier: wire.PriceTier) -> PriceTier:
    if tier.tier.size is None:
        raise wire.InvalidRecordError("cost.tiers: a tier by context has no size")
    return PriceTier(min_context_tokens=tier.tier.size, prices=_prices(tier))


def _benchmark(result: wire.Benchmark, raw: bytes) -> BenchmarkRecord:
    score, score_text = _score(result.score, raw)
    known = NAMES.find(result.name, result.version)
    higher_is_better = None if score is None else NAMES.is_higher_better(known, result.metric)
    parts = (result.version, result.dataset, result.metric, result.harness, result.variant)
    return BenchmarkRecord(
        name=result.name,
        canonical_name=known.name,
        type=known.type,
        series=None if higher_is_better is None else series_of(known, *parts),
        higher_is_better=higher_is_better,
        score=score,
        score_text=score_text,
        raw="",  # belongs to the record, but not into its hash
        metric=result.metric,
        harness=result.harness,
        variant=result.variant,
        dataset=result.dataset,
        version=result.version,
        source=result.source,
        date=result.date,
    )


def _score(score: object, raw: bytes) -> tuple[Decimal | None, str]:
    """Return a score as a number, where it is one, and as upstream wrote it."""
    if isinstance(score, str):
        return (Decimal(score) if _PLAIN_NUMBER.fullmatch(score) else None), score
    if isinstance(score, bool) or not isinstance(score, int | Decimal):
        raise wire.InvalidRecordError(f"benchmarks: a score is neither a number nor text: {score!r}")
    return Decimal(score), bytes(wire.read_object(raw)["score"]).decode()


def _check_series(benchmarks: Sequence[BenchmarkRecord]) -> None:
    """Refuse results that the database could not keep apart, or not index."""
    seen = set()
    for result in benchmarks:
        series = (
            result.name,
            result.version,
            result.dataset,
            result.metric,
            result.harness,
            result.variant,
            result.source,
        )
        if series in seen:
            raise wire.InvalidRecordError(f"benchmarks: two results of the same series of {result.name!r}")
        seen.add(series)
        size = sum(len(part.encode()) for part in series if part)
        if size > _MAX_SERIES_BYTES:
            raise wire.InvalidRecordError(f"benchmarks: the series of {result.name!r} has {size:,} bytes of text")
