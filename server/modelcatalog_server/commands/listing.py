"""Listings: as many items as were asked for, in columns or as JSON lines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from modelcatalog_client import Pager
from modelcatalog_server.commands.cells import is_number, text_of
from modelcatalog_server.commands.json_output import print_lines, select, to_document
from modelcatalog_server.commands.terminal import Column, print_table, say

_LARGEST_PAGE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ListingOptions:
    """What every listing is asked for. ``limit`` 0: everything. ``fields``: those of Model, none for the usual ones."""

    filter: str = ""
    limit: int = 50
    page: int = 0
    fields: tuple[str, ...] = ()
    as_json: bool = False

    @property
    def page_size(self) -> int:
        """How many items to request at a time."""
        return min(self.limit or _LARGEST_PAGE, _LARGEST_PAGE)


@dataclass(frozen=True, slots=True)
class Shown:
    """A field that makes a column."""

    title: str
    path: str


def columns_of(message: type[Message], shown: Iterable[Shown]) -> list[Column]:
    """Return the columns of a table of such messages."""
    return [Column(each.title, is_number(message, each.path)) for each in shown]


def rows_of(items: Iterable[Message], shown: Sequence[Shown]) -> list[list[str]]:
    """Return a row for each message."""
    return [[text_of(item, each.path) for each in shown] for item in items]


def fields_as_shown(fields: Iterable[str], prefix: str = "") -> list[Shown]:
    """Return the columns that were asked for by path."""
    return [Shown(path, f"{prefix}{path}") for path in fields]


@dataclass(frozen=True, slots=True)
class Listed:
    """The items of a listing that were wanted, and how many there are. ``last`` is the response they came from."""

    items: list[Any]
    total: int
    last: Any


def collect(pager: Pager[Any, Any], field: str, options: ListingOptions) -> Listed:
    """Read as many pages as it takes; ``field`` of a page has its items."""
    items: list[Any] = []
    for page in pager.pages():
        items += getattr(page, field)
        if options.limit and len(items) >= options.limit:
            break
    return Listed(items[: options.limit or None], page.total_size, page)


def print_items(message: type[Message], listed: Listed, usual: Sequence[Shown], options: ListingOptions) -> None:
    """Print a listing of messages that may be cut by --fields."""
    if options.as_json:
        print_lines(select(to_document(item), options.fields) for item in listed.items)
    else:
        shown = fields_as_shown(options.fields) or usual
        columns = columns_of(message, shown)
        print_table(columns, rows_of(listed.items, shown), may_drop=not options.fields)
    say_what_is_left(listed, options)


def say_what_is_left(listed: Listed, options: ListingOptions) -> None:
    """Say when there is more than was printed, so that no script takes a part for the whole."""
    if options.page:
        say(f"page {options.page}, {len(listed.items):,} of {listed.total:,}")
    elif len(listed.items) < listed.total:
        say(f"{len(listed.items):,} of {listed.total:,}; --limit 0 lists them all")
