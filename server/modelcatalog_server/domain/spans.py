"""What a trace is made of: who asked what of whom, and how long it took. Nothing, unless somebody traces.

A trace begins with a call or with a refresh; what else there is, a statement or a request, is a span inside of one.
Names and attributes are those of OpenTelemetry's semantic conventions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from enum import Enum, auto
from types import TracebackType
from typing import Protocol, Self

Value = str | int
Attributes = Mapping[str, Value]


class Kind(Enum):
    """Which side of a request a span is."""

    SERVER = auto()
    CLIENT = auto()
    INTERNAL = auto()


class Span(Protocol):
    """What is being traced."""

    def note(self, name: str, value: Value) -> None:
        """Add an attribute."""
        ...

    def fail(self, what: str) -> None:
        """Mark it as failed, with the kind of the error in few words."""
        ...


class Tracer(Protocol):
    """Makes spans and brings them to where they are looked at."""

    def span(self, name: str, kind: Kind, attributes: Attributes) -> AbstractContextManager[Span]:
        """Trace what the block does, inside of what is traced already; else nothing."""
        ...

    def trace(
        self, name: str, kind: Kind, attributes: Attributes, sent: Mapping[str, str] | None
    ) -> AbstractContextManager[Span]:
        """Trace what the block does in any case: inside of what ``sent`` tells (W3C trace context) if it is given."""
        ...


class _NoSpan:
    """Stands for a span where nothing is traced, as often as one likes."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

    def note(self, name: str, value: Value) -> None:
        pass

    def fail(self, what: str) -> None:
        pass


NO_SPAN = _NoSpan()
_NOTHING: Attributes = {}
_tracer: Tracer | None = None


def is_tracing() -> bool:
    """Whether somebody traces."""
    return _tracer is not None


def span(name: str, kind: Kind = Kind.INTERNAL, attributes: Attributes = _NOTHING) -> AbstractContextManager[Span]:
    """Trace what the block does, inside of what is traced already; else nothing."""
    return NO_SPAN if _tracer is None else _tracer.span(name, kind, attributes)


def trace(
    name: str, kind: Kind, attributes: Attributes, sent: Mapping[str, str] | None = None
) -> AbstractContextManager[Span]:
    """Trace what the block does, if anything is: inside of what ``sent`` tells if it is given."""
    return NO_SPAN if _tracer is None else _tracer.trace(name, kind, attributes, sent)


@contextmanager
def traced_by(tracer: Tracer) -> Iterator[None]:
    """Have this process traced while the block runs."""
    global _tracer
    before, _tracer = _tracer, tracer
    try:
        yield
    finally:
        _tracer = before
