"""The recorded payloads, every record of them, against readings of our own that share no code with the service."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from functools import cache
from typing import Any

import pytest

from modelcatalog_server.catalog.resolver.canonical import CanonicalIndex, derive_canonical
from modelcatalog_server.catalog.resolver.linking import ModelFacts
from modelcatalog_server.domain.models import CanonicalRecord, ModelRecord, Prices, Pricing, ProviderRecord, Source
from modelcatalog_server.domain.refresh import Difference, KnownState, Payload, RefreshCounts
from modelcatalog_server.modelsdev.sift import compare_payload
from upstream_server import recorded

JSON = dict[str, Any]
SOURCE = Source(url="https://models.dev/catalog.json?type=all", snapshot="0" * 64)
NOTHING = KnownState(
    models={},
    removed_models={},
    providers={},
    removed_providers=frozenset(),
    canonical_models={},
    removed_canonical_models=frozenset(),
)
#: Models of 2026-07-02 that are linked to canonical ones.
LINKED = 3181
PRICES = ("input", "output", "reasoning", "cache_read", "cache_write", "input_audio", "output_audio")


def compare(payload: Payload, known: KnownState, *, full: bool = False) -> Difference:
    return compare_payload(payload, known, provider_id=None, full=full)


def catalog(body: bytes) -> Payload:
    return Payload(source=SOURCE, catalog=body)


@cache
def first_load() -> Difference:
    return compare(catalog(recorded("catalog-2026-07-02")), NOTHING)


@cache
def document() -> JSON:
    read: JSON = json.loads(recorded("catalog-2026-07-02"), parse_float=Decimal)
    return read


def document_model(record: ModelRecord) -> JSON:
    model: JSON = document()["providers"][record.provider_id]["models"][record.upstream_id]
    return model


def after(known: KnownState, difference: Difference) -> KnownState:
    """Return what a catalog holds after a difference has been applied to it."""
    models, gone = _apply(known.models, difference.models, difference.removed_models)
    providers, gone_providers = _apply(known.providers, difference.providers, difference.removed_providers)
    canonicals, gone_canonicals = _apply(
        known.canonical_models, difference.canonical_models, difference.removed_canonical_models
    )
    return KnownState(
        models=models,
        removed_models={k: v for k, v in (dict(known.removed_models) | gone).items() if k not in models},
        providers=providers,
        removed_providers=(known.removed_providers | gone_providers.keys()) - providers.keys(),
        canonical_models=canonicals,
        removed_canonical_models=(known.removed_canonical_models | gone_canonicals.keys()) - canonicals.keys(),
        release_dates=dict(known.release_dates)
        | {record.id: json.loads(record.raw)["release_date"] for record in difference.canonical_models},
    )


def _apply(
    held: Mapping[str, str],
    written: Iterable[ModelRecord | ProviderRecord | CanonicalRecord],
    removed: Iterable[str],
) -> tuple[dict[str, str], dict[str, str]]:
    gone = {id_: held[id_] for id_ in removed}
    now = dict(held) | {record.id: record.content_hash for record in written}
    return {id_: hash_ for id_, hash_ in now.items() if id_ not in gone}, gone


class TestNothingIsLost:
    def test_every_record_is_there(self) -> None:
        difference = first_load()
        assert difference.counts == RefreshCounts(seen=5276, added=5276)
        assert difference.quarantined == ()
        assert {m.id for m in difference.models} == {
            f"{p}/{m}" for p, provider in document()["providers"].items() for m in provider["models"]
        }
        assert {p.id for p in difference.providers} == document()["providers"].keys()
        assert {c.id for c in difference.canonical_models} == document()["models"].keys()

    def test_raw_is_the_record(self) -> None:
        for record in first_load().models:
            assert _loads(record.raw) == _served(record)
        for provider in first_load().providers:
            expected = {k: v for k, v in document()["providers"][provider.id].items() if k != "models"}
            assert _loads(provider.raw) == expected
        for canonical in first_load().canonical_models:
            assert _loads(canonical.raw) == document()["models"][canonical.id]

    def test_every_field_of_every_model(self) -> None:
        for record in first_load().models:
            source = _served(record)
            assert record.name == source["name"]
            assert record.family == source.get("family")
            assert record.description == source.get("description")
            assert source.get("type") is None
            assert record.type == "chat" or {derived.field for derived in record.derived} >= {"type"}
            assert record.status == source.get("status", "active")
            assert record.release_date == source["release_date"]
            assert record.last_updated == source["last_updated"]
            assert record.knowledge_cutoff == source.get("knowledge")
            assert list(record.modalities.input) == source["modalities"]["input"]
            assert list(record.modalities.output) == source["modalities"]["output"]
            assert record.limits.context_window == (source["limit"]["context"] or None)
            assert record.limits.max_input_tokens == (source["limit"].get("input") or None)
            assert record.limits.max_output_tokens == (source["limit"]["output"] or None)

    def test_every_capability_of_every_model(self) -> None:
        for record in first_load().models:
            source, has = _served(record), record.capabilities
            inputs, outputs = set(source["modalities"]["input"]), set(source["modalities"]["output"])
            assert has.reasoning is source["reasoning"]
            assert has.tool_use is has.function_calling is source["tool_call"]
            assert has.attachments is source["attachment"]
            assert has.open_weights is source["open_weights"]
            assert has.structured_output is source.get("structured_output")
            assert has.temperature is source.get("temperature")
            assert has.vision is bool(inputs & {"image", "video"})
            assert has.video_input is ("video" in inputs)
            assert has.pdf_input is ("pdf" in inputs)
            assert has.image_generation is ("image" in outputs)
            assert (has.audio_input, has.audio_output) == ("audio" in inputs, "audio" in outputs)
            assert has.audio is ("audio" in inputs | outputs)
            assert (has.streaming, has.json_mode, has.code_generation) == (None, None, None)

    def test_every_price_of_every_model(self) -> None:
        for record in first_load().models:
            cost, modes = _served(record).get("cost"), _served(record).get("experimental", {}).get("modes", {})
            assert (record.pricing is None) is (cost is None and not modes)
            if record.pricing is None:
                continue
            assert _prices(record.pricing.prices) == _rounded(cost or {})
            assert _tiers(record.pricing) == _expected_tiers(cost or {})
            assert record.pricing.modes.keys() == {name for name, mode in modes.items() if "cost" in mode}
            for name, mode in record.pricing.modes.items():
                assert _prices(mode.prices) == _rounded(modes[name]["cost"])

    def test_no_price_has_an_exponent_or_residue(self) -> None:
        for record in first_load().models:
            for value in _prices(record.pricing.prices).values() if record.pricing else ():
                text = f"{value:f}"
                assert text == str(value)
                assert len(text) <= 12
                assert "." not in text or text[-1] != "0"

    def test_every_reasoning_option(self) -> None:
        for record in first_load().models:
            options = _served(record).get("reasoning_options")
            assert (record.reasoning_options is None) is (options is None)
            for typed, source in zip(record.reasoning_options or (), options or (), strict=True):
                assert typed.type == source["type"]
                assert list(typed.values) == [v for v in source.get("values", []) if v is not None]
                assert typed.accepts_null is (None in source.get("values", []))
                assert (typed.min_tokens, typed.max_tokens) == (source.get("min"), source.get("max"))

    def test_every_field_of_every_provider(self) -> None:
        for record in first_load().providers:
            source = document()["providers"][record.id]
            assert record.name == source["name"]
            assert record.npm_package == source["npm"]
            assert list(record.env_vars) == source["env"]
            assert record.documentation_url == source["doc"]
            assert record.api_base_url == source.get("api")

    def test_every_benchmark_of_every_canonical_model(self) -> None:
        results = 0
        for record in first_load().canonical_models:
            source = document()["models"][record.id]
            assert (record.name, record.family) == (source["name"], source.get("family"))
            assert record.license == source.get("license")
            for typed, result in zip(record.benchmarks, source.get("benchmarks", []), strict=True):
                results += 1
                assert typed.score == result["score"]
                assert typed.score_text == str(result["score"])
                assert _loads(typed.raw) == result
                for name in ("name", "metric", "harness", "variant", "dataset", "version", "source", "date"):
                    assert getattr(typed, name) == result.get(name)
        assert results == 288

    def test_links_to_canonical_models(self) -> None:
        """What the rules make of ids and days of release alone is what becomes of the records."""
        days = {id_: ModelFacts(release_date=model["release_date"]) for id_, model in document()["models"].items()}
        index = CanonicalIndex(days)
        for record in first_load().models:
            facts = ModelFacts(release_date=document_model(record)["release_date"])
            assert record.canonical == derive_canonical(record.provider_id, record.upstream_id, facts, index)
        rules = Counter(record.canonical.rule for record in first_load().models if record.canonical)
        assert (rules["provider_and_id"], rules["served_id"], rules.total()) == (190, 729, LINKED)


class TestTheSameAgain:
    def test_changes_nothing(self) -> None:
        known = after(NOTHING, first_load())
        again = compare(catalog(recorded("catalog-2026-07-02")), known)
        assert again.is_empty
        assert (again.touched_models, again.providers, again.canonical_models) == (frozenset(), (), ())
        assert again.counts == RefreshCounts(seen=5276, unchanged=5276)

    def test_with_shuffled_keys_changes_nothing(self) -> None:
        chance = random.Random(1)  # noqa: S311  # nothing secret about it
        shuffled = json.dumps(_shuffled(json.loads(recorded("catalog-2026-07-02")), chance), indent=1)
        assert compare(catalog(shuffled.encode()), after(NOTHING, first_load())).is_empty

    def test_as_a_pair_changes_nothing(self) -> None:
        pair = Payload(source=SOURCE, api=recorded("api-2026-07-02"), models=recorded("models-2026-07-02"))
        assert compare(pair, after(NOTHING, first_load())).is_empty

    def test_without_canonical_models_changes_nothing(self) -> None:
        alone = Payload(source=SOURCE, api=recorded("api-2026-07-02"))
        assert compare(alone, after(NOTHING, first_load())).is_empty

    @pytest.mark.parametrize("provider_id", ["openai", "openrouter"])
    def test_for_one_provider_changes_nothing(self, provider_id: str) -> None:
        payload = catalog(recorded("catalog-2026-07-02"))
        again = compare_payload(payload, after(NOTHING, first_load()), provider_id=provider_id, full=False)
        assert again.is_empty
        assert again.counts.seen == len(document()["providers"][provider_id]["models"])


def test_four_dates_one_after_the_other() -> None:
    """Per step exactly what a comparison of the files as plain dictionaries gives."""
    known = NOTHING
    before: dict[str, JSON] = {}
    ever: set[str] = set()
    for date in ("2026-05-07", "2026-06-25", "2026-07-01", "2026-07-02"):
        body = recorded(f"api-{date}")
        now = _models(json.loads(body))
        difference = compare(Payload(source=SOURCE, api=body), known)
        revived = (now.keys() - before.keys()) & ever
        changed = {id_ for id_ in now.keys() & before.keys() if now[id_] != before[id_]}
        assert set(difference.removed_models) == before.keys() - now.keys()
        assert difference.touched_models == (now.keys() - before.keys()) | changed
        assert {record.id for record in difference.models} >= difference.touched_models
        assert difference.counts == RefreshCounts(
            seen=len(now),
            added=len(now.keys() - before.keys() - revived),
            changed=len(changed),
            removed=len(before.keys() - now.keys()),
            revived=len(revived),
            unchanged=len(now.keys() & before.keys()) - len(changed),
        )
        known, before, ever = after(known, difference), now, ever | now.keys()

    back = compare(Payload(source=SOURCE, api=recorded("api-2026-05-07")), known)
    first = _models(json.loads(recorded("api-2026-05-07")))
    assert back.counts.revived == len(first.keys() - before.keys()) > 0
    assert back.counts.added == 0


def test_the_links_that_canonical_models_bring_are_changes() -> None:
    alone = compare(Payload(source=SOURCE, api=recorded("api-2026-07-02")), NOTHING)
    difference = compare(catalog(recorded("catalog-2026-07-02")), after(NOTHING, alone))
    assert difference.touched_models == {record.id for record in first_load().models if record.canonical}
    assert (difference.counts.changed, difference.counts.added) == (LINKED, 0)


def _models(api: JSON) -> dict[str, JSON]:
    return {f"{p}/{m}": record for p, provider in api.items() for m, record in provider["models"].items()}


def _served(record: ModelRecord) -> JSON:
    served: JSON = document()["providers"][record.provider_id]["models"][record.upstream_id]
    return served


def _loads(text: str) -> Any:
    return json.loads(text, parse_float=Decimal)


def _prices(prices: Prices) -> dict[str, Decimal]:
    return {name: value for name in PRICES if (value := getattr(prices, name)) is not None}


def _rounded(cost: JSON) -> dict[str, Decimal]:
    return {name: round(Decimal(cost[name]), 9) for name in PRICES if name in cost}


def _tiers(pricing: Pricing) -> list[tuple[int, dict[str, Decimal]]]:
    return [(tier.min_context_tokens, _prices(tier.prices)) for tier in pricing.tiers]


def _expected_tiers(cost: JSON) -> list[tuple[int, dict[str, Decimal]]]:
    if "tiers" not in cost:
        legacy = cost.get("context_over_200k")
        return [(200_000, _rounded(legacy))] if legacy else []
    return sorted(((tier["tier"]["size"], _rounded(tier)) for tier in cost["tiers"]), key=lambda tier: tier[0])


def _shuffled(value: Any, chance: random.Random) -> Any:
    if isinstance(value, Mapping):
        items = [(key, _shuffled(member, chance)) for key, member in value.items()]
        chance.shuffle(items)
        return dict(items)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_shuffled(member, chance) for member in value]
    return value
