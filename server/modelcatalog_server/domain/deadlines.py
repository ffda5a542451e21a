"""How long what is being done may still take: set where a call comes in, read where something is waited for.

A deadline goes along into the tasks that a call starts. What is to outlive the call is started by
:func:`create_lasting_task`.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import Any, TypeVar

T = TypeVar("T")


class Deadline:
    """A time by which something is to be over. What is done for several callers has that of the most patient one.

    Attributes:
        at: On the monotonic clock, in seconds; ``inf`` is never.
    """

    __slots__ = ("_clock", "at")

    def __init__(self, at: float = math.inf, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.at = at
        self._clock = clock

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """Return the one that is so far away."""
        return cls(time.monotonic() + seconds)

    @property
    def remaining_s(self) -> float:
        """Seconds until then: none below 0, ``inf`` for ever."""
        return max(self.at - self._clock(), 0.0)

    def extend(self, other: Deadline) -> None:
        """Be no earlier than the other one."""
        self.at = max(self.at, other.at)


_current: ContextVar[Deadline | None] = ContextVar("deadline", default=None)


def current_deadline() -> Deadline:
    """Return the deadline of what is being done; one that never comes where there is none."""
    return _current.get() or Deadline()


@contextmanager
def deadline(until: Deadline) -> Iterator[None]:
    """Have what is done in the block know until when it may go on. It is not ended by this."""
    token = _current.set(until)
    try:
        yield
    finally:
        _current.reset(token)


def create_lasting_task(work: Coroutine[Any, Any, T], *, name: str, until: Deadline | None = None) -> asyncio.Task[T]:
    """Start a task that outlives whoever starts it: not with their deadline but with this one, or with none."""
    context = copy_context()
    context.run(_current.set, until)
    return asyncio.create_task(work, name=name, context=context)
