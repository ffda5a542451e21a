"""Starts the workers, says once that all of them serve, replaces those that die, and ends all of them."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Sequence
from secrets import token_hex
from signal import SIGKILL, SIGTERM, SIGUSR1, Signals
from typing import Self

import structlog

from modelcatalog_server.backends import start_backends
from modelcatalog_server.domain.errors import StartupError
from modelcatalog_server.domain.tasks import end_tasks, fail_after, run_all
from modelcatalog_server.metrics.listening import OFF, listening
from modelcatalog_server.metrics.serving import showing_metrics_of_workers
from modelcatalog_server.settings import Settings, reveal
from modelcatalog_server.storage.migrations import prepare_schema
from modelcatalog_server.workers.messages import encode_settings, metrics_address
from modelcatalog_server.workers.port import reserved_port
from modelcatalog_server.workers.process import COMMAND, WorkerProcess

_log = structlog.get_logger(__name__)

#: Who has served so long did not die at once.
SETTLED_S = 10.0
#: After so many deaths at once of one worker something is wrong that another start does not mend.
MAX_DEATHS = 8
# Before the second replacement; doubled for each further one. The first comes at once.
_FIRST_PAUSE_S = 0.5
_MAX_PAUSE_S = 15.0
# What a worker may take beside waiting for calls: a refresh to note that it was cancelled, a transaction to end.
_END_TIMEOUT_S = 20.0
_KILL_TIMEOUT_S = 5.0


async def supervise(settings: Settings, announce: Callable[[str], None]) -> None:
    """Serve with several processes until cancelled. ``announce`` gets the ready line, once all of them serve.

    The own PostgreSQL and Valkey are this process's, and so is the schema.

    Raises:
        StartupError: it cannot start, or cannot go on.
    """
    if sys.platform != "linux":
        raise StartupError("several workers need Linux, where processes share a port: set MODELCATALOG_WORKERS to 1")
    ready = asyncio.Event()

    def announce_ready(line: str) -> None:
        announce(line)
        ready.set()

    end_timeout_s = settings.drain_delay_seconds + settings.drain_seconds + _END_TIMEOUT_S
    workers = Workers(settings.workers, end_timeout_s, announce_ready)
    with (
        reserved_port(settings.listen) as address,
        listening(settings.metrics_listen) as metrics_socket,
    ):
        # Abstract, since there may be no place for files: the root may be read-only.
        shown_at = OFF if metrics_socket is None else f"unix:@modelcatalog-{os.getpid()}-{token_hex(8)}"
        addresses = [metrics_address(shown_at, number) for number in range(1, settings.workers + 1)]
        async with (
            workers,
            start_backends(settings) as backends,
            showing_metrics_of_workers(metrics_socket, addresses, ready),
        ):
            asyncio.get_running_loop().add_signal_handler(SIGUSR1, workers.switch_log_level)
            try:
                await prepare_schema(backends.database_url, is_ours=backends.owns_database)
                own = {"database_url": backends.database_url, "redis_url": backends.redis_url}
                workers.settings = encode_settings(
                    {**reveal(settings), **own, "listen": address, "metrics_listen": shown_at}
                )
                await run_all(workers.run(), *map(fail_after, backends.deaths))
            finally:
                _log.info("stopping; a second signal ends it at once")
                await workers.end()  # before what they work on


class Workers:
    """A number of worker processes. An async context manager: none is left behind it.

    They are started on entering, so that they import while the rest is prepared; :meth:`run` tells them the settings.

    Args:
        count: How many.
        end_timeout_s: How long they may take to end when they are asked to.
        announce: Gets the ready line when all serve for the first time.
        command: Their program.
        first_pause_s: Before the second replacement of one that dies again and again.

    Attributes:
        settings: The line that tells them their settings; set before :meth:`run`.
    """

    settings: bytes

    def __init__(
        self,
        count: int,
        end_timeout_s: float,
        announce: Callable[[str], None],
        *,
        command: Sequence[str] = COMMAND,
        first_pause_s: float = _FIRST_PAUSE_S,
    ) -> None:
        self._count = count
        self._end_timeout_s = end_timeout_s
        self._announce = announce
        self._command = command
        self._first_pause_s = first_pause_s
        self._alive: dict[int, WorkerProcess] = {}
        self._serving: set[int] = set()
        self._announced = False

    async def __aenter__(self) -> Self:
        try:
            for number in range(1, self._count + 1):
                await self._start(number)
        except BaseException:
            await self.end()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.end()

    async def run(self) -> None:
        """Have all serve, and replace who dies, until cancelled.

        Raises:
            StartupError: one does not start, or one dies at once again and again.
        """
        await run_all(*(self._keep(number) for number in range(1, self._count + 1)))

    def switch_log_level(self) -> None:
        """Have all switch the level of their logs."""
        for number in self._serving:
            if number in self._alive:
                self._alive[number].send_signal(SIGUSR1)

    async def end(self) -> None:
        """End all: each finishes its calls, and is killed when that takes too long."""
        await self._end_by(SIGTERM, self._end_timeout_s)
        await self._end_by(SIGKILL, _KILL_TIMEOUT_S)

    async def _end_by(self, number: Signals, timeout_s: float) -> None:
        if not self._alive:
            return
        for worker in self._alive.values():
            worker.send_signal(number)
        ends = {asyncio.create_task(worker.wait()): worker for worker in self._alive.values()}
        done, pending = await asyncio.wait(ends, timeout=timeout_s)
        for end in done:
            self._alive.pop(ends[end].number, None)  # who keeps it may have noted its end as well
        for end in pending:
            _log.warning("a worker still runs", worker=ends[end].number, after=number.name, seconds=timeout_s)
        await end_tasks(*pending)

    async def _keep(self, number: int) -> None:
        """Have one worker serve, again and again."""
        deaths = 0
        while True:
            worker = self._alive.get(number) or await self._start(number)
            served_s, failure = await self._watch(worker)
            how = await worker.wait()
            self._alive.pop(number, None)  # ending all may have noted it already
            self._serving.discard(number)
            if failure and not self._announced:
                raise StartupError(failure)
            deaths = 1 if served_s >= SETTLED_S else deaths + 1
            described = f"worker {number} {how}" + (f": {failure}" if failure else "")
            if deaths == MAX_DEATHS:
                raise StartupError(f"{described}, as {deaths} times in a row before it had served {SETTLED_S:.0f} s")
            pause_s = self._pause_s(deaths)
            _log.error("a worker is replaced", reason=described, pid=worker.pid, pause_s=pause_s)
            await asyncio.sleep(pause_s)

    async def _watch(self, worker: WorkerProcess) -> tuple[float, str]:
        """Tell a worker its settings and listen to it; return how long it served, and why it could not."""
        await worker.tell(self.settings)
        served_at, failure = None, ""
        async for report in worker.reports():
            failure = report.failure
            if report.ready:
                served_at = time.monotonic()
                self._note_serving(worker.number, report.ready)
        return (0.0 if served_at is None else time.monotonic() - served_at), failure

    async def _start(self, number: int) -> WorkerProcess:
        worker = self._alive[number] = await WorkerProcess.start(number, self._command)
        return worker

    def _note_serving(self, number: int, line: str) -> None:
        self._serving.add(number)
        if self._announced:
            _log.info("a worker serves again", worker=number)
            return
        if len(self._serving) == self._count:
            self._announced = True
            self._announce(line)

    def _pause_s(self, deaths: int) -> float:
        """Return how long to wait before a replacement: not at all for the first."""
        return 0.0 if deaths == 1 else float(min(self._first_pause_s * 2 ** (deaths - 2), _MAX_PAUSE_S))
