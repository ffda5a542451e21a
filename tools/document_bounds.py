"""Writes docs/bounds.md: the bounds of the requests' fields, as the rules in protos/ declare them.

Takes the set of descriptors with everything that they import, and the page to write.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

PACKAGE = "modelcatalog.v1"
#: Of google/protobuf/descriptor.proto: without them a pool has its own messages for the options of others.
FIELD_OPTIONS, MESSAGE_OPTIONS = "google.protobuf.FieldOptions", "google.protobuf.MessageOptions"
ID_PATTERN = r"^ *[^\p{C}\p{Z}]( |[^\p{C}\p{Z}])*$"
HEAD = """# Bounds of requests

Every field of every request has a bound. They are declared beside the fields in
[protos/modelcatalog/v1](../protos/modelcatalog/v1/model_catalog_service.proto) as rules of
[protovalidate](https://protovalidate.com), and this page is made of them by `make generate`. A request that breaks one
is INVALID_ARGUMENT with the path of the field and the [reason](errors.md) that belongs to it. Fields of type bool take
both values. A request has at most 1 MiB.

The rules are in the descriptors that callers have anyway: `protovalidate.validate(request)` checks them before a
request is sent, in Python with nothing but `pip install protovalidate`, in other languages with code generated from
protos/.

| request | field | takes |
|---|---|---|
"""


class Rules:
    """The rules of fields and messages, read with the definition of their own that the set brings along."""

    def __init__(self, descriptors: FileDescriptorSet) -> None:
        self._pool = DescriptorPool()
        for file in descriptors.file:
            self._pool.Add(file)
        self._services = [
            self._pool.FindServiceByName(f"{file.package}.{service.name}")
            for file in descriptors.file
            if file.package == PACKAGE
            for service in file.service
        ]

    def requests(self) -> Iterator[Descriptor]:
        """Yield every request that has fields."""
        for service in self._services:
            yield from (method.input_type for method in service.methods if method.input_type.fields)

    def of_field(self, field: FieldDescriptor) -> Any:
        """Return the ``FieldRules`` of a field."""
        return self._rules(FIELD_OPTIONS, field, "buf.validate.field")

    def of_message(self, message: Descriptor) -> Any:
        """Return the ``MessageRules`` of a message."""
        return self._rules(MESSAGE_OPTIONS, message, "buf.validate.message")

    def _rules(self, kind: str, described: Any, extension: str) -> Any:
        options = GetMessageClass(self._pool.FindMessageTypeByName(kind))
        found: Any = self._pool.FindExtensionByName(extension)
        GetMessageClass(found.message_type)
        return options.FromString(described.GetOptions().SerializeToString()).Extensions[found]


def rows(rules: Rules, message: Descriptor, request: str, prefix: str = "") -> Iterator[str]:
    """Yield a row of the table for each field, those of nested messages too."""
    for field in message.fields:
        path = prefix + field.name
        if field.message_type is not None and field.message_type.full_name.startswith(PACKAGE):
            yield from rows(rules, field.message_type, request, f"{path}.")
        elif field.type != FieldDescriptor.TYPE_BOOL:
            yield f"| `{request}` | `{path}` | {describe_field(field, rules.of_field(field))} |"
    for rule in rules.of_message(message).cel:
        yield f"| `{request}` | `{prefix}{rule.id.partition('.')[0]}` | {rule.message} |"


def describe_field(field: FieldDescriptor, rules: Any) -> str:
    """Return the bounds of a field in words."""
    parts = ["required"] if rules.required else []
    if (kind := rules.WhichOneof("type")) is not None:
        parts += DESCRIPTIONS[kind](getattr(rules, kind))
    parts += [rule.message for rule in rules.cel]
    if not parts:
        raise SystemExit(f"{field.full_name} has no bound")
    return "; ".join(parts)


def _describe_string(rules: Any) -> list[str]:
    parts = ["a UUID"] if rules.uuid else []
    if rules.HasField("max_bytes"):
        parts.append(f"at most {rules.max_bytes:,} bytes")
    if rules.HasField("not_contains"):
        parts.append(f"no `{rules.not_contains}`")
    if rules.HasField("pattern"):
        parts.append({ID_PATTERN: "visible characters and spaces"}[rules.pattern])
    return parts


def _describe_number(rules: Any) -> list[str]:
    most = f" to {rules.lte:,.0f}" if rules.HasField("lte") else " or more"
    return [f"{rules.gte:,.0f}{most}"]


def _describe_repeated(rules: Any) -> list[str]:
    return [
        f"{rules.min_items} to {rules.max_items} items",
        "each of " + ", ".join(_describe_string(rules.items.string)),
    ]


def _describe_duration(rules: Any) -> list[str]:
    return [f"{rules.gte.seconds} to {rules.lte.seconds:,} s"]


def _describe_enum(_rules: Any) -> list[str]:
    return ["a value of the contract"]


DESCRIPTIONS = {
    "string": _describe_string,
    "int32": _describe_number,
    "int64": _describe_number,
    "double": _describe_number,
    "repeated": _describe_repeated,
    "duration": _describe_duration,
    "enum": _describe_enum,
}


def main(descriptors: Path, page: Path) -> None:
    """Write the page."""
    rules = Rules(FileDescriptorSet.FromString(descriptors.read_bytes()))
    lines = [row for request in rules.requests() for row in rows(rules, request, request.name.removesuffix("Request"))]
    page.write_text(HEAD + "\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
