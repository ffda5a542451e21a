"""What came of it, for people and for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from chaos.load import Window
from chaos.oracle import Oracle

_WRITES = ("update", "start")


@dataclass(frozen=True)
class Report:
    """The windows of a run in order, and what was found to be wrong: nothing, if all is well."""

    seed: int
    seconds: float
    windows: Sequence[Window]
    oracle: Oracle
    violations: Sequence[str]

    def as_json(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "seconds": round(self.seconds, 1),
            "faults": [_figures(window) for window in self.windows],
            "calls": sum(window.calls for window in self.windows),
            "answers_checked": self.oracle.checked,
            "wrong_answers": len(self.oracle.wrong),
            "commits": self.oracle.told_commits,
            "lost_commits": len(self.oracle.lost),
            "watches": self.oracle.watched,
            "watches_with_gaps": len(self.oracle.gaps),
            "revisions_backwards": len(self.oracle.backwards),
            "violations": list(self.violations),
        }

    def as_text(self) -> str:
        figures = self.as_json()
        lines = list(_table([_row(window) for window in self.windows]))
        lines += [
            "",
            f"seed {self.seed}, {self.seconds:.0f} s, {figures['calls']} calls",
            *(
                f"{name.replace('_', ' ')}: {figures[name]}"
                for name in ("answers_checked", "wrong_answers", "commits", "lost_commits", "watches")
            ),
            *(f"{name.replace('_', ' ')}: {figures[name]}" for name in ("watches_with_gaps", "revisions_backwards")),
            f"violations: {len(self.violations)}",
            *(f"  {violation}" for violation in self.violations),
        ]
        return "\n".join(lines)


def _figures(window: Window) -> dict[str, Any]:
    mended_at = window.mended_at or window.begun_at
    return {
        "fault": window.name,
        "seconds": round(mended_at - window.begun_at, 2),
        "asked": window.calls,
        "answered": window.answered.total(),
        "availability": _percent(window),
        "reads": _percent(window, *(kind for kind in window.kinds if kind not in _WRITES)),
        "writes": _percent(window, *_WRITES),
        "codes": dict(window.codes),
        "runs": dict(window.runs),
        "longest_s": round(window.longest_s, 2),
        "recovery_s": round(max(window.last_failure_at - mended_at, 0.0), 2),
        "refreshed_s": None if window.refreshed_at is None else round(window.refreshed_at - mended_at, 2),
        "log_lines": window.log_lines,
    }


def _percent(window: Window, *kinds: str) -> float | None:
    chosen = kinds or tuple(window.kinds)
    answered = sum(window.answered[kind] for kind in chosen)
    asked = answered + sum(window.failed[kind] for kind in chosen)
    return round(100 * answered / asked, 2) if asked else None


def as_line(window: Window) -> str:
    """Return what became of a window, in short."""
    figures = _figures(window)
    return (
        f"{window.name}: {figures['availability']} % of {figures['asked']} calls answered,"
        f" well after {figures['recovery_s']} s, refreshed after {figures['refreshed_s']} s"
    )


def _row(window: Window) -> list[str]:
    figures = _figures(window)
    shown = ("seconds", "asked", "availability", "reads", "writes", "longest_s", "recovery_s", "refreshed_s")
    return [
        window.name,
        *("-" if figures[name] is None else str(figures[name]) for name in shown),
        str(window.log_lines),
        _counted(window.codes) or "-",
        _counted(window.runs) or "-",
    ]


def _counted(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counter.most_common())


def _table(rows: Sequence[Sequence[str]]) -> Iterable[str]:
    head = ("fault", "s", "calls", "ok %", "reads %", "writes %", "longest s", "well after s", "refreshed after s")
    table = [[*head, "log lines", "codes", "runs"], *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for row in table:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
