"""What a caller writes, checked by mypy --strict and never run: the types that the clients promise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_type

import grpc

from modelcatalog.v1.catalog_admin_service_pb2 import ListAuditEventsResponse, UpdateProviderResponse
from modelcatalog.v1.model_catalog_service_pb2 import (
    CompareModelsResponse,
    GetModelResponse,
    ListModelsResponse,
    SearchModelsResponse,
)
from modelcatalog.v1.refresh_service_pb2 import StartRefreshResponse
from modelcatalog_client import (
    AsyncModelCatalogClient,
    AsyncPager,
    AsyncRefreshWatch,
    AuditEvent,
    CatalogError,
    FieldViolation,
    Model,
    ModelCatalogClient,
    ModelNotFoundError,
    ModelView,
    NotFoundError,
    Pager,
    Provider,
    Refresh,
    RefreshReport,
    RefreshStatus,
    RefreshWatch,
    SearchResult,
    Tls,
    Workload,
    from_rpc_error,
    refresh_error,
)


def read() -> None:
    with ModelCatalogClient("catalog:50051", token="t", tls=Tls(ca=b"pem"), timeout=2) as client:  # noqa: S106
        assert_type(client, ModelCatalogClient)
        assert_type(client.get_model("openai/gpt-5"), GetModelResponse)
        assert_type(client.get_model("openai/gpt-5", view="full", min_revision=7).model.pricing.input, str)
        assert_type(client.get_model("openai/gpt-5", view=ModelView.MODEL_VIEW_FULL).model, Model)

        models = client.list_models(provider_id="openai", read_mask=["id", "pricing"])
        assert_type(models, Pager[Model, ListModelsResponse])
        for model in models:
            assert_type(model, Model)
        for page in models.pages():
            assert_type(page, ListModelsResponse)
        assert_type(client.search_models("gpt"), Pager[SearchResult, SearchModelsResponse])
        assert_type([provider.id for provider in client.list_providers()], list[str])
        assert_type(client.get_provider("openai").provider, Provider)
        workload = Workload(input_tokens=1000, output_tokens=100)
        assert_type(client.compare_models(["a/b", "c/d"], workload=workload), CompareModelsResponse)


def write(client: ModelCatalogClient) -> None:
    assert_type(client.start_refresh(type="full", force=True), StartRefreshResponse)
    assert_type(client.start_refresh(type=Refresh.TYPE_FULL).refresh, Refresh)
    assert_type(client.update_provider("openai", enabled=False), UpdateProviderResponse)
    assert_type(client.list_audit_events(), Pager[AuditEvent, ListAuditEventsResponse])
    with client.watch_refresh_status("id", heartbeat_interval=5) as watch:
        assert_type(watch, RefreshWatch)
        for status in watch:
            assert_type(status, RefreshStatus)
            assert_type(refresh_error(status.refresh), CatalogError | None)


def fail(client: ModelCatalogClient, error: grpc.RpcError) -> Sequence[str]:
    try:
        client.get_model("openai/gpt-55")
    except ModelNotFoundError as missing:
        assert_type(missing.candidates, tuple[str, ...])
        return missing.candidates
    except NotFoundError as other:
        assert_type(other.code, grpc.StatusCode)
        assert_type(other.field_violations, tuple[FieldViolation, ...])
        assert_type(other.retry_delay, float | None)
    assert_type(from_rpc_error(error), CatalogError)
    return ()


def misuse(client: ModelCatalogClient) -> None:
    client.get_model("openai/gpt-5", view="everything")  # type: ignore[arg-type]  # what this line is about
    client.get_model("openai/gpt-5", "full")  # type: ignore[call-arg]  # what this line is about
    client.get_model("openai/gpt-5").modle  # type: ignore[attr-defined]  # noqa: B018
    ModelCatalogClient(tls=True)  # type: ignore[arg-type]  # mypy has to refuse it


async def read_async() -> None:
    async with AsyncModelCatalogClient() as client:
        assert_type(client, AsyncModelCatalogClient)
        assert_type(await client.get_model("openai/gpt-5", view="full"), GetModelResponse)
        models = client.list_models(provider_id="openai")
        assert_type(models, AsyncPager[Model, ListModelsResponse])
        async for model in models:
            assert_type(model, Model)
        async for page in models.pages():
            assert_type(page, ListModelsResponse)
        async with client.watch_refresh_status("id") as watch:
            assert_type(watch, AsyncRefreshWatch)
            async for status in watch:
                assert_type(status, RefreshStatus)
        assert_type((await client.start_refresh()).already_running, bool)
        assert_type(await client.get_refresh_report("id"), RefreshReport | None)
