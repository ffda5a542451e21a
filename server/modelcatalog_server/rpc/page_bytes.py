"""How much one answer holds: callers take 4 MiB unless they say otherwise, and a page is less than that."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TypeVar

from google.protobuf.message import Message

from modelcatalog_server.catalog.paging import Page
from modelcatalog_server.domain.errors import InvalidQueryError, TooManyIdsError

#: Of the models, offers or results of an answer together.
MAX_BYTES = 3 * 1024 * 1024
# What a message takes beside its own bytes: its tag and its length.
_AROUND = 6

T = TypeVar("T")
M = TypeVar("M", bound=Message)


def fit_page(page: Page[T], messages: list[M], *, number: int = 0) -> tuple[Page[T], list[M]]:
    """Return a page and the messages of its items, cut to what an answer holds; the first item is always in it.

    ``number``: of a page that was asked for by number.

    Raises:
        InvalidQueryError: it has a number and does not fit; the one behind it would not begin where it was cut.
    """
    count = count_fitting(messages)
    if count == len(messages):
        return page, messages
    if number:
        raise InvalidQueryError(
            "page_size", f"only {count} models of page {number} fit in an answer: ask for fewer, or for fewer fields"
        )
    return page.first(count), messages[:count]


def check_batch(messages: Sequence[Message]) -> None:
    """Refuse an answer that holds too much and cannot be cut.

    Raises:
        TooManyIdsError: with how many would do.
    """
    if (count := count_fitting(messages)) < len(messages):
        raise TooManyIdsError(
            "model_ids",
            f"has models of more than {MAX_BYTES // 2**20} MiB: ask for the first {count}, or for fewer fields",
        )


def count_fitting(messages: Sequence[Message]) -> int:
    """Return how many of the messages fit in an answer, of one or more at least one."""
    sizes = accumulate(message.ByteSize() + _AROUND for message in messages)
    return max(sum(size <= MAX_BYTES for size in sizes), min(len(messages), 1))
