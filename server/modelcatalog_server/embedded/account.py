"""Which user the children run as."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path
from typing import Self

# Where no user database says otherwise (a scratch image), the kernel's own overflow id.
_NOBODY = 65534


@dataclass(frozen=True)
class Account:
    """The user that owns the data and runs the children.

    Attributes:
        uid: Its user id, never 0.
        gid: Its group id.
        name: Its name, or the number where it has none.
        dropped: Whether that is another user than ours, so that children must change to it.
    """

    uid: int
    gid: int
    name: str
    dropped: bool

    @classmethod
    def for_directory(cls, path: Path) -> Self:
        """The user for a data directory: ours; for root, whom PostgreSQL refuses, its owner or else nobody."""
        if os.geteuid() != 0:
            return cls(os.geteuid(), os.getegid(), _name(os.geteuid()), dropped=False)
        owner = path.stat() if path.exists() else None
        if owner is None or owner.st_uid == 0:
            return cls(*_nobody(), "nobody", dropped=True)
        return cls(owner.st_uid, owner.st_gid, _name(owner.st_uid), dropped=True)

    def take(self, target: Path | int) -> None:
        """Gives a file, a directory or an open file to this user, where that is not us anyway."""
        if not self.dropped:
            return
        if isinstance(target, int):
            os.fchown(target, self.uid, self.gid)
        else:
            os.chown(target, self.uid, self.gid, follow_symlinks=False)

    def allows(self, path: Path, bits: int) -> bool:
        """Whether the mode of `path` gives this user all of `bits` (4 read, 2 write, 1 execute or pass)."""
        info = path.stat()
        shift = 6 if info.st_uid == self.uid else 3 if info.st_gid == self.gid else 0
        return (info.st_mode >> shift) & bits == bits

    def blocked_by(self, path: Path) -> Path | None:
        """The first directory from the root down to `path` that the user we drop to cannot pass, if any."""
        if not self.dropped:
            return None
        return next((d for d in reversed([path, *path.parents]) if not self.allows(d, 1)), None)


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _nobody() -> tuple[int, int]:
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        return _NOBODY, _NOBODY
    return entry.pw_uid, entry.pw_gid
