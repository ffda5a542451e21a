"""Derives which canonical model a served one is an instance of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from modelcatalog_server.catalog.resolver import rules
from modelcatalog_server.catalog.resolver.matching import Known, Match, SpellingTable
from modelcatalog_server.catalog.resolver.spelling import Spelling, read_spelling
from modelcatalog_server.domain.models import CanonicalLink, model_id

#: Two records of one model name the day of its release, or the day a platform got it: seldom more than this apart.
MAX_RELEASE_GAP_DAYS = 45

# Steps that take an unnamed snapshot for the one that is known: the day of release can contradict them.
_CONTRADICTED_BY_DATE = frozenset({"undated", "latest"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What a record says of a model besides its id. It breaks ties and vetoes; it never makes a link.

    ``release_date`` is upstream's text and counts only as a full date.
    """

    release_date: str | None = None
    family: str | None = None


NO_FACTS = ModelFacts()


class CanonicalIndex:
    """All canonical models that there are, to be built once per refresh."""

    def __init__(self, models: Mapping[str, ModelFacts] | Iterable[str]) -> None:
        """Take canonical ids, with what is known of each if the caller has it."""
        self._facts = dict(models) if isinstance(models, Mapping) else dict.fromkeys(models, NO_FACTS)
        self.labs = frozenset(id_.partition("/")[0] for id_ in self._facts)
        self._table = SpellingTable(self.labs)
        for id_ in sorted(self._facts):
            self._table.add(Known(id_, read_spelling(id_)))
        self._read: dict[str, Spelling] = {}

    def __contains__(self, canonical_id: str) -> bool:
        return canonical_id in self._facts

    def __len__(self) -> int:
        return len(self._facts)

    @property
    def ids(self) -> Iterable[str]:
        """All canonical ids."""
        return self._facts.keys()

    def read(self, served_id: str) -> Spelling:
        """Return the spelling of a served id. Half of them come again, from another provider."""
        if served_id not in self._read:
            self._read[served_id] = read_spelling(served_id)
        return self._read[served_id]

    def facts(self, canonical_id: str) -> ModelFacts:
        """Return what is known of a canonical model besides its id."""
        return self._facts.get(canonical_id, NO_FACTS)

    def find(self, spelling: Spelling, makers: frozenset[str] = frozenset()) -> list[Match]:
        """Return the canonical models that a spelling may mean, surest first."""
        return self._table.find(spelling, makers)


def derive_canonical(
    provider_id: str, served_id: str, facts: ModelFacts, index: CanonicalIndex
) -> CanonicalLink | None:
    """Return which canonical model a served one is, or ``None`` where no rule or more than one answer fits.

    What upstream itself names is not looked at here: it wins, and the caller has it.
    """
    qualified = model_id(provider_id, served_id)
    if qualified in index:
        return CanonicalLink(
            canonical_id=qualified, rule="provider_and_id", confidence=rules.CONFIDENCES["provider_and_id"]
        )
    if served_id in index:
        return CanonicalLink(canonical_id=served_id, rule="served_id", confidence=rules.CONFIDENCES["served_id"])
    spelling = index.read(served_id)
    matches = index.find(spelling, provider_words(provider_id))
    chosen = choose([match for match in matches if not _is_vetoed(match, facts, index)], spelling, facts, index)
    if chosen is None:
        return None
    return CanonicalLink(canonical_id=chosen.id, rule=chosen.rule, confidence=chosen.confidence)


def provider_words(provider_id: str) -> frozenset[str]:
    """Return the words that a provider may put before a model's name to say who serves it: snowflake-llama3.3-70b."""
    return frozenset({provider_id, provider_id.partition("-")[0]})


def choose(matches: Sequence[Match], spelling: Spelling, facts: ModelFacts, index: CanonicalIndex) -> Match | None:
    """Return the one match that is better than all others, or ``None``."""
    equal = [match for match in matches if match.confidence == matches[0].confidence]
    for narrow in (_of_lab_in_path, _newest_for_latest, _of_same_release):
        if len(equal) > 1:
            equal = narrow(equal, spelling, facts, index) or equal
    return equal[0] if len(equal) == 1 else None


def _of_lab_in_path(equal: list[Match], spelling: Spelling, _facts: ModelFacts, _index: CanonicalIndex) -> list[Match]:
    before = {*spelling.path, *spelling.prefixes}
    return [match for match in equal if match.id.partition("/")[0] in before]


def _newest_for_latest(
    equal: list[Match], spelling: Spelling, _facts: ModelFacts, _index: CanonicalIndex
) -> list[Match]:
    if not spelling.latest or not all(len(match.dates) == 1 for match in equal):
        return []
    lengths = {len(match.dates[0]) for match in equal}
    newest = max(match.dates[0] for match in equal)
    return [match for match in equal if match.dates[0] == newest] if len(lengths) == 1 else []


def _of_same_release(equal: list[Match], _spelling: Spelling, facts: ModelFacts, index: CanonicalIndex) -> list[Match]:
    return [match for match in equal if facts.release_date and facts.release_date == index.facts(match.id).release_date]


def _is_vetoed(match: Match, facts: ModelFacts, index: CanonicalIndex) -> bool:
    """Whether an undated id was released on another day than the snapshot that it would be taken for."""
    if _CONTRADICTED_BY_DATE.isdisjoint(match.steps):
        return False
    days = _day(facts.release_date), _day(index.facts(match.id).release_date)
    return None not in days and abs(days[0] - days[1]) > MAX_RELEASE_GAP_DAYS  # type: ignore[operator]  # mypy does not see the test


def _day(text: str | None) -> int | None:
    try:
        return date.fromisoformat(text).toordinal() if text else None
    except ValueError:
        return None
