"""Changes of policy: port ``PolicyStore`` over PostgreSQL."""

from __future__ import annotations

from typing import Any, LiteralString

from psycopg.rows import DictRow

from modelcatalog_server.domain.errors import ProviderNotFoundError
from modelcatalog_server.domain.models import Provider
from modelcatalog_server.domain.ports.catalog import CatalogState
from modelcatalog_server.storage import queries
from modelcatalog_server.storage.catalog_store import read_provider
from modelcatalog_server.storage.pools import Connection, Pools
from modelcatalog_server.storage.state_rows import read_state

_APPLY = queries.load("apply")
_POLICY = queries.load("policy")
_PROVIDERS = queries.load("providers")


class PostgresPolicy:
    """Port ``PolicyStore``."""

    def __init__(self, pools: Pools, *, lock_timeout_s: float = 5.0) -> None:
        """Prepare a store; a change of policy waits no longer than that for a refresh that writes."""
        self._pools = pools
        self._lock_timeout = f"{lock_timeout_s * 1000:.0f}ms"

    async def set_provider_enabled(self, provider_id: str, *, enabled: bool) -> tuple[Provider, CatalogState]:
        """Write the policy with a revision of its own, unless it is so already.

        catalog_state is locked first, then the provider: the order of a refresh that writes, so that the two wait for
        each other and never both.
        """
        async with self._pools.writing() as connection:
            await connection.execute(_POLICY["set_lock_timeout"], {"lock_timeout": self._lock_timeout})
            await connection.execute(_APPLY["lock_state"])
            row = await _fetch_one(connection, _PROVIDERS["get_provider"], provider_id=provider_id)
            if row is None:
                raise ProviderNotFoundError(provider_id)
            if row["enabled"] is not enabled:
                await _write(connection, provider_id, enabled=enabled)
                row = await _fetch_one(connection, _PROVIDERS["get_provider"], provider_id=provider_id)
                assert row is not None, "nothing is deleted"  # noqa: S101 - a broken invariant, not a check
            return read_provider(row), await read_state(connection)


async def _write(connection: Connection, provider_id: str, *, enabled: bool) -> None:
    clock = await _fetch_one(connection, _POLICY["read_clock"])
    assert clock is not None, "SELECT without FROM gives one row"  # noqa: S101 - a broken invariant, not a check
    bumped = await _fetch_one(connection, _APPLY["bump_revision"], at=clock["at"])
    assert bumped is not None, "catalog_state always has its row"  # noqa: S101 - a broken invariant, not a check
    parameters = {
        "revision": bumped["revision"],
        "at": clock["at"],
        "provider_id": provider_id,
        "enabled": enabled,
    }
    for statement in (
        _POLICY["set_provider_enabled"],
        _APPLY["close_provider_versions"],
        _APPLY["append_provider_versions"],
        _POLICY["append_policy_revision"],
    ):
        await connection.execute(statement, parameters)


async def _fetch_one(connection: Connection, statement: LiteralString, **parameters: Any) -> DictRow | None:
    return await (await connection.execute(statement, parameters)).fetchone()
