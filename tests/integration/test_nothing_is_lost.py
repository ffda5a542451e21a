"""Every model of the recorded payload is read back over gRPC and compared with the payload, field by field.

What is expected is worked out here from the JSON alone, with the standard library, so that it can disagree.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from google.protobuf import json_format

from conftest import SNAPSHOT, read_json
from modelcatalog_client import AsyncModelCatalogClient, Model

PRICES = ("input", "output", "reasoning", "cache_read", "cache_write", "input_audio", "output_audio")
PRICE_FORMAT = re.compile(r"(0|[1-9][0-9]*)(\.[0-9]{0,8}[1-9])?")
CATALOG: dict[str, Any] = read_json(SNAPSHOT)


def records() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    for provider_id, provider in CATALOG["providers"].items():
        for served_id, record in provider["models"].items():
            yield f"{provider_id}/{served_id}", provider, record


async def read_all(client: AsyncModelCatalogClient) -> dict[str, Model]:
    """Read every model by its id, a hundred at a time, and one of each hundred by itself too."""
    ids = [model_id for model_id, _, _ in records()]
    models: dict[str, Model] = {}
    for start in range(0, len(ids), 100):
        some = ids[start : start + 100]
        response = await client.batch_get_models(some, view="full")
        assert not response.missing_model_ids
        models |= {model.id: model for model in response.models}
        assert (await client.get_model(some[0], view="full")).model == models[some[0]]
    return models


def optional(message: Any, field: str) -> Any:
    """Return a field's value, None when it is unset."""
    return getattr(message, field) if message.HasField(field) else None


def check_identity(model: Model, provider: dict[str, Any], record: dict[str, Any]) -> None:
    assert (model.provider_id, model.provider_name) == (provider["id"], provider["name"])
    assert model.upstream_id == record["id"]
    assert model.name == record["name"]
    assert optional(model, "family") == record.get("family")
    assert optional(model, "description") == record.get("description")
    rules = {derived.field: derived.rule for derived in model.derived}
    assert (rules.get("version") == "date_suffix") is (optional(model, "version") is not None)
    assert model.version in record["id"].lower()
    assert "type" not in record
    assert (rules["type"] == "absent_means_chat") is (model.type == Model.TYPE_CHAT)
    assert Model.Status.Name(model.status) == f"STATUS_{record.get('status', 'active').upper()}"
    assert (model.release_date, model.last_updated) == (record["release_date"], record["last_updated"])
    assert optional(model, "knowledge_cutoff") == record.get("knowledge")
    assert list(model.modalities.input) == record["modalities"]["input"]
    assert list(model.modalities.output) == record["modalities"]["output"]


def check_limits(model: Model, record: dict[str, Any]) -> None:
    limit = record["limit"]
    for field, key in (("context_window", "context"), ("max_input_tokens", "input"), ("max_output_tokens", "output")):
        assert optional(model.limits, field) == (limit.get(key) or None)


def check_capabilities(model: Model, record: dict[str, Any]) -> None:
    takes, makes = set(record["modalities"]["input"]), set(record["modalities"]["output"])
    expected = {
        "vision": bool(takes & {"image", "video"}),
        "function_calling": record["tool_call"],
        "tool_use": record["tool_call"],
        "structured_output": record.get("structured_output"),
        "image_generation": "image" in makes,
        "audio": "audio" in takes | makes,
        "audio_input": "audio" in takes,
        "audio_output": "audio" in makes,
        "video_input": "video" in takes,
        "pdf_input": "pdf" in takes,
        "reasoning": record["reasoning"],
        "attachments": record["attachment"],
        "temperature": record.get("temperature"),
        "open_weights": record["open_weights"],
        "streaming": None,
        "json_mode": None,
        "code_generation": None,
    }
    assert {
        field.name: optional(model.capabilities, field.name) for field in model.capabilities.DESCRIPTOR.fields
    } == expected


def check_prices(message: Any, cost: dict[str, Any]) -> None:
    for field in PRICES:
        price = optional(message, field)
        if field not in cost:
            assert price is None
            continue
        assert PRICE_FORMAT.fullmatch(price)
        assert Decimal(price) == round(Decimal(repr(cost[field])), 9)


def check_pricing(model: Model, record: dict[str, Any]) -> None:
    cost = record.get("cost", {})
    modes = {name: mode for name, mode in record.get("experimental", {}).get("modes", {}).items() if "cost" in mode}
    assert model.HasField("pricing") == bool(cost or modes)
    if not model.HasField("pricing"):
        return
    assert (model.pricing.currency, model.pricing.unit) == ("USD", "1M_TOKENS")
    check_prices(model.pricing, cost)
    tiers = sorted(cost.get("tiers", ()), key=lambda tier: tier["tier"]["size"])
    if not tiers and "context_over_200k" in cost:
        tiers = [{**cost["context_over_200k"], "tier": {"size": 200_000}}]
    assert [tier.min_context_tokens for tier in model.pricing.tiers] == [tier["tier"]["size"] for tier in tiers]
    for tier, expected in zip(model.pricing.tiers, tiers, strict=True):
        check_prices(tier, expected)
    assert set(model.pricing.modes) == set(modes)
    for name, mode in model.pricing.modes.items():
        check_prices(mode, modes[name]["cost"])


def check_reasoning_options(model: Model, record: dict[str, Any]) -> None:
    expected = record.get("reasoning_options")
    assert model.HasField("reasoning_options") == (expected is not None)
    shown = [
        {
            "type": option.type,
            "values": list(option.values),
            "null": option.accepts_null,
            "min": optional(option, "min_tokens"),
            "max": optional(option, "max_tokens"),
        }
        for option in model.reasoning_options.options
    ]
    assert shown == [
        {
            "type": option["type"],
            "values": [value for value in option.get("values", ()) if value is not None],
            "null": None in option.get("values", ()),
            "min": option.get("min"),
            "max": option.get("max"),
        }
        for option in expected or ()
    ]


async def test_every_model_is_read_back_by_id_with_nothing_lost(client: AsyncModelCatalogClient) -> None:
    models = await read_all(client)

    assert len(models) == 5276
    for model_id, provider, record in records():
        model = models[model_id]
        check_identity(model, provider, record)
        check_limits(model, record)
        check_capabilities(model, record)
        check_pricing(model, record)
        check_reasoning_options(model, record)
        assert json_format.MessageToDict(model.raw) == record


async def test_every_provider_is_read_back_with_nothing_lost(client: AsyncModelCatalogClient) -> None:
    providers = {provider.id: provider async for provider in client.list_providers()}

    assert set(providers) == set(CATALOG["providers"])
    for provider_id, record in CATALOG["providers"].items():
        provider = providers[provider_id]
        assert provider.name == record["name"]
        assert list(provider.env_vars) == record["env"]
        assert optional(provider, "npm_package") == record.get("npm")
        assert optional(provider, "documentation_url") == record.get("doc")
        assert optional(provider, "api_base_url") == record.get("api")
        assert provider.model_count == provider.enabled_model_count == len(record["models"])


async def test_every_benchmark_is_read_back_with_nothing_lost(client: AsyncModelCatalogClient) -> None:
    for canonical_id, record in CATALOG["models"].items():
        expected = record.get("benchmarks", [])
        if not expected:
            continue
        response = await client.list_model_benchmarks(canonical_id)

        assert response.canonical_id == canonical_id
        keys = ("metric", "harness", "variant", "dataset", "version", "source", "date")
        shown = Counter(
            (each.name, each.score, each.score_text, *(optional(each, key) for key in keys))
            for each in response.benchmarks
        )
        assert shown == Counter(
            (each["name"], each["score"], str(each["score"]), *(each.get(key) for key in keys)) for each in expected
        )
