"""What a command prints: tables and sheets that fit a terminal and are plain elsewhere, and notes to standard error."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from itertools import accumulate

import click

_GAP = 2  # spaces between columns


def sanitize(text: str) -> str:
    """Return text of somebody else (upstream, a server) in one line that does nothing to a terminal."""
    return "".join(each if each.isprintable() else f"\\x{ord(each):02x}" for each in text)


def say(text: str) -> None:
    """Print a line to standard error, where it does not mix with the results."""
    print(f"modelcatalog: {text}", file=sys.stderr, flush=True)  # noqa: T201 -- the command's own output


def terminal_width() -> int | None:
    """Return the columns of the terminal that results go to; None when they go elsewhere."""
    if not sys.stdout.isatty():
        return None
    return shutil.get_terminal_size().columns


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table. ``is_number`` aligns to the right."""

    title: str
    is_number: bool = False


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[str]], *, may_drop: bool = False) -> None:
    """Print a table to standard output.

    On a terminal that is too narrow, columns are left out from the right where ``may_drop``, which a note says; else
    cells are folded. Never is anything in the first column cut, and elsewhere than on a terminal nothing at all.
    """
    width = terminal_width()
    kept = _count_fitting(columns, rows, width) if may_drop and width else len(columns)
    click.echo(render_table(columns[:kept], [row[:kept] for row in rows], width), nl=False)
    if left_out := columns[kept:]:
        names = ", ".join(column.title for column in left_out)
        say(f"the terminal is too narrow for: {names}; --fields chooses columns, --json has everything")


def print_sheet(rows: Sequence[tuple[str, str]]) -> None:
    """Print names and values to standard output."""
    click.echo(render_sheet(rows, terminal_width()), nl=False)


def render_table(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None = None) -> str:
    """Return a table as text: for a terminal of that width, or as wide as it is and without colours."""
    titles = [column.title for column in columns]
    return _Grid(columns, [titles, *rows], has_header=True).render(width)


def render_sheet(rows: Sequence[tuple[str, str]], width: int | None = None) -> str:
    """Return names and values, one pair a line."""
    return _Grid([Column(""), Column("")], rows, has_header=False).render(width)


def _count_fitting(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> int:
    """Return how many of the columns fit, the first one in any case."""
    ends = accumulate(_Grid(columns, [[column.title for column in columns], *rows]).widths, lambda a, b: a + _GAP + b)
    return max(sum(end <= width for end in ends), 1)


class _Grid:
    """Cells in rows. Made harmless to a terminal once, here."""

    def __init__(self, columns: Sequence[Column], rows: Sequence[Sequence[str]], *, has_header: bool = False) -> None:
        self.columns = columns
        self.rows = [[sanitize(cell) for cell in row] for row in rows]
        self.has_header = has_header
        self.widths = [max(map(_width, cells)) for cells in zip(*self.rows, strict=True)]

    def render(self, width: int | None) -> str:
        """Return the text for a terminal of that width, or for what is none."""
        if width is not None and sum(self.widths) + _GAP * (len(self.widths) - 1) > width:
            return self._fold(width)
        styled = _styled if width is not None else _plain
        lines = (
            (
                self._align(cell, position, styled(cell, is_strong=self._is_strong(row, position)))
                for position, cell in enumerate(cells)
            )
            for row, cells in enumerate(self.rows)
        )
        return "".join(f"{(' ' * _GAP).join(line).rstrip()}\n" for line in lines)

    def _is_strong(self, row: int, column: int) -> bool:
        return row == 0 if self.has_header else column == 0

    def _align(self, cell: str, column: int, text: str) -> str:
        padding = " " * (self.widths[column] - _width(cell))
        return padding + text if self.columns[column].is_number else text + padding

    def _fold(self, width: int) -> str:
        """Break cells into lines, those of the first column excepted. It takes rich a millisecond for each row."""
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, _GAP, 0, 0))
        for position, column in enumerate(self.columns):
            table.add_column(
                justify="right" if column.is_number else "left",
                no_wrap=position == 0,
                min_width=self.widths[0] if position == 0 else None,
                overflow="fold",
            )
        for row, cells in enumerate(self.rows):
            styles = ("bold" if self._is_strong(row, position) else "" for position in range(len(cells)))
            table.add_row(*map(Text, cells, styles))
        file = StringIO()
        Console(file=file, width=max(width, self.widths[0]), force_terminal=True).print(table)
        return "".join(f"{line.rstrip()}\n" for line in file.getvalue().splitlines())


def _width(text: str) -> int:
    """Return the columns of a terminal that the text takes, which are more than its characters in some scripts."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _plain(text: str, *, is_strong: bool) -> str:  # noqa: ARG001 -- as _styled
    return text


def _styled(text: str, *, is_strong: bool) -> str:
    if is_strong:
        return click.style(text, bold=True)
    return click.style(text, dim=True) if text == "unknown" else text
