"""Port ``ResponseCache``: the memory of the process, then Redis, then whoever makes the response."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Self

from modelcatalog_server.cache.absences import Absences
from modelcatalog_server.cache.flights import Flights
from modelcatalog_server.cache.near import NearCache
from modelcatalog_server.cache.shared import SharedResponses
from modelcatalog_server.catalog.current import CurrentRevision, version_of
from modelcatalog_server.domain.deadlines import current_deadline
from modelcatalog_server.domain.errors import DeadlineError, NotFoundError
from modelcatalog_server.domain.ports.caching import EncodedResponse, RequestKey
from modelcatalog_server.domain.ports.catalog import CatalogState
from modelcatalog_server.domain.spans import span
from modelcatalog_server.domain.tasks import run_in_slices

Fetch = Callable[[bytes], Coroutine[Any, Any, EncodedResponse]]

#: How long a response may be given out by a process: the revision it belongs to, a day at most.
MAX_AGE_S = 24 * 3600.0
# Each caller has a bound of its own; this one is for a flight that new callers join again and again.
_FLIGHT_TIMEOUT_S = 30.0


class CachedResponses:
    """Port ``ResponseCache`` over a near and a shared layer. An async context manager: leaving it ends the flights.

    Args:
        near: Of this process.
        shared: Of all processes.
        current: The revision that this process is at.
        read_state: Reads it, and shows it to ``current``.
    """

    def __init__(
        self,
        near: NearCache[RequestKey],
        shared: SharedResponses,
        current: CurrentRevision,
        read_state: Callable[[], Awaitable[CatalogState]],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.near = near
        self.shared = shared
        self._current = current
        self._read_state = read_state
        self._absences = Absences(clock)
        self._flights: Flights[EncodedResponse] = Flights()
        self._state: CatalogState | None = None
        self._version = ""
        self._ahead: Sequence[tuple[RequestKey, EncodedResponse]] = ()
        #: How often it was told to forget.
        self.forgotten = 0
        #: Reads that the near layer could not answer.
        self.near_misses = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._flights.close()

    def peek(self, key: RequestKey) -> EncodedResponse | None:
        """Return the response if this process has it for the revision that it is at."""
        state = self._current.state
        if state is None:
            return None
        if state is not self._state:
            self._move_to(state)
        body = self.near.get(self._version, key)
        return None if body is None else EncodedResponse(body=body, state=state)

    async def read(self, key: RequestKey, fetch: Fetch, *, ttl_s: float) -> EncodedResponse:
        """Return the response of the revision that this process is at, or of a newer one; see the port."""
        if self._current.state is None:
            await self._read_state()
        held = self.peek(key)
        if held is not None:
            return held
        self.near_misses += 1
        state, version = self._current.state, self._version
        if state is None:  # a newer revision is known of, but not what it is
            return await fetch(key[1])
        if (error := self._absences.get(key)) is not None:
            raise error
        with span("cache", attributes={"modelcatalog.revision": state.revision}):
            return await self._flights.join((version, key), lambda: self._fetch(state, version, key, fetch, ttl_s))

    async def rebuild(self, key: RequestKey, fetch: Fetch, *, ttl_s: float) -> None:
        """Have the response of this revision at hand, before somebody asks for it. Raises what ``fetch`` raises."""
        state = self._current.state
        if state is not None and key not in self.near:
            version = self.version
            await self._flights.join((version, key), lambda: self._fetch(state, version, key, fetch, ttl_s))

    def take(self, key: RequestKey, response: EncodedResponse, *, ttl_s: float = MAX_AGE_S) -> None:
        """Keep a response, in this process, that was made ahead of being asked for. One that is held begins anew."""
        self._keep(version_of(response.state), key, response.body, ttl_s)

    def take_ahead(self, responses: Sequence[tuple[RequestKey, EncodedResponse]]) -> None:
        """Keep responses of one revision, which this process may not be at yet, until it is."""
        if responses and version_of(responses[0][1].state) != self.version:
            self._ahead = responses
        else:
            self._take_all(responses)

    @property
    def version(self) -> str:
        """The version of the catalog that answers belong to now; empty before the first was read."""
        if self._current.state is not None and self._current.state is not self._state:
            self._move_to(self._current.state)
        return self._version

    def forget(self, naming: str = "") -> int:
        """Let go, in this process, of what names this in request or response, of everything if empty."""
        self._absences.clear()
        self._ahead = ()
        needle = naming.encode()
        if not needle:
            count = self.near.clear()
        else:
            named = [key for key, body in self.near.items() if needle in key[1] or needle in body]
            count = sum(self.near.discard(key) for key in named)
        self.forgotten += 1
        return count

    async def hottest_here(self) -> list[RequestKey]:
        """Return what was asked for most in this process, hottest first."""
        ranked: list[tuple[RequestKey, int]] = []
        await run_in_slices(self.near.rank(ranked))
        return [key for key, _ in ranked]

    async def hot_requests(self) -> list[RequestKey]:
        """Return what was asked for most: here, or before anything was asked here, in the other processes."""
        return await self.hottest_here() or await self.shared.get_hot_requests(self.near.max_hot)

    async def share_hot_requests(self) -> None:
        """Let other processes know what is asked for most here."""
        if hot := await self.hottest_here():
            await self.shared.put_hot_requests(hot)

    async def _fetch(
        self, state: CatalogState, version: str, key: RequestKey, fetch: Fetch, ttl_s: float
    ) -> EncodedResponse:
        try:
            async with asyncio.timeout(_FLIGHT_TIMEOUT_S):
                body = await self.shared.get(version, key)
                if body is not None:
                    self._keep(version, key, body, ttl_s)
                    return EncodedResponse(body=body, state=state)
                response = await _fetch_in_time(fetch, key[1])
        except TimeoutError as error:
            raise DeadlineError("the call's time was over") from error
        except NotFoundError as error:
            if self._current.state is not None and version_of(self._current.state) == version:
                self._absences.put(key, error)  # else it was read at another revision, which is not known
            raise
        # It may have been read at a newer revision than was asked for.
        version = version_of(response.state)
        self._keep(version, key, response.body, ttl_s)
        self.shared.put(version, key, response.body)
        return response

    def _keep(self, version: str, key: RequestKey, body: bytes, ttl_s: float) -> None:
        if self._current.state is not None and self._current.state is not self._state:
            self._move_to(self._current.state)
        self.near.put(version, key, body, size=len(key[1]) + len(body), ttl_s=ttl_s)

    def _move_to(self, state: CatalogState) -> None:
        version = version_of(state)
        if version != self._version:
            self._absences.clear()
            self.near.turn_to(version)
        self._state, self._version = state, version
        if self._ahead and version_of(self._ahead[0][1].state) == version:
            self._take_all(self._ahead)
            self._ahead = ()

    def _take_all(self, responses: Sequence[tuple[RequestKey, EncodedResponse]]) -> None:
        for key, response in responses:
            self.take(key, response)


async def _fetch_in_time(fetch: Fetch, request: bytes) -> EncodedResponse:
    """Have a response made; again, if the time of who asked first was over and somebody with more has come since."""
    until = current_deadline()
    while True:
        given = until.at
        try:
            return await fetch(request)
        except DeadlineError:
            # Within the time that it was given it failed on a bound of its own.
            if time.monotonic() < given or until.at <= given:
                raise
