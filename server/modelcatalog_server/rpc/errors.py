"""The one table from the domain's errors to (status code, reason), and how an error is sent.

Nothing but what the domain wrote for callers leaves the process: no driver text, no traceback, no address.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Iterator

import grpc
from google.protobuf import any_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode

from modelcatalog_server.domain import errors
from modelcatalog_server.rpc.context import Context

DOMAIN = "modelcatalog"
STATUS_DETAILS = "grpc-status-details-bin"
# When gRPC is to make its next attempt; below 0: none.
_PUSHBACK = "grpc-retry-pushback-ms"

Metadata = tuple[tuple[str, str | bytes], ...]

#: The most specific class that an error is an instance of decides.
TABLE: dict[type[errors.CatalogError], tuple[StatusCode, str]] = {
    errors.InvalidQueryError: (StatusCode.INVALID_ARGUMENT, "INVALID_QUERY"),
    errors.InvalidModelIdError: (StatusCode.INVALID_ARGUMENT, "INVALID_MODEL_ID"),
    errors.TooManyIdsError: (StatusCode.INVALID_ARGUMENT, "TOO_MANY_IDS"),
    errors.InvalidFieldMaskError: (StatusCode.INVALID_ARGUMENT, "INVALID_FIELD_MASK"),
    errors.InvalidFilterError: (StatusCode.INVALID_ARGUMENT, "INVALID_FILTER"),
    errors.InvalidOrderByError: (StatusCode.INVALID_ARGUMENT, "INVALID_ORDER_BY"),
    errors.InvalidPageTokenError: (StatusCode.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN"),
    errors.InvalidResumeTokenError: (StatusCode.INVALID_ARGUMENT, "INVALID_RESUME_TOKEN"),
    errors.PageTokenExpiredError: (StatusCode.OUT_OF_RANGE, "PAGE_TOKEN_EXPIRED"),
    errors.ResumeTokenExpiredError: (StatusCode.OUT_OF_RANGE, "RESUME_TOKEN_EXPIRED"),
    errors.ModelNotFoundError: (StatusCode.NOT_FOUND, "MODEL_NOT_FOUND"),
    errors.ProviderNotFoundError: (StatusCode.NOT_FOUND, "PROVIDER_NOT_FOUND"),
    errors.RefreshNotFoundError: (StatusCode.NOT_FOUND, "REFRESH_NOT_FOUND"),
    errors.AmbiguousModelError: (StatusCode.FAILED_PRECONDITION, "AMBIGUOUS_MODEL"),
    errors.RefreshNotCancellableError: (StatusCode.FAILED_PRECONDITION, "REFRESH_NOT_CANCELLABLE"),
    errors.RequestIdReusedError: (StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"),
    errors.MissingTokenError: (StatusCode.UNAUTHENTICATED, "MISSING_TOKEN"),
    errors.InvalidTokenError: (StatusCode.UNAUTHENTICATED, "INVALID_TOKEN"),
    errors.RoleRequiredError: (StatusCode.PERMISSION_DENIED, "ROLE_REQUIRED"),
    errors.DatabaseUnavailableError: (StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE"),
    errors.CatalogNotReadyError: (StatusCode.UNAVAILABLE, "CATALOG_NOT_READY"),
    errors.ServerDrainingError: (StatusCode.UNAVAILABLE, "SERVER_DRAINING"),
    errors.RevisionNotAvailableError: (StatusCode.UNAVAILABLE, "REVISION_NOT_AVAILABLE"),
    errors.SlowConsumerError: (StatusCode.RESOURCE_EXHAUSTED, "SLOW_CONSUMER"),
    errors.RateLimitedError: (StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED"),
    errors.OverloadedError: (StatusCode.UNAVAILABLE, "OVERLOADED"),
    errors.TooManyStreamsError: (StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS"),
    errors.DeadlineError: (StatusCode.DEADLINE_EXCEEDED, "DEADLINE"),
    errors.FeatureDisabledError: (StatusCode.UNIMPLEMENTED, "NOT_IMPLEMENTED"),
}

INTERNAL = (StatusCode.INTERNAL, "INTERNAL")
INTERNAL_MESSAGE = "a fault of the service; the x-request-id trailer finds it in the log"

# Codes of the reasons that only a Refresh carries.
_REFRESH_CODES = {
    "UPSTREAM_UNAVAILABLE": StatusCode.UNAVAILABLE,
    "UPSTREAM_INVALID": StatusCode.FAILED_PRECONDITION,
    "GATE_REFUSED": StatusCode.FAILED_PRECONDITION,
    "OWNER_LOST": StatusCode.ABORTED,
    "REFRESH_CANCELLED": StatusCode.CANCELLED,
    "DATABASE_UNAVAILABLE": StatusCode.UNAVAILABLE,
}

# Error trailers above 8 KiB fail at random on their way. The message travels in the details and, with three bytes for
# each that is no ASCII, beside them.
_MAX_TEXT_BYTES = 1000
_MAX_CANDIDATES_BYTES = 1500
# Watches end with their runs, which take seconds.
_STREAM_RETRY_S = 5


def code_and_reason(error: BaseException) -> tuple[StatusCode, str]:
    """Return what an error is to a caller."""
    for cls in type(error).__mro__:
        if cls in TABLE:
            return TABLE[cls]
    return INTERNAL


def code_of_reason(reason: str) -> int:
    """Return the number of the status code that a reason in ``Refresh.error`` comes with."""
    number: int = _REFRESH_CODES.get(reason, StatusCode.INTERNAL).value[0]
    return number


def to_status(error: BaseException) -> tuple[StatusCode, status_pb2.Status]:
    """Return the status of an error with its details."""
    code, reason = code_and_reason(error)
    message = _shorten(str(error)) if code is not StatusCode.INTERNAL else INTERNAL_MESSAGE
    status = status_pb2.Status(code=code.value[0], message=message)
    status.details.extend(_pack(_details(error, reason)))
    return code, status


async def abort(context: Context, error: BaseException) -> None:
    """End the call with an error. Raises, as ``context.abort`` does.

    Raises:
        CancelledError: the caller cannot be told: it has gone, or does not take what was written before.
    """
    code, status = to_status(error)
    trailers: Metadata = (*context.trailing_metadata(), (STATUS_DETAILS, status.SerializeToString()))
    if isinstance(error, errors.RevisionNotAvailableError):
        # It was waited for as long as the caller has time. A client that tried again, as it does on UNAVAILABLE, would
        # only come to hear of its own deadline.
        trailers = (*trailers, (_PUSHBACK, "-1"))
    elif isinstance(error, errors.OverloadedError):
        trailers = (*trailers, (_PUSHBACK, str(math.ceil(error.retry_after_s * 1000))))
    try:
        await context.abort(code, status.message, trailers)
    except grpc.aio.InternalError as unheard:
        raise asyncio.CancelledError from unheard


def _details(error: BaseException, reason: str) -> Iterable[Message]:
    metadata: dict[str, str] = {}
    if isinstance(error, errors.NotFoundError | errors.AmbiguousModelError) and error.candidates:
        metadata["candidates"] = ",".join(_fitting(error.candidates))
    if isinstance(error, errors.FeatureDisabledError):
        metadata["feature"] = error.feature
    yield error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata)
    if isinstance(error, errors.InvalidArgumentError):
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=_shorten(error.field, 200), description=_shorten(error.message)
        )
        yield error_details_pb2.BadRequest(field_violations=[violation])
    if isinstance(error, errors.TooManyStreamsError | errors.RateLimitedError):
        quota = error_details_pb2.QuotaFailure.Violation(
            subject=_shorten(error.subject, 200), description=_shorten(str(error))
        )
        yield error_details_pb2.QuotaFailure(violations=[quota])
    if isinstance(error, errors.TooManyStreamsError):
        yield error_details_pb2.RetryInfo(retry_delay=Duration(seconds=_STREAM_RETRY_S))
    if isinstance(error, errors.RateLimitedError | errors.OverloadedError):
        yield error_details_pb2.RetryInfo(retry_delay=_to_duration(error.retry_after_s))


def _to_duration(seconds: float) -> Duration:
    """Return a duration of whole milliseconds, no shorter."""
    duration = Duration()
    duration.FromMilliseconds(math.ceil(seconds * 1000))
    return duration


def _shorten(text: str, max_bytes: int = _MAX_TEXT_BYTES) -> str:
    return text.encode(errors="replace")[:max_bytes].decode(errors="ignore")


def _fitting(ids: Iterable[str]) -> Iterator[str]:
    """Yield the first ids, as many as there is room for."""
    size = 0
    for id_ in ids:
        size += len(id_.encode()) + 1
        if size > _MAX_CANDIDATES_BYTES:
            return
        yield id_


def _pack(details: Iterable[Message]) -> Iterable[any_pb2.Any]:
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        yield packed
