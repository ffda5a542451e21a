"""Optional capabilities: each can be switched off, says so, and leaves the others as they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2

from conftest import Services, StartApp, make_settings
from modelcatalog.v1 import catalog_admin_service_pb2, model_catalog_service_pb2, refresh_service_pb2
from modelcatalog.v1.model_catalog_service_pb2 import GetCatalogInfoRequest
from modelcatalog.v1.model_catalog_service_pb2_grpc import ModelCatalogStub
from modelcatalog_client import AsyncModelCatalogClient, ModelNotFoundError
from modelcatalog_server.domain.errors import StartupError
from modelcatalog_server.domain.features import SWITCHABLE, Feature
from modelcatalog_server.rpc.features import FEATURES
from modelcatalog_server.rpc.roles import ROLES
from small_catalog import clone_small

#: A request that is good in itself, of each RPC that can be switched off.
REQUESTS: dict[str, dict[str, Any]] = {
    "SearchModels": {"query": "gpt-5"},
    "ResolveModel": {"reference": "gpt-5"},
    "ListModelOffers": {"model_id": "openai/gpt-5"},
    "CompareModels": {"model_ids": ["openai/gpt-5", "openai/gpt-4"]},
    "ListModelFacets": {},
    "ListModelBenchmarks": {"model_id": "openai/gpt-5"},
    "WatchRefreshStatus": {},
    "StartRefresh": {},
    "CancelRefresh": {"refresh_id": "00000000-0000-0000-0000-000000000000"},
    "UpdateProvider": {"provider_id": "openai", "enabled": True},
    "InvalidateCache": {},
    "GetCacheStats": {},
    "ListAuditEvents": {},
}
METHODS = {
    f"/{service.full_name}/{method.name}": method
    for file in (model_catalog_service_pb2, refresh_service_pb2, catalog_admin_service_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


@pytest.fixture
def database(templates: Services) -> Iterator[str]:
    yield from clone_small(templates)


async def call(channel: grpc.aio.Channel, path: str) -> str:
    """Call with a good request; return the feature that is said to be missing, or nothing where it is answered."""
    method = METHODS[path]
    request = GetMessageClass(method.input_type)(**REQUESTS[method.name])
    # On the wire the answer to a unary call is a stream of one.
    ask: Any = channel.unary_stream(path, request_serializer=lambda message: message.SerializeToString())
    answers = ask(request, timeout=10)
    try:
        async for _ in answers:
            return ""
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
            return ""
        details = dict(error.trailing_metadata() or ())["grpc-status-details-bin"]
        info = error_details_pb2.ErrorInfo()
        assert status_pb2.Status.FromString(details).details[0].Unpack(info)
        assert (info.domain, info.reason) == ("modelcatalog", "NOT_IMPLEMENTED")
        return str(info.metadata["feature"])
    finally:
        answers.cancel()
    return ""


def test_every_method_is_a_feature_or_always_there() -> None:
    always = {name.rpartition("/")[2] for name in ROLES.keys() - FEATURES.keys()}
    assert always == {
        *("GetModel", "BatchGetModels", "ListModels", "ListProviders", "GetProvider", "GetCatalogInfo"),
        *("GetRefreshStatus", "GetRefresh", "ListRefreshes"),
    }
    assert {name.rpartition("/")[2] for name in FEATURES} == REQUESTS.keys()
    assert {*FEATURES.values()} == {*SWITCHABLE}


@pytest.mark.parametrize("disabled", SWITCHABLE)
async def test_one_that_is_switched_off_is_not_answered_and_all_others_are(
    disabled: Feature, start_app: StartApp, database: str
) -> None:
    async with (
        start_app(database, offline=True, disabled_features=disabled) as running,
        grpc.aio.insecure_channel(running.server.address) as channel,
    ):
        for path, feature in FEATURES.items():
            assert await call(channel, path) == (disabled if feature == disabled else ""), path
        info = await ModelCatalogStub(channel).GetCatalogInfo(GetCatalogInfoRequest())
    assert [feature.name for feature in info.features] == [*Feature]
    # Offline nothing is scheduled.
    assert {each.name for each in info.features if not each.enabled} == {disabled, Feature.SCHEDULE}


async def test_those_with_settings_of_their_own_are_listed_as_these_say(start_app: StartApp, database: str) -> None:
    crons = {"refresh_full_cron": "off", "refresh_incremental_cron": "off"}
    async with (
        start_app(database, disabled_features="search, compare", reflection=False, cache_entries=0, **crons) as running,
        grpc.aio.insecure_channel(running.server.address) as channel,
    ):
        info = await ModelCatalogStub(channel).GetCatalogInfo(GetCatalogInfoRequest())
    assert {each.name for each in info.features if not each.enabled} == {
        *("search", "compare", "schedule", "cache", "reflection")
    }


async def test_without_resolving_only_exact_ids_are_found_whatever_another_replica_has_cached(
    start_app: StartApp, database: str
) -> None:
    async with (
        start_app(database, offline=True) as full,
        AsyncModelCatalogClient(full.server.address) as client,
    ):
        full.server.set_serving(True)
        assert (await client.get_model("gpt-5")).model.id == "openai/gpt-5"
        await full.responses.shared.flushed()
        async with (
            start_app(database, offline=True, disabled_features="resolve") as less,
            AsyncModelCatalogClient(less.server.address) as client_of_less,
        ):
            assert (await client_of_less.get_model("openai/gpt-5")).model.id == "openai/gpt-5"
            with pytest.raises(ModelNotFoundError) as raised:
                await client_of_less.get_model("gpt-5")
            assert "openai/gpt-5" in raised.value.candidates


async def test_a_name_that_there_is_not_is_refused_at_the_start(services: Services, database: str) -> None:
    with pytest.raises(StartupError, match=r"DISABLED_FEATURES: does not know serach; there are search, resolve"):
        make_settings(services, database, disabled_features="serach,offers")
