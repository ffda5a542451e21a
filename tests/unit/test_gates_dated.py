"""The default limits against what upstream really did from May to July 2026, and against what it must never do.

docs/decisions/0009-gates.md has the figures.
"""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache

import pytest

from conftest import DATA
from modelcatalog_server.domain.models import ModelRecord, Prices, Source
from modelcatalog_server.domain.ports.catalog import CatalogState
from modelcatalog_server.domain.refresh import Payload, Quarantined
from modelcatalog_server.domain.tasks import run_to_end
from modelcatalog_server.refresh.compare import DecodedCatalog, compare
from modelcatalog_server.refresh.gates import GateLimits, Verdict, judge
from modelcatalog_server.refresh.prices import find_price_changes
from unit.decoding import decode
from unit.differences import known

LAST = "2026-07-02"
HOUR = timedelta(hours=1)
SOURCE = Source(url="https://models.dev/api.json", snapshot="0" * 64)
BAD = Quarantined(pointer="/providers/p/models/m", reason="bad")


@cache
def payload(date: str) -> DecodedCatalog:
    body = gzip.decompress((DATA / f"api-{date}.json.gz").read_bytes())
    return decode(Payload(source=SOURCE, api=body), frozenset())


def prices_of(record: ModelRecord) -> Prices:
    return record.pricing.prices if record.pricing else Prices()


def refresh(before: DecodedCatalog, after: DecodedCatalog, *, since_check: timedelta = HOUR) -> Verdict:
    """Judge what one payload finds in a catalog that says what another one said."""
    now = datetime(2026, 7, 2, tzinfo=UTC)
    state = known(
        models={record.id: record.content_hash for record in before.models},
        providers={record.id: record.content_hash for record in before.providers},
    )
    difference = run_to_end(compare(after, state, provider_id=None, full=False))
    prices = {record.id: prices_of(record) for record in before.models}
    return judge(
        difference,
        known=state,
        price_changes=run_to_end(find_price_changes(difference, prices)),
        state=CatalogState(
            revision=1,
            changed_at=now,
            checked_at=now - since_check,
            source_url=None,
            source_etag=None,
            source_snapshot=None,
            upstream_not_before=None,
            upstream_not_before_url=None,
        ),
        now=now,
        limits=GateLimits(),
        provider_id=None,
    )


def gates(verdict: Verdict) -> list[str]:
    return [str(refusal.gate) for refusal in verdict.refusals]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("2026-05-07", "2026-06-25"),
        ("2026-06-25", "2026-07-01"),
        ("2026-07-01", "2026-07-02"),
        ("2026-05-07", "2026-07-02"),
        ("2026-07-02", "2026-07-02"),
    ],
)
def test_no_step_that_upstream_took_is_refused(before: str, after: str) -> None:
    since_check = datetime.fromisoformat(after) - datetime.fromisoformat(before)
    assert refresh(payload(before), payload(after), since_check=since_check).refusals == ()


def test_a_unit_that_upstream_mended_is_a_warning() -> None:
    verdict = refresh(payload("2026-05-07"), payload("2026-06-25"), since_check=timedelta(days=49))
    assert verdict.warnings == (
        "prices of 1 model moved by a factor of 500 or more, e.g. input of helicone/mistral-small from 75 to 0.075",
    )


def test_seven_weeks_in_an_hour_are_refused() -> None:
    verdict = refresh(payload("2026-05-07"), payload("2026-06-25"))
    assert gates(verdict) == ["removed_models", "removed_models_of_provider"]


Change = Callable[[DecodedCatalog], DecodedCatalog]


def drop(share: float, *provider_ids: str) -> Change:
    """Leave out this share of the models of these providers, or of all."""

    def change(catalog: DecodedCatalog) -> DecodedCatalog:
        gone = set(some_of(catalog.models, share, provider_ids))
        return replace(catalog, models=[record for record in catalog.models if record.id not in gone])

    return change


def keep_largest(count: int) -> Change:
    """Leave only the providers with the most models."""

    def change(catalog: DecodedCatalog) -> DecodedCatalog:
        sizes = Counter(record.provider_id for record in catalog.models)
        kept = {id_ for id_, _ in sizes.most_common(count)}
        return replace(
            catalog,
            models=[record for record in catalog.models if record.provider_id in kept],
            providers=[record for record in catalog.providers if record.id in kept],
        )

    return change


def multiply(factor: str, *provider_ids: str) -> Change:
    """Have all prices of these providers, or of all, in another unit."""

    def change(catalog: DecodedCatalog) -> DecodedCatalog:
        return replace(
            catalog,
            models=[
                _multiply(record, Decimal(factor))
                if record.pricing and record.provider_id in (provider_ids or {record.provider_id})
                else record
                for record in catalog.models
            ],
        )

    return change


def _multiply(record: ModelRecord, factor: Decimal) -> ModelRecord:
    assert record.pricing is not None
    prices = {name: getattr(record.pricing.prices, name) for name in Prices.__slots__}
    scaled = Prices(**{name: None if price is None else price * factor for name, price in prices.items()})
    return replace(record, content_hash="other", pricing=replace(record.pricing, prices=scaled))


def spoil(share: float) -> Change:
    """Have this share of each provider's models not be readable."""

    def change(catalog: DecodedCatalog) -> DecodedCatalog:
        return replace(drop(share)(catalog), quarantined_models=dict.fromkeys(some_of(catalog.models, share, ()), BAD))

    return change


def spoil_providers(count: int) -> Change:
    """Have so many providers not be readable, and their models with them."""

    def change(catalog: DecodedCatalog) -> DecodedCatalog:
        bad = [record.id for record in catalog.providers][:count]
        return replace(
            catalog,
            models=[record for record in catalog.models if record.provider_id not in bad],
            providers=[record for record in catalog.providers if record.id not in bad],
            quarantined_providers={id_: Quarantined(pointer=f"/providers/{id_}", reason="bad") for id_ in bad},
        )

    return change


def some_of(records: Iterable[ModelRecord], share: float, provider_ids: tuple[str, ...]) -> list[str]:
    by_provider: dict[str, list[str]] = {}
    for record in records:
        by_provider.setdefault(record.provider_id, []).append(record.id)
    wanted = provider_ids or tuple(by_provider)
    return [
        id_
        for provider_id in wanted
        for id_ in by_provider[provider_id][: round(len(by_provider[provider_id]) * share)]
    ]


PLANTED: dict[str, tuple[Change, list[str]]] = {
    "60 % fewer models": (drop(0.6), ["removed_models", "removed_models_of_provider"]),
    "40 % fewer models": (drop(0.4), ["removed_models"]),
    "10 % fewer models": (drop(0.1), ["removed_models"]),
    "a third of the providers": (
        keep_largest(50),
        ["minimum_providers", "removed_models", "removed_models_of_provider"],
    ),
    "no more Anthropic": (drop(1, "anthropic"), ["removed_models_of_provider"]),
    "132 models of one provider": (drop(132 / 181, "llmgateway"), ["removed_models_of_provider"]),
    "three quarters of Mistral": (drop(0.75, "mistral"), ["removed_models_of_provider"]),
    "prices per 1,000 tokens": (multiply("0.001"), ["price_unit"]),
    "prices per token": (multiply("0.000001"), ["price_unit"]),
    "prices x 1000": (multiply("1000"), ["price_unit"]),
    "one provider's prices x 1000": (multiply("1000", "groq"), ["price_unit"]),
    "a tenth that cannot be read": (spoil(0.1), ["quarantine"]),
    "40 providers that cannot be read": (spoil_providers(40), ["quarantine"]),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_what_must_not_happen_within_an_hour_is_refused(fault: str) -> None:
    change, refused = PLANTED[fault]
    assert gates(refresh(payload(LAST), change(payload(LAST)))) == refused


@pytest.mark.parametrize("days", [30, 3650])
def test_40_percent_fewer_are_refused_at_any_time(days: int) -> None:
    verdict = refresh(payload(LAST), drop(0.4)(payload(LAST)), since_check=timedelta(days=days))
    assert gates(verdict) == ["removed_models"]


@pytest.mark.parametrize(("days", "refused"), [(1, ["removed_models_of_provider"]), (2, [])])
def test_a_provider_that_stays_away_is_believed_to_be_gone(days: int, refused: list[str]) -> None:
    verdict = refresh(payload(LAST), drop(1, "anthropic")(payload(LAST)), since_check=timedelta(days=days))
    assert gates(verdict) == refused
