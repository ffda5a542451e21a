"""The language of ``order_by`` (AIP-132): fields, each with ``asc`` or ``desc``, separated by commas."""

from __future__ import annotations

import re

from modelcatalog_server.catalog.naming import find_field, quote
from modelcatalog_server.domain.errors import InvalidOrderByError
from modelcatalog_server.domain.query import FieldCatalogue, SortKey

#: How many fields an order has at most.
MAX_KEYS = 8
_KEY = re.compile(r"\s*([A-Za-z_][\w.]*)(?:\s+(\w+))?\s*", re.ASCII)


def parse_order_by(text: str, catalogue: FieldCatalogue) -> tuple[SortKey, ...]:
    """Return the keys of an order, none for a blank one.

    Raises:
        InvalidOrderByError: with the column of the mistake and what was expected there.
    """
    if not text.strip():
        return ()
    keys: list[SortKey] = []
    column = 1
    for part in text.split(","):
        key = _read_key(part, column, catalogue)
        if key.field in [earlier.field for earlier in keys]:
            raise _error(_start_of(part, column), f"{key.field.path} comes twice")
        keys.append(key)
        column += len(part) + 1
    if len(keys) > MAX_KEYS:
        raise _error(1, f"orders by {len(keys)} fields, at most {MAX_KEYS} are allowed")
    return tuple(keys)


def _read_key(part: str, column: int, catalogue: FieldCatalogue) -> SortKey:
    start = _start_of(part, column)
    match = _KEY.fullmatch(part)
    if not match:
        raise _error(start, f"expected a field, then perhaps asc or desc; got {quote(part.strip())}")
    try:
        field = find_field(catalogue, match[1])
    except LookupError as error:
        raise _error(start, str(error.args[0])) from error
    if not field.is_orderable:
        raise _error(start, f"{field.path} is a list, which gives no order")
    direction = (match[2] or "asc").lower()
    if direction not in ("asc", "desc"):
        raise _error(column + match.start(2), f"expected asc, desc or a comma; got {quote(match[2])}")
    return SortKey(field=field, descending=direction == "desc")


def _start_of(part: str, column: int) -> int:
    return column + len(part) - len(part.lstrip())


def _error(column: int, message: str) -> InvalidOrderByError:
    return InvalidOrderByError("order_by", message, column=column)
