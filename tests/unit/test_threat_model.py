"""Every row of the threat model names tests, and they are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/security.md").read_text("utf-8").partition("## Threat model")[2]
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| who |")]


def test_every_threat_has_a_test_that_shows_how_it_is_stopped() -> None:
    assert len(ROWS) > 15
    for row in ROWS:
        named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", row.rpartition(" | ")[2])
        assert named, row
        for path, name in named:
            assert f"def {name}(" in (ROOT / path).read_text("utf-8"), f"{path}::{name}"


def test_make_security_runs_those_of_harm() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8").replace("\\\n", " ")
    listed = re.search(r"^SECURITY_TESTS := (.*)$", makefile, re.MULTILINE)
    assert listed
    paths = listed[1].split()
    assert [path for path in paths if not (ROOT / path).exists()] == []
    assert {"tests/integration/test_fuzz.py", "tests/acceptance/test_leaks.py"} <= set(paths)
