"""Differences and what they were compared with, made by hand."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from modelcatalog_server.domain.models import Capabilities, Limits, Modalities, ModelRecord, Prices, Pricing
from modelcatalog_server.domain.refresh import Difference, KnownState, RefreshCounts


def ids(provider_id: str, count: int) -> tuple[str, ...]:
    """Return ids of so many models of a provider, in order."""
    return tuple(f"{provider_id}/m{number:04}" for number in range(count))


def known(*model_ids: str, **fields: Any) -> KnownState:
    """Return what the catalog holds: these models, and else nothing."""
    nothing: dict[str, Any] = {
        "models": dict.fromkeys(model_ids, "1"),
        "removed_models": {},
        "providers": {},
        "removed_providers": frozenset(),
        "canonical_models": {},
        "removed_canonical_models": frozenset(),
    }
    return KnownState(**(nothing | fields))


def providers(count: int) -> dict[str, str]:
    """Return the providers of a known state."""
    return {f"p{number}": "1" for number in range(count)}


def difference(**fields: Any) -> Difference:
    """Return a difference; numbers are its counts."""
    counts = {name: fields.pop(name) for name in RefreshCounts.__slots__ if isinstance(fields.get(name), int)}
    return Difference(counts=RefreshCounts(**counts), **fields)


def priced(id_: str, **prices: str) -> ModelRecord:
    """Return a record with base prices, or without any."""
    provider_id, _, upstream_id = id_.partition("/")
    return ModelRecord(
        provider_id=provider_id,
        upstream_id=upstream_id,
        name=id_,
        type="chat",
        status="active",
        limits=Limits(),
        capabilities=Capabilities(),
        modalities=Modalities(),
        release_date="",
        last_updated="",
        raw="{}",
        content_hash="2",
        pricing=Pricing(prices=usd(**prices)) if prices else None,
    )


def usd(**prices: str) -> Prices:
    """Return base prices."""
    return Prices(**{name: Decimal(price) for name, price in prices.items()})
