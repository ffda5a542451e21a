"""Derives which canonical model a served one is an instance of.

In two steps, because they have to happen in two places: what a served id may mean follows from the ids that there are
alone (:func:`link_candidates`), and which of it is meant from the record too (:func:`pick_link`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

from modelcatalog_server.catalog.resolver import rules
from modelcatalog_server.catalog.resolver.matching import Known, Match, SpellingTable
from modelcatalog_server.catalog.resolver.spelling import Spelling, read_id
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


NO_FACTS = ModelFacts()


class LinkCandidate(NamedTuple):
    """A canonical model that a served id may mean.

    ``rank`` orders candidates: confidence, whether the lab is in the id's path, and of ``-latest`` the snapshot's date.
    ``release_date`` is the canonical model's: it decides between equals, and may contradict.
    """

    canonical_id: str
    rule: str
    confidence: float
    rank: tuple[float, bool, str]
    is_contradicted_by_date: bool = False
    release_date: str | None = None


class CanonicalIndex:
    """All canonical models that there are. It serves as long as neither their ids nor their release dates change."""

    def __init__(self, models: Mapping[str, ModelFacts] | Iterable[str]) -> None:
        """Take canonical ids, with what is known of each if the caller has it."""
        self._facts = dict(models) if isinstance(models, Mapping) else dict.fromkeys(models, NO_FACTS)
        self.labs = frozenset(id_.partition("/")[0] for id_ in self._facts)
        self._table = SpellingTable(self.labs)
        for id_ in sorted(self._facts):
            self._table.add(Known(id_, read_id(id_)))
        self._candidates: dict[tuple[str, frozenset[str]], tuple[LinkCandidate, ...]] = {}

    def __contains__(self, canonical_id: str) -> bool:
        return canonical_id in self._facts

    def __len__(self) -> int:
        return len(self._facts)

    @property
    def ids(self) -> Iterable[str]:
        """All canonical ids."""
        return self._facts.keys()

    def find(self, spelling: Spelling, makers: frozenset[str] = frozenset()) -> list[Match]:
        """Return the canonical models that a spelling may mean, surest first."""
        return self._table.find(spelling, makers)

    def candidates(self, provider_id: str, served_id: str) -> tuple[LinkCandidate, ...]:
        """Return what a served id may mean by the rules. Half of the ids come again, from another provider."""
        spelling = read_id(served_id)
        makers = _provider_words(provider_id).intersection(spelling.words)
        key = served_id, makers
        if key not in self._candidates:
            self._candidates[key] = tuple(self._candidate(match, spelling) for match in self.find(spelling, makers))
        return self._candidates[key]

    def _candidate(self, match: Match, spelling: Spelling) -> LinkCandidate:
        return LinkCandidate(
            canonical_id=match.id,
            rule=match.rule,
            confidence=match.confidence,
            rank=_rank(match, spelling),
            is_contradicted_by_date=not _CONTRADICTED_BY_DATE.isdisjoint(match.steps),
            release_date=self._facts[match.id].release_date,
        )


def derive_canonical(
    provider_id: str, served_id: str, facts: ModelFacts, index: CanonicalIndex
) -> CanonicalLink | None:
    """Return which canonical model a served one is, or ``None`` where no rule or more than one answer fits.

    What upstream itself names is not looked at here: it wins, and the caller has it.
    """
    return pick_link(link_candidates(provider_id, served_id, index), facts)


def link_candidates(provider_id: str, served_id: str, index: CanonicalIndex) -> tuple[LinkCandidate, ...]:
    """Return the canonical models that a served one may be an instance of, by its id.

    They are all that a link depends on besides the record itself, so a record whose candidates and text are as they
    were has the link that it had.
    """
    for rule, id_ in (("provider_and_id", model_id(provider_id, served_id)), ("served_id", served_id)):
        if id_ in index:
            confidence = rules.CONFIDENCES[rule]
            return (LinkCandidate(canonical_id=id_, rule=rule, confidence=confidence, rank=(confidence, True, "")),)
    return index.candidates(provider_id, served_id)


def pick_link(candidates: Sequence[LinkCandidate], facts: ModelFacts) -> CanonicalLink | None:
    """Return the link to the one candidate that is better than all others, or ``None``."""
    possible = [candidate for candidate in candidates if not _is_contradicted(candidate, facts)]
    best = [candidate for candidate in possible if candidate.rank == max(other.rank for other in possible)]
    if len(best) > 1:
        best = [candidate for candidate in best if facts.release_date and facts.release_date == candidate.release_date]
    if len(best) != 1:
        return None
    return CanonicalLink(canonical_id=best[0].canonical_id, rule=best[0].rule, confidence=best[0].confidence)


def choose_match(matches: Sequence[Match], spelling: Spelling) -> Match | None:
    """Return the one match that is better than all others by the ids alone, or ``None``."""
    ranks = [_rank(match, spelling) for match in matches]
    best = [match for match, rank in zip(matches, ranks, strict=True) if rank == max(ranks)]
    return best[0] if len(best) == 1 else None


def _provider_words(provider_id: str) -> frozenset[str]:
    """Return what a provider may put before a model's name to say who serves it: snowflake-llama3.3-70b."""
    return frozenset({provider_id, provider_id.partition("-")[0]})


def _rank(match: Match, spelling: Spelling) -> tuple[float, bool, str]:
    is_lab_named = match.id.partition("/")[0] in {*spelling.path, *spelling.prefixes}
    # Months and days without a year have no order.
    snapshot = match.dates[0] if spelling.latest and match.dates and len(match.dates[0]) >= len("202511") else ""
    return match.confidence, is_lab_named, snapshot


def _is_contradicted(candidate: LinkCandidate, facts: ModelFacts) -> bool:
    """Whether an undated id was released on another day than the snapshot that it would be taken for."""
    if not candidate.is_contradicted_by_date:
        return False
    served, canonical = _day(facts.release_date), _day(candidate.release_date)
    return served is not None and canonical is not None and abs(served - canonical) > MAX_RELEASE_GAP_DAYS


def _day(text: str | None) -> int | None:
    try:
        return date.fromisoformat(text).toordinal() if text else None
    except ValueError:
        return None
