"""The errors of both clients: one class for each reason of the contract, under one class for each status code.

Catch as wide as you need: ``ModelNotFoundError``, any ``NotFoundError``, or any ``CatalogError``. A reason that this
version does not know, and an error that did not come from the catalog (a proxy's, the channel's own), is the class of
its status code with an empty ``reason`` or the reason as sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar, TypeVar, cast

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from modelcatalog.v1.refresh_pb2 import Refresh

ERROR_DOMAIN = "modelcatalog"

_STATUS_DETAILS = "grpc-status-details-bin"
_REQUEST_ID = "x-request-id"

_Detail = TypeVar("_Detail", bound=Message)


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One argument that the server refused.

    Attributes:
        field: Path of the field in the request, e.g. ``page_size``.
        description: What is wrong with it.
    """

    field: str
    description: str


class CatalogError(Exception):
    """A call failed. ``str(error)`` says why and, where it helps, what to do next.

    Attributes:
        code: Status code of the call.
        reason: Name out of the contract's ``ErrorReason``, e.g. ``MODEL_NOT_FOUND``. Empty when the error is not the
            catalog's own.
        message: The server's text.
        metadata: Figures and names that belong to the reason.
        field_violations: Arguments that were refused.
        retry_delay: Seconds after which the server wants to see the call again. None when it does not say.
        request_id: Finds the call in the server's log. Empty when the server did not answer.
        method: Name of the RPC, e.g. ``GetModel``. Empty for the error of a refresh.
        target: Address that the client was given.
    """

    code: grpc.StatusCode = grpc.StatusCode.UNKNOWN
    reason: str = ""
    advice: ClassVar[str] = ""

    # Everything but the message is optional, so that errors can be pickled, copied and made in a caller's tests.
    def __init__(
        self,
        message: str = "",
        *,
        code: grpc.StatusCode | None = None,
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
        field_violations: Iterable[FieldViolation] = (),
        retry_delay: float | None = None,
        request_id: str = "",
        method: str = "",
        target: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code
        if reason is not None:
            self.reason = reason
        self.metadata = dict(metadata or {})
        self.field_violations = tuple(field_violations)
        self.retry_delay = retry_delay
        self.request_id = request_id
        self.method = method
        self.target = target

    def __str__(self) -> str:
        origin = self.reason or self.code.name
        if self.method:
            origin += f" from {self.method}"
        if self.request_id:
            origin += f", request {self.request_id}"
        parts = [f"{self.message or self.code.name} [{origin}]", *self._violations(), self._next_step()]
        return "; ".join(part for part in parts if part)

    def _violations(self) -> list[str]:
        unsaid = (each for each in self.field_violations if each.description not in self.message)
        return [f"{each.field}: {each.description}" for each in unsaid]

    def _next_step(self) -> str:
        if self.retry_delay is not None:
            return f"try again in {self.retry_delay:g} s"
        return self.advice


# One class per status code.


class InvalidArgumentError(CatalogError):
    """An argument is wrong whatever the catalog holds; ``field_violations`` says which."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class NotFoundError(CatalogError):
    """What was asked for does not exist."""

    code = grpc.StatusCode.NOT_FOUND


class FailedPreconditionError(CatalogError):
    """The call does not fit the state of what it is about."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class AlreadyExistsError(CatalogError):
    """What was to be made exists and is something else."""

    code = grpc.StatusCode.ALREADY_EXISTS


class OutOfRangeError(CatalogError):
    """A token was right once and is too old now."""

    code = grpc.StatusCode.OUT_OF_RANGE


class ResourceExhaustedError(CatalogError):
    """A limit was reached; ``retry_delay`` says when to come back, where that is known."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class UnauthenticatedError(CatalogError):
    """The server does not know who is calling."""

    code = grpc.StatusCode.UNAUTHENTICATED


class PermissionDeniedError(CatalogError):
    """The server knows who is calling, and that is not enough."""

    code = grpc.StatusCode.PERMISSION_DENIED


class UnavailableError(CatalogError):
    """The service cannot answer now, or nothing answers at the address. The call may be made again."""

    code = grpc.StatusCode.UNAVAILABLE

    def _next_step(self) -> str:
        if self.reason or not self.target:
            return super()._next_step()
        return (
            f"is a server running at {self.target} (`modelcatalog serve` starts one), and do both sides agree on TLS?"
        )


class DeadlineExceededError(CatalogError):
    """The call's time was over, here or at the server. It may have taken effect."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED
    advice = "pass a larger timeout= if the answer may take longer"


class InternalError(CatalogError):
    """A fault of the service; ``request_id`` finds it in the server's log."""

    code = grpc.StatusCode.INTERNAL


class UnimplementedError(CatalogError):
    """The server does not have this RPC or this argument yet."""

    code = grpc.StatusCode.UNIMPLEMENTED


class CallCancelledError(CatalogError):
    """The call was cancelled, most often because the client was closed while it ran."""

    code = grpc.StatusCode.CANCELLED


# One class per reason.


class _CandidatesError(CatalogError):
    """An error that names what could have been meant."""

    @property
    def candidates(self) -> tuple[str, ...]:
        """Up to ten ids that come near, best first. Empty when nothing does."""
        return tuple(filter(None, self.metadata.get("candidates", "").split(",")))

    def _next_step(self) -> str:
        unsaid = [each for each in self.candidates if each not in self.message]
        return f"near: {', '.join(unsaid)}" if unsaid else super()._next_step()


class InvalidFilterError(InvalidArgumentError):
    """``filter`` does not parse or names a field it cannot use."""

    reason = "INVALID_FILTER"


class InvalidOrderByError(InvalidArgumentError):
    """``order_by`` does not parse or names a field it cannot use."""

    reason = "INVALID_ORDER_BY"


class InvalidPageTokenError(InvalidArgumentError):
    """``page_token`` is not one of the server's or belongs to other arguments."""

    reason = "INVALID_PAGE_TOKEN"


class InvalidFieldMaskError(InvalidArgumentError):
    """``read_mask`` names a field that does not exist."""

    reason = "INVALID_FIELD_MASK"


class InvalidModelIdError(InvalidArgumentError):
    """An id is empty, too long or holds characters no id has."""

    reason = "INVALID_MODEL_ID"


class InvalidResumeTokenError(InvalidArgumentError):
    """``resume_token`` is not one of the server's or belongs to another refresh."""

    reason = "INVALID_RESUME_TOKEN"


class TooManyIdsError(InvalidArgumentError):
    """More ids than one call takes, or none."""

    reason = "TOO_MANY_IDS"


class InvalidQueryError(InvalidArgumentError):
    """Any other argument is out of its bounds; ``field_violations`` says which."""

    reason = "INVALID_QUERY"


class ModelNotFoundError(_CandidatesError, NotFoundError):
    """No model has this id; ``candidates`` has near ones."""

    reason = "MODEL_NOT_FOUND"


class ProviderNotFoundError(_CandidatesError, NotFoundError):
    """No provider has this id; ``candidates`` has near ones."""

    reason = "PROVIDER_NOT_FOUND"


class RefreshNotFoundError(NotFoundError):
    """No refresh has this id."""

    reason = "REFRESH_NOT_FOUND"


class AmbiguousModelError(_CandidatesError, FailedPreconditionError):
    """The reference fits several models equally; pass one of ``candidates``."""

    reason = "AMBIGUOUS_MODEL"


class RefreshNotCancellableError(FailedPreconditionError):
    """The refresh is over, or past the point where it can be stopped."""

    reason = "REFRESH_NOT_CANCELLABLE"


class RequestIdReusedError(AlreadyExistsError):
    """``request_id`` was used before, with other arguments."""

    reason = "REQUEST_ID_REUSED"


class ResumeTokenExpiredError(OutOfRangeError):
    """``resume_token`` is older than 24 hours."""

    reason = "RESUME_TOKEN_EXPIRED"
    advice = "watch again without a resume_token"


class PageTokenExpiredError(OutOfRangeError):
    """``page_token`` is older than 24 hours."""

    reason = "PAGE_TOKEN_EXPIRED"
    advice = "start the listing again without a page_token"


class RateLimitedError(ResourceExhaustedError):
    """Too many calls; ``retry_delay`` says when to come back."""

    reason = "RATE_LIMITED"


class TooManyStreamsError(ResourceExhaustedError):
    """Too many open watches of this caller or of the process."""

    reason = "TOO_MANY_STREAMS"
    advice = "close a watch that is no longer needed"


class SlowConsumerError(ResourceExhaustedError):
    """The watch was not read fast enough. Raised only once re-subscribing has not helped."""

    reason = "SLOW_CONSUMER"


class MissingTokenError(UnauthenticatedError):
    """No token was sent."""

    reason = "MISSING_TOKEN"
    advice = "pass token= to the client"


class InvalidTokenError(UnauthenticatedError):
    """The token is not known or expired."""

    reason = "INVALID_TOKEN"


class RoleRequiredError(PermissionDeniedError):
    """The caller's role does not allow this RPC."""

    reason = "ROLE_REQUIRED"


class DatabaseUnavailableError(UnavailableError):
    """The service cannot reach its database."""

    reason = "DATABASE_UNAVAILABLE"


class CatalogNotReadyError(UnavailableError):
    """No catalog has been loaded yet."""

    reason = "CATALOG_NOT_READY"


class ServerDrainingError(UnavailableError):
    """This process is shutting down; another one will answer."""

    reason = "SERVER_DRAINING"


class OverloadedError(UnavailableError):
    """The service has too much work at once."""

    reason = "OVERLOADED"


class RevisionNotAvailableError(UnavailableError):
    """The revision asked for with ``min_revision`` did not arrive in time."""

    reason = "REVISION_NOT_AVAILABLE"


class RefreshFailedError(CatalogError):
    """Why a refresh did not succeed. Made by ``refresh_error``, never raised by a call."""


class UpstreamUnavailableError(RefreshFailedError):
    """Upstream did not answer."""

    reason = "UPSTREAM_UNAVAILABLE"


class UpstreamInvalidError(RefreshFailedError):
    """Upstream's answer is no catalog."""

    reason = "UPSTREAM_INVALID"


class GateRefusedError(RefreshFailedError):
    """The payload looks wrong as a whole; ``metadata`` has the gate and its figures."""

    reason = "GATE_REFUSED"


class OwnerLostError(RefreshFailedError):
    """The process that ran the refresh died."""

    reason = "OWNER_LOST"


class RefreshCancelledError(RefreshFailedError):
    """The refresh was stopped on request."""

    reason = "REFRESH_CANCELLED"


# DEADLINE, INTERNAL and NOT_IMPLEMENTED are the only reasons of their codes, so the class of the code is theirs.
CLASS_BY_REASON: Mapping[str, type[CatalogError]] = {
    "INVALID_FILTER": InvalidFilterError,
    "INVALID_ORDER_BY": InvalidOrderByError,
    "INVALID_PAGE_TOKEN": InvalidPageTokenError,
    "INVALID_FIELD_MASK": InvalidFieldMaskError,
    "INVALID_MODEL_ID": InvalidModelIdError,
    "INVALID_RESUME_TOKEN": InvalidResumeTokenError,
    "TOO_MANY_IDS": TooManyIdsError,
    "INVALID_QUERY": InvalidQueryError,
    "MODEL_NOT_FOUND": ModelNotFoundError,
    "PROVIDER_NOT_FOUND": ProviderNotFoundError,
    "REFRESH_NOT_FOUND": RefreshNotFoundError,
    "AMBIGUOUS_MODEL": AmbiguousModelError,
    "REFRESH_NOT_CANCELLABLE": RefreshNotCancellableError,
    "REQUEST_ID_REUSED": RequestIdReusedError,
    "RESUME_TOKEN_EXPIRED": ResumeTokenExpiredError,
    "PAGE_TOKEN_EXPIRED": PageTokenExpiredError,
    "RATE_LIMITED": RateLimitedError,
    "TOO_MANY_STREAMS": TooManyStreamsError,
    "SLOW_CONSUMER": SlowConsumerError,
    "MISSING_TOKEN": MissingTokenError,
    "INVALID_TOKEN": InvalidTokenError,
    "ROLE_REQUIRED": RoleRequiredError,
    "DATABASE_UNAVAILABLE": DatabaseUnavailableError,
    "CATALOG_NOT_READY": CatalogNotReadyError,
    "SERVER_DRAINING": ServerDrainingError,
    "OVERLOADED": OverloadedError,
    "REVISION_NOT_AVAILABLE": RevisionNotAvailableError,
    "DEADLINE": DeadlineExceededError,
    "INTERNAL": InternalError,
    "NOT_IMPLEMENTED": UnimplementedError,
    "UPSTREAM_UNAVAILABLE": UpstreamUnavailableError,
    "UPSTREAM_INVALID": UpstreamInvalidError,
    "GATE_REFUSED": GateRefusedError,
    "OWNER_LOST": OwnerLostError,
    "REFRESH_CANCELLED": RefreshCancelledError,
}

CLASS_BY_CODE: Mapping[grpc.StatusCode, type[CatalogError]] = {
    each.code: each
    for each in (
        InvalidArgumentError,
        NotFoundError,
        FailedPreconditionError,
        AlreadyExistsError,
        OutOfRangeError,
        ResourceExhaustedError,
        UnauthenticatedError,
        PermissionDeniedError,
        UnavailableError,
        DeadlineExceededError,
        InternalError,
        UnimplementedError,
        CallCancelledError,
    )
}

_CODE_BY_NUMBER: Mapping[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


def from_rpc_error(error: grpc.RpcError, *, method: str = "", target: str = "") -> CatalogError:
    """Makes the typed error of a failed call.

    Args:
        error: What a stub of ``grpc`` or ``grpc.aio`` raised.
        method: Name of the RPC, for the message.
        target: Address that was called, for the message.

    Returns:
        The class of the error's reason, else of its status code, else ``CatalogError``.
    """
    trailers = _trailers(error)
    typed = _from_status(error.code(), error.details() or "", _details(trailers.get(_STATUS_DETAILS)))
    typed.request_id = str(trailers.get(_REQUEST_ID, ""))
    typed.method = method
    typed.target = target
    return typed


def refresh_error(refresh: Refresh) -> CatalogError | None:
    """Makes the typed error of a refresh that did not succeed.

    Returns:
        None when ``refresh.error`` is unset, else mostly a ``RefreshFailedError``.
    """
    if not refresh.HasField("error"):
        return None
    code = _CODE_BY_NUMBER.get(refresh.error.code, grpc.StatusCode.UNKNOWN)
    return _from_status(code, refresh.error.message, refresh.error)


def _trailers(error: grpc.RpcError) -> dict[str, str | bytes]:
    # Pairs with grpc and with grpc.aio, whatever the stubs say. Through iter(), because dict() would take the class of
    # grpc.aio for a mapping, whose keys() are pairs in grpcio 1.75.
    return dict(iter(cast("Iterable[tuple[str, str | bytes]]", error.trailing_metadata() or ())))


def _details(trailer: str | bytes | None) -> status_pb2.Status:
    if not isinstance(trailer, bytes):
        return status_pb2.Status()
    try:
        return status_pb2.Status.FromString(trailer)
    except DecodeError:  # a proxy's idea of details is no reason to hide the error itself
        return status_pb2.Status()


def _from_status(code: grpc.StatusCode, message: str, status: status_pb2.Status) -> CatalogError:
    info = _unpack(status, error_details_pb2.ErrorInfo())
    request = _unpack(status, error_details_pb2.BadRequest())
    retry = _unpack(status, error_details_pb2.RetryInfo())
    reason = info.reason if info.domain == ERROR_DOMAIN else ""
    error_class = CLASS_BY_REASON.get(reason) or CLASS_BY_CODE.get(code, CatalogError)
    return error_class(
        message,
        code=code,
        reason=reason,
        metadata=info.metadata,
        field_violations=[FieldViolation(each.field, each.description) for each in request.field_violations],
        retry_delay=retry.retry_delay.ToTimedelta().total_seconds() if retry.HasField("retry_delay") else None,
    )


def _unpack(status: status_pb2.Status, into: _Detail) -> _Detail:
    """Fills ``into`` with the detail of its type, if there is one that can be read."""
    for detail in status.details:
        if detail.Is(into.DESCRIPTOR):
            with suppress(DecodeError):
                detail.Unpack(into)
    return into
