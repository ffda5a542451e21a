"""What keeps it from starting is one line on standard error that says what to do, and exit code 1."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from acceptance.serving import OFFLINE, as_ordinary_user, refused, until
from conftest import Services

PASSWORD = "correct-horse"  # noqa: S105 -- it opens nothing


@pytest.fixture
def fresh_database(services: Services) -> Iterator[str]:
    """A database with nothing in it."""
    url = services.clone("template1")
    yield url
    services.drop(url)


@pytest.fixture(scope="module")
def redis(services: Services) -> dict[str, str]:
    return {"MODELCATALOG_REDIS_URL": services.redis_url}


def test_every_bad_setting_is_named_at_once() -> None:
    line = refused(
        "serve",
        "--listen=0.0.0.0:50051",
        "--drain-seconds=-1",
        MODELCATALOG_LOG_LEVEL="loud",
        MODELCATALOG_UPSTREAM_URL="models.dev",
        MODELCATALOG_MAX_AGE_HOURS="many",
        MODELCATALOG_DATABASE_URL=f"postgresql://catalog:{PASSWORD}@[::1/catalog",
    )
    assert line.startswith("bad settings: ")
    for setting in ("LISTEN", "DRAIN_SECONDS", "LOG_LEVEL", "UPSTREAM_URL", "MAX_AGE_HOURS", "DATABASE_URL"):
        assert line.count(f"MODELCATALOG_{setting}: ") == 1
    assert "a loopback address while callers are not identified, or pass --insecure" in line
    assert PASSWORD not in line


def test_a_port_that_is_taken(loaded_database: str, redis: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        line = refused("serve", "--offline", "--listen", address, MODELCATALOG_DATABASE_URL=loaded_database, **redis)
    assert line == f"cannot listen on {address}: Address already in use. Choose another with --listen."


def test_a_database_that_is_not_there(redis: dict[str, str]) -> None:
    url = f"postgresql://catalog:{PASSWORD}@127.0.0.1:1/catalog"
    line = refused("serve", *OFFLINE, MODELCATALOG_DATABASE_URL=url, **redis)
    assert line.startswith("cannot use the database at 127.0.0.1:1/catalog: ")
    assert line.endswith("Check MODELCATALOG_DATABASE_URL.")
    assert PASSWORD not in line


def test_a_database_without_that_name(services: Services) -> None:
    line = refused("migrate", MODELCATALOG_DATABASE_URL=services.url_of("mc_missing"))
    assert 'database "mc_missing" does not exist' in line


def test_a_wrong_password(services: Services, role_with_password: str, redis: dict[str, str]) -> None:
    url = services.database_url.replace("modelcatalog@", f"{role_with_password}:{PASSWORD}@")
    line = refused("serve", *OFFLINE, MODELCATALOG_DATABASE_URL=url, **redis)
    assert f'password authentication failed for user "{role_with_password}"' in line
    assert PASSWORD not in line


@pytest.fixture
def role_with_password(services: Services) -> Iterator[str]:
    """A role whose password is asked for, unlike those of everybody else here."""
    role = "mc_guarded"
    services.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'another'")
    with psycopg.connect(services.database_url) as connection:
        row = connection.execute("SHOW hba_file").fetchone()
    assert row is not None
    rules = Path(row[0])
    open_to_all = rules.read_text()
    rules.write_text(f"local all {role} scram-sha-256\n{open_to_all}")
    services.execute("SELECT pg_reload_conf()")
    until(lambda: not lets_in(services.database_url.replace("modelcatalog@", f"{role}@")))
    yield role
    rules.write_text(open_to_all)
    services.execute("SELECT pg_reload_conf()")
    services.execute(f"DROP ROLE {role}")


def lets_in(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True


def test_an_address_that_is_none_keeps_its_secret() -> None:
    line = refused("migrate", MODELCATALOG_DATABASE_URL=f"postgresql {PASSWORD}")
    assert "MODELCATALOG_DATABASE_URL" in line
    assert PASSWORD not in line


# --- schemas --------------------------------------------------------------------------------------------------


def test_a_database_without_the_schema(fresh_database: str, redis: dict[str, str]) -> None:
    line = refused("serve", *OFFLINE, MODELCATALOG_DATABASE_URL=fresh_database, **redis)
    assert line == "the database has no modelcatalog schema: run `modelcatalog migrate` first"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            "INSERT INTO schema_migrations (version, name, checksum) VALUES (9999, 'from_the_future', '')",
            "the database has migration 9999, which this version of modelcatalog does not know",
        ),
        (
            "UPDATE schema_migrations SET checksum = 'another' WHERE version = 1",
            "migration 0001 in the database is not the one that this version ships",
        ),
    ],
    ids=["newer", "of another build"],
)
def test_a_schema_that_this_version_does_not_know(
    empty_database: str, redis: dict[str, str], change: str, reason: str
) -> None:
    with psycopg.connect(empty_database) as connection:
        connection.execute(change.encode())
    assert refused("serve", *OFFLINE, MODELCATALOG_DATABASE_URL=empty_database, **redis).startswith(reason)


# --- data directories -----------------------------------------------------------------------------------------


def test_a_data_directory_that_may_not_be_written(work_dir: Path) -> None:
    directory = work_dir / "read-only"
    directory.mkdir(mode=0o555)
    line = refused("serve", *OFFLINE, "--data-dir", str(directory), prefix=as_ordinary_user())
    assert line.startswith(f"data directory {directory} cannot be used: Permission denied")


# --- habits of shells -----------------------------------------------------------------------------------------


def test_a_variable_that_is_empty_is_not_set() -> None:
    line = refused("serve", "--listen=0", "--data-dir=", MODELCATALOG_LOG_LEVEL="", MODELCATALOG_DATABASE_URL="")
    assert line == "bad settings: MODELCATALOG_LISTEN: must be host:port, e.g. 127.0.0.1:50051"
