"""What is searched and out of date: port ``SearchDocuments`` over PostgreSQL."""

from __future__ import annotations

from datetime import datetime

from modelcatalog_server.storage import queries
from modelcatalog_server.storage.pools import Pools

_SEARCH = queries.load("search")

_PRUNE_LIMIT = 50_000


class PostgresSearchDocuments:
    """Port ``SearchDocuments``."""

    def __init__(self, pools: Pools) -> None:
        self._pools = pools

    async def prune(self, *, before: datetime) -> int:
        """Delete documents that no revision since then has."""
        async with self._pools.writing() as connection:
            parameters = {"before": before, "limit": _PRUNE_LIMIT}
            return (await connection.execute(_SEARCH["prune_search_documents"], parameters)).rowcount
