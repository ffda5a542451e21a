"""How much of a page an answer holds."""

from __future__ import annotations

import pytest

from modelcatalog.v1 import model_pb2
from modelcatalog_server.catalog.paging import Page
from modelcatalog_server.domain.errors import InvalidQueryError, TooManyIdsError
from modelcatalog_server.rpc.page_bytes import MAX_BYTES, check_batch, count_fitting, fit_page


def models(*sizes: int) -> list[model_pb2.Model]:
    """Return models of nearly so many bytes."""
    return [model_pb2.Model(description="x" * (size - 10)) for size in sizes]


def page_of(count: int, next_token: str = "") -> Page[int]:
    return Page(
        items=list(range(count)),
        next_token=next_token,
        total=9,
        revision=5,
        token_behind=lambda count: f"after {count}",
    )


@pytest.mark.parametrize(
    ("sizes", "fitting"),
    [
        ([], 0),
        ([100], 1),
        ([MAX_BYTES + 100], 1),
        ([MAX_BYTES + 100, 10], 1),
        ([10, MAX_BYTES + 100, 10], 1),
        ([MAX_BYTES // 2] * 2, 2),
        ([MAX_BYTES // 2] * 3, 2),
        ([1000] * 1000, 1000),
    ],
)
def test_what_fits_is_what_comes_first_and_at_least_one(sizes: list[int], fitting: int) -> None:
    assert count_fitting(models(*sizes)) == fitting


def test_a_message_fits_up_to_the_byte() -> None:
    """With its tag and its length, five bytes of which are for it."""
    of_3_mib = model_pb2.Model(description="x" * (MAX_BYTES - 6 - 5))
    assert of_3_mib.ByteSize() + 6 == MAX_BYTES
    small = model_pb2.Model(id="x")
    assert count_fitting([of_3_mib]) == 1
    assert count_fitting([of_3_mib, small]) == 1
    assert count_fitting([small, of_3_mib]) == 1


def test_a_page_that_fits_is_left_alone() -> None:
    page, messages = page_of(3, "next"), models(10, 20, 30)
    assert fit_page(page, messages) == (page, messages)
    assert fit_page(page, messages, number=7) == (page, messages)


def test_a_page_that_does_not_fit_ends_before_and_the_next_one_goes_on_there() -> None:
    messages = models(MAX_BYTES // 2, MAX_BYTES // 2, 20)
    page, shown = fit_page(page_of(3), messages)
    assert list(shown) == messages[:2]
    assert (page.items, page.next_token, page.total, page.revision) == ([0, 1], "after 2", 9, 5)


def test_a_page_that_was_asked_for_by_number_is_not_cut() -> None:
    with pytest.raises(InvalidQueryError, match=r"only 2 models of page 4 fit"):
        fit_page(page_of(3), models(MAX_BYTES // 2, MAX_BYTES // 2, 20), number=4)


def test_a_batch_that_does_not_fit_is_refused_with_how_many_would_do() -> None:
    check_batch(models(MAX_BYTES // 2, MAX_BYTES // 2))
    check_batch([])
    with pytest.raises(TooManyIdsError, match="more than 3 MiB: ask for the first 2"):
        check_batch(models(MAX_BYTES // 2, MAX_BYTES // 2, 20))
