"""One worker as its supervisor sees it: a process that is told its settings and reports once that it serves."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from signal import Signals
from typing import Self

from modelcatalog_server.domain.errors import StartupError
from modelcatalog_server.workers.messages import Report, decode_report

#: The program of a worker; its number and the pid of its supervisor come behind it. ``-P``: what is in the working
#: directory is no module of ours.
COMMAND = (sys.executable, "-P", "-m", "modelcatalog_server.workers.worker")


class WorkerProcess:
    """A process that the kernel kills when this one ends.

    Must be started from a thread that lives as long as this process, which is the main one.
    """

    def __init__(self, number: int, process: Process) -> None:
        self.number = number
        self._process = process

    @classmethod
    async def start(cls, number: int, command: Sequence[str] = COMMAND) -> Self:
        """Start it. It imports what it needs, and waits to be told its settings.

        Raises:
            StartupError: the program cannot be run.
        """
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                str(number),
                str(os.getpid()),
                stdin=PIPE,
                stdout=PIPE,
                start_new_session=True,  # Ctrl-C in the terminal is the supervisor's to handle
            )
        except OSError as error:
            raise StartupError(f"worker {number} cannot be started: {error.strerror}") from error
        return cls(number, process)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def tell(self, settings: bytes) -> None:
        """Send it its settings, if it still lives."""
        assert self._process.stdin is not None  # noqa: S101 - PIPE was asked for
        with suppress(ConnectionError):
            self._process.stdin.write(settings)
            await self._process.stdin.drain()
            self._process.stdin.close()

    async def reports(self) -> AsyncIterator[Report]:
        """Yield what it says, to its end."""
        assert self._process.stdout is not None  # noqa: S101 - PIPE was asked for
        while (report := decode_report(await self._process.stdout.readline())) is not None:
            yield report

    async def wait(self) -> str:
        """Wait for its end and return how it ended, in words that follow "worker 1"."""
        status = await self._process.wait()
        return f"was killed by {Signals(-status).name}" if status < 0 else f"ended with status {status}"

    def send_signal(self, number: Signals) -> None:
        """Send a signal, if it still lives."""
        with suppress(ProcessLookupError):
            self._process.send_signal(number)
