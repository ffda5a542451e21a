"""Backups: the whole database, the own one too, in a file and back."""

from __future__ import annotations

from pathlib import Path

from modelcatalog_server.backends import start_backends
from modelcatalog_server.embedded import client_programs, default_data_dir, find_running
from modelcatalog_server.settings import Settings
from modelcatalog_server.storage.dumps import dump_database, restore_database


async def write_backup(settings: Settings, file: Path) -> None:
    """Write the database into a new file, whether it is in use or not.

    Raises:
        StartupError: the database cannot be read or the file cannot be written.
    """
    running = None if settings.database_url else find_running(settings.data_dir or default_data_dir())
    if running:
        await dump_database(running, file, client_programs())
        return
    async with start_backends(settings, with_redis=False) as backends:
        await dump_database(backends.database_url, file, client_programs())


async def restore_backup(settings: Settings, file: Path) -> None:
    """Bring what was written into an empty database.

    Raises:
        StartupError: the own one is in use, the database has a catalog already, or the file is not whole.
    """
    async with start_backends(settings, with_redis=False) as backends:
        await restore_database(backends.database_url, file, client_programs())
