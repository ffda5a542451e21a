"""Where threads show: the seam under the synchronous client. ``_aio`` is its twin; all else has one source."""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Generic, TypeVar

import grpc
from google.protobuf.message import Message
from grpc import Channel, UnaryStreamMultiCallable, UnaryUnaryMultiCallable

from modelcatalog_client._config import ClientConfig, Metadata

__all__ = ["Channel", "Event", "Subscription", "UnaryUnaryMultiCallable", "call", "open_channel", "wait"]

_Request = TypeVar("_Request", bound=Message)
_Response = TypeVar("_Response", bound=Message)

Event = threading.Event


def open_channel(config: ClientConfig) -> Channel:
    """Makes the channel; it connects on the first call."""
    options = config.channel_options()
    if config.tls is None:
        return grpc.insecure_channel(config.target, options=options, compression=config.compression)
    credentials = config.tls.credentials()
    return grpc.secure_channel(config.target, credentials, options=options, compression=config.compression)


def call(
    method: UnaryUnaryMultiCallable[_Request, _Response],
    request: _Request,
    timeout: float | None,
    metadata: Metadata,
) -> _Response:
    """Makes a unary call. grpc.RpcError."""
    return method(request, timeout=timeout, metadata=metadata)


def wait(event: Event, seconds: float) -> None:
    """Waits for the event, but no longer than that."""
    event.wait(seconds)


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
        self._alarm = _Alarm(self._call)

    def read(self, seconds: float) -> _Response | None:
        """The next message; None after the last. TimeoutError, grpc.RpcError; either is the end of the call."""
        try:
            with self._alarm.within(seconds):
                return next(self._call, None)
        except grpc.RpcError:
            if self._alarm.rang:
                raise TimeoutError from None
            raise

    def cancel(self) -> None:
        """Ends the call; whoever reads gets grpc.RpcError."""
        self._alarm.stop()
        self._call.cancel()


class _Alarm:
    """Cancels a call that stays silent: a blocking read has no time limit of its own.

    One thread for the life of the call, which a message costs a lock and no wake-up: the time it is set to moves on
    with each read, and the thread finds out when the earlier time has come.
    """

    def __init__(self, call: grpc.Call) -> None:
        # Weak, so that a watch which is dropped without close() still ends its call.
        self._call = weakref.ref(call, lambda _: self.stop())
        self._changed = threading.Condition()
        self._due = math.inf
        self._wakes = 0.0
        self._stopped = False
        self.rang = False
        threading.Thread(target=self._run, name="modelcatalog-watch-alarm", daemon=True).start()

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        self._set(monotonic() + seconds)
        try:
            yield
        finally:
            self._set(math.inf)

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify()

    def _set(self, due: float) -> None:
        with self._changed:
            self._due = due
            if due < self._wakes:
                self._changed.notify()

    def _run(self) -> None:
        with self._changed:
            while not self._stopped and (now := monotonic()) < self._due:
                self._wakes = self._due
                self._changed.wait(None if self._due == math.inf else self._due - now)
            self.rang = not self._stopped
        if self.rang and (call := self._call()) is not None:
            call.cancel()
