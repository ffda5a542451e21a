"""The service under pytest-grpc's fixtures: the blocking stub in this thread, the aio server in a thread of its own.

pytest-grpc starts a blocking server, on a socket that it leaks: what starts it (``grpc_addr``, ``_grpc_server``,
``grpc_server``) is replaced, and what it gives to tests (``grpc_channel``, ``grpc_stub``, ``grpc_create_channel``) is
used as it is.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any, TypeVar

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from conftest import SNAPSHOT, Services, folder_url, make_settings
from modelcatalog.v1 import model_catalog_service_pb2 as pb
from modelcatalog.v1 import refresh_service_pb2
from modelcatalog.v1.model_catalog_service_pb2_grpc import ModelCatalogStub
from modelcatalog.v1.refresh_pb2 import Refresh, RefreshStatus
from modelcatalog.v1.refresh_service_pb2_grpc import RefreshServiceStub
from modelcatalog_server import app
from modelcatalog_server.settings import Settings

T = TypeVar("T")


@contextmanager
def in_a_loop_of_its_own(manager: AbstractAsyncContextManager[T]) -> Iterator[T]:
    """Enter an async context manager in a thread that runs its loop until it is left."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="aio-server")
    thread.start()

    def run(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(30)

    try:
        entered: T = run(manager.__aenter__())
        try:
            yield entered
        finally:
            run(manager.__aexit__(None, None, None))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[app.App]:
    async with app.start(settings) as running:
        running.server.set_serving(True)
        yield running


@pytest.fixture(scope="module")
def _grpc_server(templates: Services) -> Iterator[app.App]:
    url = templates.clone("mc_loaded")
    settings = make_settings(templates, url, upstream_url=folder_url(SNAPSHOT))
    with in_a_loop_of_its_own(serving(settings)) as running:
        yield running
    templates.drop(url)


@pytest.fixture(scope="module")
def grpc_addr(_grpc_server: app.App) -> str:
    return _grpc_server.server.address


@pytest.fixture(scope="module")
def grpc_server(_grpc_server: app.App) -> app.App:
    return _grpc_server


@pytest.fixture(scope="module")
def grpc_stub_cls() -> type[Any]:
    return ModelCatalogStub


def test_one_model(grpc_stub: Any) -> None:
    response = grpc_stub.GetModel(pb.GetModelRequest(model_id="openai/gpt-5"))
    assert response.model.name == "GPT-5"
    assert response.model.pricing.input == "1.25"
    assert response.catalog_revision == 1


def test_a_listing_page_by_page(grpc_stub: Any) -> None:
    ids: list[str] = []
    request = pb.ListModelsRequest(provider_id="anthropic", page_size=10)
    while True:
        page = grpc_stub.ListModels(request)
        ids += [model.id for model in page.models]
        request.page_token = page.next_page_token
        if not page.next_page_token:
            break
    assert len(ids) == len(set(ids)) == page.total_size == 24


def test_trailers_of_a_read(grpc_stub: Any) -> None:
    _, call = grpc_stub.GetProvider.with_call(pb.GetProviderRequest(provider_id="openai"))
    trailers = dict(call.trailing_metadata())
    assert trailers["x-catalog-revision"] == "1"
    assert trailers["x-request-id"]


def test_an_error_with_its_details(grpc_stub: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        grpc_stub.GetModel(pb.GetModelRequest(model_id="openai/gtp-5"))
    call: Any = caught.value
    assert call.code() is grpc.StatusCode.NOT_FOUND
    status = rpc_status.from_call(call)
    assert status is not None
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.domain, info.reason) == ("modelcatalog", "MODEL_NOT_FOUND")
    assert "openai/gpt-5" in info.metadata["candidates"].split(",")


def test_a_refresh_from_start_to_end(grpc_channel: grpc.Channel) -> None:
    stub = RefreshServiceStub(grpc_channel)
    for not_modified in (False, True):  # what the catalog was loaded from before is another address
        started = stub.StartRefresh(refresh_service_pb2.StartRefreshRequest())
        request = refresh_service_pb2.WatchRefreshStatusRequest(refresh_id=started.refresh.id)
        events = [message.status for message in stub.WatchRefreshStatus(request, timeout=30)]
        assert events[0].kind == RefreshStatus.KIND_SNAPSHOT
        assert [event.kind for event in events].count(RefreshStatus.KIND_TERMINAL) == 1
        assert events[-1].refresh.state == Refresh.STATE_SUCCEEDED
        assert events[-1].refresh.not_modified is not_modified


def test_health_on_a_channel_of_its_own(grpc_create_channel: Callable[[], grpc.Channel]) -> None:
    with grpc_create_channel() as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service="modelcatalog.v1.ModelCatalog")
        assert health.Check(request).status == health_pb2.HealthCheckResponse.SERVING


def test_many_threads_at_once(grpc_stub: Any) -> None:
    request = pb.GetModelRequest(model_id="openai/gpt-5")
    expected = grpc_stub.GetModel(request)
    futures = [grpc_stub.GetModel.future(request) for _ in range(100)]
    assert all(future.result(20) == expected for future in futures)
