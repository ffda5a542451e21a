"""The connection that all methods share, and how a call is made on it."""

from __future__ import annotations

import threading
from typing import TypeVar

import grpc
from google.protobuf.message import Message

from modelcatalog.v1.catalog_admin_service_pb2_grpc import CatalogAdminStub
from modelcatalog.v1.model_catalog_service_pb2_grpc import ModelCatalogStub
from modelcatalog.v1.refresh_service_pb2_grpc import RefreshServiceStub
from modelcatalog_client._aio import Channel, UnaryUnaryMultiCallable, call, open_channel
from modelcatalog_client._config import ClientConfig
from modelcatalog_client._requests import rpc_name
from modelcatalog_client._timeouts import timeout_of
from modelcatalog_client.errors import from_rpc_error

_Request = TypeVar("_Request", bound=Message)
_Response = TypeVar("_Response", bound=Message)


class AsyncConnection:
    """A channel and its stubs."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.catalog = ModelCatalogStub(channel)
        self.refreshes = RefreshServiceStub(channel)
        self.admin = CatalogAdminStub(channel)


class AsyncCalls:
    """Base of the methods: connects on the first call."""

    def __init__(self, config: ClientConfig) -> None:
        self._config = config
        self._connection: AsyncConnection | None = None
        self._closed = False
        self._opening = threading.Lock()

    def _connect(self) -> AsyncConnection:
        with self._opening:  # threads may share a client
            if self._closed:
                raise RuntimeError("the client is closed")
            if self._connection is None:
                self._connection = AsyncConnection(open_channel(self._config))
            return self._connection

    async def close(self) -> None:
        """Ends running calls and the connection. A second time does nothing."""
        with self._opening:
            self._closed = True
            connection, self._connection = self._connection, None
        if connection is not None:
            await connection.channel.close()

    async def _call(
        self,
        method: UnaryUnaryMultiCallable[_Request, _Response],
        request: _Request,
        timeout: float | None,  # noqa: ASYNC109 -- the deadline travels to the server
        min_revision: int | None = None,
    ) -> _Response:
        rpc = rpc_name(request)
        seconds = timeout_of(rpc, timeout, self._config.timeout)
        try:
            return await call(method, request, seconds, self._config.metadata(min_revision))
        except grpc.RpcError as error:
            raise from_rpc_error(error, method=rpc, target=self._config.target) from error
