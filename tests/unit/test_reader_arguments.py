"""The reader refuses what cannot be answered before it asks anybody, and says which argument it was."""

# ruff: noqa: S106 -- page tokens

from __future__ import annotations

from typing import NoReturn

import pytest

from aged_tokens import DAY_S, sealed_ago
from modelcatalog_server.catalog.arguments import (
    MAX_MODEL_ID_BYTES,
    MAX_PROVIDER_ID_BYTES,
    check_model_id,
    check_provider_id,
    to_page_size,
)
from modelcatalog_server.catalog.current import CurrentRevision
from modelcatalog_server.catalog.indexing import ReferenceIndexes
from modelcatalog_server.catalog.paging import PageTokens
from modelcatalog_server.catalog.reader import MAX_BATCH, CatalogReader, ModelQuery, ProviderQuery
from modelcatalog_server.catalog.references import References
from modelcatalog_server.catalog.snapshots import Snapshots
from modelcatalog_server.domain.errors import (
    InvalidArgumentError,
    InvalidModelIdError,
    InvalidPageTokenError,
    InvalidQueryError,
    PageTokenExpiredError,
    TooManyIdsError,
)
from modelcatalog_server.domain.ports import CatalogState
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

    def snapshot(self) -> NoReturn:
        raise AssertionError("the store was asked")

    async def get_state(self) -> NoReturn:
        raise AssertionError("the store was asked")

    async def get_schema_version(self) -> NoReturn:
        raise AssertionError("the store was asked")


@pytest.fixture
def reader() -> CatalogReader:
    store = Untouched()
    snapshots = Snapshots(store, Signal(), CurrentRevision())
    references = References(ReferenceIndexes(snapshots, Signal()))
    return CatalogReader(store, snapshots, references, PageTokens(TokenSealer(KEY, "page")))


@pytest.fixture
def tokens() -> PageTokens:
    return PageTokens(TokenSealer(KEY, "page"))


@pytest.mark.parametrize(
    "model_id",
    ["openai/gpt-5", "gpt-5", "a", "x" * MAX_MODEL_ID_BYTES, "a b+c(d)/~e:@f", "提供者/模型", "ü" * 256],
)
def test_takes_whatever_could_be_a_model(model_id: str) -> None:
    check_model_id("model_id", model_id)


@pytest.mark.parametrize(
    ("model_id", "complaint"),
    [
        ("", "is required"),
        ("x" * 513, "is 513 bytes long, at most 512 are allowed"),
        ("ü" * 257, "is 514 bytes long"),
        ("a\tb", "holds characters that no id has"),
        ("a\0", "holds characters that no id has"),
        ("\u200fa", "holds characters that no id has"),
        ("a\u2028b", "holds characters that no id has"),
    ],
)
def test_refuses_what_cannot_be_a_model(model_id: str, complaint: str) -> None:
    with pytest.raises(InvalidModelIdError, match=complaint) as caught:
        check_model_id("some.model_id", model_id)
    assert caught.value.field == "some.model_id"


@pytest.mark.parametrize("provider_id", ["", "a/b", "/", "x" * (MAX_PROVIDER_ID_BYTES + 1), "a\nb"])
def test_refuses_what_cannot_be_a_provider(provider_id: str) -> None:
    with pytest.raises(InvalidQueryError) as caught:
        check_provider_id("provider_id", provider_id)
    assert caught.value.field == "provider_id"
    assert len(str(caught.value)) < 200, "what was sent is not sent back at full length"


@pytest.mark.parametrize("count", [0, MAX_BATCH + 1, 10_000])
async def test_refuses_too_many_ids_and_none(reader: CatalogReader, count: int) -> None:
    with pytest.raises(TooManyIdsError, match=f"takes 1 to 100 ids, got {count}"):
        await reader.get_models(["openai/gpt-5"] * count)


async def test_names_the_id_among_many_that_is_none(reader: CatalogReader) -> None:
    with pytest.raises(InvalidModelIdError) as caught:
        await reader.get_models(["openai/gpt-5"] * 41 + [""])
    assert caught.value.field == "model_ids[41]"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        (ModelQuery(page_size=-1), "page_size"),
        (ModelQuery(page=-1), "page"),
        (ModelQuery(page=1_000_001), "page"),
        (ModelQuery(page=1, page_token="x"), "page"),
        (ModelQuery(provider_id=""), "provider_id"),
        (ModelQuery(provider_id="a/b"), "provider_id"),
        (ModelQuery(filter="name"), "filter"),
        (ModelQuery(order_by="tags"), "order_by"),
        (ProviderQuery(filter="pricing.input = 1"), "filter"),
        (ProviderQuery(order_by="name up"), "order_by"),
        (ProviderQuery(page_size=-7), "page_size"),
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
