"""Single flight: whoever asks for what is being fetched waits for that, instead of fetching it too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from modelcatalog_server.domain.deadlines import Deadline, create_lasting_task, current_deadline
from modelcatalog_server.domain.tasks import end_tasks

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Flight(Generic[T]):
    task: asyncio.Task[T]
    until: Deadline
    waiting: int = 0


class Flights(Generic[T]):
    """One task per key. It belongs to none of its callers: the one that began it may leave and the others still get it.

    When the last one has left it is cancelled: nobody wants to know any more. Its deadline is that of the most patient
    caller so far.
    """

    def __init__(self) -> None:
        self._flights: dict[Hashable, _Flight[T]] = {}
        self._tasks: set[asyncio.Task[T]] = set()

    async def join(self, key: Hashable, fetch: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return what the flight of this key brings, beginning one if there is none. Raises what it raises."""
        flight = self._flights.get(key) or self._begin(key, fetch)
        flight.waiting += 1
        flight.until.extend(current_deadline())
        try:
            await asyncio.wait({flight.task})  # not the task itself: a caller that leaves must not take it along
            return flight.task.result()
        finally:
            flight.waiting -= 1
            if flight.waiting == 0 and not flight.task.done():
                flight.task.cancel()
                self._forget(key, flight)

    async def close(self) -> None:
        """Cancel all and wait until they are done."""
        await end_tasks(*self._tasks)

    def _begin(self, key: Hashable, fetch: Callable[[], Coroutine[Any, Any, T]]) -> _Flight[T]:
        until = Deadline(current_deadline().at)
        flight = _Flight(create_lasting_task(fetch(), name="flight", until=until), until)
        self._flights[key] = flight
        self._tasks.add(flight.task)
        flight.task.add_done_callback(lambda task: self._land(key, flight, task))
        return flight

    def _land(self, key: Hashable, flight: _Flight[T], task: asyncio.Task[T]) -> None:
        self._tasks.discard(task)
        self._forget(key, flight)
        if not task.cancelled():
            task.exception()  # whoever waited has it; when nobody did, asyncio is not to complain

    def _forget(self, key: Hashable, flight: _Flight[T]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
