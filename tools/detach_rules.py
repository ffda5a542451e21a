"""Takes out of a set of descriptors the import of buf/validate, and leaves the rules themselves as they are.

The rules are options, which the generated code carries as bytes; only their meaning is in buf/validate. With the
import, generated Python would import ``buf.validate.validate_pb2``, which the client's base install does not have, and
which clashes with every other copy of it in a process. Edition 2024 has ``import option`` for just that.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorSet

RULES = "buf/validate/validate.proto"


def main(path: Path) -> None:
    """Rewrite the set in a file."""
    whole = FileDescriptorSet.FromString(path.read_bytes())
    kept = [file for file in whole.file if file.name != RULES]
    for file in kept:
        imported = [name for name in file.dependency if name != RULES]
        del file.dependency[:]
        file.dependency.extend(imported)
        _forget_json_names(file.message_type)
    path.write_bytes(FileDescriptorSet(file=kept).SerializeToString())


def _forget_json_names(messages: Iterable[DescriptorProto]) -> None:
    """Take out names in JSON, which protoc writes in sets and not in code; it works them out again. We give none."""
    for message in messages:
        for field in message.field:
            field.ClearField("json_name")
        _forget_json_names(message.nested_type)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
