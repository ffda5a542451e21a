"""Counts calls by RPC, code and duration. Each call comes here, near hits too: no lock, no look-up, no label."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import grpc

from modelcatalog.v1 import model_catalog_service_pb2
from modelcatalog_server.domain.measures import MethodCalls
from modelcatalog_server.rpc.context import Context, MethodHandler
from modelcatalog_server.rpc.errors import INTERNAL, TABLE, code_and_reason
from modelcatalog_server.rpc.health import HEALTH

_MODEL_CATALOG = model_catalog_service_pb2.DESCRIPTOR.services_by_name["ModelCatalog"].full_name

#: Stands for every method that this server does not have, so that callers cannot make series.
UNKNOWN = "unknown"
#: Reasons with which a call is refused for who makes it or when, before it is handled.
REJECTIONS = frozenset(
    {
        "MISSING_TOKEN",
        "INVALID_TOKEN",
        "ROLE_REQUIRED",
        "RATE_LIMITED",
        "TOO_MANY_STREAMS",
        "OVERLOADED",
        "SERVER_DRAINING",
    }
)

_CODES = tuple(code.name for code in grpc.StatusCode)
_CODE_OF_NUMBER = {code.value[0]: code.name for code in grpc.StatusCode}


class CallMeasures:
    """Port ``CallMeasures``: the calls of this process.

    Attributes:
        methods: Every RPC, from when its handler was wrapped, and :data:`UNKNOWN`.
        errors: By reason.
        rejections: The reasons of calls that were refused.
    """

    def __init__(self) -> None:
        self._unknown = MethodCalls(UNKNOWN, UNKNOWN, UNKNOWN, _CODES)
        self.methods = [self._unknown]
        reasons = sorted({reason for _, reason in (*TABLE.values(), INTERNAL)})
        self.errors: Counter[str] = Counter(dict.fromkeys(reasons, 0))
        self.rejections = tuple(reason for reason in reasons if reason in REJECTIONS)

    def of(self, method: str, handler: MethodHandler) -> MeasuredMethod:
        """Return what counts the calls of a method."""
        service, _, name = method.lstrip("/").rpartition("/")
        calls = MethodCalls(service, name, _kind_of(handler), _CODES)
        self.methods.append(calls)
        return MeasuredMethod(calls, self.errors)

    def count_started(self) -> int:
        """Return how many calls have come in so far, those about health apart."""
        return sum(calls.started for calls in self.methods if calls.service != HEALTH)

    def count_reads(self) -> int:
        """Return how many calls about the catalog have come in so far."""
        return sum(calls.started for calls in self.methods if calls.service == _MODEL_CATALOG)

    def note_unknown(self) -> None:
        """Count a call of a method that there is not."""
        self._unknown.started += 1
        self._unknown.note_end(grpc.StatusCode.UNIMPLEMENTED.name, 0.0)


class MeasuredMethod:
    """Counts the calls of one method. ``begun`` is what ``time.perf_counter`` said when the call came."""

    __slots__ = ("_calls", "_errors")

    def __init__(self, calls: MethodCalls, errors: Counter[str]) -> None:
        self._calls = calls
        self._errors = errors

    def note_start(self) -> None:
        """Count a call that has begun."""
        self._calls.started += 1

    def note_hit(self, begun: float) -> None:
        """Count a call from its start to its good end at once."""
        calls = self._calls
        calls.started += 1
        calls.handled["OK"] += 1
        calls.seconds.observe(time.perf_counter() - begun)

    def note_end(self, begun: float, failure: BaseException | None, context: Context) -> None:
        """Count the end of a call that was counted as begun."""
        code = "OK"
        if isinstance(failure, asyncio.CancelledError):
            code = grpc.StatusCode.CANCELLED.name
        elif isinstance(failure, grpc.aio.AbortError):  # of a handler that is not ours: health, reflection
            code = _code_of(context)
        elif failure is not None:
            status, reason = code_and_reason(failure)
            code = status.name
            self._errors[reason] += 1
        self._calls.note_end(code, time.perf_counter() - begun)

    def wrap(self, handler: MethodHandler) -> MethodHandler:
        """Return a unary handler that is counted and nothing else."""
        handle = handler.unary_unary

        async def handle_counted(request: Any, context: Context) -> Any:
            begun = time.perf_counter()
            self.note_start()
            failure: BaseException | None = None
            try:
                return await handle(request, context)
            except BaseException as error:
                failure = error
                raise
            finally:
                self.note_end(begun, failure, context)

        return grpc.unary_unary_rpc_method_handler(
            handle_counted, handler.request_deserializer, handler.response_serializer
        )


def _kind_of(handler: MethodHandler) -> str:
    kinds = {
        (False, False): "unary",
        (True, False): "client_stream",
        (False, True): "server_stream",
        (True, True): "bidi_stream",
    }
    return kinds[bool(handler.request_streaming), bool(handler.response_streaming)]


def _code_of(context: Context) -> str:
    """Return the code that a handler ended its call with. grpc tells its number."""
    code: Any = context.code()
    return code.name if isinstance(code, grpc.StatusCode) else _CODE_OF_NUMBER.get(code, "UNKNOWN")
