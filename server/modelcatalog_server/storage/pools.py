"""Connections: pools for reads, for writes and for ownership, and the translation of what goes wrong with them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

import psycopg
from psycopg import AsyncConnection, IsolationLevel
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout, TooManyRequests

from modelcatalog_server.domain.errors import DatabaseUnavailableError, DeadlineError, StartupError

Connection = AsyncConnection[DictRow]
Pool = AsyncConnectionPool[Connection]

_UNAVAILABLE = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.IdleInTransactionSessionTimeout,  # as good as a connection that was cut
    PoolTimeout,
    PoolClosed,
    TooManyRequests,
)


@contextmanager
def translate_errors() -> Iterator[None]:
    """Turn the driver's errors into the domain's, without the driver's text: it holds addresses and SQL."""
    try:
        yield
    except psycopg.errors.QueryCanceled as error:
        raise DeadlineError("the database did not answer in time") from error
    except psycopg.errors.LockNotAvailable as error:
        raise DatabaseUnavailableError("the catalog is being written: ask again in some seconds") from error
    except _UNAVAILABLE as error:
        raise DatabaseUnavailableError("the database cannot be reached") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """Bounds of the pools. Times in seconds."""

    read_size: int = 8
    write_size: int = 4
    # One that owns a run, one for its signs of life, one that looks for orphans.
    own_size: int = 3
    acquire_timeout_s: float = 5.0
    connect_timeout_s: int = 5
    read_timeout_s: float = 5.0
    write_timeout_s: float = 60.0
    # Less than the lease of a refresh: a process that is stuck inside a transaction holds locks that others wait for.
    idle_transaction_timeout_s: float = 10.0


def describe(database_url: str) -> str:
    """Return where a DSN points, without credentials, for messages to the operator."""
    try:
        parts = conninfo_to_dict(database_url)
    except psycopg.ProgrammingError:
        return urlsplit(database_url).scheme + "://…"
    host, port = parts.get("host") or "localhost", parts.get("port") or "5432"
    return f"{host}:{port}/{parts.get('dbname') or ''}"


async def connect(database_url: str, *, timeout_s: int) -> Connection:
    """Open one connection outside the pools, in autocommit.

    Raises:
        StartupError: the database cannot be reached or does not let us in.
    """
    try:
        return await AsyncConnection.connect(
            database_url,
            autocommit=True,
            row_factory=dict_row,
            connect_timeout=timeout_s,
            application_name="modelcatalog",
        )
    except psycopg.Error as error:
        reason = " ".join(str(error).split()).rstrip(".?")
        raise StartupError(
            f"cannot use the database at {describe(database_url)}: {reason}. Check MODELCATALOG_DATABASE_URL."
        ) from error


class Pools:
    """The three pools, as one async context manager.

    Reads run in REPEATABLE READ, READ ONLY transactions: all statements of one see the same revision. Whoever owns a
    refresh and shows that it is alive has connections apart: however many writers wait for a lock, no run seems dead.
    """

    def __init__(self, database_url: str, settings: PoolSettings | None = None) -> None:
        self._settings = settings = settings or PoolSettings()
        self.read = self._make_pool(database_url, "read", settings.read_size, settings.read_timeout_s, _configure_read)
        self.write = self._make_pool(database_url, "write", settings.write_size, settings.write_timeout_s, None)
        self.own = self._make_pool(database_url, "own", settings.own_size, settings.read_timeout_s, _configure_own)
        self._stack = AsyncExitStack()

    def _make_pool(self, url: str, name: str, size: int, statement_timeout_s: float, configure: Any) -> Pool:
        own = (
            f"-c statement_timeout={int(statement_timeout_s * 1000)} -c timezone=UTC"
            f" -c idle_in_transaction_session_timeout={int(self._settings.idle_transaction_timeout_s * 1000)}"
        )
        # What the operator put there, such as a search_path, holds here as it does for migrations.
        options = f"{conninfo_to_dict(url).get('options') or ''} {own}".strip()
        return AsyncConnectionPool(
            url,
            connection_class=AsyncConnection[DictRow],
            kwargs={
                "row_factory": dict_row,
                "connect_timeout": self._settings.connect_timeout_s,
                "application_name": f"modelcatalog-{name}",
                "options": options,
            },
            configure=configure,
            min_size=1,
            max_size=size,
            timeout=self._settings.acquire_timeout_s,
            name=name,
            open=False,
        )

    async def __aenter__(self) -> Self:
        async with asyncio.timeout(self._settings.acquire_timeout_s * 2):
            await asyncio.gather(*(pool.open() for pool in self._all()))
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await asyncio.gather(*(pool.close(timeout=2) for pool in self._all()))

    def _all(self) -> tuple[Pool, ...]:
        return self.read, self.write, self.own

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[Connection]:
        """Yield a connection for one statement that reads: without a transaction, one round trip and not three."""
        with translate_errors():
            async with self.read.connection() as connection:
                yield connection

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Connection]:
        """Yield a connection in a read transaction, whose statements all see the same."""
        with translate_errors():
            async with self.read.connection() as connection, connection.transaction():
                yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[Connection]:
        """Yield a connection in a write transaction, committed when the block ends well."""
        with translate_errors():
            async with self.write.connection() as connection:
                yield connection

    @asynccontextmanager
    async def owning(self) -> AsyncIterator[Connection]:
        """Yield a connection of those that are apart, for one statement or a transaction of its own."""
        with translate_errors():
            async with self.own.connection() as connection:
                yield connection


async def _configure_own(connection: Connection) -> None:
    await connection.set_autocommit(True)


async def _configure_read(connection: Connection) -> None:
    await connection.set_autocommit(True)
    await connection.set_isolation_level(IsolationLevel.REPEATABLE_READ)
    await connection.set_read_only(True)
    await connection.execute("SET default_transaction_read_only = on")  # for what runs outside a transaction
