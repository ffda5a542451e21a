"""Page tokens of listings that are no part of the catalog: where a page begins, bound to the filter."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from modelcatalog_server.domain.errors import InvalidPageTokenError, PageTokenExpiredError
from modelcatalog_server.tokens import ExpiredTokenError, InvalidTokenError, TokenSealer


def seal_position(tokens: TokenSealer, position: Sequence[str | int], filter_text: str) -> str:
    """Return the token of the page that begins behind a position."""
    return tokens.seal([*position, *_binding(filter_text)])


def unseal_position(tokens: TokenSealer, token: str, filter_text: str, *, size: int) -> list[Any]:
    """Return the position, of so many parts, of a token.

    Raises:
        InvalidPageTokenError: it is none of this listing, or belongs to another filter.
        PageTokenExpiredError: it is too old.
    """
    try:
        value = tokens.unseal(token)
    except ExpiredTokenError as error:
        raise PageTokenExpiredError("page_token is older than 24 hours: list again from the first page") from error
    except InvalidTokenError as error:
        raise not_ours() from error
    if not isinstance(value, list) or len(value) < size:
        raise not_ours()
    if value[size:] != _binding(filter_text):
        raise InvalidPageTokenError("page_token", "belongs to a listing with another filter")
    return value[:size]


def not_ours() -> InvalidPageTokenError:
    """Return the error of a token that nobody here made."""
    return InvalidPageTokenError("page_token", "is not one of this service's tokens")


def _binding(filter_text: str) -> list[str]:
    return [hashlib.sha256(filter_text.encode()).hexdigest()[:32]] if filter_text else []
