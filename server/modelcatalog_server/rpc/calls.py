"""The outermost layer of every call: a request id, a bound on its time, the audit log, the error table, one log line.

Handlers are wrapped once, when the server is made; an interceptor would wrap them again for each call.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import grpc
import structlog

from modelcatalog_server.domain.errors import CatalogError, DeadlineError, ServerDrainingError
from modelcatalog_server.rpc.audit import AuditTrail
from modelcatalog_server.rpc.cached_reads import CachedReads
from modelcatalog_server.rpc.context import REQUEST_ID, Context, MethodHandler, remaining_time
from modelcatalog_server.rpc.errors import abort, code_and_reason

_log = structlog.get_logger(__name__)

# Answered by grpc's own servicers, which speak no ErrorInfo.
_FOREIGN = ("/grpc.health.", "/grpc.reflection.")

_Handler = Callable[[Any, Context], Awaitable[Any]]


class Calls:
    """Wraps each of the service's own handlers, and knows the streams that are open.

    No ``audit``: none is kept. No ``cached_reads``: every read is made anew.
    """

    def __init__(self, audit: AuditTrail | None = None, cached_reads: CachedReads | None = None) -> None:
        self._audit = audit
        self._cached_reads = cached_reads
        self._streams: set[asyncio.Task[Any]] = set()
        self._draining = False

    def wrap(self, method: str, handler: MethodHandler) -> MethodHandler:
        """Return what answers a method instead of its bare handler."""
        codec = handler.request_deserializer, handler.response_serializer
        if handler.unary_stream is not None:
            # Health.Watch too: it never ends by itself, and stopping waits for every open stream.
            handle = self._guarded(method, self._known(handler.unary_stream))
            return grpc.unary_stream_rpc_method_handler(handle, *codec)
        if handler.unary_unary is None or method.startswith(_FOREIGN):
            return handler
        if self._cached_reads is not None and self._cached_reads.covers(method):
            return self._cached_reads.wrap(method, handler, lambda read: self._guarded(method, _bounded(read)))
        handle = _bounded(handler.unary_unary)
        if self._audit is not None:
            handle = self._audit.wrap(method, handle, self._explain)
        return grpc.unary_unary_rpc_method_handler(self._guarded(method, handle), *codec)

    async def end_streams(self) -> None:
        """End every open stream with SERVER_DRAINING, and from now on what is cancelled; return when all have heard.

        They are cancelled again every second: before Python 3.12 a cancellation can get lost on its way
        (:func:`modelcatalog_server.domain.tasks.end_tasks` says how).
        """
        self._draining = True
        while self._streams:
            for task in self._streams:
                task.cancel()
            await asyncio.wait(self._streams, timeout=1)

    def _known(self, handle: _Handler) -> _Handler:
        async def handle_stream(request: Any, context: Context) -> Any:
            task = asyncio.current_task()
            assert task is not None, "a handler runs in a task"  # noqa: S101 - a broken invariant, not a check
            self._streams.add(task)
            try:
                return await handle(request, context)
            finally:
                self._streams.discard(task)

        return handle_stream

    def _guarded(self, method: str, handle: _Handler) -> _Handler:
        """Return a handler with a request id in the trailer, the errors of the table, and a line in the log."""

        async def handle_guarded(request: Any, context: Context) -> Any:
            request_id = uuid4().hex
            context.set_trailing_metadata(((REQUEST_ID, request_id),))
            started = time.perf_counter()
            failure: BaseException | None = None
            try:
                return await handle(request, context)
            except asyncio.CancelledError as error:
                failure = self._explain(error, context)
                if failure is error:
                    raise
                # Not the caller's doing: without a status the caller would hang to its deadline.
                await abort(context, failure)
            except grpc.aio.AbortError as error:
                failure = error
                raise
            except Exception as error:
                failure = error
                await abort(context, error)
            finally:
                _log_call(method, request_id, time.perf_counter() - started, failure)

        return handle_guarded

    def _explain(self, error: asyncio.CancelledError, context: Context) -> BaseException:
        """Return what a cancellation is to the caller. grpc does not tell: ``context.cancelled()`` stays false."""
        if self._draining:
            return ServerDrainingError("this server is shutting down")
        if context.time_remaining() == 0:
            return DeadlineError("the call's time was over")
        task = asyncio.current_task()
        if task is None or task.cancelling() == 0:  # something in the handler was cancelled, not the call
            return ServerDrainingError("this server could not go on with the call")
        return error  # the caller went away


def _bounded(handle: _Handler) -> _Handler:
    """Return a unary handler that ends within the caller's time and within ours."""

    async def handle_in_time(request: Any, context: Context) -> Any:
        try:
            async with asyncio.timeout(remaining_time(context)):
                return await handle(request, context)
        except TimeoutError as error:
            raise DeadlineError("the call's time was over") from error

    return handle_in_time


def _log_call(method: str, request_id: str, duration_s: float, failure: BaseException | None) -> None:
    if failure is None and not _log.is_enabled_for(logging.DEBUG):
        return
    fields = {"method": method, "request_id": request_id, "duration_ms": round(duration_s * 1000, 3)}
    if failure is None:
        _log.debug("call", code="OK", **fields)
    elif isinstance(failure, CatalogError):
        code, reason = code_and_reason(failure)
        _log.info("call", code=code.name, reason=reason, **fields)
    elif isinstance(failure, asyncio.CancelledError | grpc.aio.AbortError):
        _log.info("call", code="CANCELLED", **fields)
    else:
        _log.error("call failed on a fault of the service", code="INTERNAL", exc_info=failure, **fields)
