"""``CatalogAdmin``: what an admin decides, and who did what."""

from __future__ import annotations

from collections.abc import Callable

from modelcatalog.v1 import catalog_admin_service_pb2 as pb
from modelcatalog.v1 import catalog_admin_service_pb2_grpc as pb_grpc
from modelcatalog_server.catalog.arguments import to_page_size
from modelcatalog_server.catalog.fields import AUDIT_EVENT_FIELDS
from modelcatalog_server.catalog.filtering import parse_filter
from modelcatalog_server.catalog.policy import PolicyService
from modelcatalog_server.catalog.reader import CatalogReader
from modelcatalog_server.domain.audit import AuditEvent
from modelcatalog_server.domain.ports.administration import AuditLog
from modelcatalog_server.domain.ports.caching import CacheControl, CacheLayerStats
from modelcatalog_server.domain.ports.catalog import ReplicaStats
from modelcatalog_server.rpc.context import Context
from modelcatalog_server.rpc.model_messages import to_provider, to_timestamp
from modelcatalog_server.rpc.paging import not_ours, seal_position, unseal_position
from modelcatalog_server.rpc.reading import announce
from modelcatalog_server.tokens import TokenSealer


class AdminServicer(pb_grpc.CatalogAdminServicer):
    """Operations that change policy."""

    def __init__(
        self,
        policy: PolicyService,
        audit_log: AuditLog,
        reader: CatalogReader,
        page_tokens: TokenSealer,
        cache: CacheControl,
        get_replica_stats: Callable[[], ReplicaStats | None] = lambda: None,
    ) -> None:
        self._cache = cache
        self._get_replica_stats = get_replica_stats
        self._policy = policy
        self._audit_log = audit_log
        self._reader = reader
        self._page_tokens = page_tokens

    async def UpdateProvider(self, request: pb.UpdateProviderRequest, context: Context) -> pb.UpdateProviderResponse:
        """Show or hide a provider's models."""
        read = await self._policy.update_provider(
            request.provider_id, enabled=request.enabled if request.HasField("enabled") else None
        )
        announce(context, read.state)
        return pb.UpdateProviderResponse(provider=to_provider(read.value), catalog_revision=read.state.revision)

    async def InvalidateCache(self, request: pb.InvalidateCacheRequest, context: Context) -> pb.InvalidateCacheResponse:
        """Let every process and Redis go of cached responses."""
        count = await self._cache.invalidate(request.model_id or request.provider_id)
        state = await self._reader.get_state()
        announce(context, state)
        return pb.InvalidateCacheResponse(invalidated_count=count, catalog_revision=state.revision)

    async def GetCacheStats(self, request: pb.GetCacheStatsRequest, context: Context) -> pb.GetCacheStatsResponse:
        """Figures of each layer."""
        layers = await self._cache.get_stats()
        state = await self._reader.get_state()
        announce(context, state)
        replica = self._get_replica_stats()
        return pb.GetCacheStatsResponse(
            layers=map(_to_layer_stats, layers),
            catalog_revision=state.revision,
            read_replica=None if replica is None else _to_replica_stats(replica),
        )

    async def ListAuditEvents(self, request: pb.ListAuditEventsRequest, context: Context) -> pb.ListAuditEventsResponse:
        """Calls that may have changed something, newest first."""
        size = to_page_size(request.page_size)
        matching = parse_filter(request.filter, AUDIT_EVENT_FIELDS)
        before = self._unseal(request.page_token, request.filter) if request.page_token else None
        events = await self._audit_log.list_events(matching, before_id=before, limit=size + 1)
        token = ""
        if len(events) > size:
            token = seal_position(self._page_tokens, [events[size - 1].id], request.filter)
        state = await self._reader.get_state()
        announce(context, state)
        return pb.ListAuditEventsResponse(
            audit_events=map(_to_audit_event, events[:size]),
            next_page_token=token,
            catalog_revision=state.revision,
        )

    def _unseal(self, token: str, filter_text: str) -> int:
        (before_id,) = unseal_position(self._page_tokens, token, filter_text, size=1)
        try:
            return int(before_id)
        except (ValueError, TypeError) as error:
            raise not_ours() from error


def _to_audit_event(event: AuditEvent) -> pb.AuditEvent:
    entry = event.entry
    message = pb.AuditEvent(
        id=event.id,
        event_time=to_timestamp(event.happened_at),
        principal=entry.principal,
        method=entry.method,
        target=entry.target,
        code=entry.code,
    )
    message.details.update(entry.details)
    return message


def _to_replica_stats(replica: ReplicaStats) -> pb.ReadReplicaStats:
    return pb.ReadReplicaStats(
        available=replica.available, revision=replica.revision, reads=replica.reads, fallbacks=replica.fallbacks
    )


def _to_layer_stats(layer: CacheLayerStats) -> pb.CacheLayerStats:
    reads = layer.hits + layer.misses
    return pb.CacheLayerStats(
        name=layer.name,
        available=layer.available,
        entries=layer.entries,
        bytes=layer.bytes,
        hits=layer.hits,
        misses=layer.misses,
        evictions=layer.evictions,
        hit_ratio=layer.hits / reads if reads else None,
    )
