"""`make audit` tells what is known against a requirement from an auditor who could not be asked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

AUDIT = Path(__file__).parents[2] / "tools/audit.py"

CLEAN = {"name": "grpcio", "version": "1.85.1", "vulns": []}
BAD = {
    "name": "idna",
    "version": "3.6",
    "vulns": [{"id": "PYSEC-2024-60", "fix_versions": ["3.7"], "aliases": ["CVE-2024-3651"], "description": "…"}],
}
NOT_THERE = "ERROR:pip_audit._cli:execnet: Dependency not found on PyPI and could not be audited: execnet (2.1.2)"
NO_NETWORK = "Traceback (most recent call last):\n  …\nConnectionError: Failed to resolve 'pypi.org'"


@pytest.mark.parametrize(
    ("answer", "errors", "ends_with", "told"),
    [
        (json.dumps({"dependencies": [CLEAN]}), "", 0, ["0 known against 1 packages"]),
        (json.dumps({"dependencies": [CLEAN, BAD]}), "Found 1", 1, ["idna 3.6: PYSEC-2024-60, mended in 3.7"]),
        ("", NOT_THERE, 2, ["nobody could be asked", "execnet (2.1.2)", "pypi.org/pypi/", "AUDIT_SERVICE=osv"]),
        ("", NO_NETWORK, 2, ["nobody could be asked", "Failed to resolve", "HTTPS_PROXY"]),
    ],
    ids=["nothing known", "something known", "not there", "no network"],
)
def test_what_came_of_it_is_told(tmp_path: Path, answer: str, errors: str, ends_with: int, told: list[str]) -> None:
    auditor = tmp_path / "pip-audit"  # stands for the real one, which needs the network
    code = int(ends_with != 0)
    auditor.write_text(
        f"#!{sys.executable}\nimport sys\nprint({answer!r})\nprint({errors!r}, file=sys.stderr)\nsys.exit({code})\n"
    )
    auditor.chmod(0o755)
    command = [sys.executable, str(AUDIT), "--program", str(auditor), "requirements/floor.txt"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert run.returncode == ends_with
    assert [text for text in told if text not in run.stdout + run.stderr] == []
    assert "Traceback" not in run.stdout + run.stderr
