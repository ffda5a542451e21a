"""Holds requests against the bounds that the contract declares beside their fields (``buf.validate`` in protos/).

This is the one place where they are checked: behind it, fields are within their bounds. What cannot be declared, the
languages of ``filter`` and ``order_by``, masks and tokens, is checked by whoever reads it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from google.protobuf.message import Message
from protovalidate import Validator, Violation

from modelcatalog_server.domain import errors
from modelcatalog_server.rpc.context import Context, MethodHandler

_Handler = Callable[[Any, Context], Awaitable[Any]]

_VALIDATOR = Validator()

#: What is wrong when a field is out of its bounds, by the field's name; of the others INVALID_QUERY.
_ERRORS: dict[str, type[errors.InvalidArgumentError]] = {
    "model_id": errors.InvalidModelIdError,
    "model_ids": errors.InvalidModelIdError,
    "canonical_id": errors.InvalidModelIdError,
    "reference": errors.InvalidModelIdError,
    "read_mask": errors.InvalidFieldMaskError,
    "filter": errors.InvalidFilterError,
    "order_by": errors.InvalidOrderByError,
    "page_token": errors.InvalidPageTokenError,
    "resume_token": errors.InvalidResumeTokenError,
}
#: Rules whose own words are for those who read the contract.
_WORDS = {
    "required": "is required",
    "string.pattern": "is blank, or holds characters that no id has",
    "string.not_contains": "holds a slash: a provider id is the part of a model id before the first one",
    "enum.defined_only": "is none of the values that the contract has",
}


def check_request(request: Message) -> None:
    """Refuse a request with a field out of its bounds.

    Raises:
        InvalidArgumentError: of the class that belongs to the field.
    """
    try:
        violations = _VALIDATOR.collect_violations(request, fail_fast=True)
    except ValueError as error:
        # Masks are read again, by a parser that is stricter than protobuf's with fields that nobody knows.
        raise errors.InvalidQueryError("request", "holds fields that cannot be read") from error
    for violation in violations:
        raise _to_error(violation)


def validated(handler: MethodHandler) -> MethodHandler:
    """Return a handler that is called with requests within their bounds only.

    Reflection, whose requests are a stream, is returned as it is; health's have no bounds of ours.
    """
    if handler.unary_stream is not None:
        return handler._replace(unary_stream=_checking(handler.unary_stream))
    if handler.unary_unary is not None:
        return handler._replace(unary_unary=_checking(handler.unary_unary))
    return handler


def _checking(handle: _Handler) -> _Handler:
    async def handle_checked(request: Message, context: Context) -> Any:
        check_request(request)
        return await handle(request, context)

    return handle_checked


def _to_error(violation: Violation) -> errors.InvalidArgumentError:
    found = violation.proto
    path = "".join(_path(found)).removeprefix(".")
    name = path.rpartition(".")[2].partition("[")[0]
    return _class_of(name, found)(path, _WORDS.get(found.rule_id, found.message))


def _class_of(name: str, violation: Any) -> type[errors.InvalidArgumentError]:
    if violation.rule is None:  # of several fields together
        return errors.InvalidQueryError
    if name == "model_ids" and violation.rule_id in ("repeated.min_items", "repeated.max_items"):
        return errors.TooManyIdsError
    return _ERRORS.get(name, errors.InvalidQueryError)


def _path(violation: Any) -> Iterator[str]:
    """Yield the parts of the path to the field that a violation is about."""
    for element in violation.field.elements if violation.field else ():
        yield f".{element.field_name}"
        if element.subscript is not None:
            yield f"[{element.subscript.value}]"
    if violation.rule is None:  # of a whole message: the id begins with the field that has to be mended
        yield f".{violation.rule_id.partition('.')[0]}"
