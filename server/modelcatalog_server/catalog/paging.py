"""Pages and their tokens: sealed, bound to the other arguments and to the revision of the first page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from modelcatalog_server.catalog.digest import digest
from modelcatalog_server.catalog.snapshots import AtLeast
from modelcatalog_server.domain.errors import InvalidPageTokenError, PageTokenExpiredError
from modelcatalog_server.domain.ports.catalog import CatalogState
from modelcatalog_server.domain.query import START, Boundary, Listed
from modelcatalog_server.tokens import ExpiredTokenError, InvalidTokenError, TokenSealer

T = TypeVar("T")
#: The arguments that a page token is bound to.
Scope = Sequence[str | bool | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[T]):
    """One page. ``next_token`` is empty on the last one; ``revision`` is that of the first page.

    ``token_behind``: the token of a page that begins behind so many of these items.
    """

    items: list[T]
    next_token: str
    total: int
    revision: int
    token_behind: Callable[[int], str]

    def first(self, count: int) -> Page[T]:
        """Return a page that ends after so many items; the next one goes on there."""
        return replace(self, items=self.items[:count], next_token=self.token_behind(count))


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where a page begins: behind an item, in a revision, of so many in all."""

    revision: int
    after: Boundary = START
    total: int = -1


def scope_of(filter_text: str, order_by: str, *arguments: str | bool | None) -> Scope:
    """Return what a token is bound to; filter and order as a digest, for they may be long."""
    selected = [digest([filter_text, order_by])] if filter_text or order_by else []
    return [*arguments, *selected]


class PageTokens:
    """Makes and reads the tokens of pages."""

    def __init__(self, sealer: TokenSealer) -> None:
        self._sealer = sealer

    def at_least(self, token: str, asked: AtLeast) -> AtLeast:
        """Return what a reader must see who goes on from a page: the revision of that, too, and what it asked for.

        Another process that has moved on may have made the token. What is wrong with one is said when it is read.
        """
        if not token:
            return asked
        try:
            _, revision, *_ = self._sealer.unseal(token)
            return replace(asked, revision=max(asked.revision, revision))
        except (ExpiredTokenError, InvalidTokenError, ValueError, TypeError):
            return asked

    def read_position(self, token: str, scope: Scope, state: CatalogState) -> Position:
        """Return where a page begins; without a token at the first item of the revision of now.

        Raises:
            InvalidPageTokenError, PageTokenExpiredError: the token is not good.
        """
        if not token:
            return Position(revision=state.revision)
        try:
            sealed_scope, revision, after_id, total, *keys = self._sealer.unseal(token)
        except ExpiredTokenError as error:
            raise PageTokenExpiredError("page_token is older than 24 hours: list again from the first page") from error
        except (InvalidTokenError, ValueError, TypeError) as error:
            raise InvalidPageTokenError("page_token", "is not one of this service's tokens") from error
        if sealed_scope != list(scope):
            raise InvalidPageTokenError("page_token", "belongs to a listing with other arguments")
        return Position(revision=revision, after=Boundary(id=after_id, keys=tuple(keys)), total=total)

    def cut_page(self, listed: Sequence[Listed[T]], size: int, revision: int, total: int, scope: Scope) -> Page[T]:
        """Cut the one item that was read beyond the page; that it was there means that there is a next page."""

        def token_behind(count: int) -> str:
            last = listed[count - 1].boundary
            return self._sealer.seal([scope, revision, last.id, total, *last.keys])

        return Page(
            items=[each.item for each in listed[:size]],
            next_token=token_behind(size) if len(listed) > size else "",
            total=total,
            revision=revision,
            token_behind=token_behind,
        )
