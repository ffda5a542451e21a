"""How often something may be done."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

_UNITS_S = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}
_TEXT = re.compile(rf"([1-9]\d{{0,8}})/({'|'.join(_UNITS_S)})")


@dataclass(frozen=True, slots=True)
class RateLimit:
    """So many in any window of so many seconds."""

    amount: int
    window_s: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the limit that ``100/second`` or ``10/minute`` is.

        Raises:
            ValueError: it is none.
        """
        match = _TEXT.fullmatch(text)
        if match is None:
            raise ValueError("must be a number per second, minute, hour or day, e.g. 1000/second, or off")
        return cls(int(match[1]), _UNITS_S[match[2]])

    def __str__(self) -> str:
        unit = next((unit for unit, seconds in _UNITS_S.items() if seconds == self.window_s), f"{self.window_s} s")
        return f"{self.amount} calls a {unit}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimits:
    """How often callers may call; ``None``: as often as they like.

    Attributes:
        per_principal: A caller that is known.
        per_address: All calls from one address.
        failures: Calls from one address with a token that is none.
    """

    per_principal: RateLimit | None
    per_address: RateLimit | None
    failures: RateLimit | None
