"""Picks the canonical model of a served one out of those that its id may mean.

Apart from finding them, because it happens elsewhere: where the record is decoded, and nothing of the rules is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

from modelcatalog_server.domain.models import CanonicalLink

#: Two records of one model name the day of its release, or the day a platform got it: seldom more than this apart.
MAX_RELEASE_GAP_DAYS = 45


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


def pick_link(candidates: Sequence[LinkCandidate], facts: ModelFacts) -> CanonicalLink | None:
    """Return the link to the one candidate that is better than all others, or ``None``."""
    possible = [candidate for candidate in candidates if not _is_contradicted(candidate, facts)]
    best = [candidate for candidate in possible if candidate.rank == max(other.rank for other in possible)]
    if len(best) > 1:
        best = [candidate for candidate in best if facts.release_date and facts.release_date == candidate.release_date]
    if len(best) != 1:
        return None
    return CanonicalLink(canonical_id=best[0].canonical_id, rule=best[0].rule, confidence=best[0].confidence)


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
