"""What changes policy, and the record of who did."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from modelcatalog_server.domain.audit import AuditEntry, AuditEvent
from modelcatalog_server.domain.models import Provider
from modelcatalog_server.domain.ports.catalog import CatalogState
from modelcatalog_server.domain.query import Expression


class PolicyStore(Protocol):
    """Writes of policy."""

    async def set_provider_enabled(self, provider_id: str, *, enabled: bool) -> tuple[Provider, CatalogState]:
        """Show or hide a provider's models; return the provider and the state of the catalog with the change in it.

        The revision rises by one, unless the provider is so already.

        Raises:
            ProviderNotFoundError: there is no such provider.
        """
        ...


class AuditLog(Protocol):
    """Who did what. Append-only, but for retention."""

    async def append(self, entry: AuditEntry) -> None:
        """Write one entry."""
        ...

    async def list_events(
        self, matching: Expression | None = None, *, before_id: int | None, limit: int
    ) -> list[AuditEvent]:
        """Return events newest first, those older than ``before_id``, all or those that match."""
        ...

    async def prune(self, *, before: datetime) -> int:
        """Delete entries older than that, a bounded number at a time; return how many."""
        ...
