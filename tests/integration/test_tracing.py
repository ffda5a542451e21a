"""Traces, from the application that calls to the statement in PostgreSQL, as a collector gets them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator

import grpc
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Span

from collector import Collector, Traced
from conftest import Services, StartApp, refresh_to_end
from modelcatalog.v1.model_catalog_service_pb2 import GetModelRequest
from modelcatalog.v1.model_catalog_service_pb2_grpc import ModelCatalogStub
from modelcatalog_client import AsyncModelCatalogClient, ModelCatalogClient, ModelNotFoundError
from small_catalog import clone_small, follow

GET_MODEL = "modelcatalog.v1.ModelCatalog/GetModel"


@pytest.fixture
def database(templates: Services) -> Iterator[str]:
    yield from clone_small(templates)


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    async with Collector() as collector:
        yield collector


def application() -> TracerProvider:
    """Return what an application traces itself with; where to is its own business."""
    return TracerProvider(shutdown_on_exit=False)


def ids(span: Span) -> tuple[bytes, bytes]:
    """Return trace and span id as a collector gets them."""
    known = span.get_span_context()
    return known.trace_id.to_bytes(16), known.span_id.to_bytes(8)


async def test_a_call_is_followed_from_the_application_to_the_statement(
    start_app: StartApp, database: str, collector: Collector
) -> None:
    tracer = application().get_tracer("shop")
    async with (
        start_app(database, offline=True, traces_endpoint=collector.endpoint) as running,
        AsyncModelCatalogClient(running.server.address) as client,
    ):
        with tracer.start_as_current_span("first") as first:
            await client.get_model("openai/gpt-5")
        with tracer.start_as_current_span("again") as again:
            await client.get_model("openai/gpt-5")
    missed, hit = (called_by(collector, span) for span in (first, again))
    (cache,) = collector.children_of(missed.span.span_id)
    assert cache.name == "cache"
    asked, *read = collector.children_of(cache.span.span_id)
    assert (asked.name, asked.attributes["db.system.name"]) == ("GET", "redis")
    assert [each.name for each in read] == ["get_state", "get_models"]
    assert read[1].attributes == {"db.system.name": "postgresql", "db.query.summary": "get_models"}
    assert collector.children_of(hit.span.span_id) == [], "it was answered from memory"
    assert missed.resource["service.name"] == "modelcatalog"
    assert missed.resource["service.version"]


def called_by(collector: Collector, span: Span) -> Traced:
    """Return the call that an application's span made, having looked at what it says."""
    trace_id, span_id = ids(span)
    (call,) = collector.children_of(span_id)
    assert call.span.trace_id == trace_id
    assert call.name == GET_MODEL
    assert len(call.attributes.pop("modelcatalog.request_id")) == 32
    assert {name: value for name, value in call.attributes.items() if name.startswith("rpc.")} == {
        "rpc.system.name": "grpc",
        "rpc.method": GET_MODEL,
        "rpc.response.status_code": "OK",
    }
    return call


async def test_the_blocking_client_passes_it_on_too(start_app: StartApp, database: str, collector: Collector) -> None:
    tracer = application().get_tracer("shop")
    async with start_app(database, offline=True, traces_endpoint=collector.endpoint) as running:

        def call() -> Span:
            with (
                ModelCatalogClient(running.server.address) as client,
                tracer.start_as_current_span("blocking") as span,
            ):
                client.get_model("openai/gpt-5")
                return span

        span = await asyncio.to_thread(call)
    assert called_by(collector, span)


async def test_a_call_without_trace_context_begins_a_trace_and_answers_are_no_failures(
    start_app: StartApp, database: str, collector: Collector
) -> None:
    async with (
        start_app(database, offline=True, traces_endpoint=collector.endpoint) as running,
        AsyncModelCatalogClient(running.server.address) as client,
    ):
        with pytest.raises(ModelNotFoundError):
            await client.get_model("openai/none")
        async with grpc.aio.insecure_channel(running.server.address) as channel:
            with pytest.raises(grpc.aio.AioRpcError):
                await ModelCatalogStub(channel).GetModel(
                    GetModelRequest(model_id="openai/gpt-5"),
                    metadata=(("traceparent", "00-nonsense"), ("x-catalog-min-revision", "9")),
                    timeout=2,  # of which the last half second is for the refusal
                )
    none, late = [each for each in collector.spans if each.name == GET_MODEL]
    assert not none.span.parent_span_id
    assert not late.span.parent_span_id
    assert (none.attributes["rpc.response.status_code"], none.is_failed) == ("NOT_FOUND", False)
    assert late.is_failed
    assert late.attributes["error.type"] == late.attributes["rpc.response.status_code"]


async def test_a_refresh_is_traced_to_upstream_inside_of_the_call_that_started_it(
    start_app: StartApp, database: str, collector: Collector
) -> None:
    tracer = application().get_tracer("shop")
    async with follow(start_app, database, traces_endpoint=collector.endpoint) as stage:
        stage.catalog.model("openai/gpt-5")["name"] = "another"
        stage.publish()
        async with AsyncModelCatalogClient(stage.running.server.address) as client:
            with tracer.start_as_current_span("nightly") as nightly:
                refresh = (await client.start_refresh()).refresh
            async for _ in client.watch_refresh_status(refresh.id):
                pass
        await stage.refresh()  # a scheduled one has no caller
    (own,) = [each for each in collector.spans if each.name == "refresh" and not each.span.parent_span_id]
    (run,) = [each for each in collector.spans if each.name == "refresh" and each is not own]
    assert run.span.trace_id == ids(nightly)[0]
    assert run.attributes == {"modelcatalog.refresh.id": refresh.id, "modelcatalog.refresh.type": "INCREMENTAL"}
    (fetched,) = [each for each in collector.children_of(run.span.span_id) if each.name == "GET"]
    assert fetched.attributes["http.response.status_code"] == 200
    assert str(fetched.attributes["url.full"]).startswith(f"{stage.upstream.url}/catalog.json")
    assert {"copy_staged_models", "merge_models", "bump_revision"} <= collector.names_below(run.span.span_id)


async def test_what_nobody_asked_for_is_not_traced(start_app: StartApp, database: str, collector: Collector) -> None:
    async with start_app(database, offline=True, traces_endpoint=collector.endpoint) as running:
        await running.reader.get_state()  # as health looks, once a second
    assert collector.spans == []


async def test_a_trace_has_no_texts_of_errors_and_no_credentials(
    start_app: StartApp, database: str, collector: Collector
) -> None:
    async with follow(start_app, database) as stage:
        address = stage.upstream.url.replace("http://", "http://user:hunter2@")
        more = {"upstream_url": address, "traces_endpoint": collector.endpoint}
        async with start_app(database, **more) as running:
            await refresh_to_end(running)
    assert any(each.name == "GET" and "http.request.method" in each.attributes for each in collector.spans)
    assert "hunter2" not in str(collector.spans)
    assert not any(each.span.events for each in collector.spans)


@pytest.mark.parametrize(
    ("module", "part"),
    [
        ("modelcatalog_server.app", "opentelemetry.sdk.trace"),  # redis imports other parts where it finds them
        ("modelcatalog_server.app", "opentelemetry.exporter"),
        ("modelcatalog_client", "opentelemetry"),
    ],
)
def test_nothing_of_it_is_imported_while_it_is_off(module: str, part: str) -> None:
    program = f"import sys, {module}; print([name for name in sys.modules if name.startswith({part!r})])"
    imported = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert imported.stdout == "[]\n"
