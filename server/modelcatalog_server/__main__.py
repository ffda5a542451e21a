"""The command ``modelcatalog``. Each subcommand imports what it needs, so that ``--help`` stays quick."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

try:
    import click

    from modelcatalog_server.settings import PREFIX, Settings, load_settings
except ModuleNotFoundError as missing:
    sys.exit(f"the command needs the server: pip install 'modelcatalog[server]' (missing: {missing.name})")

from modelcatalog_server.domain.errors import CatalogError, StartupError

if TYPE_CHECKING:
    from click.decorators import FC

T = TypeVar("T")


def setting_options(*names: str) -> Callable[[FC], FC]:
    """Give a command a flag for each of these settings; the help says the environment variable and the default."""

    def decorate(command: FC) -> FC:
        for name in reversed(names):
            command = _setting_option(name)(command)
        return command

    return decorate


def _setting_option(name: str) -> Callable[[FC], FC]:
    field = Settings.model_fields[name]
    flag = f"--{name.replace('_', '-')}"
    if field.annotation is bool:
        flag = f"{flag}/--no-{flag[2:]}"
    default = "" if field.default is None else f", default {str(field.default).lower()}"
    return click.option(flag, name, default=None, help=f"{field.description} [{PREFIX}{name.upper()}{default}]")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="modelcatalog")
def cli() -> None:
    """Serve a faithful, versioned copy of the Models.dev catalog over gRPC."""


@cli.command()
@setting_options(*Settings.model_fields)
def serve(**flags: Any) -> None:
    """Serve the catalog until SIGTERM or Ctrl-C, which ends it with exit code 0.

    Without a database or Redis in the settings it brings its own.
    """
    with suppress(asyncio.CancelledError):
        _run(_serve(_load(flags)))


@cli.command()
@setting_options("database_url", "data_dir", "log_level", "log_format")
def migrate(**flags: Any) -> None:
    """Bring the database to the schema of this version."""
    from modelcatalog_server import app

    applied = _run(app.migrate_database(_load(flags)))
    for migration in applied:
        click.echo(f"applied {migration.version:04} {migration.name}")
    if not applied:
        click.echo("the schema is up to date")


def main() -> None:
    """Run the command; what keeps it from its work is one line on standard error and exit code 1."""
    try:
        cli()
    except (StartupError, CatalogError) as error:
        sys.exit(f"modelcatalog: {error}")
    except asyncio.CancelledError:
        sys.exit("modelcatalog: interrupted")


async def _serve(settings: Settings) -> None:
    from modelcatalog_server.backends import start_backends

    importing = asyncio.create_task(_import_ahead(), name="import")
    async with start_backends(settings) as backends:
        importing.cancel()
        from modelcatalog_server import app

        await app.serve(settings, backends)


async def _import_ahead() -> None:
    """Import what is going to be needed while the own servers start, which are other processes.

    Not in a thread, because forking is not safe beside one that loads libraries; in pieces, so that what waits for
    those servers gets its turn. A warm start does not get to the last one, and does not need it.
    """
    for name in ("storage.catalog_store", "cache.redis_cache", "rpc.server", "app", "modelsdev.client"):
        import_module(f"modelcatalog_server.{name}")
        await asyncio.sleep(0)


def _load(flags: dict[str, Any]) -> Settings:
    from modelcatalog_server.logs import set_up_logs

    settings = load_settings(**flags)
    set_up_logs(settings.log_level, settings.log_format)
    return settings


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run on uvloop where there is one: worth about a fifth of the throughput."""
    try:
        import uvloop
    except ModuleNotFoundError:
        new_loop: Callable[[], asyncio.AbstractEventLoop] | None = None
    else:
        new_loop = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(_until_signalled(work))


async def _until_signalled(work: Coroutine[Any, Any, T]) -> T:
    """Have SIGTERM and Ctrl-C cancel the work, which then ends in its own order.

    A second signal ends the process at once; its children die with it.
    """
    task = asyncio.current_task()
    assert task is not None, "a coroutine runs in a task"  # noqa: S101 - a broken invariant, not a check

    def on_signal() -> None:
        if task.cancelling():
            os._exit(1)
        task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    return await work


if __name__ == "__main__":
    main()
