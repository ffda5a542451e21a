"""What a request has to look like before anybody is asked."""

from __future__ import annotations

from collections.abc import Sequence

from modelcatalog_server.domain.errors import InvalidModelIdError, InvalidQueryError

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 1000
#: Longest model id in UTF-8; upstream's longest served one is 77.
MAX_MODEL_ID_BYTES = 512
#: Providers that a caller may prefer in one call.
MAX_PREFERRED_PROVIDERS = 20
#: Longest provider id in UTF-8; upstream's rule is 24.
MAX_PROVIDER_ID_BYTES = 128
_MAX_PAGE = 1_000_000


def check_model_id(field: str, model_id: str) -> None:
    """Refuse what cannot be a model id: ids are not empty, printable and of bounded length."""
    _check_id(InvalidModelIdError, field, model_id, MAX_MODEL_ID_BYTES)


def check_provider_id(field: str, provider_id: str) -> None:
    """Refuse what cannot be a provider id."""
    _check_id(InvalidQueryError, field, provider_id, MAX_PROVIDER_ID_BYTES)
    if "/" in provider_id:
        raise InvalidQueryError(field, "holds a slash: a provider id is the part of a model id before the first one")


def check_preferred_providers(field: str, provider_ids: Sequence[str]) -> None:
    """Refuse too many providers, and what cannot be the id of one; one that does not exist is no mistake."""
    if len(provider_ids) > MAX_PREFERRED_PROVIDERS:
        raise InvalidQueryError(field, f"takes at most {MAX_PREFERRED_PROVIDERS} ids, got {len(provider_ids)}")
    for index, provider_id in enumerate(provider_ids):
        check_provider_id(f"{field}[{index}]", provider_id)


def to_page_size(asked: int) -> int:
    """Return the size of a page: the default for 0, the most there is for more."""
    if asked < 0:
        raise InvalidQueryError("page_size", f"must not be negative, got {asked}")
    return min(asked or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)


def check_page(page: int, page_token: str) -> None:
    """Refuse a page by number that there cannot be, or beside a token."""
    if page < 0 or page > _MAX_PAGE:
        raise InvalidQueryError("page", f"must be 1 to {_MAX_PAGE}, got {page}")
    if page and page_token:
        raise InvalidQueryError("page", "cannot be combined with page_token")


def _check_id(error: type[InvalidModelIdError | InvalidQueryError], field: str, value: str, max_bytes: int) -> None:
    if not value.strip():
        raise error(field, "is required")
    if (length := len(value.encode())) > max_bytes:
        raise error(field, f"is {length} bytes long, at most {max_bytes} are allowed")
    if not value.isprintable():
        raise error(field, "holds characters that no id has")
