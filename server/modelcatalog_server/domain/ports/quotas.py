"""How often callers may do something."""

from __future__ import annotations

from typing import Protocol

from modelcatalog_server.domain.limits import RateLimit


class Quotas(Protocol):
    """How often each subject may do something, counted for all processes together. Never raises."""

    async def take(self, limit: RateLimit, subject: str, count: int) -> bool:
        """Take so many of what the subject may do, or none if there are not as many left."""
        ...

    async def get_delay(self, limit: RateLimit, subject: str) -> float:
        """Return the seconds until there is one more than now."""
        ...
