"""One model as a sheet: names and values, what belongs together in one line."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.message import Message

from modelcatalog_client import Capabilities, Model
from modelcatalog_server.commands.cells import UNKNOWN, is_known, money, size, text_of

_BEFORE = ("id", "name", "description", "provider_name", "canonical_id", "family", "version", "type", "status")
_LIMITS = {"context window": "context_window", "max input": "max_input_tokens", "max output": "max_output_tokens"}
_AFTER = ("tags", "release_date", "last_updated", "knowledge_cutoff", "first_seen_time", "last_changed_time")
_PRICES = ("input", "output", "reasoning", "cache_read", "cache_write", "input_audio", "output_audio")


def model_rows(model: Model) -> Iterator[tuple[str, str]]:
    """Yield the rows of the sheet."""
    rules = {each.field: each for each in model.derived}
    for name in _BEFORE:
        value = text_of(model, name)
        if (derived := rules.get(name)) is not None:
            sure = f", confidence {derived.confidence:.2g}" if derived.HasField("confidence") else ""
            value += f" (derived: {derived.rule}{sure})"
        yield name.replace("_", " "), value
    for title, name in _LIMITS.items():
        yield title, text_of(model, f"limits.{name}")
    yield from price_rows(model)
    for flow in ("input", "output"):
        yield f"{flow} modalities", text_of(model, f"modalities.{flow}")
    yield from capability_rows(model.capabilities)
    yield from _performance_rows(model)
    for name in _AFTER:
        yield name.replace("_", " "), text_of(model, name)
    for name in ("removed_time", "raw"):
        if is_known(model, name):
            yield name.replace("_", " "), text_of(model, name)


def price_rows(model: Model) -> Iterator[tuple[str, str]]:
    """Yield prices in US dollars per 1,000,000 tokens: input and output always, others where they are known."""
    pricing = model.pricing
    if not model.HasField("pricing"):
        yield "price per 1M", UNKNOWN
        return
    for name in _PRICES:
        if is_known(pricing, name) or name in ("input", "output"):
            yield f"{name.replace('_', ' ')} per 1M", text_of(pricing, name)
    for tier in pricing.tiers:
        yield f"above {size(tier.min_context_tokens)}", _prices(tier)
    for mode, prices in sorted(pricing.modes.items()):
        yield f"mode {mode}", _prices(prices)


def _prices(prices: Message) -> str:
    known = (name for name in _PRICES if is_known(prices, name))
    return ", ".join(f"{name.replace('_', ' ')} {money(getattr(prices, name))}" for name in known) or UNKNOWN


def capability_rows(capabilities: Capabilities) -> Iterator[tuple[str, str]]:
    """Yield what the model can do, what it cannot, and what upstream does not say."""
    names = [field.name for field in Capabilities.DESCRIPTOR.fields]
    known = [name for name in names if is_known(capabilities, name)]
    groups = {
        "can": [name for name in known if getattr(capabilities, name)],
        "cannot": [name for name in known if not getattr(capabilities, name)],
        "not known whether": [name for name in names if name not in known],
    }
    for title, members in groups.items():
        if members:
            yield title, ", ".join(members)


def _performance_rows(model: Model) -> Iterator[tuple[str, str]]:
    for name in ("benchmark_score", "popularity_score", "reliability_score"):
        if is_known(model.performance, name):
            rule = getattr(model.performance, f"{name}_rule")
            yield name.replace("_", " "), f"{text_of(model.performance, name)} ({rule})"
