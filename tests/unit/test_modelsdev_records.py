"""What each irregularity of upstream's records becomes, and which records are set aside for what."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from modelcatalog_server.domain.errors import UpstreamInvalidError
from modelcatalog_server.domain.models import (
    CanonicalLink,
    CanonicalRecord,
    Limits,
    ModelRecord,
    PriceMode,
    Prices,
    PriceTier,
    Pricing,
    ProviderRecord,
    ReasoningOption,
    Source,
)
from modelcatalog_server.domain.refresh import Payload, Quarantined
from modelcatalog_server.refresh.compare import DecodedCatalog
from unit.decoding import decode

JSON = dict[str, Any]
SOURCE = Source(url="https://models.dev/catalog.json?type=all", snapshot="0" * 64)
DROP = object()


def model(**fields: Any) -> JSON:
    """Return a served model with every field that is always there; ``DROP`` takes one away."""
    record = {
        "id": "one",
        "name": "One",
        "attachment": False,
        "reasoning": True,
        "tool_call": True,
        "open_weights": False,
        "release_date": "2026-01",
        "last_updated": "2026-01-02",
        "modalities": {"input": ["text"], "output": ["text"]},
        "limit": {"context": 1000, "output": 100},
    } | fields
    return {key: value for key, value in record.items() if value is not DROP}


def provider(models: JSON | None = None, **fields: Any) -> JSON:
    record = {"id": "lab", "name": "Lab", "npm": "@ai/lab", "env": ["LAB_KEY"], "doc": "https://lab/doc"} | fields
    record["models"] = {"one": model()} if models is None else models
    return {key: value for key, value in record.items() if value is not DROP}


def decode_catalog(providers: JSON, models: JSON | None = None, known: frozenset[str] = frozenset()) -> DecodedCatalog:
    document = {"providers": providers} | ({} if models is None else {"models": models})
    return decode(Payload(source=SOURCE, catalog=json.dumps(document).encode()), known)


def document(models: str) -> bytes:
    """Return a catalog of one provider, whose models are this very JSON."""
    return f'{{"providers": {{"lab": {{"id": "lab", "name": "Lab", "models": {{{models}}}}}}}}}'.encode()


def decode_body(body: bytes) -> DecodedCatalog:
    return decode(Payload(source=SOURCE, catalog=body), frozenset())


def read(**fields: Any) -> ModelRecord:
    """Return what a served model with these fields becomes."""
    decoded = decode_catalog({"lab": provider({"one": model(**fields)})})
    assert decoded.quarantined_models == {}
    (record,) = decoded.models
    return record


def reason(text: str | None = None, **fields: Any) -> str:
    """Return why a served model with these fields (or this very JSON) is set aside, and see that the rest goes on."""
    bad = json.dumps(model(**fields)) if text is None else text
    good = json.dumps(model(id="good"))
    decoded = decode_body(document(f'"one": {bad}, "good": {good}'))
    assert [record.id for record in decoded.models] == ["lab/good"]
    assert list(decoded.quarantined_models) == ["lab/one"]
    assert decoded.quarantined_models["lab/one"].pointer == "/providers/lab/models/one"
    return decoded.quarantined_models["lab/one"].reason


def decode_catalog_text(canonical_models: str) -> list[CanonicalRecord]:
    """Return what canonical models of this very JSON become."""
    providers = json.dumps({"lab": provider()})
    decoded = decode_body(f'{{"providers": {providers}, "models": {{{canonical_models}}}}}'.encode())
    return list(decoded.canonical_models or ())


class TestServedModel:
    def test_says_no_more_than_upstream(self) -> None:
        record = read(attachment=DROP, reasoning=DROP, tool_call=DROP, open_weights=DROP)
        assert record.id == "lab/one"
        assert (record.type, record.status) == ("chat", "active")
        assert (record.description, record.family, record.version, record.knowledge_cutoff) == (None, None, None, None)
        assert (record.pricing, record.reasoning_options, record.canonical, record.tags) == (None, None, None, ())
        capabilities = record.capabilities
        unknown = ("streaming", "json_mode", "code_generation", "attachments", "reasoning", "open_weights", "tool_use")
        assert [getattr(capabilities, name) for name in unknown] == [None] * len(unknown)
        assert (capabilities.structured_output, capabilities.temperature) == (None, None)
        assert capabilities.function_calling is None

    @pytest.mark.parametrize("value", [True, False])
    def test_flags(self, value: bool) -> None:
        capabilities = read(
            attachment=value,
            reasoning=value,
            tool_call=value,
            open_weights=value,
            structured_output=value,
            temperature=value,
        ).capabilities
        assert capabilities.attachments is value
        assert capabilities.reasoning is value
        assert (capabilities.tool_use, capabilities.function_calling) == (value, value)
        assert capabilities.open_weights is value
        assert capabilities.structured_output is value
        assert capabilities.temperature is value

    @pytest.mark.parametrize(
        ("input_", "output", "true"),
        [
            (["text"], ["text"], set()),
            (["image", "text"], ["text"], {"vision"}),
            (["text", "video"], ["text"], {"vision", "video_input"}),
            (["audio"], ["text"], {"audio", "audio_input"}),
            (["text"], ["audio"], {"audio", "audio_output"}),
            (["text", "pdf"], ["text"], {"pdf_input"}),
            (["text"], ["image"], {"image_generation"}),
            (["text"], ["pdf", "video"], set()),
            (["text", "smell"], ["text"], set()),
        ],
    )
    def test_capabilities_of_modalities(self, input_: list[str], output: list[str], true: set[str]) -> None:
        record = read(modalities={"input": input_, "output": output}, attachment=not true)
        derived = ("vision", "audio", "audio_input", "audio_output", "video_input", "pdf_input", "image_generation")
        assert {name: getattr(record.capabilities, name) for name in derived} == {n: n in true for n in derived}
        assert (record.modalities.input, record.modalities.output) == (tuple(input_), tuple(output))

    @pytest.mark.parametrize(
        ("limit", "expected"),
        [
            ({"context": 0, "output": 0}, Limits()),
            ({"context": 8, "input": 0, "output": 9}, Limits(context_window=8, max_output_tokens=9)),
            (
                {"context": 8, "input": 7, "output": 6},
                Limits(context_window=8, max_input_tokens=7, max_output_tokens=6),
            ),
            ({"context": 99_999_999, "output": 1}, Limits(context_window=99_999_999, max_output_tokens=1)),
            ({"context": None}, Limits()),
        ],
    )
    def test_limits(self, limit: JSON, expected: Limits) -> None:
        assert read(limit=limit).limits == expected

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            (DROP, None),
            (None, None),
            ([], ()),
            ([{"type": "toggle"}], (ReasoningOption(type="toggle"),)),
            (
                [{"type": "effort", "values": ["low", None, "high"]}],
                (ReasoningOption(type="effort", values=("low", "high"), accepts_null=True),),
            ),
            (
                [{"type": "budget_tokens", "min": -1, "max": 9}, {"type": "budget_tokens"}],
                (
                    ReasoningOption(type="budget_tokens", min_tokens=-1, max_tokens=9),
                    ReasoningOption(type="budget_tokens"),
                ),
            ),
            ([{"type": "mood", "depth": 3}], (ReasoningOption(type="mood"),)),
        ],
    )
    def test_reasoning_options(self, options: Any, expected: tuple[ReasoningOption, ...] | None) -> None:
        assert read(reasoning_options=options).reasoning_options == expected

    @pytest.mark.parametrize("date", ["2025-25-11", "2025-02-31", "1970-01-01", "2026-07", "soon", ""])
    def test_dates_stay_text(self, date: str) -> None:
        record = read(release_date=date, last_updated=date, knowledge=date)
        assert (record.release_date, record.last_updated, record.knowledge_cutoff) == (date, date, date)

    @pytest.mark.parametrize("name", ["DeepSeek V3 (Turbo)\t", "UI-TARS 7B ", "nano \u2013 gpt", "模型"])
    def test_names_stay_as_they_are(self, name: str) -> None:
        assert read(name=name).name == name

    @pytest.mark.parametrize(
        "id_", ["a/b/c", "llama:free", "amazon.nova-v1:0", "~openai/latest", "@cf/x", "A B+(3)", "ü", "x" * 256]
    )
    def test_ids_stay_as_they_are(self, id_: str) -> None:
        decoded = decode_catalog({"lab": provider({id_: model(id=id_)})})
        assert [(m.id, m.upstream_id) for m in decoded.models] == [(f"lab/{id_}", id_)]

    def test_type_and_status(self) -> None:
        record = read(type="Embedding", status="BETA")
        assert (record.type, record.status) == ("embedding", "beta")
        assert read(type="", status=None).status == "active"

    def test_unknown_keys_and_untyped_fields_are_only_in_raw(self) -> None:
        odd = {"interleaved": {"field": "x"}, "provider": {"body": {"a": [1.50, None]}}, "novel": [{"deep": True}]}
        assert json.loads(read(**odd).raw) == model(**odd)
        assert json.loads(read(interleaved=True).raw)["interleaved"] is True

    def test_raw_is_verbatim(self) -> None:
        text = json.dumps(model(cost={"input": 0.5, "output": 1}), indent=1).replace("0.5", "5.0e-1")
        decoded = decode_body(document(f'"one": {text}'))
        assert decoded.models[0].raw == text


class TestPricing:
    @pytest.mark.parametrize(
        ("number", "expected"),
        [
            ("0.060000000000000005", "0.06"),
            ("0.049999999999999996", "0.05"),
            ("1.25", "1.25"),
            ("1.250", "1.25"),
            ("10", "10"),
            ("10.0", "10"),
            ("600", "600"),
            ("1e2", "100"),
            ("2e-8", "0.00000002"),
            ("2E-8", "0.00000002"),
            ("0", "0"),
            ("0.0", "0"),
            ("-0.0", "0"),
            ("0.001", "0.001"),
            ("0.1234567895", "0.12345679"),
            ("1000000", "1000000"),
        ],
    )
    def test_numbers(self, number: str, expected: str) -> None:
        text = json.dumps(model(cost={"input": "NUMBER", "output": 1})).replace('"NUMBER"', number)
        decoded = decode_body(document(f'"one": {text}'))
        (record,) = decoded.models
        assert record.pricing is not None
        assert f"{record.pricing.prices.input:f}" == expected

    @pytest.mark.parametrize("cost", [DROP, None, {}, {"note": 1}])
    def test_no_cost_is_unknown(self, cost: Any) -> None:
        assert read(cost=cost).pricing is None

    def test_zero_is_free(self) -> None:
        assert read(cost={"input": 0, "output": 0}).pricing == Pricing(
            prices=Prices(input=Decimal(0), output=Decimal(0))
        )

    def test_every_price(self) -> None:
        names = ("input", "output", "reasoning", "cache_read", "cache_write", "input_audio", "output_audio")
        pricing = read(cost={name: number for number, name in enumerate(names, 1)}).pricing
        assert pricing is not None
        assert [getattr(pricing.prices, name) for name in names] == [Decimal(number) for number in range(1, 8)]

    def test_tiers_are_sorted_and_other_kinds_left_out(self) -> None:
        tiers = [
            {"input": 3, "output": 4, "tier": {"type": "context", "size": 512_000}},
            {"input": 9, "output": 9, "tier": {"type": "weekday"}},
            {"input": 1, "output": 2, "tier": {"type": "context", "size": 256_000}},
        ]
        pricing = read(cost={"input": 1, "output": 1, "tiers": tiers, "context_over_200k": {"input": 8}}).pricing
        assert pricing is not None
        assert pricing.tiers == (
            PriceTier(min_context_tokens=256_000, prices=Prices(input=Decimal(1), output=Decimal(2))),
            PriceTier(min_context_tokens=512_000, prices=Prices(input=Decimal(3), output=Decimal(4))),
        )

    @pytest.mark.parametrize("tiers", [{}, {"tiers": []}, {"tiers": None}])
    def test_the_legacy_tier_counts_where_there_are_no_tiers(self, tiers: JSON) -> None:
        pricing = read(cost={"input": 1, "output": 1, "context_over_200k": {"input": 2, "output": 3}} | tiers).pricing
        assert pricing is not None
        assert pricing.tiers == (
            PriceTier(min_context_tokens=200_000, prices=Prices(input=Decimal(2), output=Decimal(3))),
        )

    def test_modes(self) -> None:
        modes = {"fast": {"cost": {"input": 6, "output": 7}, "provider": {"body": {}}}, "plain": {"provider": {}}}
        pricing = read(experimental={"modes": modes}, cost={"input": 1, "output": 1}).pricing
        assert pricing is not None
        assert pricing.modes == {"fast": PriceMode(prices=Prices(input=Decimal(6), output=Decimal(7)))}


class TestCanonicalLink:
    @pytest.mark.parametrize(
        ("provider_id", "fields", "expected"),
        [
            ("lab", {"id": "one"}, CanonicalLink(canonical_id="lab/one", rule="provider_and_id", confidence=1.0)),
            ("host", {"id": "lab/one"}, CanonicalLink(canonical_id="lab/one", rule="served_id", confidence=0.99)),
            ("host", {"id": "one"}, CanonicalLink(canonical_id="lab/one", rule="lab_prefix", confidence=0.98)),
            ("host", {"id": "one-more"}, None),
            (
                "lab",
                {"id": "one", "canonical_model_id": "lab/two"},
                CanonicalLink(canonical_id="lab/two", rule="upstream", confidence=1.0),
            ),
            (
                "host",
                {"id": "x", "canonical_model_id": "not/listed"},
                CanonicalLink(canonical_id="not/listed", rule="upstream", confidence=1.0),
            ),
            ("host", {"id": "x", "canonical_model_id": ""}, None),
        ],
    )
    def test_first_rule_that_fits(self, provider_id: str, fields: JSON, expected: CanonicalLink | None) -> None:
        served = {provider_id: provider({fields["id"]: model(**fields)}, id=provider_id)}
        decoded = decode_catalog(served, {"lab/one": {"id": "lab/one", "name": "One"}})
        assert decoded.models[0].canonical == expected

    def test_without_canonical_models_in_the_payload_the_known_ones_count(self) -> None:
        absent: list[JSON | None] = [None, {}]
        for models in absent:
            decoded = decode_catalog({"lab": provider()}, models, known=frozenset({"lab/one"}))
            assert decoded.models[0].canonical is not None
            assert decoded.canonical_models is None

    def test_a_canonical_model_set_aside_counts_if_it_is_known(self) -> None:
        bad = {"lab/one": {"id": "lab/one"}}
        for known, linked in ((frozenset({"lab/one"}), True), (frozenset[str](), False)):
            decoded = decode_catalog({"lab": provider()}, bad, known=known)
            assert (decoded.models[0].canonical is not None) is linked


class TestProvider:
    def test_fields(self) -> None:
        decoded = decode_catalog({"lab": provider(api="https://${ACCOUNT}/v1")})
        (record,) = decoded.providers
        assert record == ProviderRecord(
            id="lab",
            name="Lab",
            raw=record.raw,
            content_hash=record.content_hash,
            documentation_url="https://lab/doc",
            api_base_url="https://${ACCOUNT}/v1",
            npm_package="@ai/lab",
            env_vars=("LAB_KEY",),
        )
        assert json.loads(record.raw) == {
            k: v for k, v in provider(api="https://${ACCOUNT}/v1").items() if k != "models"
        }

    def test_its_models_are_no_part_of_its_content(self) -> None:
        first = decode_catalog({"lab": provider()}).providers
        assert first == decode_catalog({"lab": provider({"one": model(name="Other")})}).providers

    def test_optional_fields(self) -> None:
        (record,) = decode_catalog({"lab": provider(npm=DROP, env=DROP, doc=DROP)}).providers
        assert (record.npm_package, record.env_vars, record.documentation_url) == (None, (), None)

    @pytest.mark.parametrize(
        ("id_", "bad", "expected"),
        [
            ("bad", [], "expected object, got array"),
            ("bad", provider(id="bad", name=DROP), "object missing required field name"),
            ("bad", provider(id="bad") | {"models": []}, "models: expected object, got array"),
            ("bad", {"id": "bad", "name": "Bad"}, "object missing required field models"),
            ("bad", provider(id="other"), "id: 'other' is not the record's key"),
            ("a/b", provider(id="a/b"), "id: holds a slash"),
            ("", provider(id=""), "id: is empty"),
            ("bad", provider(id="bad", env="KEY"), "env: expected array, got str"),
            ("bad", provider(id="bad", doc="x" * 300_000), "the record has 300,"),
        ],
    )
    def test_a_bad_one_is_set_aside_with_its_models(self, id_: str, bad: Any, expected: str) -> None:
        decoded = decode_catalog({id_: bad, "lab": provider()})
        assert [record.id for record in decoded.providers] == ["lab"]
        assert [record.id for record in decoded.models] == ["lab/one"]
        assert expected in decoded.quarantined_providers[id_].reason
        assert decoded.quarantined_providers[id_].pointer == "/providers/" + id_.replace("/", "~1")


class TestCanonicalModel:
    def read(self, **fields: Any) -> CanonicalRecord:
        decoded = decode_catalog({"lab": provider()}, {"lab/one": {"id": "lab/one", "name": "One"} | fields})
        assert decoded.canonical_models is not None
        (record,) = decoded.canonical_models
        return record

    def test_fields(self) -> None:
        record = self.read(family="f", license="MIT", weights=[{"label": "HF", "url": "u"}])
        assert (record.id, record.name, record.family, record.license) == ("lab/one", "One", "f", "MIT")
        assert record.benchmarks == ()

    @pytest.mark.parametrize(
        ("score", "number", "text"),
        [
            ("12", Decimal(12), "12"),
            ("95.50", Decimal("95.5"), "95.50"),
            ("-1e1", Decimal(-10), "-1e1"),
            ('"87.5"', Decimal("87.5"), "87.5"),
            ('"87.5%"', None, "87.5%"),
            ('"NaN"', None, "NaN"),
            ('""', None, ""),
        ],
    )
    def test_scores(self, score: str, number: Decimal | None, text: str) -> None:
        result = f'{{"name": "τ3 Banking", "score": {score}, "date": "2026"}}'
        (record,) = decode_catalog_text(f'"lab/one": {{"id": "lab/one", "name": "One", "benchmarks": [{result}]}}')
        (benchmark,) = record.benchmarks
        assert (benchmark.name, benchmark.score, benchmark.score_text) == ("τ3 Banking", number, text)
        assert (benchmark.date, benchmark.metric, benchmark.source) == ("2026", None, None)
        assert benchmark.raw == result

    def test_results_of_one_benchmark_in_several_series(self) -> None:
        results = [{"name": "B", "score": 1}, {"name": "B", "score": 2, "harness": "h"}]
        assert len(self.read(benchmarks=results).benchmarks) == 2

    @pytest.mark.parametrize(
        ("results", "expected"),
        [
            (
                [{"name": "B", "score": 1}, {"name": "B", "score": 2, "date": "x"}],
                "two results of the same series of 'B'",
            ),
            ([{"name": "B", "score": True}], "a score is neither a number nor text: True"),
            ([{"name": "B", "score": None}], "a score is neither a number nor text: None"),
            ([{"name": "B"}], "benchmarks[0]: object missing required field score"),
            ([{"name": "B", "score": 1, "source": "é" * 1500}], "the series of 'B' has 3,001 bytes"),
            ("many", "benchmarks: expected array, got str"),
        ],
    )
    def test_bad_results_set_the_model_aside(self, results: Any, expected: str) -> None:
        canonical = {"lab/one": {"id": "lab/one", "name": "One", "benchmarks": results}}
        decoded = decode_catalog({"lab": provider()}, canonical)
        assert decoded.canonical_models == []
        assert list(decoded.quarantined_canonical_models.values()) == [
            Quarantined(pointer="/models/lab~1one", reason=decoded.quarantined_canonical_models["lab/one"].reason)
        ]
        assert expected in decoded.quarantined_canonical_models["lab/one"].reason

    def test_the_order_of_a_results_keys_means_nothing(self) -> None:
        first = self.read(benchmarks=[{"name": "B", "score": 1, "metric": "m"}])
        second = self.read(benchmarks=[{"metric": "m", "score": 1, "name": "B"}])
        assert first.content_hash == second.content_hash
        assert first.benchmarks[0].raw != second.benchmarks[0].raw


class TestSetAside:
    @pytest.mark.parametrize(
        ("fields", "expected"),
        [
            ({"name": DROP}, "object missing required field name"),
            ({"name": ""}, "name: expected str"),
            ({"name": " \t"}, "name: expected str"),
            ({"name": None}, "name: expected str, got null"),
            ({"name": "x" * 513}, "name: expected str of length <= 512"),
            ({"name": "x\0"}, "a text holds U+0000"),
            ({"novel": {"x\0": 1}}, "a key holds U+0000"),
            ({"id": "two"}, "id: 'two' is not the record's key"),
            ({"id": 1}, "id: expected str, got int"),
            ({"modalities": {"input": ["text"]}}, "modalities: object missing required field output"),
            ({"modalities": "text"}, "modalities: expected object, got str"),
            ({"limit": DROP}, "object missing required field limit"),
            ({"limit": {"context": 1.5}}, "limit.context: expected int, got decimal"),
            ({"limit": {"context": "1000"}}, "limit.context: expected int, got str"),
            ({"limit": {"context": -1}}, "limit.context: expected int >= 0"),
            ({"limit": {"output": 10**13}}, "limit.output: expected int <= 1000000000000"),
            ({"limit": {"output": 10**30}}, "limit.output: expected int <= 1000000000000"),
            ({"attachment": "yes"}, "attachment: expected bool, got str"),
            ({"release_date": 2026}, "release_date: expected str, got int"),
            ({"reasoning_options": {}}, "reasoning_options: expected array, got object"),
            ({"reasoning_options": [{}]}, "reasoning_options[0]: object missing required field type"),
            ({"cost": {"input": "1.25"}}, "cost.input: expected int | decimal, got str"),
            ({"cost": {"input": True}}, "cost.input: expected int | decimal, got bool"),
            ({"cost": {"input": -1}}, "a price of -1 is not within 0 and 1,000,000"),
            ({"cost": {"input": 1_000_001}}, "a price of 1,000,001 is not within"),
            ({"cost": {"input": 4e-10}}, "a price of 4E-10 is too small to be one"),
            ({"cost": {"tiers": [{"input": 1}]}}, "cost.tiers[0]: object missing required field tier"),
            ({"cost": {"tiers": [{"tier": {"type": "context"}}]}}, "a tier by context has no size"),
            ({"experimental": {"modes": {"fast": {"cost": {"input": "6"}}}}}, "got str"),
            ({"canonical_model_id": "x" * 257}, "canonical_model_id: has 257 bytes, more than 256"),
            ({"description": "x" * 300_000}, "bytes, more than 262,144"),
            ({"description": "x" * 10_000_000}, "the record has 10,000,"),
        ],
    )
    def test_for_a_field(self, fields: JSON, expected: str) -> None:
        assert expected in reason(**fields)

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("[]", "expected object, got array"),
            ("null", "expected object, got null"),
            ('"text"', "expected object, got str"),
            (json.dumps(model(name="\ud800")), "half a surrogate pair"),
            (json.dumps(model(name="\udc00x")), "half a surrogate pair"),
            (json.dumps(model()).replace("2026-01-02", r"\ud83d\ud83d\ude00"), "half a surrogate pair"),
            (json.dumps(model(novel="N")).replace('"N"', "1e999"), "a number is out of range: 1e+999"),
            (json.dumps(model(novel="N")).replace('"N"', "1e-999"), "a number is out of range: 1e-999"),
            (json.dumps(model(novel="N")).replace('"N"', "1e99999999999999999999"), "a number is out of range"),
            (json.dumps(model(novel="N")).replace('"N"', "0e-99999999999999999999"), "a number is out of range"),
            (json.dumps(model(novel="N")).replace('"N"', "9" * 400), "out of range"),
            (json.dumps(model(novel="N")).replace('"N"', "9" * 5000), "out of range"),
            (json.dumps(model(novel="N")).replace('"N"', "[" * 24 + "]" * 24), "nested deeper than 24 levels"),
            (json.dumps(model(novel="N")).replace('"N"', "[" * 900 + "]" * 900), "nested deeper than 24 levels"),
        ],
    )
    def test_for_its_json(self, text: str, expected: str) -> None:
        assert expected in reason(text)

    def test_for_bytes_that_are_no_text(self) -> None:
        body = json.dumps({"providers": {"lab": provider({"one": model(name="X"), "good": model(id="good")})}}).encode()
        decoded = decode_body(body.replace(b'"X"', b'"\xff"'))
        assert decoded.quarantined_models["lab/one"].reason == "is not UTF-8"
        assert [record.id for record in decoded.models] == ["lab/good"]

    @pytest.mark.parametrize(
        ("id_", "expected"),
        [
            ("", "id: is empty"),
            ("a\nb", "id: holds a control character"),
            ("a\0", "id: holds a control character"),
            ("a\u202eb", "id: holds a control character"),
            ("x" * 257, "id: has 257 bytes, more than 256"),
            ("ü" * 129, "id: has 258 bytes, more than 256"),
            ("x" * 1_000_000, "id: has 1,000,000 bytes, more than 256"),
        ],
        ids=["empty", "newline", "nul", "bidi", "long", "long in bytes", "huge"],
    )
    def test_for_an_id(self, id_: str, expected: str) -> None:
        decoded = decode_catalog({"lab": provider({id_: model(id=id_), "one": model()})})
        assert [record.id for record in decoded.models] == ["lab/one"]
        mark = decoded.quarantined_models[f"lab/{id_}"]
        assert expected in mark.reason
        assert mark.pointer.isprintable()
        assert len(mark.pointer) < 200

    def test_reasons_are_bounded_and_printable(self) -> None:
        text = reason(id="x\n" * 100_000)
        assert text.isprintable()
        assert len(text) <= 200

    def test_pairs_of_surrogates_and_escaped_backslashes_are_no_halves(self) -> None:
        names = ["😀", r"\ud800", "\\😀"]
        bad = {"bad": model(id="bad", name="\ud800")}
        good = {str(n): model(id=str(n), name=name) for n, name in enumerate(names)}
        decoded = decode_catalog({"lab": provider(bad | good)})
        assert [record.name for record in decoded.models] == names
        assert list(decoded.quarantined_models) == ["lab/bad"]


class TestContentHash:
    def test_key_order_and_spacing_mean_nothing(self) -> None:
        plain = read(cost={"input": 1, "output": 2}, family="f")
        turned = json.dumps(dict(reversed(model(cost={"output": 2, "input": 1}, family="f").items())), indent=3)
        (other,) = decode_body(document(f'"one": {turned}')).models
        assert replace(other, raw="") == replace(plain, raw="")

    def test_presence_means_something(self) -> None:
        values: list[Any] = [DROP, None, False, True, [], {}, "", 0, "0", [None]]
        assert len({read(novel=value).content_hash for value in values}) == len(values)

    @pytest.mark.parametrize(
        "fields",
        [
            {"structured_output": False},
            {"structured_output": None},
            {"cost": {}},
            {"cost": {"input": 0, "output": 0}},
            {"reasoning_options": []},
            {"limit": {"context": 0, "output": 100}},
            {"type": "chat"},
            {"modalities": {"input": ["text", "text"], "output": ["text"]}},
            {"novel": 1},
        ],
    )
    def test_every_difference_counts(self, fields: JSON) -> None:
        assert read(**fields).content_hash != read().content_hash

    def test_residue_that_upstream_takes_off_is_a_difference(self) -> None:
        dirty, clean = (read(cost={"input": number, "output": 1}) for number in (0.060000000000000005, 0.06))
        assert dirty.pricing == clean.pricing
        assert dirty.content_hash != clean.content_hash

    def test_a_link_that_comes_later_is_a_difference(self) -> None:
        canonical = {"lab/one": {"id": "lab/one", "name": "One"}}
        linked = decode_catalog({"lab": provider()}, canonical).models[0]
        assert linked.content_hash != read().content_hash


class TestDocument:
    @pytest.mark.parametrize(
        ("body", "expected"),
        [
            (b"", "catalog.json (0 bytes) is no JSON object"),
            (b"<html></html>", "is no JSON object"),
            (b"[]", "is no JSON object: expected object, got array"),
            (b"null", "is no JSON object"),
            (b'{"providers": {"lab": {', "is no JSON object: input data was truncated"),
            (b'{"error": "not today"}', 'catalog.json has neither "providers" nor "models"'),
            (b'{"providers": {}}', "the payload has no providers"),
            (b'{"models": {"lab/one": {}}}', "the payload has no providers"),
            (b'{"providers": []}', '"providers" of catalog.json (2 bytes) is no JSON object'),
            (b'{"providers": {"lab": {}}, "models": null}', '"models" of catalog.json (4 bytes) is no JSON object'),
            (b'{"providers": {"lab": {"id": "lab", "name": "Lab", "models": {}}}}', "1 providers and not one model"),
            (b'{"providers": {"error": "x"}}', "the first problem is at /providers/error: expected object, got str"),
            (b'{"providers": ' + b'{"a":' * 200_000 + b"1" + b"}" * 200_000 + b"}", "nested too deeply"),
        ],
    )
    def test_what_is_no_catalog_is_refused(self, body: bytes, expected: str) -> None:
        with pytest.raises(UpstreamInvalidError) as raised:
            decode_body(body)
        assert expected in str(raised.value)

    def test_every_cut_of_a_document_is_refused(self) -> None:
        body = json.dumps({"providers": {"lab": provider()}, "models": {}}).encode()
        for length in range(len(body)):
            with pytest.raises(UpstreamInvalidError):
                decode_body(body[:length])

    def test_the_pair_is_the_same_catalog(self) -> None:
        providers, models = {"lab": provider()}, {"lab/one": {"id": "lab/one", "name": "One"}}
        pair = Payload(source=SOURCE, api=json.dumps(providers).encode(), models=json.dumps(models).encode())
        assert decode(pair, frozenset()) == decode_catalog(providers, models)

    def test_the_pair_without_canonical_models(self) -> None:
        pair = Payload(source=SOURCE, api=json.dumps({"lab": provider()}).encode())
        assert decode(pair, frozenset()).canonical_models is None

    def test_a_broken_second_document_is_refused(self) -> None:
        pair = Payload(source=SOURCE, api=json.dumps({"lab": provider()}).encode(), models=b"<html>")
        with pytest.raises(UpstreamInvalidError, match=r"models\.json \(6 bytes\) is no JSON object"):
            decode(pair, frozenset())
