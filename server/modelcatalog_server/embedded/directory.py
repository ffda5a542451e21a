"""The data directory: who may use it, and what is where in it.

lock                      held by the owner and its children
log/postgres.log          and valkey.log; the previous one as .1
run/                      the sockets, new at every start
postgres-18/              the database cluster
programs-NAME-VERSION/    copies of binaries, only where they cannot be run in place
*.partial                 what was being made when a start was killed; removed by the next
"""

from __future__ import annotations

import errno
import os
import pwd
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from modelcatalog_server.domain.errors import StartupError
from modelcatalog_server.embedded import lock
from modelcatalog_server.embedded.account import Account

_ELSEWHERE = "set MODELCATALOG_DATA_DIR to another directory"
_REMOVAL_TIMEOUT_S = 5.0
_REMOVAL_POLL_S = 0.01
_LOG_LIMIT_BYTES = 4 * 1024 * 1024
# The address of a unix socket has room for 107 bytes; the longest name in the directory is ".s.PGSQL.5432".
_SOCKET_DIRECTORY_LIMIT_BYTES = 107 - len("/.s.PGSQL.5432")
# What needs no quoting in a URL, in a libpq host list and in PostgreSQL's list of socket directories.
_PLAIN_PATH = re.compile(r"[A-Za-z0-9/._+-]+")


def default_data_dir() -> Path:
    """The data directory where none is configured: /var/lib for root, else the user's XDG data directory.

    Raises:
        StartupError: The user has no home directory.
    """
    if os.geteuid() == 0:
        return Path("/var/lib/modelcatalog")
    data_home = Path(os.environ.get("XDG_DATA_HOME", ""))
    if not data_home.is_absolute():  # what the XDG specification says to do with a relative one
        data_home = _home() / ".local/share"
    return data_home / "modelcatalog"


def _home() -> Path:
    home = Path(os.environ.get("HOME", ""))
    if home.is_absolute():
        return home
    try:
        return Path(pwd.getpwuid(os.geteuid()).pw_dir)
    except KeyError:
        raise StartupError(
            f"user {os.geteuid()} has no home directory to keep data in: set MODELCATALOG_DATA_DIR"
        ) from None


class DataDirectory:
    """The directory that embedded servers keep their files in, owned while this context is entered.

    Args:
        path: Created when missing.
        lock_timeout_s: How long to wait for an earlier owner to be gone.

    Attributes:
        path: The directory, absolute once entered.
        account: The user the children run as.
        lock_fd: The descriptor of the lock, for children to inherit.
        sockets: The directory for sockets.
    """

    account: Account
    lock_fd: int
    sockets: Path

    def __init__(self, path: Path, *, lock_timeout_s: float = 10.0) -> None:
        self.path = path
        self._lock_timeout_s = lock_timeout_s

    async def __aenter__(self) -> Self:
        if sys.platform != "linux":
            raise StartupError(
                "the embedded PostgreSQL and Redis need Linux: set MODELCATALOG_DATABASE_URL and MODELCATALOG_REDIS_URL"
            )
        with self._explained():
            self._create()
            self.lock_fd = await lock.acquire(self.path / "lock", self.account, self._lock_timeout_s)
            try:
                self._make_sockets()
            except BaseException:
                os.close(self.lock_fd)
                raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.sockets, ignore_errors=True)
        os.close(self.lock_fd)

    def open_log(self, name: str) -> int:
        """Opens ``log/NAME.log`` for appending; a large one is put aside first, so two are kept at most.

        Raises:
            StartupError: It cannot be written.
        """
        with self._explained():
            return self._open_log(name)

    def _open_log(self, name: str) -> int:
        folder = self.path / "log"
        if not folder.is_dir():
            self._make(folder)
        path = folder / f"{name}.log"
        # Not through a link: as root we would write wherever the unprivileged owner of the folder points it.
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        if os.fstat(fd).st_size > _LOG_LIMIT_BYTES:
            os.close(fd)
            path.replace(path.with_suffix(".log.1"))
            return self._open_log(name)
        self.account.take(fd)
        return fd

    @contextmanager
    def building(self, name: str) -> Iterator[Path]:
        """An empty directory to fill, which becomes NAME when the block ends well and is removed otherwise.

        Whoever fills it brings it to the disk; the rename after that makes NAME whole or absent, also after a
        loss of power.

        Raises:
            StartupError: The disk is full, or some such.
        """
        partial = self.path / f"{name}.partial"
        with self._explained():
            if partial.exists():  # a start was killed here
                _remove(partial)
            self._make(partial)
            try:
                yield partial
                partial.rename(self.path / name)
                _sync_directory(self.path)
            except BaseException:
                # What matters is what went wrong in the block; what cannot be removed now, the next start removes.
                with suppress(OSError):
                    _remove(partial)
                raise

    def _create(self) -> None:
        self.path = Path(os.path.realpath(self.path))
        self.account = Account.for_directory(self.path)
        for folder in reversed([self.path, *self.path.parents]):
            if not folder.exists():
                folder.mkdir(exist_ok=True)  # another start may be doing the same
                # Whatever the umask: the user we drop to must get through. The folders with data are 0700.
                folder.chmod(0o755 if self.account.dropped else 0o700)
        if not self.path.is_dir():
            raise StartupError(f"data directory {self.path} is not a directory: remove it, or {_ELSEWHERE}")
        if barrier := self.account.blocked_by(self.path):
            raise StartupError(
                f"data directory {self.path} cannot be reached by user {self.account.name}, "
                f"which PostgreSQL runs as: chmod o+x {barrier}, or {_ELSEWHERE}"
            )

    def _make(self, folder: Path) -> None:
        folder.mkdir(mode=0o700)
        self.account.take(folder)

    def _make_sockets(self) -> None:
        """A new directory each time, so that no socket or pid of an earlier life is in the way."""
        run = self.path / "run"
        if run.exists():
            shutil.rmtree(run)
        if _fits(run):
            self._make(run)
            self.sockets = run
        else:
            self.sockets = self._make_sockets_elsewhere()

    def _make_sockets_elsewhere(self) -> Path:
        for parent in (Path(tempfile.gettempdir()).resolve(), Path("/tmp")):  # noqa: S108 (mkdtemp is private) # nosec B108
            if _fits(parent / "modelcatalog-12345678") and not self.account.blocked_by(parent):
                sockets = Path(tempfile.mkdtemp(prefix="modelcatalog-", dir=parent))
                self.account.take(sockets)
                return sockets
        raise StartupError(
            f"data directory {self.path} has too long a path for sockets, "
            f"and no temporary directory takes them: {_ELSEWHERE}"
        )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """What the system says about a file is said as what to do about the directory."""
        try:
            yield
        except OSError as error:
            where = f" ({error.filename})" if error.filename else ""
            raise StartupError(
                f"data directory {self.path} cannot be used: {error.strerror}{where}: "
                f"make it a directory that user {self.account.name} can write to, or {_ELSEWHERE}"
            ) from error


def _fits(sockets: Path) -> bool:
    plain = _PLAIN_PATH.fullmatch(str(sockets)) is not None
    return plain and len(os.fsencode(sockets)) <= _SOCKET_DIRECTORY_LIMIT_BYTES


def _remove(path: Path) -> None:
    """Removes a directory that somebody who was killed a moment ago may still write a last file into.

    Raises:
        OSError: It cannot be removed, or was written into for `_REMOVAL_TIMEOUT_S` seconds.
    """
    deadline = time.monotonic() + _REMOVAL_TIMEOUT_S
    while True:
        try:
            shutil.rmtree(path)
        except OSError as error:
            # Not empty: a file came after its directory was read. Not found: a file went.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT) or time.monotonic() > deadline:
                raise
        if not path.exists():
            return
        time.sleep(_REMOVAL_POLL_S)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
