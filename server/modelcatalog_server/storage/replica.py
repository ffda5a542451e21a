"""A read replica: a copy of the database that answers reads while it is at the revision that the process is at."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal, Self, TypeVar

import psycopg
import structlog
from psycopg import AsyncCursor
from psycopg.rows import DictRow

from modelcatalog_server.catalog.current import version_of
from modelcatalog_server.domain.errors import DatabaseUnavailableError, StartupError
from modelcatalog_server.domain.ports.catalog import CatalogState, ReplicaStats
from modelcatalog_server.domain.tasks import end_tasks
from modelcatalog_server.storage.pools import (
    UNAVAILABLE,
    Connection,
    Pool,
    Pools,
    PoolSettings,
    connect,
    describe,
    make_read_pool,
    translate_errors,
)
from modelcatalog_server.storage.state_rows import (
    CatalogIdentity,
    begin_at_state,
    opening_state,
    read_identity,
    read_state,
)

_log = structlog.get_logger(__name__)

T = TypeVar("T")

# How long a read waits for one of its connections, all of which are in use, before the primary is asked, which has as
# many. Time for one to be given back, or made.
_ACQUIRE_TIMEOUT_S = 0.1
# Within which it has to say its revision, or it is taken for dead.
_ANSWER_TIMEOUT_S = 2.0
_POLL_S = 1.0
# So much behind it is no help; a moment behind is what replication is.
_PATIENCE_S = 5.0

# With these it ends the connection, which may be seen a moment later.
_ENDING = (psycopg.errors.AdminShutdown, psycopg.errors.CrashShutdown)

_EVENTS = {
    "up": "the read replica answers reads",
    "behind": "the read replica is at another revision: reads go to the primary",
    "down": "the read replica is down: reads go to the primary",
}


class _GoneError(Exception):
    """The replica does not answer this read."""


@dataclass(slots=True, eq=False)
class _Link:
    """Connections to it from when it was found until it was lost, which ends the waits of all who read there."""

    pool: Pool
    lost: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class ReadReplica:
    """Offers transactions on the replica. An async context manager: it is looked after while that is entered.

    It answers at exactly the version of the catalog that the process is at, so that an answer is the same from both: a
    replica that is behind, ahead, or has gone its own way answers nothing. It is asked once a second whether it lives.
    A read that loses it goes on at the primary, which still is at the same version unless two things happen at once.

    Args:
        url: May hold a password.
        primary: Where reads go otherwise.
        identity: Of the catalog that it has to be a copy of.
        known: The state that the process is at; ``None`` while it is not known.
        poll_s: How often it is looked after.
        patience_s: After being so long at another version it is left alone until it has caught up.
    """

    def __init__(
        self,
        url: str,
        primary: Pools,
        identity: CatalogIdentity,
        known: Callable[[], CatalogState | None],
        settings: PoolSettings | None = None,
        *,
        poll_s: float = _POLL_S,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        self._url = url
        self._identity = identity
        self._known = known
        self.settings = settings or PoolSettings()
        self._poll_s = poll_s
        self._patience_s = patience_s
        self._link: _Link | None = None
        self._state: Literal["", "up", "behind", "down"] = ""
        self._differs_since: float | None = None
        self._revision: int | None = None
        self._task: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self.primary = primary
        self.reads = 0
        self.fallbacks = 0

    async def __aenter__(self) -> Self:
        await self._look()
        self._task = asyncio.create_task(self._look_after(), name="read-replica")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._task is not None:
            await end_tasks(self._task)
        if self._link is not None:
            await self._link.pool.close(timeout=2)
        if self._ending:
            await asyncio.wait(self._ending)

    @property
    def stats(self) -> ReplicaStats:
        """Return its figures."""
        return ReplicaStats(
            available=self._state == "up", revision=self._revision, reads=self.reads, fallbacks=self.fallbacks
        )

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[ReplicaRead | None]:
        """Open a transaction at the version that the process is at; ``None``: the replica does not have it."""
        read = await self._begin()
        if read is None:
            self.fallbacks += 1
            yield None
            return
        self.reads += 1
        try:
            with translate_errors():
                yield read
        finally:
            await read.end()

    async def confirm(self) -> CatalogState | None:
        """Return the state that the process is at, if it has that version; ``None``: it does not answer that."""
        read = await self._begin()
        if read is None:
            return None
        await read.end()
        return read.state

    def lose(self, link: _Link | None, reason: str) -> None:
        """Take it for dead, until it is found again. Whoever finds that out frees all others who wait for it."""
        if self._link is not link:
            return  # it was lost before, and may be back
        if link is not None:
            self._link = None
            link.lost.set_result(None)
            self.finish(link.pool.close(timeout=1))  # before anybody gives a connection back
        self._note("down", reason)

    def finish(self, work: Coroutine[Any, Any, None]) -> None:
        """Have something come to its end that nobody waits for."""
        task = asyncio.create_task(work, name="read-replica-end")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _begin(self) -> ReplicaRead | None:
        known, link = self._known(), self._link
        if known is None or link is None or self._state != "up":
            return None
        read = ReplicaRead(self, link, known)
        return read if await read.begin() else None

    async def _look_after(self) -> None:
        while True:
            await asyncio.sleep(self._poll_s)
            try:
                await self._look()
            except Exception:
                _log.exception("cannot look after the read replica")

    async def _look(self) -> None:
        """Find out in bounded time how it is."""
        link = self._link
        asking = asyncio.create_task(self._ask(link), name="read-replica-ask")
        try:
            await asyncio.wait({asking}, timeout=_ANSWER_TIMEOUT_S)
            if asking.done():
                asking.result()
            else:
                self.lose(link, "it does not answer")
        finally:
            self.finish(end_tasks(asking))

    async def _ask(self, link: _Link | None) -> None:
        """Compare its revision with that of the process."""
        stack = AsyncExitStack()
        try:
            if link is None:
                link = self._link = await self._connect()
            connection = await stack.enter_async_context(link.pool.connection())
            self._compare(await read_state(connection))
        except StartupError as error:
            self.lose(link, str(error))
        except psycopg.Error as error:
            self.lose(link, type(error).__name__)
        finally:
            self.finish(stack.aclose())

    async def _connect(self) -> _Link:
        async with await connect(self._url, timeout_s=2, setting="MODELCATALOG_DATABASE_REPLICA_URL") as connection:
            identity = await read_identity(connection)
        if identity.token_key != self._identity.token_key:
            raise StartupError("it is no copy of this catalog: check MODELCATALOG_DATABASE_REPLICA_URL")
        if identity.schema_version < self._identity.schema_version:
            raise StartupError("it does not have the schema of the primary yet")
        pool = make_read_pool(self._url, "replica", self.settings, self.primary.queries)
        try:
            await pool.open(wait=True, timeout=_ANSWER_TIMEOUT_S)
        except BaseException:
            await pool.close(timeout=0)
            raise
        link = _Link(pool)
        pool.on_ended = lambda: self.lose(link, "its connections have ended")
        return link

    def _compare(self, state: CatalogState) -> None:
        known, now = self._known(), time.monotonic()
        self._revision = state.revision
        if known is None or version_of(known) == version_of(state):
            self._differs_since = None
            self._note("up")
        elif self._differs_since is None:
            self._differs_since = now
        elif now - self._differs_since >= self._patience_s:
            self._note("behind")

    def _note(self, state: Literal["up", "behind", "down"], reason: str = "") -> None:
        """Keep the state, and say so once per change."""
        if state != self._state:
            log = _log.info if state == "up" and not self._state else _log.warning
            self._state = state
            log(_EVENTS[state], replica=describe(self._url), revision=self._revision, reason=reason)


class ReplicaRead:
    """One read transaction on the replica; statements of it that the replica does not answer, the primary does.

    Stands for a connection. What is asked for is a function of the version that it is at, so where it is asked does not
    matter while that is the same.

    Attributes:
        state: What the process knows of this version.
    """

    def __init__(self, replica: ReadReplica, link: _Link, state: CatalogState) -> None:
        self._replica = replica
        self._link = link
        self.state = state
        self._stack = AsyncExitStack()
        self._on_primary = AsyncExitStack()
        self._connection: Connection | None = None
        self._primary: Connection | None = None

    async def begin(self) -> bool:
        """Open the transaction; return whether it sees the version that it has to."""
        try:
            seen = await self._ask(self._open())
        except _GoneError:
            return False
        if version_of(seen) == version_of(self.state):
            return True
        await self.end()
        return False

    async def execute(self, query: Any, params: Any = None, /) -> AsyncCursor[DictRow]:
        """Run a statement."""
        if self._connection is not None:
            try:
                return await self._ask(self._connection.execute(query, params))
            except _GoneError:
                pass
        return await (await self._get_primary()).execute(query, params)

    async def end(self) -> None:
        """End the transaction, wherever it is by now."""
        if self._connection is not None:
            with suppress(_GoneError):
                await self._ask(self._stack.aclose())
            self._connection = None
        await self._on_primary.aclose()

    async def _open(self) -> CatalogState:
        pool = self._link.pool
        self._connection = await self._stack.enter_async_context(pool.connection(timeout=_ACQUIRE_TIMEOUT_S))
        return await begin_at_state(self._connection, self._replica.settings)

    async def _get_primary(self) -> Connection:
        if self._primary is None:
            connection, seen = await self._on_primary.enter_async_context(opening_state(self._replica.primary))
            if version_of(seen) != version_of(self.state):
                raise DatabaseUnavailableError("the read replica was lost while the catalog moved on: ask again")
            self._primary = connection
        return self._primary

    async def _ask(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something on the replica, no longer than it is taken for alive.

        Raises:
            _GoneError: it did not answer. Nothing is asked there any more.
        """
        asking = asyncio.create_task(work, name="read-replica-ask")
        waited_for: set[asyncio.Future[Any]] = {asking, self._link.lost}
        try:
            await asyncio.wait(waited_for, return_when=asyncio.FIRST_COMPLETED)
            return self._take(asking)
        except (_GoneError, asyncio.CancelledError):
            self._abandon(asking)
            raise

    def _take(self, asking: asyncio.Task[T]) -> T:
        if not asking.done():
            raise _GoneError
        try:
            return asking.result()
        except psycopg.errors.QueryCanceled:
            raise  # it would take as long on the primary
        except UNAVAILABLE as error:
            if isinstance(error, _ENDING) or (self._connection is not None and self._connection.broken):
                self._replica.lose(self._link, type(error).__name__)
            raise _GoneError from error

    def _abandon(self, asking: asyncio.Task[Any]) -> None:
        """Have the transaction ended by somebody else: what waits for a server that hangs cannot be hurried."""
        self._connection = None
        self._replica.finish(_end(asking, self._stack))


async def _end(asking: asyncio.Task[Any], stack: AsyncExitStack) -> None:
    await end_tasks(asking)
    if not asking.cancelled():
        asking.exception()  # nobody wants to know
    with suppress(psycopg.Error):
        await stack.aclose()
