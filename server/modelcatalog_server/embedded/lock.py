"""The lock that makes one process the owner of a data directory."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
from pathlib import Path

from modelcatalog_server.domain.errors import StartupError
from modelcatalog_server.embedded.account import Account

_log = logging.getLogger(__name__)
_POLL_S = 0.05
# An owner that is alive gets the moment that an idle one takes to stop.
_LIVE_OWNER_TIMEOUT_S = 1.0


async def acquire(path: Path, account: Account, timeout_s: float) -> int:
    """Locks the file at `path` and writes our pid into it.

    It is flock and not fcntl, because a flock belongs to the open file: a child that inherits the descriptor
    holds the lock too, and it is free only when the last of them is gone.

    Returns:
        The descriptor that holds the lock.

    Raises:
        StartupError: Another process still holds it after `timeout_s` seconds.
        OSError: The file cannot be opened.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        account.take(fd)
        await _wait(fd, path, timeout_s)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    except BaseException:
        os.close(fd)
        raise
    return fd


async def _wait(fd: int, path: Path, timeout_s: float) -> None:
    """Waits for the lock: the PostgreSQL of an owner that was killed needs time to shut down."""
    clock = asyncio.get_running_loop().time
    begin = clock()
    if _try_lock(fd):
        return
    _log.info("waiting for data directory %s, in use by pid %s", path.parent, _owner(fd))
    while not _try_lock(fd):
        patience_s = min(timeout_s, _LIVE_OWNER_TIMEOUT_S) if _is_open_in(_owner(fd), fd) else timeout_s
        if clock() - begin >= patience_s:
            raise StartupError(
                f"data directory {path.parent} is in use by another modelcatalog (pid {_owner(fd)}): "
                "stop that one, or set MODELCATALOG_DATA_DIR to another directory"
            )
        await asyncio.sleep(_POLL_S)


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        return False
    return True


def _owner(fd: int) -> str:
    return os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"


def _is_open_in(pid: str, fd: int) -> bool:
    """Whether that process is alive and has the file open itself; not known where it is another user's."""
    file = os.fstat(fd)
    try:
        return any(os.path.samestat(each.stat(), file) for each in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False
