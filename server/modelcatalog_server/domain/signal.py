"""A nudge from one task to many: something may have changed, look again."""

from __future__ import annotations

import asyncio


class Signal:
    """Wakes whoever waits. Holds no news itself; a waiter that takes the ticket first cannot miss a nudge."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def notify(self) -> None:
        """Wake all who wait now."""
        self._event.set()
        self._event = asyncio.Event()

    def ticket(self) -> asyncio.Event:
        """Return what the next nudge sets. Take it, look at the state, and only then wait for it."""
        return self._event
