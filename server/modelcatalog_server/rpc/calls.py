"""What is around every call.

Outermost first: request id, access log, measures, error table, identity, role, rate limit, concurrency limit,
deadline, validation, handler.

So everything that fails further in is an answer of the error table and a line in the log; and who may not call learns
nothing of whether the arguments were right, because they are not read. Handlers are wrapped once, when the server is
made; an interceptor would wrap them again for each call.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection
from contextlib import aclosing
from typing import Any

import grpc
from structlog.contextvars import bind_contextvars

from modelcatalog_server.domain.deadlines import Deadline, deadline
from modelcatalog_server.domain.errors import DeadlineError, RoleRequiredError, ServerDrainingError
from modelcatalog_server.domain.features import Feature
from modelcatalog_server.domain.identity import Principal
from modelcatalog_server.rpc.admission import Admission, Admitted, Gate, authorization_of, note_caller, subject_of
from modelcatalog_server.rpc.audit import AuditTrail
from modelcatalog_server.rpc.cached_reads import CachedReads
from modelcatalog_server.rpc.call_log import CallLog
from modelcatalog_server.rpc.call_measures import CallMeasures, MeasuredMethod
from modelcatalog_server.rpc.compression import accepts_gzip, compress
from modelcatalog_server.rpc.context import REQUEST_ID, Context, MethodHandler, new_request_id, remaining_time
from modelcatalog_server.rpc.errors import abort
from modelcatalog_server.rpc.features import without_disabled
from modelcatalog_server.rpc.overload import MAX_STREAMS_PER_CALLER, OpenStreams, Places
from modelcatalog_server.rpc.requests import parse_request
from modelcatalog_server.rpc.validation import validated

# Answers always and everybody, whatever state the service is in.
_HEALTH = "/grpc.health."

_Handler = Callable[[Any, Context], Awaitable[Any]]
_Generate = Callable[[Any, Context], AsyncGenerator[Any, None]]
# Also takes what the gate said, from who has asked it before.
_Guarded = Callable[..., Awaitable[Any]]
_Refuse = Callable[[bytes, Context, RoleRequiredError], Awaitable[None]]


class Calls:
    """Wraps the handlers, and knows the streams that are open.

    No ``audit``: none is kept. No ``cached_reads``: every read is made anew. No ``log``: of failures only. No
    ``admission``: everybody may do everything. No ``places``: as much at once as comes in. What is no
    method of the ``features`` is refused.
    """

    def __init__(
        self,
        audit: AuditTrail | None = None,
        cached_reads: CachedReads | None = None,
        log: CallLog | None = None,
        admission: Admission | None = None,
        places: Places | None = None,
        streams_per_caller: int = MAX_STREAMS_PER_CALLER,
        measures: CallMeasures | None = None,
        features: Collection[Feature] = tuple(Feature),
    ) -> None:
        self._audit = audit
        self._cached_reads = cached_reads
        self._log = log or CallLog()
        self._admission = admission or Admission()
        self._places = places
        self._open_streams = OpenStreams(streams_per_caller)
        self._measures = measures or CallMeasures()
        self._features = features
        self._streams: set[asyncio.Task[Any]] = set()
        self._health_watches: set[asyncio.Task[Any]] = set()
        self._draining = False

    def wrap(self, method: str, handler: MethodHandler) -> MethodHandler:
        """Return what answers a method instead of its bare handler."""
        measured = self._measures.of(method, handler)
        if method.startswith(_HEALTH) and handler.unary_unary is not None:
            return measured.wrap(handler)
        gate = self._admission.gate(method)
        handler = without_disabled(method, validated(handler), self._features)
        if handler.stream_stream is not None:
            handle = self._guarded(method, measured, gate, self._known(_written(_counted(handler.stream_stream, gate))))
            return grpc.stream_stream_rpc_method_handler(
                handle, handler.request_deserializer, handler.response_serializer
            )
        if handler.unary_stream is not None:
            handle = _parsed(method, handler, handler.unary_stream)
            # Health.Watch too: it never ends by itself, and stopping waits for every open stream.
            known = self._known_watch(handle) if method.startswith(_HEALTH) else self._known(handle)
            handle = self._guarded(method, measured, gate, known)
            return grpc.unary_stream_rpc_method_handler(handle, None, handler.response_serializer)
        if self._cached_reads is not None and self._cached_reads.covers(method):
            return self._cached_reads.wrap(
                method,
                handler,
                lambda read: self._guarded(method, measured, gate, self._placed(_bounded(read))),
                gate,
                self._log,
                measured,
            )
        return grpc.unary_unary_rpc_method_handler(_compressed(self._unary(method, measured, gate, handler)))

    def _unary(self, method: str, measured: MeasuredMethod, gate: Gate, handler: MethodHandler) -> _Handler:
        """Return a handler from bytes to bytes."""
        handle, refuse = _bounded(handler.unary_unary), None
        if self._audit is not None and self._audit.covers(method):
            handle = self._audit.wrap(method, handle, self._explain)
            refuse = self._audit.refusing(method, handler.request_deserializer)
        handle = _serialized(_parsed(method, handler, handle), handler.response_serializer)
        return self._guarded(method, measured, gate, self._placed(handle), refuse)

    def _placed(self, handle: _Handler) -> _Handler:
        """Return a handler that is not called more often at once than there are places."""
        if self._places is None:
            return handle
        places = self._places

        async def handle_placed(request: Any, context: Context) -> Any:
            async with places.place():
                return await handle(request, context)

        return handle_placed

    def refuse_streams(self) -> None:
        """End every open stream but those of health with SERVER_DRAINING, and refuse new ones."""
        self._draining = True
        for task in self._streams:
            task.cancel()

    async def end_streams(self) -> None:
        """End every open stream with SERVER_DRAINING, and from now on what is cancelled; return when all have heard.

        They are cancelled again every second: before Python 3.12 a cancellation can get lost on its way
        (:func:`modelcatalog_server.domain.tasks.end_tasks` says how).
        """
        self._draining = True
        while streams := self._streams | self._health_watches:
            for task in streams:
                task.cancel()
            await asyncio.wait(streams, timeout=1)

    def _known(self, handle: _Handler) -> _Handler:
        """Return a handler whose streams are among those that are open, until no more are taken."""
        handle_known = _noted(handle, self._streams)

        async def handle_stream(request: Any, context: Context) -> Any:
            if self._draining:
                raise ServerDrainingError("this server is shutting down")
            with self._open_streams.counted(subject_of(context)):
                return await handle_known(request, context)

        return handle_stream

    def _known_watch(self, handle: _Handler) -> _Handler:
        """The same for health, which may be asked as long as anything may."""
        return _noted(handle, self._health_watches)

    def _guarded(
        self, method: str, measured: MeasuredMethod, gate: Gate, handle: _Handler, refuse: _Refuse | None = None
    ) -> _Guarded:
        """Return a handler with a request id in the trailer, the errors of the table, and a line in the log.

        It lets through whom the gate admits. ``refuse`` is told of those who are known and are not admitted.
        """

        async def handle_guarded(request: Any, context: Context, admitted: Admitted | None = None) -> Any:
            request_id = new_request_id()
            context.set_trailing_metadata(((REQUEST_ID, request_id),))
            bind_contextvars(request_id=request_id)  # in every line of what is done for this call, which has a task
            begun = time.perf_counter()
            measured.note_start()
            failure: BaseException | None = None
            principal = ""
            try:
                if admitted is None:
                    admitted = gate.admit(context, authorization_of(context))
                principal = note_caller(admitted)
                if not isinstance(admitted, Principal):
                    admitted = await gate.settle(context, admitted)
                if isinstance(admitted, Principal):
                    return await handle(request, context)
                if refuse is not None and isinstance(admitted, RoleRequiredError):
                    await refuse(request, context, admitted)
                raise admitted  # noqa: TRY301 -- as what is further in would raise it
            except asyncio.CancelledError as error:
                failure = self._explain(error, context)
                if failure is error:
                    raise
                # Not the caller's doing: without a status the caller would hang to its deadline.
                await abort(context, failure)
            except grpc.aio.AbortError as error:
                failure = error
                raise
            except grpc.aio.InternalError as error:
                # All that gRPC says when a message cannot be sent any more: the caller has gone meanwhile.
                failure = asyncio.CancelledError()
                raise failure from error
            except Exception as error:
                failure = error
                await abort(context, error)
            finally:
                measured.note_end(begun, failure, context)
                if failure is None:
                    self._log.note_success(method, request_id, begun, principal, context, request)
                else:
                    self._log.note_failure(method, request_id, begun, principal, context, request, failure)

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


def _noted(handle: _Handler, tasks: set[asyncio.Task[Any]]) -> _Handler:
    """Return a handler whose tasks are in a set while they run."""

    async def handle_noted(request: Any, context: Context) -> Any:
        task = asyncio.current_task()
        assert task is not None, "a handler runs in a task"  # noqa: S101 - a broken invariant, not a check
        tasks.add(task)
        try:
            return await handle(request, context)
        finally:
            tasks.discard(task)

    return handle_noted


def _bounded(handle: _Handler) -> _Handler:
    """Return a unary handler that ends within the caller's time and within ours, and with it what it asks."""

    async def handle_in_time(request: Any, context: Context) -> Any:
        try:
            seconds = remaining_time(context)
            async with asyncio.timeout(seconds):
                with deadline(Deadline.after(seconds)):
                    return await handle(request, context)
        except TimeoutError as error:
            raise DeadlineError("the call's time was over") from error

    return handle_in_time


def _parsed(method: str, handler: MethodHandler, handle: _Handler) -> _Handler:
    """Return a handler of bytes."""

    async def handle_parsed(request: bytes, context: Context) -> Any:
        return await handle(parse_request(method, handler.request_deserializer, request), context)

    return handle_parsed


def _written(generate: _Generate) -> _Handler:
    """Return a handler that writes what an asynchronous generator yields."""

    async def handle_written(requests: Any, context: Context) -> None:
        async with aclosing(generate(requests, context)) as responses:
            async for response in responses:
                await context.write(response)

    return handle_written


def _counted(generate: _Generate, gate: Gate) -> _Generate:
    """Return a handler each of whose requests counts as a call does, the first of which has counted."""

    async def count(requests: AsyncIterator[Any], context: Context) -> AsyncGenerator[Any, None]:
        has_counted = True
        async for request in requests:
            if not has_counted:
                admitted = gate.admit(context, authorization_of(context))
                if not isinstance(admitted, Principal):
                    admitted = await gate.settle(context, admitted)
                if not isinstance(admitted, Principal):
                    raise admitted
            has_counted = False
            yield request

    async def generate_counted(requests: Any, context: Context) -> AsyncGenerator[Any, None]:
        async with (
            aclosing(count(aiter(requests), context)) as counted,
            aclosing(generate(counted, context)) as replies,
        ):
            async for reply in replies:
                yield reply

    return generate_counted


def _serialized(handle: _Handler, serialize: Callable[[Any], bytes]) -> _Handler:
    async def handle_serialized(request: Any, context: Context) -> bytes:
        return serialize(await handle(request, context))

    return handle_serialized


def _compressed(handle: _Handler) -> _Handler:
    """Return a handler of bytes that are compressed where the caller asks for it."""

    async def handle_compressed(request: Any, context: Context) -> bytes:
        body: bytes = await handle(request, context)
        if accepts_gzip(context):
            await compress(context, body)
        return body

    return handle_compressed
