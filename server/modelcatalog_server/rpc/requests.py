"""The bytes of a request as a message: only once it is known that the caller may call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.message import DecodeError

from modelcatalog_server.domain.errors import InvalidQueryError


def parse_request(method: str, deserialize: Callable[[bytes], Any], request: bytes) -> Any:
    """Return the message.

    Raises:
        InvalidQueryError: the bytes are none of the method's.
    """
    try:
        return deserialize(request)
    except DecodeError as error:
        raise InvalidQueryError("request", f"is no message of {method}") from error
