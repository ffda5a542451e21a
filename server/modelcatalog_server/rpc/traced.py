"""Traces calls: each is a span, inside of what its caller traces if that was sent along."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from modelcatalog_server.domain.spans import Kind, Span, trace
from modelcatalog_server.rpc.context import Context, MethodHandler, request_id_of

# W3C trace context.
_SENT = frozenset({"traceparent", "tracestate"})
# With which a call failed for the server's sake; the others are answers.
_FAULTS = frozenset(
    {
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
_CODES = {code.value[0]: code for code in grpc.StatusCode}

_Handle = Callable[[Any, Context], Awaitable[Any]]


def traced(method: str, handler: MethodHandler) -> MethodHandler:
    """Return a handler whose calls are traced, around everything else that is around them."""
    codecs = handler.request_deserializer, handler.response_serializer
    if handler.stream_stream is not None:
        return grpc.stream_stream_rpc_method_handler(_traced(method, handler.stream_stream), *codecs)
    if handler.unary_stream is not None:
        return grpc.unary_stream_rpc_method_handler(_traced(method, handler.unary_stream), *codecs)
    return grpc.unary_unary_rpc_method_handler(_traced(method, handler.unary_unary), *codecs)


def _traced(method: str, handle: _Handle) -> _Handle:
    name = method.lstrip("/")
    attributes = {"rpc.system.name": "grpc", "rpc.method": name}

    async def handle_traced(request: Any, context: Context) -> Any:
        sent = {key: value for key, value in context.invocation_metadata() or () if key in _SENT}
        with trace(name, Kind.SERVER, attributes, sent) as span:  # type: ignore[arg-type] # binary ones end with -bin
            aborted: BaseException | None = None
            try:
                response = await handle(request, context)
            except grpc.aio.AbortError as error:
                response, aborted = None, error
            _note_end(span, context)
        if aborted is not None:
            raise aborted
        return response

    return handle_traced


def _note_end(span: Span, context: Context) -> None:
    number: Any = context.code()
    code = number if isinstance(number, grpc.StatusCode) else _CODES.get(number, grpc.StatusCode.OK)
    span.note("rpc.response.status_code", code.name)
    span.note("modelcatalog.request_id", request_id_of(context))
    if code in _FAULTS:
        span.fail(code.name)
