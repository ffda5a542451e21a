"""Migrations: from nothing to this version's schema, whoever else tries, and never onto a schema they do not know."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import psycopg
import pytest

from conftest import Services
from modelcatalog_server.domain.errors import StartupError
from modelcatalog_server.storage import migrations
from modelcatalog_server.storage.catalog_store import PostgresCatalog
from modelcatalog_server.storage.migrations import Migration, check_schema, load_migrations, migrate
from modelcatalog_server.storage.pools import Connection, Pools, connect
from small_catalog import fetch

#: Every table that the architecture names, and those that it leaves to the schema.
TABLES = {
    "audit_log",
    "canonical_model_versions",
    "canonical_models",
    "catalog_revisions",
    "catalog_state",
    "llm_providers",
    "model_benchmarks",
    "model_versions",
    "models_metadata",
    "models_refresh_history",
    "provider_versions",
    "refresh_events",
    "refresh_reports",
    "refresh_requests",
    "refresh_schedule",
    "schema_migrations",
    "search_documents",
    "search_vocabulary",
    "source_hashes",
}
VERSIONS = ("model_versions", "provider_versions", "canonical_model_versions")
NEXT = Migration(9998, "create_next", "CREATE TABLE next_table (id integer PRIMARY KEY)")


@pytest.fixture
def blank_database(services: Services) -> Iterator[str]:
    name = f"mc_{uuid4().hex}"
    services.execute(f"CREATE DATABASE {name}")
    url = services.url_of(name)
    yield url
    services.drop(url)


@pytest.fixture
async def connection(blank_database: str) -> AsyncIterator[Connection]:
    async with await connect(blank_database, timeout_s=5) as connection:
        yield connection


@pytest.fixture
async def migrated(connection: Connection) -> Connection:
    await migrate(connection)
    return connection


async def read_schema(url: str) -> list[str]:
    """Return everything that a schema is made of, one line each."""
    return await fetch(
        url,
        """
        SELECT concat_ws(' ', table_name, ordinal_position, column_name, data_type, is_nullable, column_default,
                collation_name, is_generated) AS line
        FROM information_schema.columns WHERE table_schema = 'public'
        UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'
        UNION ALL SELECT conrelid::regclass || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
            WHERE connamespace = 'public'::regnamespace
        UNION ALL SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
        UNION ALL SELECT pg_get_functiondef(oid) FROM pg_proc
            WHERE pronamespace = 'public'::regnamespace AND prokind = 'f' AND prolang <> 13
            AND NOT EXISTS (SELECT 1 FROM pg_depend WHERE objid = pg_proc.oid AND deptype = 'e')
        ORDER BY line
        """,
    )


def test_the_files_are_numbered_without_a_gap_and_named_by_what_they_do() -> None:
    known = load_migrations()
    assert [migration.version for migration in known] == list(range(1, len(known) + 1))
    assert all(migration.sql.startswith("-- Why: ") for migration in known)


async def test_a_blank_database_comes_to_the_newest_schema(connection: Connection, blank_database: str) -> None:
    with pytest.raises(StartupError, match="no modelcatalog schema: run `modelcatalog migrate` first"):
        await check_schema(connection)

    assert await migrate(connection) == load_migrations()

    await check_schema(connection)
    tables = await fetch(blank_database, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    assert set(tables) == TABLES
    recorded = await fetch(blank_database, "SELECT version, name, checksum FROM schema_migrations ORDER BY version")
    assert recorded == [(known.version, known.name, known.checksum) for known in load_migrations()]


async def test_a_second_time_does_nothing(migrated: Connection, blank_database: str) -> None:
    before = await read_schema(blank_database), await fetch(blank_database, "SELECT xmin FROM schema_migrations")
    assert await migrate(migrated) == []
    after = await read_schema(blank_database), await fetch(blank_database, "SELECT xmin FROM schema_migrations")
    assert after == before


async def test_several_at_once_apply_each_migration_once(blank_database: str) -> None:
    async def migrate_alone() -> list[Migration]:
        async with await connect(blank_database, timeout_s=5) as connection:
            return await migrate(connection)

    applied = await asyncio.gather(*(migrate_alone() for _ in range(5)))
    assert sorted(map(len, applied)) == [0, 0, 0, 0, len(load_migrations())]
    async with await connect(blank_database, timeout_s=5) as connection:
        await check_schema(connection)


async def test_one_that_lacks_a_migration_gets_just_that(
    migrated: Connection, blank_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = load_migrations()
    monkeypatch.setattr(migrations, "load_migrations", lambda: [*known, NEXT])
    with pytest.raises(StartupError, match=r"lacks migration 9998_create_next \(1 in all\): run `modelcatalog migrate"):
        await check_schema(migrated)
    assert await migrate(migrated) == [NEXT]
    assert await fetch(blank_database, "SELECT count(*) FROM next_table") == [0]


async def test_one_that_fails_halfway_leaves_nothing_of_itself_and_one_clear_line(
    migrated: Connection, blank_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = load_migrations()
    broken = Migration(9999, "break", "CREATE TABLE halfway (id integer); SELECT 1 / 0")
    monkeypatch.setattr(migrations, "load_migrations", lambda: [*known, NEXT, broken])
    with pytest.raises(StartupError, match=r"migration 9999_break.*division by zero") as raised:
        await migrate(migrated)
    assert "\n" not in str(raised.value)
    assert await fetch(blank_database, "SELECT max(version) FROM schema_migrations") == [NEXT.version]
    assert await fetch(blank_database, "SELECT to_regclass('halfway')") == [None]
    # The lock is free: the next attempt, with the file mended, goes through.
    mended = Migration(9999, "break", "CREATE TABLE halfway (id integer)")
    monkeypatch.setattr(migrations, "load_migrations", lambda: [*known, NEXT, mended])
    async with await connect(blank_database, timeout_s=5) as another:
        assert await migrate(another) == [mended]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            "INSERT INTO schema_migrations (version, name, checksum) VALUES (9001, 'of_the_future', 'x')",
            "has migration 9001, which this version of modelcatalog does not know: upgrade it",
        ),
        (
            "UPDATE schema_migrations SET checksum = 'x' WHERE version = 1",
            "migration 0001 in the database is not the one that this version ships",
        ),
    ],
    ids=["newer", "changed"],
)
async def test_a_schema_of_another_version_is_refused(migrated: Connection, change: bytes, complaint: str) -> None:
    await migrated.execute(change)
    for refuse in (check_schema, migrate):
        with pytest.raises(StartupError, match=complaint):
            await refuse(migrated)


@pytest.mark.parametrize(("compatible_from", "goes_on"), [("0008", True), ("0001", True), ("9000", False)])
async def test_a_newer_schema_says_which_releases_go_on_with_it(
    migrated: Connection, monkeypatch: pytest.MonkeyPatch, compatible_from: str, goes_on: bool
) -> None:
    """Otherwise no pod of the release that runs could start again once the next one's migrations are there."""
    known = load_migrations()
    next_one = Migration(9998, "widen", f"-- Why: a test.\n-- Compatible from: {compatible_from}\nSELECT 1")
    with monkeypatch.context() as next_release:
        next_release.setattr(migrations, "load_migrations", lambda: [*known, next_one])
        assert await migrate(migrated) == [next_one]
    if goes_on:
        await check_schema(migrated)
        assert await migrate(migrated) == []
    else:
        with pytest.raises(StartupError, match="has migration 9998"):
            await check_schema(migrated)


async def test_a_database_that_was_migrated_before_there_was_such_a_statement_is_taken(migrated: Connection) -> None:
    await migrated.execute("ALTER TABLE schema_migrations DROP COLUMN compatible_from")
    await check_schema(migrated)
    assert await migrate(migrated) == []


async def test_a_role_that_may_not_create_tables_is_told_so(blank_database: str, services: Services) -> None:
    role = f"poor_{uuid4().hex}"
    services.execute(f"CREATE ROLE {role} LOGIN")
    try:
        async with await connect(blank_database, timeout_s=5) as connection:
            await connection.execute(f"SET ROLE {role}".encode())
            with pytest.raises(StartupError, match=r"cannot migrate: .*`modelcatalog migrate` with a role that may"):
                await migrate(connection)
    finally:
        services.execute(f"DROP ROLE {role}")


async def test_a_search_path_in_the_address_holds_for_everything(blank_database: str) -> None:
    """Operators put several services into one database by schema, through ``options`` in the DSN."""
    await fetch(blank_database, "CREATE SCHEMA mine")
    await fetch(blank_database, "CREATE EXTENSION pg_trgm")
    url = blank_database + "&options=-c%20search_path%3Dmine,public"
    async with await connect(url, timeout_s=5) as connection:
        await migrate(connection)
    async with Pools(url) as pools, PostgresCatalog(pools).snapshot() as snapshot:
        row = await (await snapshot.connection.execute("SHOW statement_timeout")).fetchone()
        assert row == {"statement_timeout": "5s"}
        assert await snapshot.get_schema_version() == load_migrations()[-1].version


async def test_no_foreign_key_cascades(migrated: Connection) -> None:
    cursor = await migrated.execute(
        "SELECT conrelid::regclass::text AS source, confrelid::regclass::text AS target, confdeltype, confupdtype"
        " FROM pg_constraint WHERE contype = 'f'"
    )
    keys = await cursor.fetchall()
    assert ("models_metadata", "llm_providers") in {(key["source"], key["target"]) for key in keys}
    assert {(key["confdeltype"], key["confupdtype"]) for key in keys} == {("a", "a")}, "anything but NO ACTION"


async def test_no_column_has_a_default_that_stands_for_an_unknown_value(migrated: Connection) -> None:
    cursor = await migrated.execute(
        "SELECT column_name FROM information_schema.columns"
        " WHERE table_name IN ('models_metadata', 'model_benchmarks', 'canonical_models')"
        " AND column_default IS NOT NULL AND is_identity = 'NO'"
    )
    assert await cursor.fetchall() == []


async def test_times_have_a_zone(migrated: Connection) -> None:
    cursor = await migrated.execute(
        "SELECT table_name, column_name FROM information_schema.columns"
        " WHERE table_schema = 'public' AND data_type IN ('timestamp without time zone', 'date', 'time')"
    )
    assert await cursor.fetchall() == []


@pytest.mark.parametrize("table", VERSIONS)
async def test_a_version_cannot_be_rewritten(loaded_database: str, table: str) -> None:
    for statement in (
        "UPDATE {table} SET content_hash = 'forged'",
        "UPDATE {table} SET content_hash = 'forged', valid_to_revision = 2",
        "UPDATE {table} SET valid_to_revision = 1",
        "UPDATE {table} SET valid_to_revision = NULL",
        "UPDATE {table} SET removed_at = now()",
        "DELETE FROM {table}",
        "TRUNCATE {table}",
    ):
        with pytest.raises(psycopg.errors.RaiseException, match=f"{table} is append-only"):
            await fetch(loaded_database, statement.format(table=table))


async def test_every_column_of_a_version_is_guarded(migrated: Connection) -> None:
    """Also one that a later migration adds."""
    cursor = await migrated.execute(
        """
        SELECT attrelid::regclass::text AS versions, attname
        FROM pg_attribute
        WHERE
            attrelid = ANY(%s::regclass[])
            AND attnum > 0
            AND NOT attisdropped
            AND NOT EXISTS (
                SELECT FROM pg_trigger
                WHERE tgrelid = attrelid AND tgname = 'versions_stand' AND attnum = ANY(tgattr::smallint[])
            )
        """,
        (list(VERSIONS),),
    )
    unguarded = {(row["versions"], row["attname"]) for row in await cursor.fetchall()}
    assert unguarded == {(table, "valid_to_revision") for table in VERSIONS}


@pytest.mark.parametrize("table", VERSIONS)
async def test_a_version_can_be_closed_once(loaded_database: str, table: str) -> None:
    await fetch(loaded_database, f"UPDATE {table} SET valid_to_revision = 2")
    for again in ("3", "NULL"):
        with pytest.raises(psycopg.errors.RaiseException, match=f"{table} is append-only"):
            await fetch(loaded_database, f"UPDATE {table} SET valid_to_revision = {again}")


async def test_a_current_row_cannot_lose_its_provider(loaded_database: str) -> None:
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        await fetch(loaded_database, "DELETE FROM llm_providers WHERE id = 'openai'")
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        await fetch(loaded_database, "UPDATE llm_providers SET id = 'closedai' WHERE id = 'openai'")
