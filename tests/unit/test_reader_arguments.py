"""The reader refuses what cannot be answered before it asks anybody, and says which argument it was."""

from __future__ import annotations

from typing import NoReturn

import pytest

from aged_tokens import DAY_S, sealed_ago
from modelcatalog_server.catalog.arguments import to_page_size
from modelcatalog_server.catalog.current import CurrentRevision
from modelcatalog_server.catalog.indexing import ReferenceIndexes
from modelcatalog_server.catalog.paging import PageTokens
from modelcatalog_server.catalog.reader import CatalogReader, ModelQuery, ProviderQuery
from modelcatalog_server.catalog.references import References
from modelcatalog_server.catalog.snapshots import Snapshots
from modelcatalog_server.domain.errors import (
    InvalidArgumentError,
    InvalidPageTokenError,
    PageTokenExpiredError,
)
from modelcatalog_server.domain.ports.catalog import CatalogState
from modelcatalog_server.domain.query import START, Boundary, Listed
from modelcatalog_server.domain.signal import Signal
from modelcatalog_server.tokens import TokenSealer

KEY = bytes(range(32))
STATE = CatalogState(
    revision=7,
    changed_at=None,
    checked_at=None,
    source_url=None,
    source_etag=None,
    source_snapshot=None,
    upstream_not_before=None,
    upstream_not_before_url=None,
)


class Untouched:
    """A store that nobody may ask."""

    def snapshot(self, *, newest: bool = False) -> NoReturn:
        raise AssertionError("the store was asked")

    async def get_state(self, *, newest: bool = False) -> NoReturn:
        raise AssertionError("the store was asked")


@pytest.fixture
def reader() -> CatalogReader:
    snapshots = Snapshots(Untouched(), Signal(), CurrentRevision())
    references = References(ReferenceIndexes(snapshots, Signal()))
    return CatalogReader(snapshots, references, PageTokens(TokenSealer(KEY, "page")))


@pytest.fixture
def tokens() -> PageTokens:
    return PageTokens(TokenSealer(KEY, "page"))


@pytest.mark.parametrize(
    ("query", "field"),
    [
        (ModelQuery(filter="name"), "filter"),
        (ModelQuery(order_by="tags"), "order_by"),
        (ProviderQuery(filter="pricing.input = 1"), "filter"),
        (ProviderQuery(order_by="name up"), "order_by"),
    ],
    ids=repr,
)
async def test_refuses_a_listing_that_cannot_be(
    reader: CatalogReader, query: ModelQuery | ProviderQuery, field: str
) -> None:
    listing = reader.list_models(query) if isinstance(query, ModelQuery) else reader.list_providers(query)
    with pytest.raises(InvalidArgumentError) as caught:
        await listing
    assert caught.value.field == field


@pytest.mark.parametrize(("asked", "given"), [(0, 50), (1, 1), (50, 50), (1000, 1000), (1001, 1000), (2**31 - 1, 1000)])
def test_a_page_has_its_default_and_its_bound(asked: int, given: int) -> None:
    assert to_page_size(asked) == given


# --- page tokens ---------------------------------------------------------------------------------------------------


def listed(*items: str) -> list[Listed[str]]:
    return [Listed(item=item, boundary=Boundary(id=f"id-{item}", keys=(f"key-{item}", None))) for item in items]


def test_a_token_leads_to_behind_the_last_item_of_its_page(tokens: PageTokens) -> None:
    page = tokens.cut_page(listed("a", "b", "c"), 2, 5, 9, ["models", None, False])
    assert (page.items, page.total, page.revision) == (["a", "b"], 9, 5)
    position = tokens.read_position(page.next_token, ["models", None, False], STATE)
    assert (position.revision, position.after, position.total) == (5, Boundary(id="id-b", keys=("key-b", None)), 9)


@pytest.mark.parametrize("items", [[], ["a"], ["a", "b"]])
def test_the_last_page_has_no_token(tokens: PageTokens, items: list[str]) -> None:
    page = tokens.cut_page(listed(*items), 2, 5, 9, ["models"])
    assert (page.items, page.next_token) == (items, "")


def test_without_a_token_a_listing_begins_at_the_revision_of_now(tokens: PageTokens) -> None:
    position = tokens.read_position("", ["models"], STATE)
    assert (position.revision, position.after, position.total) == (7, START, -1)


@pytest.mark.parametrize(
    ("age_s", "key", "kind", "value", "error"),
    [
        (0, KEY, "page", [["other"], 1, "", 1], InvalidPageTokenError),
        (0, KEY, "page", [["models"], 1, ""], InvalidPageTokenError),
        (0, KEY, "page", None, InvalidPageTokenError),
        (0, KEY, "resume", [["models"], 1, "", 1], InvalidPageTokenError),
        (0, bytes(32), "page", [["models"], 1, "", 1], InvalidPageTokenError),
        (DAY_S + 60, KEY, "page", [["models"], 1, "", 1], PageTokenExpiredError),
    ],
    ids=["other arguments", "too short", "nothing", "of a watch", "of another key", "old"],
)
def test_a_token_that_is_not_good_here_is_refused(
    tokens: PageTokens, age_s: float, key: bytes, kind: str, value: object, error: type[Exception]
) -> None:
    with pytest.raises(error):
        tokens.read_position(sealed_ago(age_s, key, kind, value), ["models"], STATE)
