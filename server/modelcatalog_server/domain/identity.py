"""Who calls, and what that caller may do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Role(IntEnum):
    """What a caller may do. Each role may do what those below it may."""

    READER = 1
    OPERATOR = 2
    ADMIN = 3

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Principal:
    """A person or a program that calls. ``name`` is what logs, audit entries and refreshes call it."""

    name: str
    role: Role


#: Every caller, where no identity is configured.
ANONYMOUS = Principal("anonymous", Role.ADMIN)
