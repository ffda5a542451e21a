"""What the service adds to upstream's records, by which rule, over the payload of 2026-07-02 and at its edges."""

from __future__ import annotations

import gzip
from collections import Counter
from decimal import Decimal
from functools import cache
from importlib import resources
from pathlib import Path

import pytest

from modelcatalog.v1 import model_pb2
from modelcatalog_server.catalog.resolver.spelling import find_date
from modelcatalog_server.domain.models import (
    Capabilities,
    DerivedField,
    Limits,
    Modalities,
    ModelRecord,
    Prices,
    Pricing,
    Source,
)
from modelcatalog_server.domain.refresh import Payload
from modelcatalog_server.modelsdev.model_types import TYPE_RULES, derive_type
from modelcatalog_server.modelsdev.tags import LONG_CONTEXT_TOKENS, TAGS, Facts, derive_tags
from modelcatalog_server.rpc.model_messages import TYPES, encode_model
from unit.decoding import decode
from unit.test_modelsdev_records import decode_catalog, model, provider

DOCS = Path(__file__).parents[2] / "docs"
TEXT = Modalities(input=("text",), output=("text",))


@cache
def payload_models() -> dict[str, ModelRecord]:
    snapshot = resources.files("modelcatalog_server.modelsdev") / "snapshot" / "catalog-2026-07-02.json.gz"
    payload = Payload(source=Source(url="", snapshot=""), catalog=gzip.decompress(snapshot.read_bytes()))
    return {record.id: record for record in decode(payload, frozenset()).models}


def read(upstream_id: str, **fields: object) -> ModelRecord:
    (record,) = decode_catalog({"lab": provider({upstream_id: model(id=upstream_id, **fields)})}).models
    return record


def type_rule(record: ModelRecord) -> str:
    (rule,) = (derived.rule for derived in record.derived if derived.field == "type")
    return rule


def model_type(upstream_id: str, input_: str = "text", output: str = "text", *, reasoning: bool | None = False) -> str:
    """Return the type of a model whose modalities are written with spaces between them."""
    modalities = Modalities(input=tuple(input_.split()), output=tuple(output.split()))
    return derive_type(upstream_id, None, modalities, reasoning)[0]


def tags(
    *,
    status: str = "active",
    limits: Limits | None = None,
    capabilities: Capabilities | None = None,
    modalities: Modalities = TEXT,
    pricing: Pricing | None = None,
) -> tuple[str, ...]:
    return derive_tags(Facts(status, limits or Limits(), capabilities or Capabilities(), modalities, pricing))


# --- type


def test_each_rule_moves_the_models_that_were_read_by_eye() -> None:
    assert Counter(type_rule(record) for record in payload_models().values()) == {
        "absent_means_chat": 5011,
        "output_image": 81,
        "embedding_words": 62,
        "output_video": 47,
        "moderation_words": 26,
        "speech_words": 22,
        "transcription_words": 15,
        "rerank_words": 12,
    }


@pytest.mark.parametrize(
    ("model_id", "rule"),
    [
        ("openai/gpt-image-1", "output_image"),
        ("openai/gpt-image-1.5", "absent_means_chat"),  # text comes out as well
        ("xai/grok-imagine-image", "output_image"),  # as PDF, too
        ("poe/openai/gpt-5.4-pro", "absent_means_chat"),  # reasons: that only images come out is a slip of upstream's
        ("poe/openai/sora-2", "output_video"),
        ("google/gemini-2.5-flash-preview-tts", "speech_words"),
        ("poe/elevenlabs/elevenlabs-music", "absent_means_chat"),  # audio, but no speech
        ("groq/whisper-large-v3", "transcription_words"),
        ("digitalocean/bge-reranker-v2-m3", "rerank_words"),  # before bge, which embeds
        ("digitalocean/bge-m3", "embedding_words"),
        ("digitalocean/gte-large-en-v1.5", "embedding_words"),  # by its family
        ("ovhcloud/qwen3guard-gen-8b", "moderation_words"),
        ("nvidia/nvidia/nemotron-3-content-safety", "moderation_words"),
        ("vercel/openai/gpt-realtime-2", "absent_means_chat"),
        ("nvidia/nvidia/synthetic-video-detector", "absent_means_chat"),
    ],
)
def test_a_model_has_its_type_by_a_rule(model_id: str, rule: str) -> None:
    record = payload_models()[model_id]
    assert type_rule(record) == rule
    assert record.type == next(row.type for row in TYPE_RULES if row.name == rule)


@pytest.mark.parametrize(
    ("upstream_id", "input_", "output"),
    [
        ("embedded-coder", "text", "text"),
        ("vanguard-7b", "text", "text"),
        ("whisper-large", "text audio", "text"),
        ("tts-1", "text", "text audio"),
        ("text-embedding-3", "text", "text image"),
        ("safety-first", "text", "text"),
    ],
)
def test_half_a_sign_gives_no_type(upstream_id: str, input_: str, output: str) -> None:
    assert model_type(upstream_id, input_, output) == "chat"


def test_what_upstream_says_wins_and_is_not_marked() -> None:
    record = read("text-embedding-3", type="Chat")
    assert record.type == "chat"
    assert record.derived == ()


def test_every_rule_gives_a_type_that_the_contract_has() -> None:
    assert {rule.type for rule in TYPE_RULES} <= TYPES.keys()


# --- version


@pytest.mark.parametrize(
    ("upstream_id", "version"),
    [
        ("gpt-5-2025-08-07", "2025-08-07"),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "20250929"),
        ("claude-opus-4-5@20251101", "20251101"),
        ("mistralai/Mistral-Large-2512", "2512"),
        ("kimi-k2-0905-preview", "0905"),
        ("gemini-2.5-flash-preview-09-2025", "09-2025"),
        ("gemini-2.5-pro-preview-05-06", "05-06"),
        ("doubao-seed-1-6-250615", "250615"),
        ("claude-opus-4-thinking:1024", None),  # a budget
        ("gemini-2.0-flash-001", None),  # a revision, no date
        ("gpt-4o", None),
        ("glm-5p2", None),
        ("2512/model", None),  # not in the name
    ],
)
def test_a_version_is_the_last_date_of_the_name_as_written(upstream_id: str, version: str | None) -> None:
    assert find_date(upstream_id) == version


def test_the_payload_names_a_version_in_this_many_ids() -> None:
    records = payload_models().values()
    versions = [record for record in records if record.version is not None]
    assert len(versions) == 478
    assert all(DerivedField(field="version", rule="date_suffix") in record.derived for record in versions)
    assert all(record.version in record.upstream_id for record in versions if record.version)


def test_what_is_derived_is_on_the_wire_and_in_the_hash() -> None:
    record = read("glm-ocr-embed-2512")
    message = model_pb2.Model.FromString(encode_model(record))
    assert [(each.field, each.rule, each.HasField("confidence")) for each in message.derived] == [
        ("type", "embedding_words", True),
        ("version", "date_suffix", False),
    ]
    assert message.version == "2512"
    assert message.type == model_pb2.Model.TYPE_EMBEDDING
    assert read("one", type=None).content_hash != read("one", type="chat").content_hash


# --- tags


@pytest.mark.parametrize(
    ("given", "tag"),
    [
        ({"status": "alpha"}, "alpha"),
        ({"status": "beta"}, "beta"),
        ({"status": "deprecated"}, "deprecated"),
        ({"modalities": Modalities(input=("audio",), output=("text",))}, "audio"),
        ({"modalities": Modalities(input=("video",), output=("text",))}, "video"),
        ({"modalities": Modalities(input=("text",), output=("image",))}, "image-generation"),
        ({"limits": Limits(context_window=LONG_CONTEXT_TOKENS)}, "long-context"),
        ({"pricing": Pricing(prices=Prices(input=Decimal(0), output=Decimal(0)))}, "free"),
        ({"capabilities": Capabilities(open_weights=True)}, "open-weights"),
        ({"capabilities": Capabilities(pdf_input=True)}, "pdf"),
        ({"capabilities": Capabilities(reasoning=True)}, "reasoning"),
        ({"capabilities": Capabilities(structured_output=True)}, "structured-output"),
        ({"capabilities": Capabilities(tool_use=True)}, "tool-call"),
        ({"capabilities": Capabilities(vision=True)}, "vision"),
    ],
)
def test_one_fact_gives_one_tag(given: dict[str, object], tag: str) -> None:
    assert tags(**given) == (tag,)  # type: ignore[arg-type]  # each row is of other fields


def test_video_that_comes_out_is_two_tags() -> None:
    assert tags(modalities=Modalities(input=("text",), output=("video",))) == ("video", "video-generation")


def test_what_is_not_known_gives_no_tag() -> None:
    assert tags() == ()
    assert tags(status="something new", pricing=Pricing(prices=Prices(input=Decimal(0)))) == ()
    assert tags(pricing=Pricing(prices=Prices(input=Decimal(0), output=Decimal(1)))) == ()
    assert tags(limits=Limits(context_window=LONG_CONTEXT_TOKENS - 1)) == ()


def test_only_what_upstream_calls_free_is_tagged_free() -> None:
    records = payload_models().values()
    assert sum("free" in record.tags for record in records) == 432
    assert not any("free" in record.tags for record in records if record.pricing is None)


def test_tags_are_sorted_and_each_marks_some_models_of_the_payload() -> None:
    names = [tag.name for tag in TAGS]
    assert names == sorted(names)
    assert {tag for record in payload_models().values() for tag in record.tags} == set(names)


# --- docs


def test_the_docs_have_every_tag_and_every_type_with_its_rule() -> None:
    page = (DOCS / "derived.md").read_text()
    for tag in TAGS:
        assert f"| `{tag.name}` | {tag.meaning} |" in page
    for rule in TYPE_RULES:
        assert f"| `{rule.name}` | {rule.type.upper()} | {rule.meaning} |" in page
