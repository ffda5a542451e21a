"""Writes every call that may change something to the audit log, however it ended.

The entry is written when the handler is done, before the answer is sent, in a transaction of its own. It is no part of
the action's: calls that were refused or failed have none. So an entry can fail when the action has happened already.
Then the answer is the action's all the same, because an error would say that nothing had happened, and be retried; the
whole entry goes to the process's log as an error, where whoever keeps the log finds it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from typing import Any, Self

import structlog
from google.protobuf import json_format
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError, Message
from grpc import StatusCode

from modelcatalog.v1 import catalog_admin_service_pb2, model_catalog_service_pb2, refresh_service_pb2
from modelcatalog_server.domain.audit import AuditEntry
from modelcatalog_server.domain.deadlines import create_lasting_task
from modelcatalog_server.domain.errors import RoleRequiredError
from modelcatalog_server.domain.ports.administration import AuditLog
from modelcatalog_server.domain.tasks import end_tasks
from modelcatalog_server.rpc.admission import caller
from modelcatalog_server.rpc.bodies import cut
from modelcatalog_server.rpc.context import Context, request_id_of
from modelcatalog_server.rpc.errors import code_and_reason

_log = structlog.get_logger(__name__)

_FILES = (model_catalog_service_pb2, refresh_service_pb2, catalog_admin_service_pb2)

#: Full names of the RPCs that are audited: all that the contract does not call free of side effects.
AUDITED = frozenset(
    f"{service.full_name}/{method.name}"
    for file in _FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
    if method.GetOptions().idempotency_level != MethodOptions.NO_SIDE_EFFECTS
)

#: An answer waits at most so long for its entry, in seconds; the entry is written on.
ANSWER_WAIT_S = 2.0
# Then it is given up.
_WRITE_TIMEOUT_S = 10.0
# And so long stopping waits for entries under way.
_CLOSE_TIMEOUT_S = 2.0
#: Beyond so many entries under way those of refused calls go to the log alone.
MAX_WRITING = 1000

MAX_TEXT = 1000
MAX_DETAILS_BYTES = 8 * 1024
_MAX_TARGET = 512
# Where the texts are too long together, they are cut to this many characters, the first that does.
_CUTS = (MAX_TEXT, 200, 20, 0)

# What a call is about, by the name of the field that holds it; the first that is set.
_TARGETS = ("refresh_id", "provider_id", "model_id")

_Handler = Callable[[Any, Context], Awaitable[Any]]
_Refuse = Callable[[bytes, Context, RoleRequiredError], Awaitable[None]]
_Explain = Callable[[asyncio.CancelledError, Context], BaseException]
_Turn = AbstractAsyncContextManager[object]
_AT_ONCE: _Turn = nullcontext()


class AuditTrail:
    """Wraps the handlers that are audited. An async context manager: leaving it waits for the last entries, briefly."""

    def __init__(self, log: AuditLog) -> None:
        self._log = log
        self._calls: set[asyncio.Task[Any]] = set()
        self._writing: set[asyncio.Task[None]] = set()
        # Whoever is refused holds no place among the calls that are worked on: all of them get one connection at most.
        self._refused = asyncio.Semaphore(1)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                # The server that has stopped does not wait for handlers that it cancelled.
                while pending := self._calls | self._writing:
                    await asyncio.wait(pending)
        await end_tasks(*self._writing)

    def covers(self, method: str) -> bool:
        """Whether calls of this method are audited."""
        return method.removeprefix("/") in AUDITED

    def refusing(self, method: str, deserialize: Callable[[bytes], Message]) -> _Refuse:
        """Return what leaves an entry for a caller who is known, but may not call this method."""

        async def note_refusal(request: bytes, context: Context, failure: RoleRequiredError) -> None:
            self._note_call()
            message: Message = Empty()  # stands for what cannot be read: no arguments
            with suppress(DecodeError):
                message = deserialize(request)
            entry = to_entry(method.removeprefix("/"), message, context, failure=failure)
            if len(self._writing) < MAX_WRITING:
                await self._write(entry, self._refused)
            else:
                _report_lost(entry, "there are too many at once")

        return note_refusal

    def wrap(self, method: str, handle: _Handler, explain: _Explain) -> _Handler:
        """Return a unary handler that leaves an entry.

        ``explain`` says what the cancellation of a call is to its caller.
        """
        name = method.removeprefix("/")

        async def handle_audited(request: Any, context: Context) -> Any:
            self._note_call()
            try:
                response = await handle(request, context)
            except asyncio.CancelledError as error:
                # Nobody waits for an answer any more, and stopping must not wait here.
                self._begin(to_entry(name, request, context, failure=explain(error, context)))
                raise
            except Exception as error:
                await self._write(to_entry(name, request, context, failure=error))
                raise
            await self._write(to_entry(name, request, context, response=response))
            return response

        return handle_audited

    def _note_call(self) -> None:
        task = asyncio.current_task()
        assert task is not None, "a handler runs in a task"  # noqa: S101 - a broken invariant, not a check
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def _write(self, entry: AuditEntry, turn: _Turn = _AT_ONCE) -> None:
        """Write an entry when it is its turn, even if the caller goes away meanwhile."""
        with suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_WAIT_S):
                await asyncio.shield(self._begin(entry, turn))

    def _begin(self, entry: AuditEntry, turn: _Turn = _AT_ONCE) -> asyncio.Task[None]:
        # The time of the call may be over, and that is what the entry says.
        task = create_lasting_task(self._append(entry, turn), name="audit-entry")
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)
        return task

    async def _append(self, entry: AuditEntry, turn: _Turn) -> None:
        try:
            async with asyncio.timeout(_WRITE_TIMEOUT_S), turn:
                await self._log.append(entry)
        except asyncio.CancelledError:
            _report_lost(entry, "the process stopped")
            raise
        except Exception as error:
            _report_lost(entry, str(error) or type(error).__name__)


def to_entry(
    method: str,
    request: Message,
    context: Context,
    *,
    response: Message | None = None,
    failure: BaseException | None = None,
) -> AuditEntry:
    """Return the entry of a call that ended with a response or with a failure."""
    code, reason = _outcome(failure)
    details: dict[str, Any] = {"peer": context.peer(), "request_id": request_id_of(context)}
    if reason:
        details["reason"] = reason
    if response is not None:
        details["result"] = _result(response)
    return AuditEntry(
        principal=caller(),
        method=method,
        target=_target(request),
        code=code.name,
        details=_bounded(request, details),
    )


def _outcome(failure: BaseException | None) -> tuple[StatusCode, str]:
    """Return the code and the reason that the caller gets."""
    if failure is None:
        return StatusCode.OK, ""
    if isinstance(failure, asyncio.CancelledError):
        return StatusCode.CANCELLED, ""
    return code_and_reason(failure)


def _target(request: Message) -> str:
    values = (getattr(request, name, "") for name in _TARGETS)
    target: str = cut(next(filter(None, values), ""), _MAX_TARGET)
    return target


def _result(response: Any) -> dict[str, Any]:
    """Return what ties the entry to what it made: the run, and the revision that was answered."""
    result: dict[str, Any] = {"catalog_revision": response.catalog_revision}
    if hasattr(response, "refresh"):
        result["refresh_id"] = response.refresh.id
    return result


def _bounded(request: Message, details: dict[str, Any]) -> dict[str, Any]:
    """Return the details with the arguments in them, by field name, cut so that all of it fits."""
    arguments = json_format.MessageToDict(request, preserving_proto_field_name=True)
    for length in _CUTS:
        whole = {"arguments": cut(arguments, length), **details}
        if len(json.dumps(whole, ensure_ascii=False).encode()) <= MAX_DETAILS_BYTES:
            return whole
    return {"arguments": {}, **details}


def _report_lost(entry: AuditEntry, why: str) -> None:
    _log.error(
        "an audit entry could not be written",
        why=why,
        principal=entry.principal,
        method=entry.method,
        target=entry.target,
        code=entry.code,
        details=entry.details,
    )
