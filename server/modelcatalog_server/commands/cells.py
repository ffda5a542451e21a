"""From a field of a message to what a person reads in a table. Nothing here does I/O."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC
from decimal import Decimal, InvalidOperation
from typing import Any, cast

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from modelcatalog_client import Model

UNKNOWN = "unknown"

_PRICED = ("Pricing", "PriceTier", "PriceMode")
_PRICES_ELSEWHERE = ("ModelOffer.blended_price", "ModelCost.total")
_NO_PRICES = ("currency", "unit")
_TOKENS = ("Limits", "PriceTier", "ModelCost")


def text_of(message: Message, path: str) -> str:
    """Return the field that a path like ``pricing.input`` leads to, as text for people; ``unknown`` when unset."""
    name, _, below = path.partition(".")
    field = cast("FieldDescriptor", message.DESCRIPTOR.fields_by_name[name])
    if field.is_repeated:
        return _describe_list(message, field)
    if field.has_presence and not message.HasField(name):
        return UNKNOWN
    value = getattr(message, name)
    return text_of(value, below) if below and is_nested(field) else format_value(field, value)


def is_nested(field: FieldDescriptor) -> bool:
    """Return whether a path may go on below the field: it is one of our own messages."""
    return field.message_type is not None and field.message_type.file.package.startswith("modelcatalog.")


def is_number(message: type[Message], path: str) -> bool:
    """Return whether the field's column is one of numbers."""
    field = find_field(message, path)
    return field is not None and not field.is_repeated and (is_price(field) or field.cpp_type in _NUMBERS)


_NUMBERS = (
    FieldDescriptor.CPPTYPE_INT32,
    FieldDescriptor.CPPTYPE_INT64,
    FieldDescriptor.CPPTYPE_DOUBLE,
)


def find_field(message: type[Message], path: str) -> FieldDescriptor | None:
    """Return what a path leads to; None for a path that leads nowhere."""
    name, _, below = path.partition(".")
    return _find_below(cast("Descriptor", message.DESCRIPTOR), name, below)


def _find_below(descriptor: Descriptor, name: str, path: str) -> FieldDescriptor | None:
    field = descriptor.fields_by_name.get(name)
    if field is None or not path:
        return field
    name, _, below = path.partition(".")
    return _find_below(field.message_type, name, below) if field.message_type is not None else None


def format_value(field: FieldDescriptor, value: Any) -> str:
    """Return a value that is set, in the field's own notation."""
    if is_price(field):
        return money(value)
    if field.enum_type is not None:
        return _enum_name(field.enum_type, value)
    match value:
        case bool():
            return "yes" if value else "no"
        case int():
            return size(value) if _owner(field) in _TOKENS else str(value)
        case float():
            return f"{value:.6g}"
        case Timestamp():
            return f"{value.ToDatetime(UTC):%Y-%m-%d %H:%M:%S} UTC"
        case Duration():
            return describe_duration(value.ToTimedelta().total_seconds())
        case Message():
            return _compact(MessageToDict(value, preserving_proto_field_name=True))
        case _:
            return str(value) or UNKNOWN


def format_text(path: str, text: str) -> str:
    """Return a value of a model that a response holds as text, such as a comparison's, as ``text_of`` would."""
    if not text:
        return "none"  # what is unknown is unset
    field = find_field(Model, path)
    if field is None or field.is_repeated:
        return text
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return {"true": "yes", "false": "no"}.get(text, text)
    if field.cpp_type == FieldDescriptor.CPPTYPE_INT64 and text.isdigit():
        return format_value(field, int(text))
    if field.enum_type is not None:
        return text.lower()
    return money(text) if is_price(field) else text


def is_price(field: FieldDescriptor) -> bool:
    """Return whether the field is US dollars as a decimal string."""
    if field.type != FieldDescriptor.TYPE_STRING or field.is_repeated:
        return False
    owner = _owner(field)
    return (owner in _PRICED and field.name not in _NO_PRICES) or f"{owner}.{field.name}" in _PRICES_ELSEWHERE


def _owner(field: FieldDescriptor) -> str:
    return field.containing_type.name if field.containing_type is not None else ""


def is_known(message: Message, name: str) -> bool:
    """Return whether a field that may be unset is set."""
    return message.HasField(name)


def money(amount: str) -> str:
    """Return US dollars with at least two decimals and all that there are; ``free`` for zero."""
    try:
        number = Decimal(amount)
    except InvalidOperation:
        return amount
    if not number:
        return "free"
    return f"${number:,.2f}" if number == round(number, 2) else f"${number:,f}"


def size(tokens: int) -> str:
    """Return a number of tokens in three digits: ``200K``, ``1.05M``."""
    for unit, name in ((1_000_000_000, "B"), (1_000_000, "M"), (1_000, "K")):
        if tokens >= unit * 0.9995:  # from there on three digits of the smaller unit are 1000 of it
            return f"{tokens / unit:.3g}{name}"
    return str(tokens)


def describe_duration(seconds: float) -> str:
    """Return a duration in the two largest units that matter."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    whole = int(seconds)
    days, hours, minutes = whole // 86_400, whole // 3600 % 24, whole // 60 % 60
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (whole % 60, "s")]
    first = next(position for position, (amount, _) in enumerate(parts) if amount)
    return " ".join(f"{amount} {unit}" for amount, unit in parts[first : first + 2] if amount)


def _describe_list(message: Message, field: FieldDescriptor) -> str:
    values: Iterable[Any] = getattr(message, field.name)
    if field.message_type is None:
        return ", ".join(format_value(field, value) for value in values) or "none"
    return _compact(MessageToDict(message, preserving_proto_field_name=True).get(field.name, []))


def _enum_name(enum: EnumDescriptor, number: int) -> str:
    value = enum.values_by_number.get(number)
    return str(number) if value is None else value.name.removeprefix(f"{enum.name.upper()}_").lower()


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) if value else "none"
