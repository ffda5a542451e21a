"""The command ``modelcatalog``. Each subcommand imports what it needs, so that ``--help`` stays quick."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

try:
    import click

    from modelcatalog_server.settings import PREFIX, Settings, load_settings
except ModuleNotFoundError as missing:
    sys.exit(f"the command needs the server: pip install 'modelcatalog[server]' (missing: {missing.name})")

from modelcatalog_server.domain.errors import StartupError

if TYPE_CHECKING:
    from click.decorators import FC

T = TypeVar("T")


def setting_options(command: FC) -> FC:
    """Give a command a flag for each setting; the environment variable of each is in the help."""
    for name, field in reversed(Settings.model_fields.items()):
        is_flag = field.annotation is bool
        flag = f"--{name.replace('_', '-')}"
        option = click.option(
            f"{flag}/--no-{name.replace('_', '-')}" if is_flag else flag,
            name,
            default=None,
            help=f"{field.description} [{PREFIX}{name.upper()}]",
        )
        command = option(command)
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="modelcatalog")
def cli() -> None:
    """Serve a faithful, versioned copy of the Models.dev catalog over gRPC."""


@cli.command()
@setting_options
def serve(**flags: Any) -> None:
    """Serve the catalog. Without a database or Redis in the settings it brings its own."""
    from modelcatalog_server import app

    _run(app.serve(_load(flags)))


@cli.command()
@setting_options
def migrate(**flags: Any) -> None:
    """Bring the database to the schema of this version."""
    from modelcatalog_server import app

    applied = _run(app.migrate_database(_load(flags)))
    for migration in applied:
        click.echo(f"applied {migration.version:04} {migration.name}")
    if not applied:
        click.echo("the schema is up to date")


def main() -> None:
    """Run the command; what keeps it from starting is one line on standard error and exit code 1."""
    try:
        cli()
    except StartupError as error:
        click.echo(f"modelcatalog: {error}", err=True)
        sys.exit(1)


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
        return runner.run(work)


if __name__ == "__main__":
    main()
