"""Port ``Tracer`` over OpenTelemetry's SDK.

What is not set here comes from its own variables: ``OTEL_TRACES_SAMPLER``, ``OTEL_EXPORTER_OTLP_HEADERS``,
``OTEL_SERVICE_NAME`` and so on.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from structlog.contextvars import bind_contextvars

from modelcatalog_server.domain.spans import NO_SPAN, Attributes, Kind, Span, Value

_KINDS = {
    Kind.SERVER: trace.SpanKind.SERVER,
    Kind.CLIENT: trace.SpanKind.CLIENT,
    Kind.INTERNAL: trace.SpanKind.INTERNAL,
}
_EXPORT_TIMEOUT_S = 2
_NOWHERE = contexts.Context()


def make_provider(endpoint: str, version: str) -> TracerProvider:
    """Return what makes tracers whose spans go to a collector."""
    own = {
        "service.name": "modelcatalog",
        "service.version": version,
        "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
    }
    provider = TracerProvider(resource=Resource(own).merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint, insecure=endpoint.startswith("http://"), timeout=_EXPORT_TIMEOUT_S)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


class OpenTelemetryTracer:
    """Port ``Tracer``. Lines that are logged inside of a trace get its id."""

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer("modelcatalog")
        self._propagator = TraceContextTextMapPropagator()

    def span(self, name: str, kind: Kind, attributes: Attributes) -> AbstractContextManager[Span]:
        """Trace what the block does, inside of what is traced already; else nothing."""
        if not trace.get_current_span().is_recording():
            return NO_SPAN
        return _Active(self._tracer.start_span(name, kind=_KINDS[kind], attributes=attributes))

    def trace(
        self, name: str, kind: Kind, attributes: Attributes, sent: Mapping[str, str] | None
    ) -> AbstractContextManager[Span]:
        """Trace what the block does in any case: inside of what ``sent`` tells if it is given."""
        parent = None if sent is None else self._propagator.extract(sent, _NOWHERE)
        span = self._tracer.start_span(name, parent, kind=_KINDS[kind], attributes=attributes)
        bind_contextvars(trace_id=f"{span.get_span_context().trace_id:032x}")
        return _Active(span)


class _Active:
    """A span from when the block is entered until it is left; an error that leaves it is its failure.

    The texts of errors stay here: a collector may be anybody's.
    """

    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def __enter__(self) -> Self:
        self._token = contexts.attach(trace.set_span_in_context(self._span))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            self.fail(kind.__name__)
        contexts.detach(self._token)
        self._span.end()

    def note(self, name: str, value: Value) -> None:
        """Add an attribute."""
        self._span.set_attribute(name, value)

    def fail(self, what: str) -> None:
        """Mark it as failed."""
        self._span.set_status(trace.StatusCode.ERROR)
        self._span.set_attribute("error.type", what)
