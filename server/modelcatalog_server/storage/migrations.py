"""Brings a database to the schema that this version knows: forward only, one transaction each, recorded by checksum."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from typing import LiteralString

import psycopg

from modelcatalog_server.domain.errors import StartupError
from modelcatalog_server.storage.pools import Connection

_FILE = re.compile(r"^(\d{4})_([a-z_0-9]+)\.sql$")
# Any constant of our own: two processes that migrate at once take turns.
_LOCK = 7_306_421_001


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of ``migrations/``."""

    version: int
    name: str
    sql: LiteralString

    @property
    def checksum(self) -> str:
        """SHA-256 of the file, in hex."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def load_migrations() -> list[Migration]:
    """Return the migrations that ship with this version, in order."""
    files = sorted((resources.files(__package__) / "migrations").iterdir(), key=lambda file: file.name)
    matches = [(file, match) for file in files if (match := _FILE.match(file.name))]
    return [Migration(int(m[1]), m[2], file.read_text()) for file, m in matches]


async def migrate(connection: Connection) -> list[Migration]:
    """Apply what is missing and return it. Safe to run from several processes at once.

    Raises:
        StartupError: the database holds migrations that this version does not know, the role may not create tables, or
            a migration fails; what came before it stays.
    """
    migrations = load_migrations()
    await connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
    try:
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS schema_migrations ("
            "version integer PRIMARY KEY, name text NOT NULL, checksum text NOT NULL,"
            " applied_at timestamptz NOT NULL DEFAULT clock_timestamp())"
        )
        pending = _find_pending(migrations, await _read_applied(connection))
        for migration in pending:
            await _apply(connection, migration)
    except psycopg.errors.InsufficientPrivilege as error:
        reason = error.diag.message_primary
        raise StartupError(f"cannot migrate: {reason}. Run `modelcatalog migrate` with a role that may.") from error
    finally:
        with suppress(psycopg.OperationalError):  # the lock went with the connection
            await connection.execute("SELECT pg_advisory_unlock(%s)", (_LOCK,))
    return pending


async def check_schema(connection: Connection) -> None:
    """Refuse a database whose schema is not exactly the one this version knows.

    Raises:
        StartupError: it is missing, older, newer or another one.
    """
    exists = await (await connection.execute("SELECT to_regclass('schema_migrations') IS NOT NULL AS ok")).fetchone()
    if not (exists and exists["ok"]):
        raise StartupError("the database has no modelcatalog schema: run `modelcatalog migrate` first")
    pending = _find_pending(load_migrations(), await _read_applied(connection))
    if pending:
        raise StartupError(
            f"the database lacks migration {pending[0].version:04}_{pending[0].name}"
            f" ({len(pending)} in all): run `modelcatalog migrate` first"
        )


async def _read_applied(connection: Connection) -> dict[int, str]:
    cursor = await connection.execute("SELECT version, checksum FROM schema_migrations")
    return {row["version"]: row["checksum"] async for row in cursor}


def _find_pending(migrations: Sequence[Migration], applied: dict[int, str]) -> list[Migration]:
    known = {migration.version: migration for migration in migrations}
    for version, checksum in sorted(applied.items()):
        if version not in known:
            raise StartupError(
                f"the database has migration {version:04}, which this version of modelcatalog does not know: upgrade it"
            )
        if known[version].checksum != checksum:
            raise StartupError(
                f"migration {version:04} in the database is not the one that this version ships:"
                " the database belongs to another build"
            )
    return [migration for migration in migrations if migration.version not in applied]


async def _apply(connection: Connection, migration: Migration) -> None:
    try:
        async with connection.transaction():
            await connection.execute(migration.sql)
            await connection.execute(
                "INSERT INTO schema_migrations (version, name, checksum) VALUES (%s, %s, %s)",
                (migration.version, migration.name, migration.checksum),
            )
    except psycopg.errors.InsufficientPrivilege:
        raise
    except psycopg.Error as error:
        reason = error.diag.message_primary or " ".join(str(error).split())
        raise StartupError(f"migration {migration.version:04}_{migration.name} cannot be applied: {reason}") from error
