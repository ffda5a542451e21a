"""The line in the log that a call leaves: each that failed does, and a share of the others."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from random import random
from typing import Any

import grpc
import structlog

from modelcatalog_server.domain.errors import CatalogError
from modelcatalog_server.rpc.bodies import describe_request
from modelcatalog_server.rpc.context import REQUEST_ID, Context
from modelcatalog_server.rpc.errors import code_and_reason
from modelcatalog_server.rpc.reading import REVISION

_log = structlog.get_logger(__name__)

# Every connection of the typed client has one, and it ends with the connection: nothing to tell.
_HEALTH_WATCH = "/grpc.health.v1.Health/Watch"
# Of a caller's own id: what is longer or looks otherwise is not written, for it is the caller's to choose.
_CALLER_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")


class CallLog:
    """Writes one line a call.

    Args:
        percent: Of the calls that succeed, how many are logged.
        chance: From 0 to below 1.
        log: Where to.
    """

    def __init__(self, percent: float = 0, *, chance: Callable[[], float] = random, log: Any = _log) -> None:
        self._share = self._usual_share = percent / 100
        self._with_requests = False
        self._chance = chance
        self._log = log

    def set_debug(self, debug: bool) -> None:
        """Have every call leave a line, with what was asked for; or again as many as usual, without."""
        self._with_requests = debug
        self._share = 1 if debug else self._usual_share

    def note_success(
        self,
        method: str,
        request_id: str,
        begun: float,
        principal: str,
        context: Context,
        request: object,
        revision: int | None = None,
    ) -> None:
        """Log the call if it is its turn.

        ``begun`` is what ``time.perf_counter`` said, ``revision`` that of the answer, where it is at hand.
        """
        if self._share and self._chance() < self._share:  # each near hit comes here: nothing else before
            fields = self._fields(method, request_id, begun, principal, context, request, revision)
            self._log.info("call", code="OK", **fields)

    def note_failure(
        self,
        method: str,
        request_id: str,
        begun: float,
        principal: str,
        context: Context,
        request: object,
        failure: BaseException,
    ) -> None:
        """Log the call: with code and reason, and with the traceback if it is a fault of the service.

        ``principal`` is empty where it is not known who calls.
        """
        if method == _HEALTH_WATCH:
            return
        fields = self._fields(method, request_id, begun, principal, context, request)
        fields["peer"] = context.peer()
        if isinstance(failure, CatalogError):
            code, reason = code_and_reason(failure)
            self._log.info("call", code=code.name, reason=reason, **fields)
        elif isinstance(failure, asyncio.CancelledError | grpc.aio.AbortError):
            self._log.info("call", code="CANCELLED", **fields)
        else:
            self._log.error("call failed on a fault of the service", code="INTERNAL", exc_info=failure, **fields)

    def _fields(
        self,
        method: str,
        request_id: str,
        begun: float,
        principal: str,
        context: Context,
        request: object,
        revision: int | None = None,
    ) -> dict[str, Any]:
        duration_ms = round((time.perf_counter() - begun) * 1000, 3)
        fields: dict[str, Any] = {"method": method, "request_id": request_id, "duration_ms": duration_ms}
        if principal:
            fields["principal"] = principal
        if revision := revision or _revision_of(context):
            fields["revision"] = revision
        if caller_request_id := _caller_id_of(context):
            fields["caller_request_id"] = caller_request_id
        if self._with_requests and (described := describe_request(method, request)):
            fields["request"] = described
        return fields


def _revision_of(context: Context) -> int | None:
    """Return the revision that the answer belongs to, where it has one."""
    values = [value for key, value in context.trailing_metadata() or () if key == REVISION]
    return int(values[0]) if values else None


def _caller_id_of(context: Context) -> str:
    """Return the id that the caller gave the call, if it may stand in a log."""
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_ID and isinstance(value, str) and _CALLER_ID.fullmatch(value):
            return value
    return ""
