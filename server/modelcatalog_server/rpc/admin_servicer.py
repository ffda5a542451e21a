"""``CatalogAdmin``: nothing of it is there yet, and it says so."""

from __future__ import annotations

from modelcatalog.v1 import catalog_admin_service_pb2 as pb
from modelcatalog.v1 import catalog_admin_service_pb2_grpc as pb_grpc
from modelcatalog_server.domain.errors import NotImplementedYetError
from modelcatalog_server.rpc.context import Context


class AdminServicer(pb_grpc.CatalogAdminServicer):
    """Operations that change policy."""

    async def UpdateProvider(self, request: pb.UpdateProviderRequest, context: Context) -> pb.UpdateProviderResponse:
        """Not there yet."""
        raise _not_yet("UpdateProvider")

    async def InvalidateCache(self, request: pb.InvalidateCacheRequest, context: Context) -> pb.InvalidateCacheResponse:
        """Not there yet."""
        raise _not_yet("InvalidateCache")

    async def GetCacheStats(self, request: pb.GetCacheStatsRequest, context: Context) -> pb.GetCacheStatsResponse:
        """Not there yet."""
        raise _not_yet("GetCacheStats")

    async def ListAuditEvents(self, request: pb.ListAuditEventsRequest, context: Context) -> pb.ListAuditEventsResponse:
        """Not there yet."""
        raise _not_yet("ListAuditEvents")


def _not_yet(rpc: str) -> NotImplementedYetError:
    return NotImplementedYetError(f"this version of the service does not have {rpc} yet")
