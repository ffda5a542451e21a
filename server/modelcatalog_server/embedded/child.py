"""One child process: started so that it cannot outlive us, watched, and stopped in bounded time."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from signal import Signals
from typing import Self

from modelcatalog_server.domain.errors import StartupError
from modelcatalog_server.embedded.directory import DataDirectory

_log = logging.getLogger(__name__)
_PR_SET_PDEATHSIG = 1
_READY_POLL_S = 0.01
_KILL_TIMEOUT_S = 5.0


class Child:
    """A process that runs as the data directory's user and holds its lock.

    Must be started from a thread that lives as long as this process, which is the main one: the kernel sends
    `death_signal` when the *thread* that started the child ends.
    """

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path, log_start: int) -> None:
        self.name = name
        self._process = process
        self._log = log
        self._log_start = log_start
        self._loop = asyncio.get_running_loop()
        self._exited: asyncio.Future[int] = self._loop.create_future()
        # A thread and not the loop's child watcher: that differs between asyncio, its versions and uvloop.
        threading.Thread(target=self._watch, name=f"wait-{name}", daemon=True).start()

    @classmethod
    def start(
        cls,
        name: str,
        arguments: Sequence[str | Path],
        directory: DataDirectory,
        death_signal: Signals,
        log: str,
        *,
        stdin: bytes = b"",
        keep_stdout: bool = False,
    ) -> Self:
        """Starts a program.

        Args:
            name: For messages.
            arguments: The program and its arguments.
            directory: Gives the user, the lock and the log.
            death_signal: What the child gets when we die without having stopped it.
            log: The log that takes its stderr.
            stdin: What it reads; less than a pipe holds (64 KiB).
            keep_stdout: Whether its stdout goes to the log as well.

        Raises:
            StartupError: The program cannot be run.
        """
        account = directory.account
        output = directory.open_log(log)
        try:
            log_start = os.fstat(output).st_size
            process = subprocess.Popen(
                arguments,
                stdin=subprocess.PIPE,
                stdout=output if keep_stdout else subprocess.DEVNULL,
                stderr=output,
                cwd="/",  # ours may be one that the child's user cannot enter
                env=_environment(),
                user=account.uid if account.dropped else None,
                group=account.gid if account.dropped else None,
                extra_groups=[] if account.dropped else None,
                start_new_session=True,  # Ctrl-C in the terminal is ours to handle, in our order
                pass_fds=(directory.lock_fd,),
                preexec_fn=_die_with_parent(death_signal),
            )
        except (OSError, subprocess.SubprocessError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise StartupError(
                f"cannot run {arguments[0]} as user {account.name}: {reason}: start modelcatalog as a user who can, "
                "or set MODELCATALOG_DATABASE_URL and MODELCATALOG_REDIS_URL"
            ) from error
        finally:
            os.close(output)
        _feed(process, stdin)
        return cls(name, process, directory.path / "log" / f"{log}.log", log_start)

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return not self._exited.done()

    async def wait(self, timeout_s: float | None = None) -> int | None:
        """Waits for the end.

        Returns:
            The exit status (negative: the signal), or None after `timeout_s` seconds.
        """
        await asyncio.wait([self._exited], timeout=timeout_s)
        return self._exited.result() if self._exited.done() else None

    async def wait_until(self, ready: Callable[[], bool], timeout_s: float) -> None:
        """Waits for a condition that the child brings about.

        Raises:
            StartupError: It ended first, or `timeout_s` seconds went by.
        """
        deadline = self._loop.time() + timeout_s
        while not ready():
            if not self.running:
                raise StartupError(self.describe_end())
            if self._loop.time() > deadline:
                raise StartupError(f"{self.name} was not ready after {timeout_s:.0f} s{self._last_words()}")
            await self.wait(_READY_POLL_S)

    async def stop(self, *steps: tuple[Signals, float]) -> None:
        """Ends it and waits until it is gone: each signal with the seconds it is given, SIGKILL last.

        The signals are for the program alone, which knows what its own children are to do; SIGKILL is for all of them.
        """
        try:
            for number, timeout_s in steps:
                if not self.running:
                    return
                self._process.send_signal(number)
                await self._wait_or_warn(timeout_s, number)
            if self.running:
                self._kill_group()
                await self._wait_or_warn(_KILL_TIMEOUT_S, signal.SIGKILL)
        except asyncio.CancelledError:  # whoever waits has no patience left, and nothing may stay behind
            self._kill_group()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_KILL_TIMEOUT_S)
            raise

    def describe_end(self) -> str:
        """How it ended, in one line with the last that it said."""
        status = self._exited.result()
        how = f"was killed by {Signals(-status).name}" if status < 0 else f"ended with status {status}"
        return f"{self.name} {how}{self._last_words()}"

    async def _wait_or_warn(self, timeout_s: float, number: Signals) -> None:
        if await self.wait(timeout_s) is None:
            _log.warning("%s still runs %.0f s after %s", self.name, timeout_s, number.name)

    def _kill_group(self) -> None:
        """Kills it and what it started: it leads a session, and until it is reaped the group's number is nobody else's.

        PostgreSQL's own children are not in it: each makes a session of its own and ends without the postmaster.
        """
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _watch(self) -> None:
        # WNOWAIT leaves the zombie to the loop's thread: until that reaps it, the pid is nobody else's, and a
        # signal that is sent meanwhile cannot hit a stranger.
        with suppress(ChildProcessError):
            os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        with suppress(RuntimeError):  # the loop is closed: nobody is interested any more
            self._loop.call_soon_threadsafe(self._reap)

    def _reap(self) -> None:
        if not self._exited.done():
            self._kill_group()  # initdb that is killed by somebody else leaves its postgres behind
            self._exited.set_result(self._process.wait())

    def _last_words(self) -> str:
        with self._log.open("rb") as file:
            file.seek(max(self._log_start, file.seek(0, os.SEEK_END) - 16_384))
            lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
        telling = [line for line in lines if "FATAL:" in line or "PANIC:" in line or "error:" in line.lower()]
        last = (telling or lines or ["no output"])[-1]
        return f": {last} (log: {self._log})"


async def run_to_end(child: Child, timeout_s: float) -> None:
    """Waits for a program that has an end, and stops it when it has none in time or when we are cancelled.

    Raises:
        StartupError: It failed or took too long.
    """
    try:
        status = await child.wait(timeout_s)
    finally:
        await child.stop()
    if status is None:
        raise StartupError(f"{child.name} took more than {timeout_s:.0f} s")
    if status != 0:
        raise StartupError(child.describe_end())


def _feed(process: subprocess.Popen[bytes], data: bytes) -> None:
    assert process.stdin is not None  # noqa: S101 (PIPE was asked for)
    with suppress(BrokenPipeError), process.stdin as pipe:  # it may have ended already
        pipe.write(data)


def _environment() -> dict[str, str]:
    """Nothing of ours: no secrets, no PG* variables, no locale that is not installed."""
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC", **kept}


def _die_with_parent(death_signal: Signals) -> Callable[[], None]:
    """What the child does last before it becomes the program.

    Popen calls it after the change of user, which is where it must be: that change clears the setting. It
    runs between fork and exec, so everything it needs is looked up before.
    """
    prctl = ctypes.PyDLL(None, use_errno=True).prctl
    number = int(death_signal)
    parent = os.getpid()

    def set_death_signal() -> None:
        if prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl")
        if os.getppid() != parent:  # it died before we asked to be told
            os._exit(1)

    return set_death_signal
