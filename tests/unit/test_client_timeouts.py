"""Every RPC of the contract is handled everywhere: timeout, service config, a method on both clients."""

from __future__ import annotations

import inspect
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import MethodDescriptor

from modelcatalog.v1 import catalog_admin_service_pb2, model_catalog_service_pb2, refresh_service_pb2
from modelcatalog_client import DEFAULT_TIMEOUTS, AsyncModelCatalogClient, ModelCatalogClient
from modelcatalog_client._config import service_config
from modelcatalog_client._timeouts import timeout_of

DOCUMENT = Path(__file__).parents[2] / "docs" / "client.md"
SERVICES = [
    model_catalog_service_pb2.DESCRIPTOR.services_by_name["ModelCatalog"],
    refresh_service_pb2.DESCRIPTOR.services_by_name["RefreshService"],
    catalog_admin_service_pb2.DESCRIPTOR.services_by_name["CatalogAdmin"],
]
RPCS = [method for service in SERVICES for method in service.methods]
NOT_RETRIED = {"WatchRefreshStatus"}  # a watch subscribes again by itself


def name_of(rpc: Any) -> str:
    return str(rpc.name) if isinstance(rpc, MethodDescriptor) else rpc.__name__


def method_name(rpc: MethodDescriptor) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", rpc.name).lower()


def method_configs() -> dict[str, dict[str, Any]]:
    entries = json.loads(service_config())["methodConfig"]
    return {f"{name['service']}.{name['method']}": entry for entry in entries for name in entry["name"]}


def test_rpc_names_are_unique_so_that_one_table_by_name_will_do() -> None:
    assert len({rpc.name for rpc in RPCS}) == len(RPCS)


def test_the_timeouts_are_those_of_the_contracts_rpcs() -> None:
    assert set(DEFAULT_TIMEOUTS) == {rpc.name for rpc in RPCS}


def test_the_documented_timeouts_are_those_of_the_code() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([\w.]+)(?: s)? \|$", DOCUMENT.read_text("utf-8"), re.MULTILINE)
    documented = {rpc: math.inf if seconds == "none" else float(seconds) for rpc, seconds in rows}
    assert documented == DEFAULT_TIMEOUTS


def test_the_service_config_names_every_rpc() -> None:
    assert set(method_configs()) == {rpc.full_name for rpc in RPCS}


@pytest.mark.parametrize("rpc", RPCS, ids=name_of)
def test_what_a_server_that_goes_away_answers_is_retried_and_nothing_else(rpc: MethodDescriptor) -> None:
    policy = method_configs()[rpc.full_name].get("retryPolicy")
    if rpc.name in NOT_RETRIED:
        assert policy is None
    else:
        assert policy is not None
        assert policy["retryableStatusCodes"] == ["UNAVAILABLE", "CANCELLED"]
        assert policy["maxAttempts"] <= 5  # gRPC ignores more


def test_no_timeout_hides_in_the_service_config() -> None:
    assert not any("timeout" in entry for entry in method_configs().values())


@pytest.mark.parametrize("client", [ModelCatalogClient, AsyncModelCatalogClient])
@pytest.mark.parametrize("rpc", RPCS, ids=name_of)
def test_a_method_takes_every_field_of_the_request(client: type, rpc: MethodDescriptor) -> None:
    parameters = set(inspect.signature(getattr(client, method_name(rpc))).parameters)
    expected = {"self", "timeout", *rpc.input_type.fields_by_name}
    if rpc.containing_service.name == "ModelCatalog":
        expected.add("min_revision")
    if rpc.name == "WatchRefreshStatus":
        expected |= {"heartbeats", "max_reconnect_seconds"}
    assert parameters == expected


@pytest.mark.parametrize("rpc", RPCS, ids=name_of)
def test_a_method_documents_its_arguments(rpc: MethodDescriptor) -> None:
    method = getattr(ModelCatalogClient, method_name(rpc))
    documentation = inspect.getdoc(method) or ""
    for parameter in set(inspect.signature(method).parameters) - {"self"}:
        assert f"\n    {parameter}: " in documentation


@pytest.mark.parametrize(
    ("call", "client", "expected"),
    [(None, None, 5), (None, 2, 2), (1, 2, 1), (1, None, 1), (math.inf, 2, None), (None, math.inf, None)],
)
def test_the_call_comes_before_the_client_before_the_table(
    call: float | None, client: float | None, expected: float | None
) -> None:
    assert timeout_of("GetModel", call, client) == expected


@pytest.mark.parametrize("timeout", [0, -1, math.nan])
def test_a_timeout_that_no_call_could_meet_is_refused(timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout"):
        timeout_of("GetModel", timeout, None)
