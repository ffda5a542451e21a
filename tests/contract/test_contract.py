"""The contract as a whole: what callers rely on is there, and what would break them does not get by."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.api import annotations_pb2
from google.protobuf.descriptor import MethodDescriptor

from modelcatalog.v1 import catalog_admin_service_pb2, error_reason_pb2, model_catalog_service_pb2, refresh_service_pb2

ROOT = Path(__file__).parents[2]
BUF = Path(sys.executable).with_name("buf")
SERVICES = {
    "ModelCatalog": (
        model_catalog_service_pb2,
        (
            "GetModel BatchGetModels ListModels SearchModels CompareModels ResolveModel ListModelOffers ListModelFacets"
            " ListModelBenchmarks ListProviders GetProvider GetCatalogInfo"
        ),
    ),
    "RefreshService": (
        refresh_service_pb2,
        "StartRefresh GetRefreshStatus GetRefresh ListRefreshes CancelRefresh WatchRefreshStatus",
    ),
    "CatalogAdmin": (catalog_admin_service_pb2, "UpdateProvider InvalidateCache GetCacheStats ListAuditEvents"),
}
WRITES = {"StartRefresh", "CancelRefresh", "UpdateProvider", "InvalidateCache"}
BREAKS = {
    "a field is renamed": ("model.proto", "string provider_name = 3;", "string provider_label = 3;"),
    "a field changes its number": ("model.proto", "string etag = 23;", "string etag = 29;"),
    "a field changes its type": ("provider.proto", "int32 model_count = 8;", "int64 model_count = 8;"),
    "a field is removed": ("refresh.proto", "bool not_modified = 16;", ""),
    "an enum value is removed": ("error_reason.proto", "ERROR_REASON_MODEL_NOT_FOUND = 9;", ""),
    "an RPC is renamed": ("model_catalog_service.proto", "rpc GetModel(", "rpc FetchModel("),
    "a stream is no stream": ("refresh_service.proto", "returns (stream ", "returns ("),
}


def methods() -> Iterator[MethodDescriptor]:
    for service, (module, _) in SERVICES.items():
        yield from module.DESCRIPTOR.services_by_name[service].methods


def buf_breaking(root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BUF, "breaking", "protos", "--against", "protos/baseline.binpb"],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("protos", "third_party"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "buf.yaml", tmp_path)
    return tmp_path


def test_the_contract_breaks_nothing_of_the_baseline(checkout: Path) -> None:
    assert buf_breaking(checkout).returncode == 0


@pytest.mark.parametrize("what", BREAKS)
def test_a_break_is_caught_against_the_baseline(checkout: Path, what: str) -> None:
    name, before, after = BREAKS[what]
    proto = checkout / "protos" / "modelcatalog" / "v1" / name
    text = proto.read_text()
    assert before in text
    proto.write_text(text.replace(before, after))

    result = buf_breaking(checkout)

    assert result.returncode == 100, result.stderr
    assert name in result.stdout


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_its_rpcs(service: str) -> None:
    module, names = SERVICES[service]

    assert [method.name for method in module.DESCRIPTOR.services_by_name[service].methods] == names.split()


@pytest.mark.parametrize("method", list(methods()), ids=lambda method: method.name)
def test_an_rpc_has_its_binding_and_says_whether_it_writes(method: MethodDescriptor) -> None:
    options = method.GetOptions()
    reads = options.idempotency_level == options.NO_SIDE_EFFECTS

    assert reads == (method.name not in WRITES)
    assert options.HasExtension(annotations_pb2.http) == (method.name != "WatchRefreshStatus")
    assert method.output_type.fields_by_name["catalog_revision"].number
    assert (method.input_type.name, method.output_type.name) == (f"{method.name}Request", f"{method.name}Response")


def test_every_reason_says_the_code_it_comes_with() -> None:
    text = (ROOT / "protos/modelcatalog/v1/error_reason.proto").read_text()
    comments = dict(re.findall(r"// ([^\n]*)\n(?:  //[^\n]*\n)*  (ERROR_REASON_[A-Z_]+) =", text))
    said = {name: comment for comment, name in comments.items()}

    for name in set(error_reason_pb2.ErrorReason.keys()) - {"ERROR_REASON_UNSPECIFIED"}:
        assert re.match(r"[A-Z_]+: |In `Refresh.error`: ", said[name]), name


REQUEST = re.compile(r"^message (?:\w+Request|Workload) \{\n.*?^\}", re.MULTILINE | re.DOTALL)
FIELD = re.compile(
    r"(?P<comment>(?:^  // [^\n]*\n)+)^  (?:optional |repeated )?[\w.]+ (?P<name>\w+) = \d+(?P<rules> \[.*?\])?;$",
    re.MULTILINE | re.DOTALL,
)


def said_and_ruled() -> Iterator[tuple[str, int, str]]:
    """Yield the fields of requests whose comment says how much they take: name, that, and their rules."""
    for path in sorted((ROOT / "protos/modelcatalog/v1").glob("*_service.proto")):
        for message in re.findall(
            r"^message (?:\w+Request|Workload) \{\n.*?^\}", path.read_text(), re.MULTILINE | re.DOTALL
        ):
            for found in FIELD.finditer(message):
                for most in re.findall(r"\b\d[\d,]* to ([\d,]*\d)\b", found["comment"]):
                    yield found["name"], int(most.replace(",", "")), found["rules"] or ""


@pytest.mark.parametrize(("name", "most", "rules"), list(said_and_ruled()))
def test_what_a_comment_says_of_a_bound_is_the_rule(name: str, most: int, rules: str) -> None:
    assert most in {int(number) for number in re.findall(r"(?:max_bytes|max_items|lte)(?:: | = )(\d+)", rules)}


def test_comments_that_say_bounds_are_found() -> None:
    assert {"model_id", "model_ids", "query", "input_output_ratio"} <= {name for name, _, _ in said_and_ruled()}
