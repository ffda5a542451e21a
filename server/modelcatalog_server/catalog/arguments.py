"""What a request that leaves something open asks for."""

from __future__ import annotations

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 1000


def to_page_size(asked: int) -> int:
    """Return the size of a page: the default for 0, the most there is for more."""
    return min(asked or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
