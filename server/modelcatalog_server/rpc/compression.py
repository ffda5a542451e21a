"""gzip for a response that is large, to a caller that asks for it.

What a caller can decompress is in the header grpc-accept-encoding, which grpc.aio keeps to itself: every caller of grpc
sends it, and that it can is not that it wants to. So one that wants to says so in metadata of our own.

grpc compresses on the event loop, about 30 ms for a megabyte, and each time anew: it has no way to be handed what is
compressed already.
"""

from __future__ import annotations

from typing import Any

import grpc

from modelcatalog_server.rpc.context import Context

#: Request metadata: what a large response may be compressed with, names with commas between. Known is ``gzip``.
ACCEPT_ENCODING = "x-catalog-accept-encoding"
#: Below, compression saves less than it costs.
MIN_BYTES = 4 * 1024
#: Above, everybody else would wait too long for it.
MAX_BYTES = 1024 * 1024


def names_gzip(value: str | bytes) -> bool:
    """Whether gzip is among the names in the metadata, in any case, as in HTTP."""
    text = value if isinstance(value, str) else value.decode(errors="replace")
    return "gzip" in (name.strip() for name in text.lower().split(","))


def accepts_gzip(context: Context) -> bool:
    """Whether the caller asks for it."""
    return any(key == ACCEPT_ENCODING and names_gzip(value) for key, value in context.invocation_metadata() or ())


async def compress(context: Context, body: bytes) -> None:
    """Have grpc compress the response of this call, if its size is one that it is worth for."""
    if MIN_BYTES <= len(body) <= MAX_BYTES:
        context.set_compression(grpc.Compression.Gzip)
        # Of a unary call grpc.aio forgets what was set, unless the headers go out ahead of the response.
        nothing: Any = ()
        await context.send_initial_metadata(nothing)
