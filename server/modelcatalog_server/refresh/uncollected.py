"""Holding the garbage collector off while a refresh has its records."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Let no collection of garbage happen, for the seconds that a body is compared and written.

    Thousands of new records that all stay are what makes the collector walk through every object there is, and stop the
    event loop for a tenth of a second. Records make no cycles: they go when nothing refers to them any more.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
