"""What a search asks for and what it finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modelcatalog_server.domain.models import Model
from modelcatalog_server.domain.query import Listed


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchTerm:
    """One word of a query. ``may_go_on``: longer words that begin with it fit too. ``near``: so do these words."""

    word: str
    may_go_on: bool
    near: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchText:
    """A query as terms, all of which a model has to have. ``words``: all of it, which an id or a name may be."""

    terms: tuple[SearchTerm, ...]
    words: tuple[str, ...]

    @property
    def key(self) -> str:
        """The words in one piece, each mistyped one as that which is nearest."""
        nearest = {term.word: term.near[0] for term in self.terms if term.near}
        return "".join(nearest.get(word, word) for word in self.words)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchHit:
    """A model that fits. Of two scores the larger is better. ``texts``: what was searched, by field of the contract."""

    model: Model
    score: int
    texts: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """One page of what a search found, and how many models in all."""

    items: Sequence[Listed[SearchHit]]
    total: int
