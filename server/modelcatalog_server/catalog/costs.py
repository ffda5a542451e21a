"""What a use of a model costs, by the prices that are known and no others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Context, Decimal

from modelcatalog_server.domain.models import Prices, PriceTier, Pricing
from modelcatalog_server.domain.money import format_decimal

# Exact for the most tokens that a request may have, 10^12, at any price that a refresh lets in.
_EXACT = Context(prec=100)
_MILLION = Decimal(10**6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Tokens of one request: going in, of those the ones read from the prompt cache, and coming out."""

    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """US dollars, ``None`` when a price that it takes is unknown; ``tier``: the threshold of the prices that hold."""

    total: Decimal | None
    explanation: str
    tier: int | None = None


def compute_cost(pricing: Pricing | None, workload: Workload) -> Cost:
    """Return what a workload costs: tokens times prices, exactly.

    Above the threshold of a tier all tokens go by the tier's prices. A price that a tier does not name is unknown, not
    that of the base; an unknown price of cached tokens is not that of input. Reasoning counts as output.
    """
    if pricing is None:
        return Cost(total=None, explanation="no price is known")
    tier = _find_tier(pricing.tiers, workload.input_tokens)
    prices = tier.prices if tier else pricing.prices
    threshold = tier.min_context_tokens if tier else None
    above = f", by the prices above {threshold} tokens of input" if tier else ""
    parts = [(name, tokens, getattr(prices, name)) for name, tokens in _split(workload) if tokens]
    if unknown := [name for name, _, price in parts if price is None]:
        explanation = f"not known: the price of {' and '.join(unknown)}{above}"
        return Cost(total=None, explanation=explanation, tier=threshold)
    total = Decimal(0)
    for _, tokens, price in parts:
        total = _EXACT.add(total, _EXACT.divide(_EXACT.multiply(tokens, price), _MILLION))
    terms = [f"{tokens} {name} at {format_decimal(price)}" for name, tokens, price in parts] or ["no tokens"]
    return Cost(total=total, explanation=f"{' + '.join(terms)} USD per 1M tokens{above}", tier=threshold)


def _split(workload: Workload) -> Sequence[tuple[str, int]]:
    """Return the tokens by the name of the price that they go by."""
    return [
        ("input", workload.input_tokens - workload.cached_tokens),
        ("cache_read", workload.cached_tokens),
        ("output", workload.output_tokens),
    ]


def _find_tier(tiers: Sequence[PriceTier], input_tokens: int) -> PriceTier | None:
    """Return the tier with the largest threshold that the input is above."""
    reached = [tier for tier in tiers if tier.min_context_tokens < input_tokens]
    return max(reached, key=lambda tier: tier.min_context_tokens, default=None)


def describe_tiers(tiers: Sequence[PriceTier]) -> str:
    """Return tiers on a line, e.g. ``above 200000: input 2.5, output 15``."""
    return "; ".join(f"above {tier.min_context_tokens}: {describe_prices(tier.prices)}" for tier in tiers)


def describe_prices(prices: Prices) -> str:
    """Return the known prices on a line, e.g. ``input 2.5, output 15``."""
    known = [(name, getattr(prices, name)) for name in Prices.__slots__]
    return ", ".join(f"{name} {format_decimal(price)}" for name, price in known if price is not None)
