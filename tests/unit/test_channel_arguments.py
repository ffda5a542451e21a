"""gRPC takes a channel argument that it does not know for somebody else's, and says nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import grpc
import pytest

import modelcatalog_client
import modelcatalog_server

_ARGUMENT = re.compile(r'"(grpc\.[a-z0-9_.]+)"')


def arguments_in(package: Path) -> Iterable[str]:
    for module in sorted(package.rglob("*.py")):
        yield from _ARGUMENT.findall(module.read_text())


@pytest.mark.parametrize("package", [modelcatalog_server, modelcatalog_client])
def test_grpc_knows_every_channel_argument_by_its_name(package: ModuleType) -> None:
    (library,) = (path.read_bytes() for path in Path(grpc.__file__).parent.glob("_cython/cygrpc*.so"))
    found = list(arguments_in(Path(str(package.__file__)).parent))
    assert len(found) >= 5
    assert [name for name in found if name.encode() not in library] == []
