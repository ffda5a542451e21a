"""What was asked for, as it may stand in a log: bounded, and without what opens anything."""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.message import DecodeError

_MAX_TEXT = 200
_HIDDEN = "…"


def describe_request(method: str, request: object) -> dict[str, Any] | None:
    """Return the fields of a request by name, with its texts cut and its tokens hidden; ``None`` if it is no message.

    Page and resume tokens are no secrets that open the service, but nobody has to tell them from those that are.
    """
    if not isinstance(request, bytes):  # a stream of them
        return None
    try:
        described = descriptor_pool.Default().FindMethodByName(method.strip("/").replace("/", "."))
        message = message_factory.GetMessageClass(described.input_type).FromString(request)
    except (KeyError, DecodeError):
        return None
    fields: dict[str, Any] = cut(json_format.MessageToDict(message, preserving_proto_field_name=True), _MAX_TEXT)
    return {name: _HIDDEN if name.endswith("token") else value for name, value in fields.items()}


def cut(value: Any, length: int) -> Any:
    """Return a JSON value with its texts cut. NUL, which PostgreSQL does not take, is replaced."""
    match value:
        case str():
            whole = value.replace("\0", "\N{REPLACEMENT CHARACTER}")
            return whole if len(whole) <= length else whole[: max(length - 1, 0)] + "…"
        case dict():
            return {key: cut(each, length) for key, each in value.items()}
        case list():
            return [cut(each, length) for each in value]
        case _:
            return value
