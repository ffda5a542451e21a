# Generated from ../_async by tools/unasync_client.py: do not edit.
"""Operations that change policy: the service CatalogAdmin. Role admin."""

# The arguments are called as the fields of the requests are.
# ruff: noqa: A002, ASYNC109

from __future__ import annotations

from modelcatalog.v1.catalog_admin_service_pb2 import (
    AuditEvent,
    GetCacheStatsRequest,
    GetCacheStatsResponse,
    InvalidateCacheRequest,
    InvalidateCacheResponse,
    ListAuditEventsRequest,
    ListAuditEventsResponse,
    UpdateProviderRequest,
    UpdateProviderResponse,
)
from modelcatalog_client._sync.calls import Calls
from modelcatalog_client._sync.pager import Pager


class AdminMethods(Calls):
    """Administration. Every method raises ``PermissionDeniedError`` for callers who are no admin."""

    def update_provider(
        self,
        provider_id: str,
        *,
        enabled: bool | None = None,
        timeout: float | None = None,
    ) -> UpdateProviderResponse:
        """Shows or hides a provider's models.

        Args:
            provider_id: e.g. ``openai``.
            enabled: False hides its models from every default read at once. None changes nothing.
            timeout: Seconds.

        Returns:
            The provider as it is now, and the revision to read it at with ``min_revision``.

        Raises:
            ProviderNotFoundError: With near ids in ``candidates``.
        """
        request = UpdateProviderRequest(provider_id=provider_id, enabled=enabled)
        return self._call(self._connect().admin.UpdateProvider, request, timeout)

    def invalidate_cache(
        self,
        *,
        model_id: str = "",
        provider_id: str = "",
        timeout: float | None = None,
    ) -> InvalidateCacheResponse:
        """Empties the response caches. Never needed for correct answers.

        Args:
            model_id: Only entries of this model.
            provider_id: Only entries of this provider.
            timeout: Seconds.

        Returns:
            How many entries were dropped.
        """
        request = InvalidateCacheRequest(model_id=model_id, provider_id=provider_id)
        return self._call(self._connect().admin.InvalidateCache, request, timeout)

    def get_cache_stats(self, *, timeout: float | None = None) -> GetCacheStatsResponse:
        """Figures of each cache layer of the process that answers.

        Args:
            timeout: Seconds.

        Returns:
            The layers, nearest first.
        """
        request = GetCacheStatsRequest()
        return self._call(self._connect().admin.GetCacheStats, request, timeout)

    def list_audit_events(
        self,
        *,
        page_size: int = 0,
        page_token: str = "",
        filter: str = "",
        timeout: float | None = None,
    ) -> Pager[AuditEvent, ListAuditEventsResponse]:
        """Who did what, newest first.

        Args:
            page_size: Events per request, at most 1000. 0: the server's default of 50.
            page_token: Where to begin: ``next_page_token`` of an earlier response.
            filter: Subset of AIP-160 over the fields of ``AuditEvent``.
            timeout: Seconds, for each page.

        Returns:
            A pager; nothing is requested before it is iterated over.

        Raises:
            InvalidFilterError: From the iteration, as all of these.
            InvalidPageTokenError: ``page_token`` belongs to other arguments.
        """
        request = ListAuditEventsRequest(page_size=page_size, page_token=page_token, filter=filter)

        def fetch(request: ListAuditEventsRequest) -> ListAuditEventsResponse:
            return self._call(self._connect().admin.ListAuditEvents, request, timeout)

        return Pager(fetch, request, lambda page: page.audit_events)
