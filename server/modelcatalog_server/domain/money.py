"""Decimal amounts as text."""

from __future__ import annotations

from decimal import Decimal


def format_decimal(value: Decimal) -> str:
    """Return a number as the contract writes it: "1.25", "10", "0.00000002", never an exponent or trailing zeros."""
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
