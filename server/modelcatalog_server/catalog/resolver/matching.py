"""Finds the known ids that a spelling may mean.

The guard is the key of the table: words and sizes as multisets, version numbers in order. An id is found only under a
key that a *reading* of the spelling has, and a reading may drop who makes or serves the model, never a word that tells
siblings apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from typing import Final

from modelcatalog_server.catalog.resolver import rules
from modelcatalog_server.catalog.resolver.spelling import Spelling

Key = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]

#: Names of labs and clouds that ids put around a model's name. The labs of the catalog and the provider at hand are
#: added to them.
MAKERS: Final = frozenset(
    {"ai", "labs", "org", "x", "z", "meta", "zai", "xai", "google", "openai", "anthropic", "nvidia", "cohere", "amazon",
     "aws", "azure", "bedrock", "vertex", "alibaba", "alicloud", "aliyun", "mistralai", "minimaxai", "moonshot",
     "moonshotai", "zhipu", "zhipuai", "xiaomi", "tencent", "bytedance", "microsoft", "perplexity", "groq",
     "databricks", "cerebras", "sambanova", "fireworks", "together", "baseten", "novita", "siliconflow"}
)  # fmt: skip

#: What models are sold as, before their name: a coding plan, GitLab's Duo Chat.
PRODUCTS: Final = (("coding",), ("duo", "chat"))

#: How fast an open-weights model is run. Only beside a size, which says that the weights are open: GPT-4 Turbo is
#: another model than GPT-4, Llama 3.3 70B Turbo is Llama 3.3 70B on faster machines.
SERVING_WORDS: Final = frozenset({"turbo", "fast", "lightning", "instant", "versatile", "highspeed"})

#: Marks a model that thinks before it answers, where one lab makes both kinds under one name.
THINKING: Final = frozenset({"thinking", "reasoning"})

_MAX_LEADING = 2
_MAX_PARTS = 24  # no id has half as many words and numbers; what has more is text


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A known id and the steps to it. ``substance`` counts only steps that change what the name says."""

    id: str
    steps: tuple[str, ...]
    dates: tuple[str, ...] = ()
    confidence: float = field(default=0.0)
    substance: float = field(default=0.0)

    @property
    def rule(self) -> str:
        """The rule of the weakest step."""
        return rules.weakest(self.steps)


@dataclass(frozen=True, slots=True)
class Known:
    """An id that there is."""

    id: str
    spelling: Spelling


class SpellingTable:
    """Known ids by what their spellings say."""

    def __init__(self, makers: Set[str] = frozenset()) -> None:
        self._makers = MAKERS | makers
        self._known: dict[Key, list[Known]] = {}

    def add(self, known: Known) -> None:
        """Add an id. One that is all decoration (``free``) names nothing, and is not found."""
        key = _key(known.spelling.words, known.spelling.numbers, known.spelling.sizes)
        if any(key):
            self._known.setdefault(key, []).append(known)

    def find(self, spelling: Spelling, makers: Set[str] = frozenset()) -> list[Match]:
        """Return the ids that the spelling may mean, surest first.

        ``makers``: further words that name who serves, not what.
        """
        best: dict[str, Match] = {}
        for key, steps in self._readings(spelling, self._makers | makers if makers else self._makers):
            for known in self._known.get(key, ()):
                match = self._match(spelling, known, key, steps)
                if match and (known.id not in best or best[known.id].confidence < match.confidence):
                    best[known.id] = match
        return sorted(best.values(), key=lambda match: (-match.confidence, match.id))

    def _match(self, spelling: Spelling, known: Known, key: Key, reading: tuple[str, ...]) -> Match | None:
        differences = _differences(spelling, known.spelling)
        if differences is None:
            return None
        if "instruct" in differences and self._has_thinking_sibling(key):
            return None
        substance = [*reading, *differences]
        steps = [*substance, *_form(spelling, known, same_substance=not substance)]
        return Match(
            id=known.id,
            steps=tuple(steps),
            dates=known.spelling.dates,
            confidence=rules.combined(steps),
            substance=rules.combined(step for step in substance if step not in rules.FORM),
        )

    def _has_thinking_sibling(self, key: Key) -> bool:
        words, numbers, sizes = key
        return any(_key((*words, word), numbers, sizes) in self._known for word in THINKING)

    def _readings(self, spelling: Spelling, makers: Set[str]) -> Iterator[tuple[Key, tuple[str, ...]]]:
        """Yield the keys under which the model may be known, with the steps that each takes."""
        if len(spelling.words) + len(spelling.numbers) > _MAX_PARTS:
            return
        for words, word_steps in _word_readings(spelling, makers):
            for numbers, number_steps in _number_readings(spelling):
                yield _key(words, numbers, spelling.sizes), (*word_steps, *number_steps)


def _key(words: Iterable[str], numbers: tuple[str, ...], sizes: tuple[str, ...]) -> Key:
    return tuple(sorted(words)), numbers, sizes


def _word_readings(spelling: Spelling, makers: Set[str]) -> Iterator[tuple[Sequence[str], tuple[str, ...]]]:
    for words, steps in _without_makers(spelling, makers):
        if spelling.mode.startswith("thinking"):
            yield (*words, "thinking"), steps
        mode = ("mode",) if spelling.mode else ()
        yield words, (*steps, *mode)
        if spelling.sizes and not SERVING_WORDS.isdisjoint(words):
            yield [word for word in words if word not in SERVING_WORDS], (*steps, *mode, "serving_word")


def _without_makers(spelling: Spelling, makers: Set[str]) -> Iterator[tuple[Sequence[str], tuple[str, ...]]]:
    """Yield the words as they are, with the dotted lab before them (deepseek.r1), and without labs around them."""
    words = spelling.words
    yield words, ()
    for product in PRODUCTS:
        if words[: len(product)] == product:
            words = words[len(product) :]
            yield words, ("maker_word",)
    if spelling.prefixes:
        yield (spelling.prefixes[-1], *words), ()
    for count in range(1, min(_MAX_LEADING, len(words) - 1) + 1):
        if words[count - 1] not in makers:
            break
        yield words[count:], ("maker_word",)
    if len(words) > 1 and words[-1] in makers:
        yield words[:-1], ("maker_word",)


def _number_readings(spelling: Spelling) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    numbers = spelling.numbers
    yield numbers, ()
    for position in spelling.joined:
        yield (*numbers[:position], *numbers[position], *numbers[position + 1 :]), ("joined_version",)
    if len(numbers) == 1:
        yield (*numbers, "0"), ("version_zero",)
    elif len(numbers) == 2 and numbers[1] == "0":
        yield numbers[:1], ("version_zero",)


def _differences(spelling: Spelling, known: Spelling) -> list[str] | None:
    """Return the steps from a spelling to a known one of the same key, or ``None`` if they are of two models."""
    steps = []
    if spelling.active != known.active:
        if not _one_is_part(spelling.active, known.active):
            return None
        steps.append("active_parameters")
    if spelling.preview and not known.preview:
        return None  # the preview of a model is not the model: GPT-4 Turbo Preview
    if known.preview and not spelling.preview:
        steps.append("preview")
    if spelling.instruct != known.instruct:
        if spelling.instruct and not _is_open_release(spelling):
            return None
        steps.append("instruct")
    if spelling.first_version != known.first_version and not spelling.regional:
        steps.append("first_version")
    time = _time_difference(spelling, known)
    return None if time is None else steps + time


def _is_open_release(spelling: Spelling) -> bool:
    """Whether an id is named as open weights are, whose chat model is the instruct one: by size, or year and month.

    GPT-3.5 Turbo Instruct is another model than GPT-3.5 Turbo.
    """
    return bool(spelling.sizes) or any(len(date) == len("202407") for date in spelling.dates)


def _one_is_part(some: tuple[str, ...], others: tuple[str, ...]) -> bool:
    return set(some) <= set(others) or set(others) <= set(some)


def _time_difference(spelling: Spelling, known: Spelling) -> list[str] | None:
    if spelling.dates and known.dates:
        return [] if _same_date(spelling.dates, known.dates) and spelling.latest == known.latest else None
    if spelling.dates:
        return None if known.latest else ["dated_snapshot"]
    if spelling.latest != known.latest:
        return ["latest", "undated"] if known.dates else ["latest"]
    return ["undated"] if known.dates else []


def _same_date(some: tuple[str, ...], others: tuple[str, ...]) -> bool:
    """Whether two dates agree as far as both go: 202511 and 20251101, 0309 and 20260309."""
    if len(some) != len(others):
        return False
    pairs = (sorted(pair, key=len) for pair in zip(some, others, strict=True))
    return all(
        short == long or (len(short) > len("001") and (long.startswith(short) or long.endswith(short)))
        for short, long in pairs
    )


def _form(spelling: Spelling, known: Known, *, same_substance: bool) -> list[str]:
    """Return the steps between two ways to write the same."""
    if spelling.text == known.id:
        return ["served_id"]
    steps = [*_path_step(spelling.path, known.spelling.path)]
    if spelling.packaged != known.spelling.packaged:
        steps.append("packaging")
    if spelling.regional and not known.spelling.regional:
        steps.append("region")
    name, known_name = spelling.name, known.spelling.name
    if name == known_name:
        is_same_case = spelling.text.rpartition("/")[2] == known.id.rpartition("/")[2]
        return steps if is_same_case and (steps or not same_substance) else [*steps, "case"]
    if same_substance and not {"packaging", "region"}.intersection(steps):
        steps.append("word_order" if _is_rearranged(name, known_name) else "punctuation")
    return steps


def _is_rearranged(name: str, known: str) -> bool:
    some, others = ([sign for sign in text if sign.isalnum()] for text in (name, known))
    return some != others and sorted(some) == sorted(others)


def _path_step(path: tuple[str, ...], known: tuple[str, ...]) -> list[str]:
    if path == known:
        return []
    return ["reseller_path"] if max(len(path), len(known)) > 1 or (path and known) else ["lab_prefix"]
