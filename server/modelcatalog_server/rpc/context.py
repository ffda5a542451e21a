"""The context of a call: its type, generic in the stubs and not at run time, and the id that finds it in the log."""

from __future__ import annotations

from random import getrandbits
from typing import TYPE_CHECKING, Any

import grpc

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]
else:
    Context = grpc.aio.ServicerContext

#: A ``grpc.RpcMethodHandler``, whose functions the stubs take for blocking ones.
MethodHandler = Any
#: Trailer of every call.
REQUEST_ID = "x-request-id"
#: Bound of a unary call whose caller set none, or a longer one. Seconds.
MAX_CALL_S = 30.0


def new_request_id() -> str:
    """Return what tells a call from every other. No UUID: asking the kernel for one takes as long as a near hit."""
    return f"{getrandbits(128):032x}"


def request_id_of(context: Context) -> str:
    """Return the id that the call was given: it is among the trailers from the beginning."""
    for key, value in context.trailing_metadata() or ():
        if key == REQUEST_ID:
            return value if isinstance(value, str) else value.decode()
    return ""


def remaining_time(context: Context) -> float:
    """Return how many seconds this call may still take."""
    remaining = context.time_remaining()
    return MAX_CALL_S if remaining is None else min(remaining, MAX_CALL_S)
