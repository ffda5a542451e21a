"""Trace context of a call, for an application that traces with OpenTelemetry. Nothing is imported for any other."""

from __future__ import annotations

import sys

# Whoever has a span that is under way has imported it.
_TRACE = "opentelemetry.trace"


def trace_metadata() -> tuple[tuple[str, str], ...]:
    """W3C trace context of the application's current span: traceparent and, where there is one, tracestate.

    Only these two: baggage is the application's own.
    """
    if _TRACE not in sys.modules:
        return ()
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return tuple(carrier.items())
