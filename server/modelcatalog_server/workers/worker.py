"""The main module of a worker: ``serve`` on what it is told over its standard input, which is where the secrets go.

It is imported while its supervisor still starts the own PostgreSQL.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress

import structlog

from modelcatalog_server import app
from modelcatalog_server.backends import start_backends
from modelcatalog_server.domain.errors import CatalogError, StartupError
from modelcatalog_server.logs import LEVEL, set_up_logs
from modelcatalog_server.processes import end_with_parent
from modelcatalog_server.running import run
from modelcatalog_server.settings import Settings
from modelcatalog_server.workers.messages import Report, encode_report, metrics_address


def main(number: int, supervisor: int) -> None:
    """Serve until told to end; report once to the supervisor."""
    end_with_parent(supervisor)
    # What libraries print is not to be taken for a report.
    reports = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    line = sys.stdin.readline()
    if not line:  # the start has come to nothing
        return

    def report(report: Report) -> None:
        print(encode_report(report), file=reports, flush=True)

    settings = _read_settings(line, number)
    set_up_logs(settings.log_level, settings.log_format)
    structlog.contextvars.bind_contextvars(worker=number)
    try:
        with suppress(asyncio.CancelledError):
            run(_serve(settings, lambda line: report(Report(ready=line))), on_switch=LEVEL.switch)
    except (StartupError, CatalogError) as error:
        report(Report(failure=str(error)))
        sys.exit(1)


def _read_settings(line: str, number: int) -> Settings:
    """Return what all workers are told, with what is this one's own: where it shows its metrics."""
    settings = Settings(**json.loads(line))
    return settings.model_copy(update={"metrics_listen": metrics_address(settings.metrics_listen, number)})


async def _serve(settings: Settings, announce: Callable[[str], None]) -> None:
    async with start_backends(settings) as backends:  # which the settings name
        await app.serve(settings, backends, announce)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
