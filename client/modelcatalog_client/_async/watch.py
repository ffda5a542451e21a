"""A watch that gets back by itself."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from types import TracebackType

import grpc

from modelcatalog.v1.refresh_pb2 import RefreshStatus
from modelcatalog.v1.refresh_service_pb2 import WatchRefreshStatusResponse
from modelcatalog_client._aio import Event, Subscription, wait
from modelcatalog_client._watching import Cursor, Recovery
from modelcatalog_client.errors import CatalogError, UnavailableError, from_rpc_error

_RPC = "WatchRefreshStatus"


class AsyncRefreshWatch:
    """The events of one refresh or of all: an iterator, once through.

    Close it when you stop before its end, or use it as a context manager: an open watch is an open stream. It may be
    closed from elsewhere while it is being read; the iteration then ends.
    """

    def __init__(
        self,
        subscribe: Callable[[str, float | None], Subscription[WatchRefreshStatusResponse]],
        cursor: Cursor,
        recovery: Recovery,
        *,
        silence: float,
        timeout: float | None,
        target: str,
        is_over: Callable[[], bool],
    ) -> None:
        self._subscribe = subscribe
        self._cursor = cursor
        self._recovery = recovery
        self._silence = silence
        self._timeout = math.inf if timeout is None else timeout
        self._deadline: float | None = None
        self._target = target
        self._is_over = is_over
        self._closed = Event()
        self._subscription: Subscription[WatchRefreshStatusResponse] | None = None

    @property
    def resume_token(self) -> str:
        """Where the watch stands, for ``watch_refresh_status(resume_token=...)``. Good for 24 hours."""
        return self._cursor.resume_token

    def __aiter__(self) -> AsyncRefreshWatch:
        return self

    async def __anext__(self) -> RefreshStatus:
        """The next event. Raises the ``CatalogError`` that the watch could not get over."""
        try:
            while not self._cursor.finished and (status := await self._receive()) is not None:
                if self._cursor.accept(status):
                    return status
        except CatalogError:
            await self.close()
            raise
        await self.close()
        raise StopAsyncIteration

    async def _receive(self) -> RefreshStatus | None:
        """The next message, from a new subscription where the last one was lost. None at the end."""
        while not self._closed.is_set():
            try:
                response = await self._read()
            except CatalogError as error:
                await self._recover(error)
            else:
                self._recovery.succeeded()
                return None if response is None else response.status
        return None

    async def _recover(self, error: CatalogError) -> None:
        """Waits until it is time to subscribe again, or raises the error."""
        if self._closed.is_set():
            return
        pause = self._recovery.pause_after(error)
        if pause is None or self._is_over():
            raise error
        await wait(self._closed, pause)

    async def _read(self) -> WatchRefreshStatusResponse | None:
        seconds = self._recovery.patience(self._silence)
        try:
            return await self._subscribed().read(seconds)
        except grpc.RpcError as error:
            self._drop()
            raise from_rpc_error(error, method=_RPC, target=self._target) from error
        except TimeoutError:
            self._drop()
            raise UnavailableError(f"no message for {seconds:g} s", method=_RPC) from None
        except BaseException:
            self._drop()  # a read that was cancelled has cancelled the call; the next one subscribes again
            raise

    def _subscribed(self) -> Subscription[WatchRefreshStatusResponse]:
        subscription = self._subscription
        if subscription is None:
            subscription = self._subscribe(self._cursor.resume_token, self._remaining())
            self._subscription = subscription
        if self._closed.is_set():  # after the line above: a close() from elsewhere sees the call, or is seen here
            self._drop()
        return subscription

    def _remaining(self) -> float | None:
        if self._timeout == math.inf:
            return None
        now = time.monotonic()
        if self._deadline is None:
            self._deadline = now + self._timeout
        return max(self._deadline - now, 0)

    def _drop(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            subscription.cancel()

    async def close(self) -> None:
        """Ends the stream. A second time does nothing."""
        self._closed.set()
        self._drop()

    async def __aenter__(self) -> AsyncRefreshWatch:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
