"""What ``modelcatalog refresh`` says about a run that is over: the outcome, the difference, and what to do next."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal, DivisionByZero, InvalidOperation

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from modelcatalog.v1.refresh_pb2 import PriceChange, RefreshReport
from modelcatalog.v1.refresh_service_pb2 import GetRefreshResponse
from modelcatalog_client import CatalogError, GateRefusedError, Refresh, refresh_error
from modelcatalog_server.commands.terminal import sanitize

#: Rows of a table and lines of warnings that a person still reads; --json has all.
MAX_ROWS = 20

_GATE_DETAILS = ("gate", "gates", "examples")
_WIDE = 1000  # columns of what is no terminal: nothing is broken or cut there

_NEXT_STEPS = {
    "UPSTREAM_UNAVAILABLE": (
        "upstream did not answer: look whether the server can reach MODELCATALOG_UPSTREAM_URL, then: {again}"
    ),
    "UPSTREAM_INVALID": (
        "what upstream answered is no catalog: look what MODELCATALOG_UPSTREAM_URL serves (a proxy's page?),"
        " then: {again}"
    ),
    "OWNER_LOST": "the process that ran it died; another one can run it at once: {again}",
    "DATABASE_UNAVAILABLE": "look after the database, then: {again}",
    "REFRESH_CANCELLED": "it was stopped on request; to start it again: {again}",
}
_FOLLOWED_BY_FULL = ("UPSTREAM_UNAVAILABLE", "UPSTREAM_INVALID", "DATABASE_UNAVAILABLE", "INTERNAL")
_OTHER_STEP = "the server's log says more about refresh {id}; to try again: {again}"


def is_over(refresh: Refresh) -> bool:
    """Return whether the run is in one of its final states."""
    return refresh.state >= Refresh.STATE_SUCCEEDED


def describe_request(refresh: Refresh) -> str:
    """Return what a run is asked to do."""
    parts = ["full" if refresh.type == Refresh.TYPE_FULL else "incremental"]
    parts += [f"provider {sanitize(refresh.provider_id)} alone" if refresh.provider_id else "all providers"]
    parts += ["dry run"] if refresh.validate_only else []
    parts += ["whatever upstream's ETag"] if refresh.force else []
    parts += [f"gate {sanitize(refresh.override_gate)} overridden"] if refresh.override_gate else []
    return ", ".join(parts)


def print_result(ended: GetRefreshResponse) -> None:
    """Print the outcome, the counts and the difference to standard output."""
    console = Console(
        highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else _WIDE, soft_wrap=False
    )
    click.echo(describe_outcome(ended.refresh))
    if counts := describe_counts(ended.refresh):
        click.echo(counts)
    report = ended.report if ended.HasField("report") else None
    if report is None and _differs(ended.refresh):
        click.echo("the server has no report of this run, so the models are not listed")
    for section in sections(ended.refresh, report or RefreshReport()):
        section.print_to(console)


def describe_outcome(refresh: Refresh) -> str:
    """Return how it ended, in one line."""
    attempts = max(len(refresh.attempts), refresh.attempt)
    parts = [
        Refresh.State.Name(refresh.state).removeprefix("STATE_"),
        *_describe_revisions(refresh),
        _describe_duration(refresh.duration.ToTimedelta().total_seconds()),
        f"{attempts} attempt{'s' if attempts != 1 else ''}",
    ]
    return f"refresh {refresh.id}: {', '.join(parts)}"


def _describe_revisions(refresh: Refresh) -> Iterator[str]:
    if refresh.validate_only:
        yield "dry run: nothing written"
    if refresh.not_modified:
        yield "not modified at upstream"
    before = str(refresh.base_revision) if refresh.HasField("base_revision") else "unknown"
    if not refresh.HasField("result_revision"):
        if refresh.HasField("base_revision"):
            yield f"compared with revision {before}"
    elif refresh.HasField("base_revision") and refresh.base_revision != refresh.result_revision:
        yield f"revision {before} → {refresh.result_revision}"
    elif refresh.HasField("base_revision"):
        yield f"revision {before} as before"
    else:
        yield f"revision {refresh.result_revision}"


def _describe_duration(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"


def describe_counts(refresh: Refresh) -> str:
    """Return the counts in one line; empty when nothing was compared."""
    counts = refresh.counts
    if not counts.seen:
        return ""
    names = ("added", "changed", "removed", "revived", "unchanged", "quarantined")
    return f"{counts.seen:,} models: " + ", ".join(f"{getattr(counts, name):,} {name}" for name in names)


def _differs(refresh: Refresh) -> bool:
    counts = refresh.counts
    return any((counts.added, counts.changed, counts.removed, counts.revived, counts.quarantined))


# --- sections -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Section:
    """A table of the result; ``total`` are the rows that there are, which may be more than were sent."""

    title: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, ...]]
    total: int
    is_at_least: bool = False

    def print_to(self, console: Console) -> None:
        """Print the first rows, and how many more there are."""
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for name in self.columns:
            table.add_column(name, justify="right" if name in _NUMBERS else "left", overflow="fold")
        for row in self.rows[:MAX_ROWS]:
            table.add_row(*(Text(sanitize(cell)) for cell in row))
        console.print()
        console.print(Text(self.title))
        console.print(table)
        more = self.total - min(len(self.rows), MAX_ROWS)
        if more > 0:
            console.print(Text(f"… and {'at least ' if self.is_at_least else ''}{more:,} more"))


_NUMBERS = ("before", "after", "change")


def sections(refresh: Refresh, report: RefreshReport) -> Iterator[Section]:
    """Yield the tables that have rows."""
    for title, ids, total in (
        ("added", report.added_model_ids, refresh.counts.added),
        ("removed", report.removed_model_ids, refresh.counts.removed),
        ("revived", report.revived_model_ids, refresh.counts.revived),
    ):
        if ids:
            yield Section(
                f"{title} ({max(total, len(ids)):,})", ["model"], [(id_,) for id_ in ids], max(total, len(ids))
            )
    lists: list[tuple[str, list[str], list[tuple[str, ...]]]] = [
        ("price changes", ["model", "field", *_NUMBERS], [_to_row(change) for change in report.price_changes]),
        (
            "quarantined records",
            ["record", "reason"],
            [(record.pointer, record.reason) for record in report.quarantined_records],
        ),
        ("warnings", ["warning"], [(line,) for line in _untold_warnings(refresh, report)]),
    ]
    for title, columns, rows in lists:
        if rows:
            # The report does not say which of its lists was cut, only that one was.
            is_cut = report.truncated and len(rows) >= _REPORT_LIMIT
            yield Section(f"{title} ({'at least ' if is_cut else ''}{len(rows):,})", columns, rows, len(rows), is_cut)


_REPORT_LIMIT = 1000


def _to_row(change: PriceChange) -> tuple[str, ...]:
    before = change.before if change.HasField("before") else None
    after = change.after if change.HasField("after") else None
    return (change.model_id, change.field, before or "unknown", after or "unknown", describe_change(before, after))


def describe_change(before: str | None, after: str | None) -> str:
    """Return a change of price in percent; empty where there is none: from or to unknown, or from nothing."""
    if before is None or after is None:
        return ""
    try:
        percent = (Decimal(after) / Decimal(before) - 1) * 100
    except (DivisionByZero, InvalidOperation):
        return ""
    return f"{percent:+,.1f} %"


def _untold_warnings(refresh: Refresh, report: RefreshReport) -> Iterable[str]:
    """Return the warnings that are not in the table of quarantined records anyway."""
    told = {f"quarantined {record.pointer}: {record.reason}" for record in report.quarantined_records}
    return [line for line in refresh.warnings if line not in told]


# --- what to do next ------------------------------------------------------------------------------------------


def advise(refresh: Refresh, command_for: Callable[..., str]) -> Iterator[str]:
    """Yield why a run did not succeed and what to do next, in lines for people."""
    error = refresh_error(refresh) or CatalogError("no reason was given")
    yield f"the refresh did not succeed: {sanitize(str(error))}"
    if isinstance(error, GateRefusedError):
        yield from _advise_on_gate(refresh, error, command_for)
    else:
        step = _NEXT_STEPS.get(error.reason, _OTHER_STEP)
        gate = ["--override-gate", refresh.override_gate] if refresh.override_gate else []
        yield step.format(id=refresh.id, again=command_for(refresh, *gate))
        if error.reason in _FOLLOWED_BY_FULL and refresh.type == Refresh.TYPE_INCREMENTAL and not refresh.validate_only:
            yield "the server itself tries a full refresh, MODELCATALOG_REFRESH_FALLBACK_SECONDS after this one"


def _advise_on_gate(refresh: Refresh, error: GateRefusedError, command_for: Callable[..., str]) -> Iterator[str]:
    gate = error.metadata.get("gate", "")
    figures = [f"{name} {value}" for name, value in sorted(error.metadata.items()) if name not in _GATE_DETAILS]
    yield f"gate {sanitize(gate)}: {sanitize(', '.join(figures)) or 'no figures'}"
    if examples := error.metadata.get("examples"):
        yield f"for example: {sanitize(examples.replace(',', ', '))}"
    # All that refuse it, and those whose refusal this run accepted already.
    gates = [name for name in (refresh.override_gate, error.metadata.get("gates", gate)) if name]
    if gates:
        again = command_for(refresh, "--override-gate", ",".join(gates))
        yield f"the catalog is as it was. If upstream is right: {again}"
