"""The state of the catalog: which revision a transaction sees, and of which catalog."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from modelcatalog_server.domain.ports.catalog import CatalogState
from modelcatalog_server.storage import queries
from modelcatalog_server.storage.fetching import require_one
from modelcatalog_server.storage.pools import Connection, Pools, PoolSettings, Statements, begin_reading

_STATE = queries.load("state")


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogIdentity:
    """What tells a catalog from others: its key, which seals tokens and is a secret, its database and schema."""

    token_key: bytes = field(repr=False)
    database: str
    schema_version: int


async def read_state(connection: Statements) -> CatalogState:
    """Return the revision that this transaction sees."""
    return CatalogState(**await require_one(connection, _STATE["get_state"]))


@asynccontextmanager
async def opening_state(pools: Pools) -> AsyncIterator[tuple[Connection, CatalogState]]:
    """Yield a connection in a read transaction and the revision that it sees, both in one round trip."""
    async with pools.opening(_STATE["get_state"]) as (connection, row):
        yield connection, CatalogState(**row)


async def begin_at_state(connection: Connection, settings: PoolSettings) -> CatalogState:
    """Begin a read transaction and return the revision that it sees, in one round trip."""
    return CatalogState(**await begin_reading(connection, _STATE["get_state"], settings))


async def read_identity(connection: Statements) -> CatalogIdentity:
    """Return what tells this catalog from others."""
    row = await require_one(connection, _STATE["get_identity"])
    return CatalogIdentity(
        token_key=bytes(row["token_key"]), database=row["database_name"], schema_version=row["schema_version"]
    )
