"""What a workload costs: exactly, by the tier that holds, and by known prices only."""

from __future__ import annotations

from decimal import Decimal

import pytest

from modelcatalog_server.catalog.costs import (
    Workload,
    compute_cost,
    describe_prices,
    describe_tiers,
)
from modelcatalog_server.domain.models import Prices, PriceTier, Pricing


def prices(into: str | None = None, out: str | None = None, cached: str | None = None) -> Prices:
    given = {"input": into, "output": out, "cache_read": cached}
    return Prices(**{name: None if text is None else Decimal(text) for name, text in given.items()})


TIERED = Pricing(
    prices=prices("1", "2", "0.1"),
    tiers=(
        PriceTier(min_context_tokens=100, prices=prices("10", "20", "1")),
        PriceTier(min_context_tokens=1000, prices=prices("100", "200")),
    ),
)


def workload(input_tokens: int = 0, output_tokens: int = 0, cached_tokens: int = 0) -> Workload:
    return Workload(input_tokens=input_tokens, output_tokens=output_tokens, cached_tokens=cached_tokens)


@pytest.mark.parametrize(
    ("tokens", "tier", "total"),
    [(1, None, "0.000001"), (100, None, "0.0001"), (101, 100, "0.00101"), (1000, 100, "0.01"), (1001, 1000, "0.1001")],
)
def test_the_largest_threshold_that_the_input_is_above_decides(tokens: int, tier: int | None, total: str) -> None:
    cost = compute_cost(TIERED, workload(tokens))
    assert (cost.tier, cost.total) == (tier, Decimal(total))


def test_tiers_may_come_in_any_order() -> None:
    shuffled = Pricing(prices=TIERED.prices, tiers=tuple(reversed(TIERED.tiers)))
    assert compute_cost(shuffled, workload(101)) == compute_cost(TIERED, workload(101))


def test_output_does_not_reach_a_tier() -> None:
    assert compute_cost(TIERED, workload(50, 5000)).tier is None


def test_cached_tokens_go_by_their_own_price_and_are_part_of_the_input() -> None:
    cost = compute_cost(TIERED, workload(100, 10, 60))
    assert cost.total == Decimal("0.000066")  # 40 at 1, 60 at 0.1, 10 at 2
    assert cost.explanation == "40 input at 1 + 60 cache_read at 0.1 + 10 output at 2 USD per 1M tokens"


def test_a_price_that_the_tier_does_not_name_is_not_taken_from_the_base() -> None:
    cost = compute_cost(TIERED, workload(2000, 0, 1))
    assert (cost.total, cost.tier) == (None, 1000)
    assert cost.explanation == "not known: the price of cache_read, by the prices above 1000 tokens of input"


def test_unknown_prices_are_named_unless_nothing_goes_by_them() -> None:
    only_input = Pricing(prices=prices("1"))
    unknown = compute_cost(only_input, workload(2, 1, 1))
    assert unknown.total is None
    assert unknown.explanation == "not known: the price of cache_read and output"
    assert compute_cost(only_input, workload(2)).total == Decimal("0.000002")
    assert compute_cost(None, workload(1)).explanation == "no price is known"


def test_free_is_known() -> None:
    assert compute_cost(Pricing(prices=prices("0", "0")), workload(5, 5)).total == 0
    assert compute_cost(TIERED, workload()).explanation.startswith("no tokens")


def test_no_digit_is_lost() -> None:
    pricing = Pricing(prices=prices("600.000000001", "0.000000001"))
    cost = compute_cost(pricing, workload(10**12, 1))
    assert str(cost.total) == "600000000.001000000000001"


def test_prices_are_told_on_a_line() -> None:
    assert describe_prices(prices("1.50", None, "0.000000002")) == "input 1.5, cache_read 0.000000002"
    assert describe_tiers(TIERED.tiers[1:]) == "above 1000: input 100, output 200"
    assert describe_tiers(()) == ""
