"""What ``modelcatalog refresh`` shows on standard error while it waits: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from modelcatalog_client import Refresh, RefreshStatus
from modelcatalog_server.commands.terminal import sanitize, say

_FETCH = RefreshStatus.PHASE_FETCH


class RefreshProgress(Protocol):
    """What shows the events of a run."""

    def show(self, status: RefreshStatus) -> None:
        """Take the next event."""


def open_progress() -> AbstractContextManager[RefreshProgress]:
    """Return what fits standard error."""
    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    is_terminal = sys.stderr.isatty() and not console.is_dumb_terminal
    return _open_bar(console) if is_terminal else _open_lines()


@contextmanager
def _open_lines() -> Iterator[RefreshProgress]:
    yield _Lines()


@contextmanager
def _open_bar(console: Console) -> Iterator[RefreshProgress]:
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[figures]}", markup=False),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    ) as bar:
        yield _Bar(bar)


class _Attempts:
    """Tells of each attempt at fetching that failed, once."""

    def __init__(self) -> None:
        self._told = 0

    def news(self, refresh: Refresh) -> Iterator[str]:
        """Yield a line for each failure that was not told yet."""
        for attempt in refresh.attempts:
            if attempt.number <= self._told or not attempt.HasField("error"):
                continue
            self._told = attempt.number
            line = f"attempt {attempt.number} failed: {sanitize(attempt.error.message)}"
            if attempt.HasField("retry_delay"):
                line += f"; the next in {attempt.retry_delay.ToTimedelta().total_seconds():.1f} s"
            yield line


class _Lines:
    """One line for each phase and each failed attempt: for logs, where every progress event would be too much."""

    def __init__(self) -> None:
        self._attempts = _Attempts()
        self._phase: RefreshStatus.Phase.ValueType | None = None

    def show(self, status: RefreshStatus) -> None:
        for line in self._attempts.news(status.refresh):
            say(line)
        if status.phase != self._phase and status.kind != RefreshStatus.KIND_TERMINAL:
            self._phase = status.phase
            say(": ".join(filter(None, [phase_name(status), sanitize(status.message)])))


class _Bar:
    """A live bar for the phase that is under way."""

    def __init__(self, bar: Progress) -> None:
        self._attempts = _Attempts()
        self._bar = bar
        self._phase = RefreshStatus.PHASE_UNSPECIFIED
        self._task = bar.add_task("waiting", total=None, figures="")

    def show(self, status: RefreshStatus) -> None:
        for line in self._attempts.news(status.refresh):
            self._bar.console.print(Text(line))
        if status.phase != self._phase:
            self._phase = status.phase
            self._bar.reset(self._task, total=None, description=phase_name(status), figures=sanitize(status.message))
        if status.kind == RefreshStatus.KIND_PROGRESS:
            total = status.total if status.HasField("total") else None
            self._bar.update(self._task, completed=status.done, total=total, figures=figures(status))
        # At once and not with the next tick: a phase may be over before that.
        self._bar.refresh()


def phase_name(status: RefreshStatus) -> str:
    """Return what the runner is doing, as in the documents."""
    if status.phase == RefreshStatus.PHASE_UNSPECIFIED:
        return "waiting"
    return RefreshStatus.Phase.Name(status.phase).removeprefix("PHASE_")


def figures(status: RefreshStatus) -> str:
    """Return how much is done: bytes in FETCH, models otherwise. A total that is not known is left out."""
    amount = decimal if status.phase == _FETCH else "{:,}".format
    unit = "" if status.phase == _FETCH else " models"
    if not status.HasField("total"):
        return f"{amount(status.done)}{unit}"
    return f"{amount(status.done)} of {amount(status.total)}{unit}"
