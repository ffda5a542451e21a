"""Connections: pools for reads, for writes and for ownership, and the translation of what goes wrong with them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, LiteralString, Protocol, Self
from urllib.parse import urlsplit

import psycopg
from psycopg import AsyncCursor, IsolationLevel, sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import DictRow, dict_row
from psycopg_pool import PoolClosed, PoolTimeout, TooManyRequests

from modelcatalog_server.domain.deadlines import current_deadline
from modelcatalog_server.domain.errors import DatabaseUnavailableError, DeadlineError, StartupError
from modelcatalog_server.domain.measures import PoolStats, QueryMeasures
from modelcatalog_server.domain.tasks import rest
from modelcatalog_server.storage.measured import MeasuredConnection
from modelcatalog_server.storage.reconnecting import ReconnectingPool

Connection = MeasuredConnection
Pool = ReconnectingPool


class Statements(Protocol):
    """What runs the statements of one read: a connection, or what stands for one."""

    async def execute(self, query: Any, params: Any = None, /) -> AsyncCursor[DictRow]:
        """Run a statement."""
        ...


UNAVAILABLE = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.IdleInTransactionSessionTimeout,  # as good as a connection that was cut
    PoolTimeout,
    PoolClosed,
    TooManyRequests,
)

_BEGIN = sql.SQL("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;\n")
# PostgreSQL ends a statement by itself when the time of the call is over, also where this process hangs by then.
_LIMIT = sql.SQL("SET LOCAL statement_timeout = {};\n")
_LIMIT_NEXT = "SELECT set_config('statement_timeout', %s, true)"


@contextmanager
def translate_errors() -> Iterator[None]:
    """Turn the driver's errors into the domain's, without the driver's text: it holds addresses and SQL."""
    try:
        yield
    except psycopg.errors.QueryCanceled as error:
        raise DeadlineError("the database did not answer in time") from error
    except psycopg.errors.LockNotAvailable as error:
        raise DatabaseUnavailableError("the catalog is being written: ask again in some seconds") from error
    except psycopg.errors.ReadOnlySqlTransaction as error:
        raise DatabaseUnavailableError("the database can only be read now: nothing was changed") from error
    except psycopg.errors.DiskFull as error:
        raise DatabaseUnavailableError("the database has no room left on its disk: nothing was changed") from error
    except UNAVAILABLE as error:
        raise DatabaseUnavailableError("the database cannot be reached") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """Bounds of the pools. Times in seconds."""

    read_size: int = 8
    write_size: int = 4
    # One that owns a run, one for its signs of life, one that looks for orphans and for the state of the catalog.
    own_size: int = 3
    acquire_timeout_s: float = 5.0
    connect_timeout_s: int = 5
    read_timeout_s: float = 5.0
    write_timeout_s: float = 30.0
    # Less than the lease of a refresh: a process that is stuck inside a transaction holds locks that others wait for.
    idle_transaction_timeout_s: float = 10.0
    # How much longer than PostgreSQL may work at a statement is waited for the answer.
    silence_s: float = 1.0
    # What the network swallows without a word is a dead connection after this: by TCP's own rules a quarter of an hour.
    unacknowledged_s: float = 10.0

    @classmethod
    def shared_by(cls, processes: int) -> Self:
        """Return the bounds for each of several processes: more than one keep busy what PostgreSQL runs on.

        For reads no fewer than what a burst of misses and a slow search take at once.
        """
        return cls(read_size=max(4, 8 // processes), write_size=max(2, 4 // processes))

    @property
    def connections(self) -> int:
        """How many there are at most, with the one that listens for changes."""
        return self.read_size + self.write_size + self.own_size + 1


def describe(database_url: str) -> str:
    """Return where a DSN points, without credentials, for messages to the operator."""
    try:
        parts = conninfo_to_dict(database_url)
    except psycopg.ProgrammingError:
        return urlsplit(database_url).scheme + "://…"
    host, port = parts.get("host") or "localhost", parts.get("port") or "5432"
    return f"{host}:{port}/{parts.get('dbname') or ''}"


async def connect(
    database_url: str,
    *,
    timeout_s: int = 10,
    patience_s: float = math.inf,
    setting: str = "MODELCATALOG_DATABASE_URL",
    application_name: str = "modelcatalog",
) -> Connection:
    """Open one connection outside the pools, in autocommit. ``setting`` is where the address came from.

    It ends when an answer takes longer than ``patience_s``.

    Raises:
        StartupError: the database cannot be reached or does not let us in.
    """
    try:
        connection = await MeasuredConnection.connect(
            database_url,
            autocommit=True,
            row_factory=dict_row,
            connect_timeout=timeout_s,
            application_name=application_name,
        )
    except psycopg.ProgrammingError:
        # libpq names the part that it does not understand, which may be the password.
        raise StartupError(f"the database's address is none that PostgreSQL understands. Check {setting}.") from None
    except psycopg.Error as error:
        reason = " ".join(str(error).split()).rstrip(".?")
        raise StartupError(
            f"cannot use the database at {describe(database_url)}: {reason}. Check {setting}."
        ) from error
    connection.patience_s = patience_s
    return connection


class Pools:
    """The three pools, as one async context manager.

    Reads run in REPEATABLE READ, READ ONLY transactions: all statements of one see the same revision. Whoever owns a
    refresh and shows that it is alive has connections apart: however many writers wait for a lock, no run seems dead.
    The state of the catalog is read there, too: however many readers wait, a process knows whether it is up to date.
    What writes gives way to callers: nobody waits for it who reads the catalog.
    """

    def __init__(self, database_url: str, settings: PoolSettings | None = None) -> None:
        self._settings = settings = settings or PoolSettings()
        #: How long each query took, on any of them and on a replica.
        self.queries = QueryMeasures()
        self.read = make_read_pool(database_url, "read", settings, self.queries)
        self.write = _make_pool(
            database_url,
            "write",
            settings,
            settings.write_size,
            settings.write_timeout_s,
            self.queries,
            configure=_configure_write,
        )
        self.own = _make_pool(
            database_url,
            "own",
            settings,
            settings.own_size,
            settings.read_timeout_s,
            self.queries,
            configure=_configure_own,
        )

    async def __aenter__(self) -> Self:
        async with asyncio.timeout(self._settings.acquire_timeout_s * 2):
            await asyncio.gather(*(pool.open() for pool in self._all()))
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await asyncio.gather(*(pool.close(timeout=2) for pool in self._all()))

    @property
    def stats(self) -> list[PoolStats]:
        """Figures of each."""
        return [describe_pool(pool) for pool in self._all()]

    def _all(self) -> tuple[Pool, ...]:
        return self.read, self.write, self.own

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[Statements]:
        """Yield a connection for one statement that reads: without a transaction, one round trip and not three."""
        with translate_errors():
            async with self.read.connection() as connection:
                left_ms = _time_left_ms(self._settings.read_timeout_s)
                yield connection if left_ms is None else _InTime(connection, left_ms)

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[Statements]:
        """The same for what has to be known while reads use up their connections: the state of the catalog."""
        with translate_errors():
            async with self.own.connection() as connection:
                left_ms = _time_left_ms(self._settings.read_timeout_s)
                yield connection if left_ms is None else _InTime(connection, left_ms)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Connection]:
        """Yield a connection in a read transaction, whose statements all see the same."""
        with translate_errors():
            async with self.read.connection() as connection, connection.transaction():
                yield connection

    @asynccontextmanager
    async def opening(self, first: LiteralString) -> AsyncIterator[tuple[Connection, DictRow]]:
        """Yield a connection in such a transaction, and the row of its first statement, which takes no parameters.

        Both in one round trip; what ends the transaction is the pool.
        """
        with translate_errors():
            async with self.read.connection() as connection:
                yield connection, await begin_reading(connection, first, self._settings)

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[Connection]:
        """Yield a connection in a write transaction, committed when the block ends well."""
        with translate_errors():
            async with self._where_writes_go(), self.write.connection() as connection:
                if (left_ms := _time_left_ms(self._settings.write_timeout_s)) is not None:
                    await connection.execute(_LIMIT.format(left_ms))
                yield connection
        await rest()

    @asynccontextmanager
    async def owning(self) -> AsyncIterator[Connection]:
        """Yield a connection of those that are apart, for one statement or a transaction of its own."""
        with translate_errors():
            async with self._where_writes_go(), self.own.connection() as connection:
                yield connection

    @asynccontextmanager
    async def _where_writes_go(self) -> AsyncIterator[None]:
        """Connect anew when a server turns out to accept no writes: another one may do so, which the address leads to.

        In both pools that write, or a run would begin in one and find the same out in the other.
        """
        try:
            yield
        except psycopg.errors.ReadOnlySqlTransaction:
            await asyncio.gather(self.write.drain(), self.own.drain())
            raise


class _InTime:
    """Stands for a connection outside a transaction, whose statements run for so many milliseconds at most."""

    def __init__(self, connection: Connection, left_ms: int) -> None:
        self._connection = connection
        self._left_ms = left_ms

    async def execute(self, query: Any, params: Any = None, /) -> AsyncCursor[DictRow]:
        """Run a statement behind its limit, in one round trip and so in one transaction, with which the limit ends."""
        with self._connection.measuring(query):
            async with self._connection.pipeline():
                await self._connection.execute(_LIMIT_NEXT, (str(self._left_ms),))
                return await self._connection.execute(query, params)


def _time_left_ms(timeout_s: float) -> int | None:
    """Return for how many milliseconds a statement may run, where that is less than it may anyway."""
    left_s = current_deadline().remaining_s
    return None if left_s >= timeout_s else max(math.ceil(left_s * 1000), 1)  # 0 would be no limit


async def begin_reading(connection: Connection, first: LiteralString, settings: PoolSettings) -> DictRow:
    """Begin a read transaction with a statement that takes no parameters and gives one row; return that.

    None of its statements runs for longer than the call had left when it began.
    """
    left_ms = _time_left_ms(settings.read_timeout_s)
    limit = sql.SQL("") if left_ms is None else _LIMIT.format(left_ms)
    cursor = await connection.execute(_BEGIN + limit + sql.SQL(first), prepare=False)
    while cursor.nextset():
        pass
    row = await cursor.fetchone()
    assert row is not None, "the statement always gives one row"  # noqa: S101 - a broken invariant, not a check
    return row


def describe_pool(pool: Pool) -> PoolStats:
    """Return the figures of a pool."""
    stats = pool.get_stats()
    return PoolStats(
        name=pool.name,
        size=stats.get("pool_size", 0),
        max_size=stats.get("pool_max", 0),
        in_use=max(stats.get("pool_size", 0) - stats.get("pool_available", 0), 0),
        waiting=stats.get("requests_waiting", 0),
        waits=stats.get("requests_queued", 0),
        wait_s=stats.get("requests_wait_ms", 0) / 1000,
        timeouts=stats.get("requests_errors", 0),
    )


def make_read_pool(url: str, name: str, settings: PoolSettings, queries: QueryMeasures) -> Pool:
    """Return a pool of connections that read, not opened yet."""
    return _make_pool(
        url, name, settings, settings.read_size, settings.read_timeout_s, queries, configure=_configure_read
    )


def _make_pool(
    url: str,
    name: str,
    settings: PoolSettings,
    size: int,
    statement_timeout_s: float,
    queries: QueryMeasures,
    *,
    configure: Callable[[Connection], Awaitable[None]],
) -> Pool:
    async def configure_measured(connection: Connection) -> None:
        await configure(connection)
        connection.queries = queries

    own = (
        f"-c statement_timeout={int(statement_timeout_s * 1000)} -c timezone=UTC"
        f" -c idle_in_transaction_session_timeout={int(settings.idle_transaction_timeout_s * 1000)}"
    )
    # What the operator put there, such as a search_path, holds here as it does for migrations.
    told = conninfo_to_dict(url)
    options = f"{told.get('options') or ''} {own}".strip()
    return ReconnectingPool(
        url,
        patience_s=statement_timeout_s + settings.silence_s,
        kwargs={
            **{name: value for name, value in _watch_over_tcp(settings.unacknowledged_s).items() if name not in told},
            "row_factory": dict_row,
            "connect_timeout": settings.connect_timeout_s,
            "application_name": f"modelcatalog-{name}",
            "options": options,
        },
        configure=configure_measured,
        min_size=1,
        max_size=size,
        timeout=settings.acquire_timeout_s,
        name=name,
        open=False,
    )


def _watch_over_tcp(unacknowledged_s: float) -> dict[str, int]:
    """Return what has the kernel end a connection whose other side has been silent for so long, asked or not.

    A statement has its own time, but the longest of them half a minute: so long nobody could refresh.
    """
    probe_s = max(round(unacknowledged_s / 4), 1)
    return {
        "tcp_user_timeout": round(unacknowledged_s * 1000),  # of what was sent
        "keepalives_idle": probe_s * 2,  # of who waits for an answer
        "keepalives_interval": probe_s,
        "keepalives_count": 2,
    }


async def _configure_own(connection: Connection) -> None:
    await connection.set_autocommit(True)


async def _configure_write(connection: Connection) -> None:
    connection.gives_way = True


async def _configure_read(connection: Connection) -> None:
    await connection.set_autocommit(True)
    await connection.set_isolation_level(IsolationLevel.REPEATABLE_READ)
    await connection.set_read_only(True)
    await connection.execute("SET default_transaction_read_only = on")  # for what runs outside a transaction
