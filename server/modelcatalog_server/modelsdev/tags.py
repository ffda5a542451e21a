"""Tags of served models: one table of what each says and when a model has it. What is not known gives no tag."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from modelcatalog_server.domain.models import Capabilities, Limits, Modalities, Pricing

#: Where long contexts begin: from here on upstream's older prices were others (``context_over_200k``), and so are those
#: of today's tiers at most providers. What has become common below it (128,000, 131,072) is not worth a tag.
LONG_CONTEXT_TOKENS = 200_000


class Facts(NamedTuple):
    """What tags are derived from."""

    status: str
    limits: Limits
    capabilities: Capabilities
    modalities: Modalities
    pricing: Pricing | None


class Tag(NamedTuple):
    """``meaning`` is the rule in words, ``applies`` the same as code."""

    name: str
    meaning: str
    applies: Callable[[Facts], bool | None]


def _is_free(facts: Facts) -> bool:
    """Unknown prices are ``None``, which is not zero."""
    return facts.pricing is not None and facts.pricing.prices.input == facts.pricing.prices.output == 0


def _makes(modality: str) -> Callable[[Facts], bool]:
    return lambda facts: modality in facts.modalities.output


def _takes_or_makes(modality: str) -> Callable[[Facts], bool]:
    return lambda facts: modality in facts.modalities.input or modality in facts.modalities.output


#: Sorted by name, as a model's tags are.
TAGS = (
    Tag("alpha", "`status` is ALPHA", lambda facts: facts.status == "alpha"),
    Tag("audio", "audio goes in or comes out", _takes_or_makes("audio")),
    Tag("beta", "`status` is BETA", lambda facts: facts.status == "beta"),
    Tag("deprecated", "`status` is DEPRECATED", lambda facts: facts.status == "deprecated"),
    Tag("free", "`pricing.input` and `pricing.output` are 0; unknown prices are not", _is_free),
    Tag("image-generation", "images come out", _makes("image")),
    Tag(
        "long-context",
        f"`limits.context_window` is at least {LONG_CONTEXT_TOKENS:,}",
        lambda facts: (facts.limits.context_window or 0) >= LONG_CONTEXT_TOKENS,
    ),
    Tag("open-weights", "`capabilities.open_weights`", lambda facts: facts.capabilities.open_weights),
    Tag("pdf", "PDF goes in", lambda facts: facts.capabilities.pdf_input),
    Tag("reasoning", "`capabilities.reasoning`", lambda facts: facts.capabilities.reasoning),
    Tag("structured-output", "`capabilities.structured_output`", lambda facts: facts.capabilities.structured_output),
    Tag("tool-call", "`capabilities.tool_use`", lambda facts: facts.capabilities.tool_use),
    Tag("video", "video goes in or comes out", _takes_or_makes("video")),
    Tag("video-generation", "video comes out", _makes("video")),
    Tag("vision", "`capabilities.vision`: images or video go in", lambda facts: facts.capabilities.vision),
)


def derive_tags(facts: Facts) -> tuple[str, ...]:
    """Return the tags of a model, sorted."""
    return tuple(tag.name for tag in TAGS if tag.applies(facts))
