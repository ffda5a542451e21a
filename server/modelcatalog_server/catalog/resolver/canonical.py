"""Derives which canonical model a served one is an instance of.

In two steps, because they have to happen in two places: what a served id may mean follows from the ids that there are
alone (:func:`link_candidates`), and which of it is meant from the record too (:func:`~.linking.pick_link`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from modelcatalog_server.catalog.resolver import rules
from modelcatalog_server.catalog.resolver.linking import NO_FACTS, LinkCandidate, ModelFacts, pick_link
from modelcatalog_server.catalog.resolver.matching import Known, Match, SpellingTable
from modelcatalog_server.catalog.resolver.spelling import Spelling, read_id
from modelcatalog_server.domain.models import CanonicalLink, model_id

# Steps that take an unnamed snapshot for the one that is known: the day of release can contradict them.
_CONTRADICTED_BY_DATE = frozenset({"undated", "latest"})


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
