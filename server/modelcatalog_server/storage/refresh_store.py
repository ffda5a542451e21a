"""Port ``RefreshStore`` over PostgreSQL, of its parts."""

from __future__ import annotations

from modelcatalog_server.storage.pools import Pools
from modelcatalog_server.storage.refresh_apply import PostgresApply
from modelcatalog_server.storage.refresh_events import PostgresEvents
from modelcatalog_server.storage.refresh_history import PostgresHistory
from modelcatalog_server.storage.refresh_ownership import PostgresOwners
from modelcatalog_server.storage.refresh_schedule import PostgresSchedule


class PostgresRefreshes(PostgresApply, PostgresEvents, PostgresHistory, PostgresOwners, PostgresSchedule):
    """Port ``RefreshStore``: each part does its own, and they have nothing in common but the pools."""

    def __init__(self, pools: Pools, *, owner: str) -> None:
        """Prepare a store; ``owner`` tells people which process runs what it creates."""
        PostgresApply.__init__(self, pools)
        PostgresHistory.__init__(self, pools, owner=owner)
