"""What the catalog is about: models as providers serve them, providers, canonical models and their benchmarks.

Prices are :class:`~decimal.Decimal` in US dollars per 1,000,000 tokens, limits are tokens, times are aware and in UTC.
``None`` means that upstream does not say; it never stands for zero, false or empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

#: What upstream's absent ``type`` means, by its own rule.
DEFAULT_TYPE = "chat"

#: What upstream's absent ``status`` means, by its own rule.
DEFAULT_STATUS = "active"


class RecordKind(StrEnum):
    """What upstream's document is made of."""

    PROVIDER = "PROVIDER"
    MODEL = "MODEL"
    CANONICAL_MODEL = "CANONICAL_MODEL"


def model_id(provider_id: str, upstream_id: str) -> str:
    """Return the catalog-wide id of a served model. Splitting it at the first slash gives the two back."""
    return f"{provider_id}/{upstream_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Token limits. Upstream's 0 is ``None`` here: unknown or not applicable."""

    context_window: int | None = None
    max_input_tokens: int | None = None
    max_output_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """US dollars per 1,000,000 tokens, rounded to 9 decimals, which is exact for every genuine price."""

    input: Decimal | None = None
    output: Decimal | None = None
    reasoning: Decimal | None = None
    cache_read: Decimal | None = None
    cache_write: Decimal | None = None
    input_audio: Decimal | None = None
    output_audio: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceTier:
    """Prices for requests whose context is larger than ``min_context_tokens``."""

    min_context_tokens: int
    prices: Prices


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceMode:
    """A whole alternative price list."""

    prices: Prices
    tiers: tuple[PriceTier, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pricing:
    """All that is known of a model's price. A model whose price is unknown has no ``Pricing``."""

    prices: Prices
    tiers: tuple[PriceTier, ...] = ()
    modes: Mapping[str, PriceMode] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a model can do. ``None``: upstream does not say, which is not "no"."""

    vision: bool | None = None
    function_calling: bool | None = None
    streaming: bool | None = None
    json_mode: bool | None = None
    structured_output: bool | None = None
    image_generation: bool | None = None
    audio: bool | None = None
    audio_input: bool | None = None
    audio_output: bool | None = None
    video_input: bool | None = None
    pdf_input: bool | None = None
    code_generation: bool | None = None
    reasoning: bool | None = None
    tool_use: bool | None = None
    attachments: bool | None = None
    temperature: bool | None = None
    open_weights: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Modalities:
    """What goes in and what comes out, in upstream's words and order."""

    input: tuple[str, ...] = ()
    output: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasoningOption:
    """One way to steer reasoning: ``toggle``, ``effort`` with ``values``, ``budget_tokens`` with its bounds."""

    type: str
    values: tuple[str, ...] = ()
    accepts_null: bool = False
    min_tokens: int | None = None
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CanonicalLink:
    """Which canonical model a served one is, by which rule, and how sure that rule is (0 to 1)."""

    canonical_id: str
    rule: str
    confidence: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DerivedField:
    """A field that a rule filled where upstream says nothing.

    ``confidence`` (0 to 1) is ``None`` where the rule holds by definition.
    """

    field: str
    rule: str
    confidence: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRecord:
    """What upstream says about one served model, typed, with what is derived from it.

    ``raw`` is the upstream record as JSON text. ``content_hash`` (hex) differs exactly when the parsed upstream record
    or anything derived from it differs; key order and spacing do not count. ``derived`` has the rules by which
    ``type`` and ``version`` are what they are; that of the canonical model is in ``canonical``.
    """

    provider_id: str
    upstream_id: str
    name: str
    type: str
    status: str
    limits: Limits
    capabilities: Capabilities
    modalities: Modalities
    release_date: str
    last_updated: str
    raw: str
    content_hash: str
    canonical: CanonicalLink | None = None
    description: str | None = None
    family: str | None = None
    version: str | None = None
    pricing: Pricing | None = None
    reasoning_options: tuple[ReasoningOption, ...] | None = None
    tags: tuple[str, ...] = ()
    knowledge_cutoff: str | None = None
    derived: tuple[DerivedField, ...] = ()

    @property
    def id(self) -> str:
        """The catalog-wide id."""
        return model_id(self.provider_id, self.upstream_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderRecord:
    """What upstream says about one provider, its models left out. ``raw`` and ``content_hash`` as in ModelRecord."""

    id: str
    name: str
    raw: str
    content_hash: str
    documentation_url: str | None = None
    api_base_url: str | None = None
    npm_package: str | None = None
    env_vars: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkRecord:
    """One published result of a canonical model. ``score`` is ``None`` when upstream's is text that is no number.

    ``canonical_name`` is the name under which it is compared. ``series`` is what results that it may be compared with
    have in common with it. Where it may be compared with none, that and ``higher_is_better`` are ``None``.
    """

    name: str
    canonical_name: str
    score_text: str
    raw: str
    score: Decimal | None = None
    metric: str | None = None
    harness: str | None = None
    variant: str | None = None
    dataset: str | None = None
    version: str | None = None
    source: str | None = None
    date: str | None = None
    type: str | None = None
    series: str | None = None
    higher_is_better: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CanonicalRecord:
    """A model itself, whoever serves it: ``id`` is ``lab/slug``. ``raw`` and ``content_hash`` as in ModelRecord."""

    id: str
    name: str
    raw: str
    content_hash: str
    family: str | None = None
    license: str | None = None
    benchmarks: tuple[BenchmarkRecord, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The document a record came from: its address and the SHA-256 (hex) of its uncompressed bytes."""

    url: str
    snapshot: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A served model as the catalog holds it.

    ``message`` is the contract's ``Model``, encoded when the record was written, without what is known only on reading:
    provider name, source, etag, revision, times and scores, which are those of its canonical model. ``raw`` is the
    upstream record as JSON text, if it was asked for.
    """

    model_id: str
    message: bytes
    content_hash: str
    provider_name: str
    source_url: str
    source_snapshot: str
    revision: int
    first_seen_at: datetime
    last_changed_at: datetime
    removed_at: datetime | None = None
    raw: str | None = None
    popularity_score: Decimal | None = None
    benchmark_score: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """A provider as the catalog holds it. ``last_sync_at``: when a refresh last wrote it or one of its models."""

    record: ProviderRecord
    enabled: bool
    model_count: int
    enabled_model_count: int
    revision: int
    last_sync_at: datetime
    removed_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """A published result as the catalog holds it. Without enough to compare it with, its place is ``None``."""

    canonical_id: str
    record: BenchmarkRecord
    rank: int | None = None
    normalized_score: Decimal | None = None
    series_size: int | None = None
