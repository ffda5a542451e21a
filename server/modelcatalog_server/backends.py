"""The PostgreSQL and the Redis that a process works on: those of the settings, or its own.

Light to import, so that the own ones can start while the rest of the service is imported.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from modelcatalog_server.embedded import DataDirectory, EmbeddedPostgres, EmbeddedValkey, default_data_dir
from modelcatalog_server.settings import Settings


@dataclass(frozen=True, slots=True)
class Backends:
    """Where PostgreSQL and Redis are, and what tells that an own one died.

    Attributes:
        database_url: May hold a password.
        redis_url: May hold a password; empty when none was asked for.
        owns_database: Whether the database is nobody else's, so that it is ours to migrate.
        deaths: Each waits until a server is dead without which nothing works, and returns how it ended.
    """

    database_url: str
    redis_url: str
    owns_database: bool
    deaths: tuple[Callable[[], Awaitable[str]], ...]


def room_for(workers: int) -> int:
    """Return how many sessions the own PostgreSQL has room for: those of the processes, and of people with psql.

    Each of several processes takes ten at most (:meth:`storage.pools.PoolSettings.shared_by`), one alone sixteen.
    """
    return max(100, 20 + 12 * workers)


@asynccontextmanager
async def start_backends(settings: Settings, *, with_redis: bool = True) -> AsyncIterator[Backends]:
    """Start what the settings do not name, and stop it again.

    Raises:
        StartupError: one of them does not start.
    """
    database_url = settings.database_url.get_secret_value() if settings.database_url else ""
    redis_url = settings.redis_url.get_secret_value() if settings.redis_url else ""
    own_database, own_redis = not database_url, with_redis and not redis_url
    deaths: list[Callable[[], Awaitable[str]]] = []
    async with AsyncExitStack() as stack:
        if own_database or own_redis:
            directory = await stack.enter_async_context(DataDirectory(settings.data_dir or default_data_dir()))
        if own_database:
            room = room_for(settings.workers)
            postgres = await stack.enter_async_context(EmbeddedPostgres(directory, max_connections=room))
            database_url = postgres.dsn
            deaths.append(postgres.wait_dead)
        if own_redis:
            redis_url = (await stack.enter_async_context(EmbeddedValkey(directory))).url
        yield Backends(database_url, redis_url, own_database, tuple(deaths))
