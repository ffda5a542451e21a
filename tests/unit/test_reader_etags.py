"""Etags: equal as long as the message is, and different as soon as it is not."""

# ruff: noqa: S106 -- page tokens

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from modelcatalog_server.catalog.etags import model_etag, page_etag, provider_etag
from modelcatalog_server.catalog.paging import Page
from modelcatalog_server.domain.models import Model, Provider, ProviderRecord

AT = datetime(2026, 7, 2, tzinfo=UTC)
MODEL = Model(
    model_id="openai/gpt-5",
    message=b"message",
    content_hash="c0ffee",
    provider_name="OpenAI",
    source_url="https://models.dev/catalog.json",
    source_snapshot="5ca1ab1e",
    revision=1,
    first_seen_at=AT,
    last_changed_at=AT,
)
OTHER = replace(MODEL, model_id="openai/gpt-5-mini", content_hash="decaf")
PROVIDER = Provider(
    record=ProviderRecord(id="openai", name="OpenAI", raw="{}", content_hash="c0ffee"),
    enabled=True,
    model_count=51,
    enabled_model_count=51,
    revision=1,
    last_sync_at=AT,
)


def page(*models: Model, next_token: str = "", total: int = 2, revision: int = 1) -> Page[Model]:
    return Page(items=list(models), next_token=next_token, total=total, revision=revision, token_behind=str)


def test_is_the_same_for_the_same_model_with_and_without_its_raw_record() -> None:
    assert model_etag(MODEL) == model_etag(replace(MODEL)) == model_etag(replace(MODEL, raw="{}"))


@pytest.mark.parametrize(
    "change",
    [
        {"content_hash": "decaf"},
        {"revision": 2},
        {"provider_name": "OpenAI (new)"},
        {"popularity_score": Decimal(3)},
        {"benchmark_score": Decimal(3)},
    ],
    ids=str,
)
def test_changes_with_what_the_message_holds(change: dict[str, str]) -> None:
    assert model_etag(replace(MODEL, **change)) != model_etag(MODEL)  # type: ignore[arg-type]  # of any field


def test_parts_cannot_run_into_one_another() -> None:
    assert model_etag(replace(MODEL, content_hash="a", revision=11)) != model_etag(
        replace(MODEL, content_hash="a1", revision=1)
    )


def test_that_of_a_provider_changes_with_its_revision_and_is_its_own() -> None:
    assert provider_etag(PROVIDER) == provider_etag(replace(PROVIDER))
    assert provider_etag(PROVIDER) != provider_etag(replace(PROVIDER, revision=2))
    twin = replace(PROVIDER, record=replace(PROVIDER.record, id="azure"))
    assert provider_etag(PROVIDER) != provider_etag(twin)


def test_that_of_a_page_is_of_what_the_page_shows() -> None:
    etag = page_etag(page(MODEL, OTHER))
    assert etag == page_etag(page(MODEL, OTHER, revision=2)), "the catalog changed elsewhere"
    assert page_etag(page(MODEL, OTHER, next_token="a")) == page_etag(page(MODEL, OTHER, next_token="b")), (
        "a token is never the same twice"
    )
    different = [
        page(MODEL),
        page(OTHER, MODEL),
        page(MODEL, replace(OTHER, revision=2)),
        page(MODEL, OTHER, total=3),
        page(MODEL, OTHER, next_token="a"),
        page(),
    ]
    etags = {etag, *map(page_etag, different)}
    assert len(etags) == len(different) + 1
