"""The columns of ``models_metadata`` say what the encoded message says, for every model of the catalog."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from conftest import Services
from modelcatalog.v1 import model_pb2

#: Price, limit and other optional fields of the message by column.
PRICES = {
    "pricing_input": "input",
    "pricing_output": "output",
    "pricing_reasoning": "reasoning",
    "pricing_cache_read": "cache_read",
    "pricing_cache_write": "cache_write",
    "pricing_input_audio": "input_audio",
    "pricing_output_audio": "output_audio",
}
LIMITS = {
    "context_window": "context_window",
    "max_input_tokens": "max_input_tokens",
    "max_tokens": "max_output_tokens",
}
CAPABILITIES = {
    f"supports_{name}": name
    for name in model_pb2.Capabilities.DESCRIPTOR.fields_by_name
    if name not in {"open_weights"}
} | {"open_weights": "open_weights"}
TEXTS = {
    "model_id": "id",
    "provider_id": "provider_id",
    "modelsdev_id": "upstream_id",
    "model_name": "name",
    "release_date": "release_date",
    "last_updated": "last_updated",
}
#: Absent is NULL in the column and unset, or empty where the field is no optional one, in the message.
OPTIONAL_TEXTS = {
    "canonical_id": "canonical_id",
    "description": "description",
    "model_family": "family",
    "version": "version",
    "knowledge_cutoff": "knowledge_cutoff",
}
#: What is in no field of the stored message, and why.
ELSEWHERE = {
    "canonical_rule": "served by ResolveModel",
    "canonical_confidence": "served by ResolveModel",
    "benchmark_score": "nothing derives it yet",
    "popularity_score": "nothing derives it yet",
    "reliability_score": "nothing derives it yet",
    "message": "is the message",
    "raw_metadata": "read by view",
    "content_hash": "read into etag",
    "source_url": "added on reading",
    "source_snapshot": "added on reading",
    "revision": "added on reading",
    "first_seen_at": "added on reading",
    "last_changed_at": "added on reading",
    "removed_at": "added on reading",
}
COMPARED = {
    *PRICES,
    *LIMITS,
    *CAPABILITIES,
    *TEXTS,
    *OPTIONAL_TEXTS,
    "pricing_currency",
    "model_type",
    "status",
    "input_modalities",
    "output_modalities",
    "tags",
}

Row = dict[str, Any]


@pytest.fixture(scope="module")
def rows(templates: Services) -> list[Row]:
    url = templates.clone("mc_loaded")
    with psycopg.connect(url, row_factory=dict_row) as connection:
        rows = connection.execute("SELECT * FROM models_metadata").fetchall()
    templates.drop(url)
    assert len(rows) == 5276
    return rows


@pytest.fixture(scope="module")
def pairs(rows: list[Row]) -> list[tuple[Row, model_pb2.Model]]:
    return [(row, model_pb2.Model.FromString(row["message"])) for row in rows]


Pairs = list[tuple[Row, model_pb2.Model]]


def unset_is_null(message: Any, field: str) -> Any:
    """Return a field's value, ``None`` when it is unset."""
    return getattr(message, field) if message.HasField(field) else None


def test_every_column_is_accounted_for(rows: list[Row]) -> None:
    assert rows[0].keys() == COMPARED | ELSEWHERE.keys()


def test_ids_and_texts(pairs: Pairs) -> None:
    for row, message in pairs:
        assert {column: row[column] for column in TEXTS} == {
            column: getattr(message, field) for column, field in TEXTS.items()
        }
        for column, field in OPTIONAL_TEXTS.items():
            has_presence = message.DESCRIPTOR.fields_by_name[field].has_presence
            value = unset_is_null(message, field) if has_presence else getattr(message, field) or None
            assert row[column] == value, (row["model_id"], column)


def test_prices(pairs: Pairs) -> None:
    for row, message in pairs:
        pricing = message.pricing
        assert row["pricing_currency"] == (pricing.currency if message.HasField("pricing") else None), row["model_id"]
        for column, field in PRICES.items():
            text = unset_is_null(pricing, field)
            assert row[column] == (None if text is None else Decimal(text)), (row["model_id"], column)


def test_an_unknown_price_is_not_a_free_one(pairs: Pairs) -> None:
    unknown = [row for row, _ in pairs if "cost" not in row["raw_metadata"]]
    free = [row for row, message in pairs if message.pricing.input == message.pricing.output == "0"]
    assert len(unknown) == 382
    assert len(free) == 432
    assert {row[column] for row in unknown for column in PRICES} == {None}
    assert {row["pricing_input"] for row in free} == {Decimal(0)}


def test_limits(pairs: Pairs) -> None:
    for row, message in pairs:
        for column, field in LIMITS.items():
            assert row[column] == unset_is_null(message.limits, field), (row["model_id"], column)
            assert row[column] != 0, "0 is upstream's word for unknown"


def test_capabilities(pairs: Pairs) -> None:
    for row, message in pairs:
        for column, field in CAPABILITIES.items():
            assert row[column] is unset_is_null(message.capabilities, field), (row["model_id"], column)


def test_what_upstream_never_says_is_null_for_all(rows: list[Row]) -> None:
    for column in (
        "supports_streaming",
        "supports_json_mode",
        "supports_code_generation",
        "benchmark_score",
        "popularity_score",
        "reliability_score",
    ):
        assert {row[column] for row in rows} == {None}, column


def test_modalities_and_tags(pairs: Pairs) -> None:
    for row, message in pairs:
        assert row["input_modalities"] == list(message.modalities.input)
        assert row["output_modalities"] == list(message.modalities.output)
        assert row["tags"] == list(message.tags)


def test_type_and_status(pairs: Pairs) -> None:
    for row, message in pairs:
        assert model_pb2.Model.Type.Name(message.type) == f"TYPE_{row['model_type'].upper()}"
        assert model_pb2.Model.Status.Name(message.status) == f"STATUS_{row['status'].upper()}"
    assert {row["status"] for row, _ in pairs} == {"active", "alpha", "beta", "deprecated"}


def test_a_canonical_link_has_its_rule_and_confidence(rows: list[Row]) -> None:
    for row in rows:
        parts = [row[name] is None for name in ("canonical_id", "canonical_rule", "canonical_confidence")]
        assert parts in ([True] * 3, [False] * 3), row["model_id"]
        assert row["canonical_confidence"] is None or 0 < row["canonical_confidence"] <= 1


def test_the_raw_record_is_the_one_of_this_model(rows: list[Row]) -> None:
    assert all(row["raw_metadata"]["id"] == row["modelsdev_id"] for row in rows)


def test_the_message_holds_nothing_that_only_reading_knows(pairs: Pairs) -> None:
    on_reading = ("provider_name", "source", "etag", "revision", "first_seen_time", "last_changed_time", "raw")
    for _, message in pairs:
        assert {field.name for field, _ in message.ListFields()}.isdisjoint(on_reading)


def test_the_first_version_of_each_model_is_its_current_row(templates: Services, rows: list[Row]) -> None:
    url = templates.clone("mc_loaded")
    with psycopg.connect(url, row_factory=dict_row) as connection:
        versions = connection.execute("SELECT * FROM model_versions").fetchall()
    templates.drop(url)
    assert {row.pop("change") for row in versions} == {"ADDED"}
    assert {row.pop("valid_to_revision") for row in versions} == {None}
    assert {row["model_id"]: row for row in versions} == {row["model_id"]: row for row in rows}
