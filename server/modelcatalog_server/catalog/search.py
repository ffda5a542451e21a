"""The search: models that fit a text, best first. docs/search.md says what fits and what is better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from modelcatalog_server.catalog.arguments import to_page_size
from modelcatalog_server.catalog.fields import MODEL_FIELDS
from modelcatalog_server.catalog.filtering import parse_filter
from modelcatalog_server.catalog.paging import Page, PageTokens, Position, scope_of
from modelcatalog_server.catalog.search_words import find_fields, may_be_misspelt, read_query
from modelcatalog_server.catalog.snapshots import ANY_REVISION, AtLeast, Read, Snapshots
from modelcatalog_server.domain.errors import PageTokenExpiredError
from modelcatalog_server.domain.models import Model
from modelcatalog_server.domain.ports.catalog import CatalogSnapshot
from modelcatalog_server.domain.query import START, Boundary, Expression, Listed
from modelcatalog_server.domain.search import Findings, SearchHit, SearchText
from modelcatalog_server.tokens import MAX_AGE_S

#: A score is points, and behind the point the day of release.
_POINT = 100_000_000
#: So long a revision can be searched when there is a newer one; retention deletes what was searched then.
_KEPT = timedelta(seconds=MAX_AGE_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchQuery:
    """Arguments of a search."""

    query: str
    filter: str = ""
    page_size: int = 0
    page_token: str = ""
    page: int = 0
    with_raw: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """One model that fits. ``matched_fields``: those of the contract's Model that have a word of the query."""

    model: Model
    score: float
    matched_fields: Sequence[str]


class ModelSearch:
    """Answers searches from the store."""

    def __init__(self, snapshots: Snapshots, page_tokens: PageTokens) -> None:
        self._snapshots = snapshots
        self._page_tokens = page_tokens

    async def search(self, query: SearchQuery, *, at_least: AtLeast = ANY_REVISION) -> Read[Page[SearchResult]]:
        """Return one page of what fits, best first; later pages stay in the revision of the first.

        Raises:
            InvalidQueryError: the query has no words or too many.
            InvalidFilterError: with the column of the mistake.
            InvalidPageTokenError, PageTokenExpiredError: the token is not good.
        """
        size = to_page_size(query.page_size)
        text = read_query(query.query)
        matching = parse_filter(query.filter, MODEL_FIELDS)
        scope = scope_of(query.filter, query.query, "search")
        async with self._snapshots.open(self._page_tokens.at_least(query.page_token, at_least)) as snapshot:
            position = self._page_tokens.read_position(query.page_token, scope, snapshot.state)
            page = _PageOfSearch(
                snapshot, matching, position, offset=max(query.page - 1, 0) * size, size=size, with_raw=query.with_raw
            )
            text, findings = await (page.go_on(text) if position.after.id else page.begin(text))
            results = [_to_result(listed, text) for listed in findings.items]
            total = findings.total if position.total < 0 else position.total
            return Read(
                state=snapshot.state, value=self._page_tokens.cut_page(results, size, position.revision, total, scope)
            )


@dataclass(frozen=True, slots=True)
class _PageOfSearch:
    """Everything about a page but the words."""

    snapshot: CatalogSnapshot
    matching: Expression | None
    position: Position
    offset: int
    size: int
    with_raw: bool

    async def begin(self, text: SearchText) -> tuple[SearchText, Findings]:
        """Find a page, and what the text has to be read as to find something.

        First words that no model has are taken for others that are spelt nearly so, then, if nothing fits, all words.
        """
        text = await self._respell(text, anyway=False)
        findings = await self._find(text)
        if findings.total or (self.matching and await self._finds_more(text)):
            return text, findings
        respelt = await self._respell(text, anyway=True)
        return (text, findings) if respelt == text else (respelt, await self._find(respelt))

    async def go_on(self, text: SearchText) -> tuple[SearchText, Findings]:
        """Find a page behind another one, with the text read as there."""
        superseded_for = await self.snapshot.get_superseded_for(self.position.revision)
        if superseded_for and superseded_for > _KEPT:
            raise PageTokenExpiredError("page_token leads to a revision that ended over 24 hours ago: search again")
        _, spelling = self.position.after.keys
        text = _spell(text, _read_spelling(spelling or ""))
        return text, await self._find(text)

    async def _find(self, text: SearchText) -> Findings:
        return await self.snapshot.search_models(
            text,
            self.matching,
            revision=self.position.revision,
            after=self.position.after,
            offset=self.offset,
            limit=self.size + 1,
            with_raw=self.with_raw,
        )

    async def _finds_more(self, text: SearchText) -> bool:
        """Whether it is only the filter that leaves nothing."""
        findings = await self.snapshot.search_models(
            text, None, revision=self.position.revision, after=START, offset=0, limit=0, with_raw=False
        )
        return findings.total > 0

    async def _respell(self, text: SearchText, *, anyway: bool) -> SearchText:
        words = [term.word for term in text.terms if may_be_misspelt(term)]
        return _spell(text, await self.snapshot.find_near_words(words, anyway=anyway)) if words else text


def _spell(text: SearchText, near: Mapping[str, Sequence[str]]) -> SearchText:
    terms = (replace(term, near=tuple(near.get(term.word, term.near))) for term in text.terms)
    return replace(text, terms=tuple(terms))


def _to_result(listed: Listed[SearchHit], text: SearchText) -> Listed[SearchResult]:
    found = listed.item
    result = SearchResult(
        model=found.model,
        score=found.score / _POINT,
        matched_fields=find_fields(text, found.texts),
    )
    boundary = Boundary(id=listed.boundary.id, keys=(*listed.boundary.keys, _write_spelling(text)))
    return Listed(item=result, boundary=boundary)


def _write_spelling(text: SearchText) -> str:
    """Return what the next page has to know: of each word the near ones."""
    return " ".join(",".join((term.word, *term.near)) for term in text.terms if term.near)


def _read_spelling(spelling: str) -> Mapping[str, Sequence[str]]:
    words = (group.split(",") for group in spelling.split())
    return {word: near for word, *near in words}
