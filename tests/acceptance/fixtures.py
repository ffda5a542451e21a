"""Fixtures of these tests. A module takes them with ``pytest_plugins = "acceptance.fixtures"``.

Not a conftest.py: it would take the name from the one of all tests, which others import from.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from acceptance.serving import FirstLife, Serve, live_first, serving


@pytest.fixture
def serve(work_dir: Path) -> Iterator[Serve]:
    """Start the command: ``serve("--offline", data=directory)``. It ends with the test."""
    with serving(work_dir) as start:
        yield start


@pytest.fixture(scope="module")
def serve_for_module(work_dir: Path) -> Iterator[Serve]:
    """Start the command. It ends with the module."""
    with serving(work_dir) as start:
        yield start


@pytest.fixture(scope="session")
def first_life(work_dir: Path) -> FirstLife:
    """A first start, offline, that is over. Its data directory is for the tests that want a warm start."""
    return live_first(work_dir / "first-life", work_dir)
