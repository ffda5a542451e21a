"""An upstream that is never asked."""

from __future__ import annotations

from modelcatalog_server.domain.errors import UpstreamUnavailableError
from modelcatalog_server.domain.ports.upstream import Progress
from modelcatalog_server.domain.refresh import Payload
from modelcatalog_server.modelsdev.client import ModelsDevUpstream


class OfflineUpstream(ModelsDevUpstream):
    """Fills the port ``Upstream`` with the bundled snapshot alone."""

    async def fetch(self, *, etag: str | None, progress: Progress) -> Payload | None:  # noqa: ARG002 - the port's
        """Refuse, always.

        Raises:
            UpstreamUnavailableError: the service is offline by its settings.
        """
        raise UpstreamUnavailableError("upstream is not asked: the service is set to offline", passing=False)
