"""Files that are read again when they change, without anybody having to say so."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, Self, TypeVar

import structlog

from modelcatalog_server.domain.errors import StartupError
from modelcatalog_server.domain.tasks import end_tasks

_log = structlog.get_logger(__name__)

#: How often is looked whether a file is another one, in seconds.
POLL_S = 1.0

_Content = TypeVar("_Content")
_Look = tuple[tuple[int, ...] | None, ...]


class BadFileError(Exception):
    """A file cannot be used. ``str(error)`` says what is wrong, without anything secret."""


class FollowedFiles(Generic[_Content]):
    """What some files say now. An async context manager: within it they are read again when one of them changes.

    Files that turn bad change nothing: what they said before goes on, and the log says what is wrong.

    Args:
        paths: The files. They are looked at through symbolic links, which is how mounted secrets change.
        read: Reads all of them.
        poll_s: How often they are looked at.

    Attributes:
        current: What they say.

    Raises:
        StartupError: they cannot be used, at the start.
    """

    def __init__(self, paths: Sequence[Path], read: Callable[[], _Content], *, poll_s: float = POLL_S) -> None:
        self._paths = paths
        self._read = read
        self._poll_s = poll_s
        self._task: asyncio.Task[None] | None = None
        self._seen = self._look()  # before it is read: what changes in between is read once more
        try:
            self.current = read()
        except BadFileError as error:
            raise StartupError(str(error)) from error

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._follow(), name=f"follow-{self._paths[0].name}")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._task is not None:
            await end_tasks(self._task)

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self._poll_s)
            look = self._look()
            if look != self._seen:
                self._seen = look
                await self._read_again()

    async def _read_again(self) -> None:
        try:
            self.current = await asyncio.to_thread(self._read)
        except BadFileError as error:
            _log.error("a changed file is bad; what it said before still holds", reason=str(error))
        except Exception:
            _log.exception("a changed file cannot be read; what it said before still holds", file=str(self._paths[0]))
        else:
            _log.info("a changed file was read", files=[str(path) for path in self._paths])

    def _look(self) -> _Look:
        return tuple(map(_look_at, self._paths))


def read_file(path: Path, max_bytes: int) -> bytes:
    """Return what is in a file.

    Raises:
        BadFileError: it cannot be read, is far too large, or is none, as a pipe that would be waited for without end.
    """
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise BadFileError(f"{path}: is no file")
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise BadFileError(f"{path}: {error.strerror}") from error
    if len(content) > max_bytes:
        raise BadFileError(f"{path}: larger than {max_bytes} bytes")
    return content


def _look_at(path: Path) -> tuple[int, ...] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size
