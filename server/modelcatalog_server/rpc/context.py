"""The context of a call: its type, generic in the stubs and not at run time, and the id that finds it in the log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]
else:
    Context = grpc.aio.ServicerContext

#: Trailer of every call.
REQUEST_ID = "x-request-id"


def request_id_of(context: Context) -> str:
    """Return the id that the interceptor gave the call: it is among the trailers from the beginning."""
    for key, value in context.trailing_metadata() or ():
        if key == REQUEST_ID:
            return value if isinstance(value, str) else value.decode()
    return ""
