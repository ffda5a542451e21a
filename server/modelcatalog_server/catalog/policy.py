"""What an admin decides about the catalog, over what upstream says. It survives every refresh."""

from __future__ import annotations

import structlog

from modelcatalog_server.catalog.reader import CatalogReader
from modelcatalog_server.catalog.snapshots import Read
from modelcatalog_server.domain.models import Provider
from modelcatalog_server.domain.ports.administration import PolicyStore

_log = structlog.get_logger(__name__)


class PolicyService:
    """Changes policy. Each change is a revision of the catalog."""

    def __init__(self, store: PolicyStore, reader: CatalogReader) -> None:
        self._store = store
        self._reader = reader

    async def update_provider(self, provider_id: str, *, enabled: bool | None) -> Read[Provider]:
        """Show or hide a provider's models, also a removed provider's; return it as it is then.

        ``None``, or what it is already, changes nothing, makes no revision and waits for no refresh.

        Raises:
            InvalidQueryError: the id cannot be one.
            ProviderNotFoundError: with up to ten near ids.
        """
        read = await self._reader.get_provider(provider_id)
        if enabled is None or read.value.enabled is enabled:
            return read
        provider, state = await self._store.set_provider_enabled(provider_id, enabled=enabled)
        self._reader.observe(state)
        _log.info("policy changed", provider_id=provider_id, enabled=enabled, revision=state.revision)
        return Read(state=state, value=provider)
