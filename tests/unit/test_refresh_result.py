from __future__ import annotations

import pytest

from modelcatalog_client import Refresh, RefreshCounts
from modelcatalog_server.commands.refresh import RefreshOptions
from modelcatalog_server.commands.refresh_result import (
    describe_change,
    describe_counts,
    describe_outcome,
    describe_request,
)
from modelcatalog_server.commands.server_options import ServerOptions
from modelcatalog_server.commands.terminal import sanitize


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        ("1.25", "2.5", "+100.0 %"),
        ("10", "0", "-100.0 %"),
        ("0.000001", "1", "+99,999,900.0 %"),
        ("3", "3.001", "+0.0 %"),
        ("0", "1", ""),
        ("0", "0", ""),
        (None, "1", ""),
        ("1", None, ""),
        ("1", "no number", ""),
    ],
)
def test_a_change_in_percent_is_left_out_where_there_is_none(
    before: str | None, after: str | None, change: str
) -> None:
    assert describe_change(before, after) == change


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (Refresh(base_revision=1, result_revision=2), "revision 1 → 2"),
        (Refresh(base_revision=1, result_revision=1), "revision 1 as before"),
        (Refresh(result_revision=2), "revision 2"),
        (Refresh(base_revision=1, validate_only=True), "dry run: nothing written, compared with revision 1"),
        (Refresh(result_revision=1, not_modified=True), "not modified at upstream, revision 1"),
    ],
)
def test_the_outcome_says_the_revisions_that_are_known(run: Refresh, said: str) -> None:
    run.id, run.state = "7", Refresh.STATE_SUCCEEDED
    assert describe_outcome(run) == f"refresh 7: SUCCEEDED, {said}, 0 ms, 0 attempts"


@pytest.mark.parametrize(
    ("milliseconds", "said"), [(7, "7 ms"), (1_234, "1.2 s"), (59_900, "59.9 s"), (3_725_000, "62 min 5 s")]
)
def test_durations_have_units(milliseconds: int, said: str) -> None:
    run = Refresh(id="7", state=Refresh.STATE_FAILED, attempt=1)
    run.duration.FromMilliseconds(milliseconds)
    assert describe_outcome(run) == f"refresh 7: FAILED, {said}, 1 attempt"


def test_what_was_not_compared_has_no_counts() -> None:
    assert describe_counts(Refresh()) == ""
    assert describe_counts(Refresh(counts=RefreshCounts(seen=1, unchanged=1))).startswith("1 models: 0 added")


def test_foreign_text_does_nothing_to_a_terminal() -> None:
    assert sanitize("Größe\x1b[2J\r\n\u202e") == "Größe\\x1b[2J\\x0d\\x0a\\x202e"


def test_a_run_is_described_by_all_that_was_asked() -> None:
    options = RefreshOptions(full=True, provider_id="openai", dry_run=True, force=True, override_gate="price_unit")
    assert describe_request(options.wanted) == (
        "full, provider openai alone, dry run, whatever upstream's ETag, gate price_unit overridden"
    )
    assert describe_request(RefreshOptions().wanted) == "incremental, all providers"


def test_the_command_for_a_run_is_one_for_a_shell() -> None:
    options = RefreshOptions(server=ServerOptions(address="[::]:7"), provider_id="it's")
    assert options.server.target == "[::1]:7"
    assert options.command_for(options.wanted, "--json") == (
        """modelcatalog refresh --address '[::]:7' --provider 'it'"'"'s' --json"""
    )
    assert RefreshOptions().command_for(RefreshOptions().wanted) == "modelcatalog refresh"
