# Generated from ../_async by tools/unasync_client.py: do not edit.
"""The client: all methods on one connection."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

import grpc

from modelcatalog_client._sync.admin import AdminMethods
from modelcatalog_client._sync.catalog import CatalogMethods
from modelcatalog_client._sync.refreshes import RefreshMethods
from modelcatalog_client._config import ClientConfig, Tls


class ModelCatalogClient(CatalogMethods, RefreshMethods, AdminMethods):
    """A client of a modelcatalog server.

    It connects on the first call. Keep one for the life of the program: it holds a connection that all calls share.
    A synchronous client may be shared by threads; an asynchronous one belongs to one event loop.

    Every method raises a ``CatalogError`` when its call fails. UNAVAILABLE is retried, three times at most and within
    the timeout of the call.
    """

    def __init__(
        self,
        target: str = "localhost:50051",
        *,
        token: str | None = None,
        tls: Tls | None = None,
        timeout: float | None = None,
        user_agent: str = "",
        compression: grpc.Compression | None = None,
        options: Sequence[tuple[str, str | int]] = (),
    ) -> None:
        """Makes a client, without any I/O.

        Args:
            target: ``host:port``, or any other name that gRPC resolves, e.g. ``dns:///catalog.internal:50051``.
            token: Sent with every call, also without TLS: on a network that others can read, pass ``tls`` too.
            tls: Encrypts the connection. None: plaintext.
            timeout: Seconds for every call that is not given its own. None: the default of each method.
            user_agent: Put before the client's own in the ``user-agent``, e.g. ``billing/2.1``.
            compression: Of requests; with ``grpc.Compression.Gzip`` also of responses between 4 KiB and 1 MiB. It costs
                the server about 30 ms for a megabyte: for slow lines. None: none.
            options: gRPC channel arguments on top of the client's own, and winning over them.

        Raises:
            ValueError: An argument is none that can work.
        """
        super().__init__(ClientConfig(target, token, tls, timeout, user_agent, compression, options))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._config.target!r})"

    def __enter__(self) -> ModelCatalogClient:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
