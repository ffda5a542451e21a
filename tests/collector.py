"""A collector of traces: takes what OpenTelemetry's exporters send, by OTLP over gRPC, and keeps it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass
class Traced:
    """A span as it arrived."""

    span: Span
    resource: dict[str, str]

    @property
    def name(self) -> str:
        return self.span.name

    @property
    def attributes(self) -> dict[str, Any]:
        """The values by name."""
        return {
            each.key: getattr(each.value, each.value.WhichOneof("value") or "string_value")
            for each in self.span.attributes
        }

    @property
    def is_failed(self) -> bool:
        return self.span.status.code == 2


@dataclass
class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """An async context manager: listens while it is entered."""

    spans: list[Traced] = field(default_factory=list)
    endpoint: str = ""

    async def __aenter__(self) -> Self:
        self._server = grpc.aio.server()
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call] # it ships no types
        self.endpoint = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        await self._server.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._server.stop(None)

    async def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
        for of_resource in request.resource_spans:
            resource = {each.key: each.value.string_value for each in of_resource.resource.attributes}
            for scope in of_resource.scope_spans:
                self.spans += [Traced(span, resource) for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()

    def children_of(self, span_id: bytes) -> list[Traced]:
        """Return the spans right inside of one, in the order in which they began."""
        found = [each for each in self.spans if each.span.parent_span_id == span_id]
        return sorted(found, key=lambda each: each.span.start_time_unix_nano)

    def names_below(self, span_id: bytes) -> set[str]:
        """Return the names of all spans inside of one, however deep."""
        children = self.children_of(span_id)
        return {child.name for child in children}.union(*(self.names_below(child.span.span_id) for child in children))
