"""The command ``modelcatalog``. Each subcommand imports what it needs, so that ``--help`` stays quick."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

try:
    import click

    from modelcatalog_server.commands.groups import info, models, providers
    from modelcatalog_server.commands.server_options import ServerOptions, server_options
    from modelcatalog_server.commands.tokens import token
except ModuleNotFoundError as missing:
    sys.exit(f"the command needs the server: pip install 'modelcatalog[server]' (missing: {missing.name})")

from modelcatalog_server.domain.errors import CatalogError, StartupError
from modelcatalog_server.running import run

if TYPE_CHECKING:
    from modelcatalog_server.settings import Settings

_MAX_TIMEOUT_S = 7 * 86_400


class SettingsCommand(click.Command):
    """A command with a flag for each of some settings, or of all; the help says variable and default.

    The flags are made when somebody looks at them: reading the settings takes longer than most other commands do.
    """

    setting_names: tuple[str, ...] = ()

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the flags of the settings, and those of every command."""
        from modelcatalog_server.settings import Settings

        names = self.setting_names or tuple(Settings.model_fields)
        return [*map(_setting_option, names), *super().get_params(ctx)]


class MigrateCommand(SettingsCommand):
    """The settings that a migration needs."""

    setting_names = ("database_url", "data_dir", "log_level", "log_format")


@cache
def _setting_option(name: str) -> click.Option:
    from modelcatalog_server.settings import PREFIX, Settings

    field = Settings.model_fields[name]
    flag = f"--{name.replace('_', '-')}"
    if field.annotation is bool:
        flag = f"{flag}/--no-{flag[2:]}"
    default = "" if field.default is None else f", default {str(field.default).lower()}"
    return click.Option([flag, name], default=None, help=f"{field.description} [{PREFIX}{name.upper()}{default}]")


def _check_timeout(_context: click.Context, _option: click.Parameter, value: float | None) -> float | None:
    if value is not None and not 0 < value <= _MAX_TIMEOUT_S:  # nor NaN, which click's own range lets pass
        raise click.BadParameter(f"must be more than 0 seconds, and at most {_MAX_TIMEOUT_S}")
    return value


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="modelcatalog")
def cli() -> None:
    """Serve a faithful, versioned copy of the Models.dev catalog over gRPC."""


@cli.command(cls=SettingsCommand)
def serve(**flags: Any) -> None:
    """Serve the catalog until SIGTERM or Ctrl-C, which ends it with exit code 0.

    Without a database or Redis in the settings it brings its own.
    """
    with suppress(asyncio.CancelledError):
        run(_serve(_load(flags)), on_switch=_switch_log_level)


@cli.command(cls=MigrateCommand)
def migrate(**flags: Any) -> None:
    """Bring the database to the schema of this version."""
    from modelcatalog_server import app

    applied = run(app.migrate_database(_load(flags)))
    for migration in applied:
        click.echo(f"applied {migration.version:04} {migration.name}")
    if not applied:
        click.echo("the schema is up to date")


_FILE = click.argument("file", type=click.Path(dir_okay=False, path_type=Path))


@cli.command(cls=MigrateCommand)
@_FILE
def backup(file: Path, **flags: Any) -> None:
    """Write the whole database into a new FILE, also while it serves. Keep it as private as the database."""
    from modelcatalog_server import backups

    run(backups.write_backup(_load(flags), file))
    click.echo(f"wrote {file}, {file.stat().st_size:,} bytes")


@cli.command(cls=MigrateCommand)
@_FILE
def restore(file: Path, **flags: Any) -> None:
    """Bring what `backup` wrote to FILE into an empty database; `migrate` after it, if this version is newer."""
    from modelcatalog_server import backups

    run(backups.restore_backup(_load(flags), file))
    click.echo(f"restored {file}")


@cli.command()
@click.option("--full", is_flag=True, help="Derive and write every row again, not only what differs.")
@click.option("--provider", "provider_id", default="", metavar="ID", help="Only this provider.")
@click.option("--dry-run", is_flag=True, help="Report the difference, change nothing.")
@click.option("--force", is_flag=True, help="Fetch even if upstream's ETag is the one the catalog has.")
@click.option(
    "--override-gate",
    default="",
    metavar="NAME",
    help="Accept the refusal of this gate, in this run only; or of several: a,b.",
)
@click.option("--no-wait", is_flag=True, help="Start the run, print its id and leave it alone.")
@click.option("--json", "as_json", is_flag=True, help="Print the run and its whole report as one JSON object.")
@click.option(
    "--timeout",
    "timeout_s",
    type=float,
    callback=_check_timeout,
    metavar="SECONDS",
    help="Wait no longer than that; the run goes on. [default: to its end]",
)
@click.option("--request-id", type=click.UUID, help="The same one again gives the same run. [default: a new one]")
@server_options
def refresh(server: ServerOptions, *, request_id: UUID | None, no_wait: bool, **options: Any) -> None:
    """Have a running server bring its catalog to what upstream says, and follow it to the end.

    Ends with 0 when the run succeeded, 1 when it failed or was cancelled, 2 when it could not be started or followed,
    and 130 on Ctrl-C, which ends the command but not the run.
    """
    from modelcatalog_server.commands.refresh import RefreshOptions
    from modelcatalog_server.commands.refresh import refresh as run

    sys.exit(run(RefreshOptions(server=server, request_id=str(request_id or uuid4()), wait=not no_wait, **options)))


for command in (info, models, providers, token):
    cli.add_command(command)


def main() -> None:
    """Run the command; what keeps it from its work is one line on standard error and exit code 1."""
    try:
        cli()
    except ModuleNotFoundError as missing:  # click is there by chance, the rest of the server is not
        sys.exit(f"the command needs the server: pip install 'modelcatalog[server]' (missing: {missing.name})")
    except (StartupError, CatalogError) as error:
        sys.exit(f"modelcatalog: {error}")
    except asyncio.CancelledError:
        sys.exit("modelcatalog: interrupted")


async def _serve(settings: Settings) -> None:
    if settings.workers > 1:
        from modelcatalog_server.workers.supervisor import supervise

        await supervise(settings, _print_ready)
        return
    from modelcatalog_server.backends import start_backends

    importing = asyncio.create_task(_import_ahead(), name="import")
    async with start_backends(settings) as backends:
        importing.cancel()
        from modelcatalog_server import app

        await app.serve(settings, backends, _print_ready)


def _switch_log_level() -> None:
    from modelcatalog_server.logs import LEVEL

    LEVEL.switch()


def _print_ready(line: str) -> None:
    """Say that it serves, in the one line that people and scripts wait for."""
    click.echo(line)


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
    from modelcatalog_server.settings import load_settings

    settings = load_settings(**flags)
    set_up_logs(settings.log_level, settings.log_format)
    return settings


if __name__ == "__main__":
    main()
