"""The garbage collector while a refresh has its records: off, and afterwards as it was."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from modelcatalog_server.refresh.uncollected import uncollected


@pytest.fixture(autouse=True)
def collecting() -> Iterator[None]:
    gc.enable()
    yield
    gc.enable()


def test_nothing_is_collected_until_the_end() -> None:
    with uncollected():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_a_failed_run_leaves_it_on() -> None:
    with pytest.raises(RuntimeError, match="failed"), uncollected():
        raise RuntimeError("the run failed")
    assert gc.isenabled()


def test_who_has_it_off_keeps_it_off() -> None:
    gc.disable()
    with uncollected():
        pass
    assert not gc.isenabled()
