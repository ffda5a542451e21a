"""The mix of input and output that offers are ordered by, and values written as filters take them."""

from __future__ import annotations

import random
import string
from decimal import Decimal
from typing import Any

import pytest

from modelcatalog_server.catalog.fields import MODEL_FIELDS
from modelcatalog_server.catalog.filtering import parse_filter
from modelcatalog_server.catalog.literals import write_text
from modelcatalog_server.catalog.offers import blend, to_ratio
from modelcatalog_server.domain.offers import Offer
from modelcatalog_server.domain.query import Comparison


def offer(mix: str | None) -> Offer:
    model: Any = None  # which a blend does not look at
    return Offer(model=model, mix=None if mix is None else Decimal(mix), values=())


@pytest.mark.parametrize(
    ("asked", "ratio"),
    [(None, "3"), (0, "0"), (-0.0, "0"), (0.1, "0.1"), (3.0, "3"), (1e6, "1000000"), (5e-324, "5e-324")],
)
def test_a_ratio_is_the_number_that_was_meant(asked: float | None, ratio: str) -> None:
    assert to_ratio(asked) == Decimal(ratio)


@pytest.mark.parametrize(
    ("mix", "ratio", "price"),
    [
        ("13.75", "3", "3.4375"),
        ("0.000000001", "3", "0.00000000025"),
        ("10", "2", "3.333333333333"),
        ("20", "2", "6.666666666667"),
        ("0", "0", "0"),
    ],
)
def test_a_blended_price_is_exact_or_rounded_to_twelve_decimals(mix: str, ratio: str, price: str) -> None:
    assert blend(offer(mix), Decimal(ratio)) == Decimal(price)


def test_an_unknown_price_has_no_blend() -> None:
    assert blend(offer(None), Decimal(3)) is None


def test_a_text_that_needs_no_quotes_gets_none() -> None:
    assert [write_text(text) for text in ("openai/gpt-5", "@cf/x:free", "nullable", "-a")] == [
        "openai/gpt-5",
        "@cf/x:free",
        "nullable",
        "-a",
    ]


TEXTS = ["", " ", "AND", "OR", "NOT", "null", "NULL", "*", "a*", 'a"b', "a\\b", "it's", "a,b", "(a)", "ü x"]


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_read_back_as_it_was(text: str) -> None:
    assert read_back(text) == text


def test_any_text_is_read_back_as_it_was() -> None:
    rng = random.Random(7)  # noqa: S311 -- what is drawn here is no secret
    letters = string.printable + "äß*\\\"'::"
    for _ in range(500):
        text = "".join(rng.choices(letters, k=rng.randint(0, 8)))
        assert read_back(text) == text


def read_back(text: str) -> object:
    parsed = parse_filter(f"family = {write_text(text)}", MODEL_FIELDS)
    assert isinstance(parsed, Comparison)
    return parsed.value
