"""Where asyncio shows: the seam under the asynchronous client. ``_blocking`` is its twin; all else has one source."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Generic, TypeVar, cast

import grpc
from google.protobuf.message import Message
from grpc import aio
from grpc.aio import Channel, UnaryStreamMultiCallable, UnaryUnaryMultiCallable

from modelcatalog_client._config import ClientConfig, Metadata

__all__ = ["Channel", "Event", "Subscription", "UnaryUnaryMultiCallable", "call", "open_channel", "wait"]

_Request = TypeVar("_Request", bound=Message)
_Response = TypeVar("_Response", bound=Message)

Event = asyncio.Event


def open_channel(config: ClientConfig) -> Channel:
    """Makes the channel; it connects on the first call."""
    options = config.channel_options()
    if config.tls is None:
        return aio.insecure_channel(config.target, options=options, compression=config.compression)
    credentials = config.tls.credentials()
    return aio.secure_channel(config.target, credentials, options=options, compression=config.compression)


async def call(
    method: UnaryUnaryMultiCallable[_Request, _Response],
    request: _Request,
    timeout: float | None,  # noqa: ASYNC109 -- the deadline travels to the server
    metadata: Metadata,
) -> _Response:
    """Makes a unary call. grpc.RpcError."""
    with _calls_cancelled_as_errors():
        return await method(request, timeout=timeout, metadata=metadata)


async def wait(event: Event, seconds: float) -> None:
    """Waits for the event, but no longer than that."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


class Subscription(Generic[_Response]):
    """One call of a streaming RPC."""

    def __init__(
        self,
        method: UnaryStreamMultiCallable[_Request, _Response],
        request: _Request,
        timeout: float | None,
        metadata: Metadata,
    ) -> None:
        self._call = method(request, timeout=timeout, metadata=metadata)
        # grpc.aio holds on to a call that runs: a watch which is dropped without close() would stream for ever.
        weakref.finalize(self, self._call.cancel).atexit = False

    async def read(self, seconds: float) -> _Response | None:
        """The next message; None after the last. TimeoutError, grpc.RpcError; either is the end of the call."""
        async with asyncio.timeout(seconds):
            with _calls_cancelled_as_errors():
                message = await self._call.read()
        return None if message is aio.EOF else cast("_Response", message)  # the stub says object

    def cancel(self) -> None:
        """Ends the call; whoever reads gets grpc.RpcError."""
        self._call.cancel()


@contextmanager
def _calls_cancelled_as_errors() -> Iterator[None]:
    """Tells a cancelled call from a cancelled task: grpc.aio raises CancelledError for both."""
    try:
        yield
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        nothing = aio.Metadata()
        raise aio.AioRpcError(grpc.StatusCode.CANCELLED, nothing, nothing, "the call was cancelled") from None
