"""Brings a database to the schema that this version knows: forward only, one transaction each, recorded by checksum."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from typing import LiteralString

import psycopg

from modelcatalog_server.domain.errors import StartupError
from modelcatalog_server.storage.pools import Connection, connect, describe

_FILE = re.compile(r"^(\d{4})_([a-z_0-9]+)\.sql$")
_COMPATIBLE = re.compile(r"^-- Compatible from: (\d{4})$", re.MULTILINE)
# Any constant of our own: two processes that migrate at once take turns.
_LOCK = 7_306_421_001
# For an answer to what needs no time.
_PATIENCE_S = 10.0


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

    @property
    def compatible_from(self) -> int | None:
        """The oldest schema whose release works on this one too, as the file says; ``None``: only this one's."""
        stated = _COMPATIBLE.search(self.sql)
        return int(stated[1]) if stated else None


@dataclass(frozen=True, slots=True)
class Applied:
    """A migration that a database has."""

    checksum: str
    compatible_from: int | None


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
        await connection.execute("ALTER TABLE schema_migrations ADD COLUMN IF NOT EXISTS compatible_from integer")
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


async def prepare_schema(database_url: str, *, is_ours: bool) -> None:
    """Bring a database that is nobody else's to the schema of this version; see that another one has it.

    Raises:
        StartupError: it cannot be reached, or has another schema.
    """
    try:
        async with await connect(database_url, patience_s=math.inf if is_ours else _PATIENCE_S) as connection:
            if is_ours:
                await migrate(connection)
            else:
                await check_schema(connection)
    except psycopg.OperationalError as error:
        raise StartupError(f"cannot use the database at {describe(database_url)}: it does not answer") from error


async def check_schema(connection: Connection) -> None:
    """Refuse a database whose schema is not the one that this version knows, or a newer one that says it fits.

    Raises:
        StartupError: it is missing, older, too new or another one.
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


async def _read_applied(connection: Connection) -> dict[int, Applied]:
    # Not by name: a table that was made before has no such column until somebody migrates.
    cursor = await connection.execute(
        "SELECT version, checksum, (to_jsonb(applied) ->> 'compatible_from')::integer AS compatible_from"
        " FROM schema_migrations AS applied"
    )
    return {row["version"]: Applied(row["checksum"], row["compatible_from"]) async for row in cursor}


def _find_pending(migrations: Sequence[Migration], applied: dict[int, Applied]) -> list[Migration]:
    known = {migration.version: migration for migration in migrations}
    for version, migration in sorted(applied.items()):
        if version not in known:
            _check_compatible(version, migration, newest=max(known))
        elif known[version].checksum != migration.checksum:
            raise StartupError(
                f"migration {version:04} in the database is not the one that this version ships:"
                " the database belongs to another build"
            )
    return [migration for migration in migrations if migration.version not in applied]


def _check_compatible(version: int, migration: Applied, *, newest: int) -> None:
    """Refuse a migration of a newer release, unless it says that releases as old as this one go on working."""
    if migration.compatible_from is None or newest < migration.compatible_from:
        raise StartupError(
            f"the database has migration {version:04}, which this version of modelcatalog does not know: upgrade it"
        )


async def _apply(connection: Connection, migration: Migration) -> None:
    try:
        async with connection.transaction():
            await connection.execute(migration.sql)
            await connection.execute(
                "INSERT INTO schema_migrations (version, name, checksum, compatible_from) VALUES (%s, %s, %s, %s)",
                (migration.version, migration.name, migration.checksum, migration.compatible_from),
            )
    except psycopg.errors.InsufficientPrivilege:
        raise
    except psycopg.Error as error:
        reason = error.diag.message_primary or " ".join(str(error).split())
        raise StartupError(f"migration {migration.version:04}_{migration.name} cannot be applied: {reason}") from error
