"""Writes docs/reference.md: every RPC, message and enum of the contract, with what protos/ say of them.

Takes the set of descriptors with everything that they import and with comments, and the page to write.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from google.api import annotations_pb2
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)

PACKAGE = "modelcatalog.v1"
HEAD = """# Reference

Every RPC, message and enum of `modelcatalog.v1`, made from the comments in
[protos/modelcatalog/v1](../protos/modelcatalog/v1/model_catalog_service.proto) by `make generate`. What holds for all
of them is in [API](api.md), the bounds of requests are in [bounds](bounds.md), reasons in [errors](errors.md), and the
role that each takes in [security](security.md#identity).
"""
SCALARS = {
    number: name.removeprefix("TYPE_").lower()
    for name, number in FieldDescriptorProto.Type.items()
    if name not in {"TYPE_MESSAGE", "TYPE_ENUM", "TYPE_GROUP"}
}
# Numbers of the fields by which descriptor.proto names what is in a file.
_MESSAGES, _ENUMS, _SERVICES = 4, 5, 6
_FIELDS, _NESTED, _NESTED_ENUMS, _VALUES, _METHODS = 2, 3, 4, 2, 2


class Contract:
    """The messages, enums and services of our files, and what is said of each."""

    def __init__(self, files: list[FileDescriptorProto]) -> None:
        self.files = files
        self.names = {name for file in files for name, _, _ in (*messages_of(file), *enums_of(file))}
        self._comments = {
            (file.name, tuple(location.path)): location.leading_comments
            for file in files
            for location in file.source_code_info.location
        }

    def said_of(self, file: FileDescriptorProto, *path: int) -> str:
        """Return the comment of an element as a paragraph."""
        return " ".join(self._comments[file.name, path].split())

    def type_of(self, field: FieldDescriptorProto, message: DescriptorProto) -> str:
        """Return the type of a field, with a link where it is ours."""
        entries = {entry.name: entry for entry in message.nested_type if entry.options.map_entry}
        if entry := entries.get(field.type_name.rpartition(".")[2]):
            key, value = (self.type_of(each, entry) for each in entry.field)
            return f"map of {key} to {value}"
        name = SCALARS.get(field.type) or self.link(field.type_name.removeprefix(".").removeprefix(f"{PACKAGE}."))
        if field.label == FieldDescriptorProto.LABEL_REPEATED:
            return f"repeated {name}"
        return f"optional {name}" if field.proto3_optional else name

    def link(self, name: str) -> str:
        """Return a name with a link to its heading, if it has one."""
        return f"[{name}](#{anchor(name)})" if name in self.names else name


def anchor(heading: str) -> str:
    """Return what a heading is called in links."""
    return heading.lower().replace(".", "")


def messages_of(file: FileDescriptorProto) -> Iterator[tuple[str, tuple[int, ...], DescriptorProto]]:
    """Yield the messages of a file with their names and paths, nested ones after what they are nested in."""
    for number, message in enumerate(file.message_type):
        yield message.name, (_MESSAGES, number), message
        for inner, nested in enumerate(message.nested_type):
            if not nested.options.map_entry:
                yield f"{message.name}.{nested.name}", (_MESSAGES, number, _NESTED, inner), nested


def enums_of(file: FileDescriptorProto) -> Iterator[tuple[str, tuple[int, ...], EnumDescriptorProto]]:
    """Yield the enums of a file with their names and paths."""
    for number, enum in enumerate(file.enum_type):
        yield enum.name, (_ENUMS, number), enum
    for name, path, message in messages_of(file):
        for number, enum in enumerate(message.enum_type):
            yield f"{name}.{enum.name}", (*path, _NESTED_ENUMS, number), enum


def write_services(contract: Contract) -> Iterator[str]:
    """Yield the lines of the services and their RPCs."""
    for file in contract.files:
        for number, service in enumerate(file.service):
            yield f"\n## {service.name}\n\n{contract.said_of(file, _SERVICES, number)}"
            for index, method in enumerate(service.method):
                said = contract.said_of(file, _SERVICES, number, _METHODS, index)
                yield f"\n### {method.name}\n\n{said}\n\n{describe_method(contract, method)}"


def describe_method(contract: Contract, method: MethodDescriptorProto) -> str:
    """Return what goes in and comes out, and the binding to HTTP."""
    request, response = (contract.link(name.rpartition(".")[2]) for name in (method.input_type, method.output_type))
    stream = "a stream of " if method.server_streaming else ""
    text = f"{request} → {stream}{response}"
    rule = method.options.Extensions[annotations_pb2.http]
    bindings = [rule, *rule.additional_bindings] if rule.WhichOneof("pattern") else []
    paths = [f"{each.WhichOneof('pattern').upper()} `{getattr(each, each.WhichOneof('pattern'))}`" for each in bindings]
    return f"{text}; {', '.join(paths)}" if paths else text


def write_messages(contract: Contract) -> Iterator[str]:
    """Yield the lines of the messages and enums, by name."""
    sections = []
    for file in contract.files:
        sections += [(name, write_message(contract, file, name, path, each)) for name, path, each in messages_of(file)]
        sections += [(name, write_enum(contract, file, name, path, each)) for name, path, each in enums_of(file)]
    for _, lines in sorted(sections, key=lambda section: section[0]):
        yield from lines


def write_message(
    contract: Contract, file: FileDescriptorProto, name: str, path: tuple[int, ...], message: DescriptorProto
) -> Iterator[str]:
    """Yield the lines of a message."""
    yield f"\n### {name}\n\n{contract.said_of(file, *path)}"
    if message.field:
        yield "\n| field | type | meaning |\n|---|---|---|"
    for number, field in enumerate(message.field):
        said = contract.said_of(file, *path, _FIELDS, number).replace("|", "\\|")
        yield f"| `{field.name}` | {contract.type_of(field, message)} | {said} |"


def write_enum(
    contract: Contract, file: FileDescriptorProto, name: str, path: tuple[int, ...], enum: EnumDescriptorProto
) -> Iterator[str]:
    """Yield the lines of an enum."""
    yield f"\n### {name}\n\n{contract.said_of(file, *path)}\n\n| value | meaning |\n|---|---|"
    for number, value in enumerate(enum.value):
        said = contract.said_of(file, *path, _VALUES, number).replace("|", "\\|")
        yield f"| `{value.name}` | {said} |"


def main(descriptors: Path, page: Path) -> None:
    """Write the page."""
    everything = FileDescriptorSet.FromString(descriptors.read_bytes())
    contract = Contract([file for file in everything.file if file.package == PACKAGE])
    lines = [HEAD.rstrip(), *write_services(contract), "\n## Messages and enums", *write_messages(contract)]
    page.write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
