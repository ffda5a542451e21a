"""Offers: one model as several providers serve it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from modelcatalog_server.domain.models import Capabilities, Limits, Model

#: The fields of Model in which offers are told apart, prices aside.
OFFER_FIELDS = (
    *(f"limits.{name}" for name in Limits.__slots__),
    *(f"capabilities.{name}" for name in Capabilities.__slots__),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One provider's offer.

    ``mix``: US dollars for 1,000,000 output tokens with the input tokens that go with them; ``None`` when either price
    is unknown. ``values``: of each of ``OFFER_FIELDS``, as text, ``None`` when unknown.
    """

    model: Model
    mix: Decimal | None
    values: Sequence[str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferSummary:
    """How many offers there are in all, and those of ``OFFER_FIELDS`` in which they are not all equal."""

    total: int
    differing: Sequence[str]
