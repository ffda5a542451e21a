from __future__ import annotations

from datetime import UTC, datetime

import pytest
from google.protobuf.duration_pb2 import Duration

from modelcatalog.v1.model_catalog_service_pb2 import GetCatalogInfoResponse
from modelcatalog_client import (
    Capabilities,
    DerivedField,
    Limits,
    Modalities,
    Model,
    ModelOffer,
    Performance,
    PriceMode,
    PriceTier,
    Pricing,
    Provider,
    SearchResult,
)
from modelcatalog_server.commands.cells import (
    describe_duration,
    find_field,
    format_text,
    is_number,
    money,
    size,
    text_of,
)
from modelcatalog_server.commands.model_sheet import model_rows

MODEL = Model(
    id="openai/gpt-5",
    type=Model.TYPE_CHAT,
    status=Model.STATUS_ACTIVE,
    limits=Limits(context_window=400_000),
    pricing=Pricing(currency="USD", unit="1M_TOKENS", input="1.25", output="0"),
    capabilities=Capabilities(vision=True, audio=False),
    modalities=Modalities(input=["text", "image"]),
)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("id", "openai/gpt-5"),
        ("type", "chat"),
        ("limits.context_window", "400K"),
        ("limits.max_output_tokens", "unknown"),
        ("pricing.input", "$1.25"),
        ("pricing.output", "free"),
        ("pricing.cache_read", "unknown"),
        ("pricing.currency", "USD"),
        ("pricing.tiers", "none"),
        ("capabilities.vision", "yes"),
        ("capabilities.audio", "no"),
        ("capabilities.streaming", "unknown"),
        ("modalities.input", "text, image"),
        ("modalities", '{"input":["text","image"]}'),
        ("description", "unknown"),
        ("canonical_id", "unknown"),
        ("tags", "none"),
        ("removed_time", "unknown"),
        ("performance.popularity_score", "unknown"),
    ],
)
def test_a_field_is_told_in_its_own_notation(path: str, text: str) -> None:
    assert text_of(MODEL, path) == text


def test_a_price_that_is_unknown_is_never_free() -> None:
    assert text_of(Model(), "pricing.input") == "unknown"
    assert text_of(Model(pricing=Pricing()), "pricing.input") == "unknown"
    assert text_of(Model(pricing=Pricing(input="0")), "pricing.input") == "free"
    assert text_of(ModelOffer(), "blended_price") == "unknown"
    assert text_of(ModelOffer(blended_price="0"), "blended_price") == "free"


def test_fields_of_a_message_within_are_reached() -> None:
    result = SearchResult(model=MODEL, score=0.123456789, matched_fields=["id", "name"])
    assert [text_of(result, path) for path in ("model.pricing.input", "score", "matched_fields")] == [
        "$1.25",
        "0.123457",
        "id, name",
    ]


def test_a_status_that_the_command_does_not_know_is_its_number() -> None:
    of_a_newer_server = Model.FromString(b"\x58\x63")  # field 11, 99
    assert text_of(of_a_newer_server, "status") == "99"


def test_false_is_no_and_zero_is_zero() -> None:
    assert text_of(Provider(), "enabled") == "no"
    assert text_of(Provider(), "model_count") == "0"


def test_times_and_durations_have_units() -> None:
    info = GetCatalogInfoResponse(age=Duration(seconds=90_061))
    info.checked_time.FromDatetime(datetime(2026, 7, 2, 9, 30, tzinfo=UTC))
    assert text_of(info, "checked_time") == "2026-07-02 09:30:00 UTC"
    assert text_of(info, "age") == "1 d 1 h"
    assert text_of(info, "changed_time") == "unknown"


@pytest.mark.parametrize(
    ("amount", "said"),
    [
        ("1.25", "$1.25"),
        ("10", "$10.00"),
        ("0.125", "$0.125"),
        ("0.000000001", "$0.000000001"),
        ("0", "free"),
        ("0.00", "free"),
        ("12345.6", "$12,345.60"),
        ("much", "much"),
    ],
)
def test_money_loses_nothing(amount: str, said: str) -> None:
    assert money(amount) == said


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1K"),
        (4096, "4.1K"),
        (131_072, "131K"),
        (200_000, "200K"),
        (999_499, "999K"),
        (999_500, "1M"),
        (1_048_576, "1.05M"),
        (10_000_000, "10M"),
        (2_000_000_000, "2B"),
    ],
)
def test_sizes_have_three_digits(tokens: int, said: str) -> None:
    assert size(tokens) == said


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0 s"), (59, "59 s"), (60, "1 min"), (3_725, "1 h 2 min"), (86_400, "1 d")]
)
def test_durations_have_two_units_at_most(seconds: float, said: str) -> None:
    assert describe_duration(seconds) == said


@pytest.mark.parametrize(
    ("path", "text", "said"),
    [
        ("pricing.input", "1.25", "$1.25"),
        ("pricing.input", "0", "free"),
        ("limits.context_window", "400000", "400K"),
        ("capabilities.vision", "true", "yes"),
        ("capabilities.vision", "false", "no"),
        ("family", "gpt", "gpt"),
        ("tags", "free, vision", "free, vision"),
        ("type", "CHAT", "chat"),
        ("pricing.tiers", "", "none"),
        ("something.new", "7", "7"),
    ],
)
def test_what_a_response_holds_as_text_is_told_the_same_way(path: str, text: str, said: str) -> None:
    assert format_text(path, text) == said


def test_columns_of_numbers_are_known() -> None:
    numbers = ("pricing.input", "limits.context_window", "performance.popularity_score")
    assert all(is_number(Model, path) for path in numbers)
    assert not any(is_number(Model, path) for path in ("id", "tags", "capabilities.vision", "pricing", "nothing"))


def test_a_path_that_leads_nowhere_is_no_field() -> None:
    assert find_field(Model, "id.more") is None
    assert find_field(Model, "pricing.nothing") is None
    assert find_field(Model, "pricing.input") is not None


# --- the sheet of one model -----------------------------------------------------------------------------------


def test_a_sheet_tells_unknown_prices_from_free_ones() -> None:
    assert dict(model_rows(Model()))["price per 1M"] == "unknown"
    rows = dict(model_rows(MODEL))
    assert (rows["input per 1M"], rows["output per 1M"]) == ("$1.25", "free")
    assert "cache read per 1M" not in rows


def test_a_sheet_has_tiers_and_modes() -> None:
    pricing = Pricing(
        output="15",
        tiers=[PriceTier(min_context_tokens=200_000, input="2.5", cache_read="0.25")],
        modes={"fast": PriceMode(input="30", output="150"), "batch": PriceMode()},
    )
    rows = list(model_rows(Model(pricing=pricing)))
    assert ("input per 1M", "unknown") in rows
    assert ("above 200K", "input $2.50, cache read $0.25") in rows
    assert rows.index(("mode batch", "unknown")) < rows.index(("mode fast", "input $30.00, output $150.00"))


def test_a_sheet_says_what_a_model_can_what_not_and_what_is_not_known() -> None:
    rows = dict(model_rows(MODEL))
    assert rows["can"] == "vision"
    assert rows["cannot"] == "audio"
    assert "streaming" in rows["not known whether"].split(", ")
    assert "vision" not in rows["not known whether"]


def test_a_sheet_says_what_is_derived_and_by_which_rule() -> None:
    model = Model(
        type=Model.TYPE_EMBEDDING,
        canonical_id="lab/one",
        derived=[
            DerivedField(field="canonical_id", rule="exact", confidence=0.9),
            DerivedField(field="type", rule="said"),
        ],
        performance=Performance(popularity_score=37, popularity_score_rule="providers that serve it"),
    )
    rows = dict(model_rows(model))
    assert rows["canonical id"] == "lab/one (derived: exact, confidence 0.9)"
    assert rows["type"] == "embedding (derived: said)"
    assert rows["popularity score"] == "37 (providers that serve it)"
    assert "benchmark score" not in rows
