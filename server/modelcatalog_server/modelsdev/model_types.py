"""What a model is for, where upstream does not say: by what goes in and comes out, and by words that leave no doubt.

A wrong type is worse than none, so each rule needs all that it names, and where none fits upstream's own rule stands: a
model without a type is for chat.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Set
from functools import lru_cache
from typing import NamedTuple

from modelcatalog_server.domain.models import DEFAULT_TYPE, DerivedField, Modalities

#: Of words: none of the models that they moved in the payload of 2026-07-02 was wrong, all read by eye.
_WORDS_CONFIDENCE = 0.99

_EMBEDDING_WORDS = frozenset({"embed", "embedding", "embeddings", "embedcode", "bge"})  # BAAI General Embedding
_RERANK_WORDS = frozenset({"rerank", "reranker"})
_SPEECH_WORDS = frozenset({"tts"})
_TRANSCRIPTION_WORDS = frozenset({"whisper", "transcribe", "asr", "stt"})
_MODERATION_WORDS = frozenset({"guard", "safeguard", "moderation"})
_SAFETY_PAIR = frozenset({"content", "safety"})
_ALL_WORDS = frozenset().union(
    _EMBEDDING_WORDS, _RERANK_WORDS, _SPEECH_WORDS, _TRANSCRIPTION_WORDS, _MODERATION_WORDS, _SAFETY_PAIR
)
_WORD = re.compile(rf"(?<![a-z])(?:{'|'.join(sorted(_ALL_WORDS))})(?![a-z])")


class Facts(NamedTuple):
    """What a type is derived from. ``words`` are those of id and family that a rule asks for, lower case."""

    words: Set[str]
    input: Set[str]
    output: Set[str]
    reasoning: bool | None


class TypeRule(NamedTuple):
    """``meaning`` is the rule in words, ``applies`` the same as code. ``confidence`` as in ``DerivedField``."""

    name: str
    type: str
    meaning: str
    applies: Callable[[Facts], bool]
    confidence: float | None = None


def _makes_text_only(facts: Facts) -> bool:
    return facts.output == {"text"}


#: The first that applies has it.
TYPE_RULES = (
    TypeRule(
        "output_image",
        "image",
        "images come out, perhaps as PDF, and nothing else; it does not reason",
        lambda facts: "image" in facts.output and facts.output <= {"image", "pdf"} and not facts.reasoning,
    ),
    TypeRule(
        "output_video",
        "video",
        "video comes out and nothing else; it does not reason",
        lambda facts: facts.output == {"video"} and not facts.reasoning,
    ),
    TypeRule(
        "speech_words",
        "speech",
        "audio comes out and nothing else, and the id has the word tts",
        lambda facts: facts.output == {"audio"} and not facts.words.isdisjoint(_SPEECH_WORDS),
        _WORDS_CONFIDENCE,
    ),
    TypeRule(
        "transcription_words",
        "transcription",
        "audio goes in and text comes out, nothing else, and the id has a word of whisper, transcribe, asr, stt",
        lambda facts: (
            facts.input == {"audio"} and _makes_text_only(facts) and not facts.words.isdisjoint(_TRANSCRIPTION_WORDS)
        ),
        _WORDS_CONFIDENCE,
    ),
    TypeRule(
        "rerank_words",
        "rerank",
        "text comes out and nothing else, and the id has the word rerank or reranker",
        lambda facts: _makes_text_only(facts) and not facts.words.isdisjoint(_RERANK_WORDS),
        _WORDS_CONFIDENCE,
    ),
    TypeRule(
        "embedding_words",
        "embedding",
        "text comes out and nothing else, and the id or the family has a word of embed, embedding, embeddings, "
        "embedcode, bge",
        lambda facts: _makes_text_only(facts) and not facts.words.isdisjoint(_EMBEDDING_WORDS),
        _WORDS_CONFIDENCE,
    ),
    TypeRule(
        "moderation_words",
        "moderation",
        "text comes out and nothing else, and the id has a word of guard, safeguard, moderation, or both content and "
        "safety",
        lambda facts: (
            _makes_text_only(facts) and (not facts.words.isdisjoint(_MODERATION_WORDS) or facts.words >= _SAFETY_PAIR)
        ),
        _WORDS_CONFIDENCE,
    ),
    TypeRule("absent_means_chat", DEFAULT_TYPE, "none of the others applies", lambda _: True),
)

_DERIVED = {rule.name: DerivedField(field="type", rule=rule.name, confidence=rule.confidence) for rule in TYPE_RULES}


@lru_cache(maxsize=8_192)  # one id is served by many providers
def derive_type(
    upstream_id: str, family: str | None, modalities: Modalities, reasoning: bool | None
) -> tuple[str, DerivedField]:
    """Return the type of a model for which upstream has none, and by which rule it has it."""
    facts = Facts(
        words=frozenset(_WORD.findall(f"{upstream_id} {family or ''}".lower())),
        input=frozenset(modalities.input),
        output=frozenset(modalities.output),
        reasoning=reasoning,
    )
    rule = next(rule for rule in TYPE_RULES if rule.applies(facts))
    return rule.type, _DERIVED[rule.name]
