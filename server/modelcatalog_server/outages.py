"""Something that fails again and again, said once."""

from __future__ import annotations

import structlog


class Outage:
    """Logs as a warning that something fails, and when it works again; each failure in between is a line of debug.

    Args:
        log: Whose lines they are.
        failing: The event when it begins.
        working: The event when it is over.
    """

    def __init__(self, log: structlog.typing.FilteringBoundLogger, failing: str, working: str) -> None:
        self._log = log
        self._failing = failing
        self._working = working
        self._is_under_way = False

    def note_failure(self, **details: object) -> None:
        """Take note that it failed."""
        tell = self._log.debug if self._is_under_way else self._log.warning
        tell(self._failing, **details)
        self._is_under_way = True

    def note_success(self) -> bool:
        """Take note that it worked. Returns whether it had failed before."""
        was_under_way, self._is_under_way = self._is_under_way, False
        if was_under_way:
            self._log.warning(self._working)
        return was_under_way
