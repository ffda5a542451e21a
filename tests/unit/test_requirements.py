"""What is installed is what was looked at: every requirement has one version and the hashes of its files."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RESOLVED = sorted(ROOT.glob("requirements/*.txt"))
ASKED = sorted(ROOT.glob("requirements/*.in"))


def requirements(path: Path) -> list[str]:
    """Return the entries of a file, each with the lines that go on from it."""
    text = re.sub(r"^\s*#.*$", "", path.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [line.strip() for line in text.splitlines() if line.strip()]


def names(path: Path) -> set[str]:
    return {re.split(r"[=\[;<>]", line)[0].lower() for line in requirements(path) if not line.startswith("-r ")}


@pytest.mark.parametrize("path", RESOLVED, ids=lambda path: path.name)
def test_every_requirement_is_pinned_and_hashed(path: Path) -> None:
    found = requirements(path)
    assert found
    for line in found:
        assert re.match(r"[A-Za-z0-9_.-]+==[^\s;]+( ;|\s)", line), line
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", line), line


@pytest.mark.parametrize("path", ASKED, ids=lambda path: path.name)
def test_what_is_asked_for_is_one_version(path: Path) -> None:
    for line in requirements(path):
        assert line.startswith("-r ") or re.match(r"[A-Za-z0-9_.-]+(\[\w+\])?==\S+", line), line
    assert names(path) <= names(path.with_suffix(".txt")), "make requirements was forgotten"


def test_nothing_is_installed_without_its_hash() -> None:
    for name in ("Makefile", "Dockerfile"):
        text = (ROOT / name).read_text().replace("\\\n", " ")
        installs = [line for line in text.splitlines() if "pip install" in line]
        assert installs
        for line in installs:
            assert (
                "$(PIP_FLAGS)" in line
                or "$(TOOL_PIP_FLAGS)" in line
                or "--require-hashes" in line
                or (
                    "--no-deps --no-build-isolation" in line  # this project itself
                )
            ), line
    assert "--require-hashes" in (ROOT / "Makefile").read_text().partition("PIP_FLAGS := ")[2].splitlines()[0]


def test_what_the_package_asks_for_is_pinned_for_the_service() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = {*project["dependencies"], *project["optional-dependencies"]["server"]}
    asked_names = {re.split(r"[=\[;<>]", each)[0].lower() for each in asked}
    assert asked_names <= names(ROOT / "requirements/server.txt")
