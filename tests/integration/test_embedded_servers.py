"""The embedded servers as the application uses them: started, used, stopped and failing inside this process."""

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psycopg
import pytest
from redis.asyncio import Redis

from conftest import scratch
from modelcatalog_server.domain.errors import StartupError
from modelcatalog_server.embedded import DataDirectory, EmbeddedPostgres, EmbeddedValkey
from modelcatalog_server.embedded.account import Account
from modelcatalog_server.embedded.child import Child, run_to_end

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="root drops to another user")


@pytest.fixture
def parent() -> Iterator[Path]:
    """A directory that every user can pass, which pytest's own temporary directories are not."""
    path = Path(tempfile.mkdtemp(prefix="mc-", dir=scratch()))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def data(parent: Path) -> Path:
    return parent / "data"


@pytest.fixture(scope="module")
def used() -> Iterator[Path]:
    """A directory that has a cluster already, for the tests that do not care for how that came about."""
    path = Path(tempfile.mkdtemp(prefix="mc-", dir=scratch()))
    path.chmod(0o755)
    asyncio.run(_start_once(path))
    yield path
    shutil.rmtree(path)


async def _start_once(path: Path) -> None:
    async with postgres_in(path):
        pass


@asynccontextmanager
async def postgres_in(path: Path) -> AsyncIterator[EmbeddedPostgres]:
    async with DataDirectory(path) as directory, EmbeddedPostgres(directory) as postgres:
        yield postgres


async def query(postgres: EmbeddedPostgres, *statements: str) -> object:
    """Runs statements, each committed, and returns the first value of the last."""
    async with await psycopg.AsyncConnection.connect(postgres.dsn, autocommit=True) as connection:
        for statement in statements:
            cursor = await connection.execute(statement.encode())
        row = await cursor.fetchone() if cursor.description else None
    return row[0] if row else None


def holders(data: Path) -> list[int]:
    """The processes that hold the directory's lock, without this one: every child, and every child of those."""
    others = (process for process in Path("/proc").glob("[0-9]*") if process.name != str(os.getpid()))
    return [int(process.name) for process in others if _has_open(process, data / "lock")]


def _has_open(process: Path, file: Path) -> bool:
    try:
        return any(descriptor.readlink() == file for descriptor in (process / "fd").iterdir())
    except OSError:  # it has ended meanwhile, or is another user's
        return False


def users(data: Path) -> set[int]:
    """The user ids that those run as. One of them may end meanwhile."""
    found = set()
    for pid in holders(data):
        with suppress(FileNotFoundError, ProcessLookupError):
            found.add(Path(f"/proc/{pid}").stat().st_uid)
    return found


def contents(data: Path) -> list[str]:
    return sorted(path.name for path in data.iterdir())


def postmaster(data: Path) -> int:
    return int((data / "postgres-18/postmaster.pid").read_text().split()[0])


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 (another process brings it about)
            await asyncio.sleep(0.005)


async def test_a_cold_start_makes_a_database_that_a_warm_start_finds_again(data: Path) -> None:
    async with postgres_in(data) as postgres:
        assert await query(postgres, "SELECT current_user || '@' || current_database()") == (
            "modelcatalog@modelcatalog"
        )
        await query(postgres, "CREATE TABLE kept (id int)", "INSERT INTO kept VALUES (7)")
    assert holders(data) == []
    async with postgres_in(data) as postgres:
        assert await query(postgres, "SELECT id FROM kept") == 7


async def test_the_database_is_durable_and_the_same_on_every_machine(used: Path) -> None:
    expected = {
        "server_encoding": "UTF8",
        "data_checksums": "on",
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "TimeZone": "UTC",
        "lc_messages": "C",
        "listen_addresses": "",
        "max_connections": "100",
    }
    async with postgres_in(used) as postgres:
        assert {name: await query(postgres, f"SHOW {name}") for name in expected} == expected
        assert await query(postgres, "SELECT lower('ÄΩ')") == "äω"
        assert await query(postgres, "CREATE EXTENSION pg_trgm", "SELECT similarity('Größe', 'größe')") == 1


async def test_valkey_is_a_bounded_cache(data: Path) -> None:
    async with DataDirectory(data) as directory, EmbeddedValkey(directory) as valkey:
        redis = Redis.from_url(valkey.url)
        try:
            await redis.set("key", b"value")
            assert await redis.get("key") == b"value"
            settings = await redis.config_get("maxmemory", "maxmemory-policy", "save", "appendonly", "port")
        finally:
            await redis.aclose()
    assert settings == {
        "maxmemory": str(64 * 1024 * 1024),
        "maxmemory-policy": "allkeys-lru",
        "save": "",
        "appendonly": "no",
        "port": "0",
    }
    assert holders(data) == []


@needs_root
async def test_nothing_runs_as_root(used: Path) -> None:
    async with DataDirectory(used) as directory, EmbeddedPostgres(directory), EmbeddedValkey(directory):
        assert len(holders(used)) > 2
        assert 0 not in users(used)
        assert directory.sockets.stat().st_mode & 0o777 == 0o700


@needs_root
async def test_root_drops_to_the_owner_of_the_directory(parent: Path) -> None:
    data = Path(tempfile.mkdtemp(dir=parent))
    os.chown(data, 1, 1)  # daemon: in every Linux user database
    async with DataDirectory(data) as directory, EmbeddedPostgres(directory):
        assert users(data) == {1}


async def test_a_path_that_sockets_cannot_have_moves_them_to_a_private_directory(parent: Path) -> None:
    data = parent / ("deep" * 20) / ("er" * 20) / "with space, comma and 'quote'"
    async with DataDirectory(data) as directory:
        sockets = directory.sockets
        async with EmbeddedPostgres(directory) as postgres, EmbeddedValkey(directory) as valkey:
            assert await query(postgres, "SELECT 1") == 1
            redis = Redis.from_url(valkey.url)
            assert await redis.ping()
            await redis.aclose()
        assert sockets.stat().st_mode & 0o777 == 0o700
        assert not sockets.is_relative_to(data)
    assert not sockets.exists()


@pytest.fixture
def stranger(used: Path) -> Iterator[int]:
    """The pid of a process of PostgreSQL's own user: only of those does it believe that they are PostgreSQL."""
    account = Account.for_directory(used / "postgres-18")
    process = subprocess.Popen(["sleep", "60"], user=account.uid if account.dropped else None)
    yield process.pid
    process.kill()
    process.wait()


async def test_a_pid_file_with_the_pid_of_somebody_else_is_stale(used: Path, stranger: int) -> None:
    async with postgres_in(used):
        lines = (used / "postgres-18/postmaster.pid").read_text().splitlines()
    stale = "\n".join([str(stranger), *lines[1:], ""])
    (used / "run").mkdir()
    for file in (used / "postgres-18/postmaster.pid", used / "run/.s.PGSQL.5432.lock"):
        file.write_text(stale)
    async with postgres_in(used) as postgres:
        assert await query(postgres, "SELECT 1") == 1


async def test_a_half_written_cluster_is_made_anew(data: Path) -> None:
    (data / "postgres-18.partial/base").mkdir(parents=True)
    (data / "postgres-18.partial/PG_VERSION").write_text("18\n")
    async with postgres_in(data) as postgres:
        assert await query(postgres, "SELECT 1") == 1
    assert not (data / "postgres-18.partial").exists()


async def test_a_cancelled_start_leaves_no_process_and_no_half_of_a_cluster(data: Path) -> None:
    async def start() -> None:
        async with postgres_in(data):
            pytest.fail("it was to be cancelled before")

    task = asyncio.create_task(start())
    await until((data / "postgres-18.partial/PG_VERSION").exists)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not holders(data))  # initdb's own child too, which is killed with it
    assert contents(data) == ["lock", "log"]


@pytest.mark.parametrize(
    ("script", "said"),
    [("sleep 60 & exec sleep 60", "program took more than"), ("sleep 60 & exit 3", "program ended with status 3")],
    ids=["took too long", "left one behind"],
)
async def test_a_program_that_has_an_end_takes_what_it_started_along(data: Path, script: str, said: str) -> None:
    async with DataDirectory(data) as directory:
        child = Child.start("program", ["/bin/sh", "-c", script], directory, signal.SIGKILL, "program")
        with pytest.raises(StartupError, match=said):
            await run_to_end(child, 0.5 if "exec" in script else 60)
        await until(lambda: not holders(data))


async def test_a_directory_that_is_still_written_into_is_removed(data: Path) -> None:
    async with DataDirectory(data) as directory:
        with ThreadPoolExecutor(1) as pool:
            with suppress(asyncio.CancelledError), directory.building("cluster") as partial:
                writer = pool.submit(write_for_a_while, partial)
                await until(lambda: contents(partial))
                raise asyncio.CancelledError
            assert writer.result() > 0
        assert contents(data) == ["lock", "run"]


def write_for_a_while(folder: Path) -> int:
    """Writes files as a program does that was told to end but has not yet, and returns how many."""
    end = time.monotonic() + 0.3
    number = 0
    with suppress(FileNotFoundError):
        while not number or time.monotonic() < end:
            (folder / str(number)).touch()
            number += 1
    return number


async def test_a_cancelled_stop_leaves_no_process(used: Path) -> None:
    async with DataDirectory(used) as directory:
        postgres = await EmbeddedPostgres(directory).__aenter__()
        # Stopped, it does not answer the polite signals.
        os.kill(postmaster(used), signal.SIGSTOP)
        stop = asyncio.create_task(postgres.__aexit__(None, None, None))
        await asyncio.sleep(0)
        stop.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stop
        await until(lambda: not holders(used))


async def test_the_end_of_postgres_is_reported_and_loses_no_commit(used: Path) -> None:
    async with postgres_in(used) as postgres:
        await query(postgres, "CREATE TABLE kept (id int)", "INSERT INTO kept VALUES (7)")
        death = asyncio.create_task(postgres.wait_dead())
        os.kill(postmaster(used), signal.SIGKILL)
        async with asyncio.timeout(30):
            assert (await death).startswith("PostgreSQL was killed by SIGKILL: ")
    async with postgres_in(used) as postgres:
        assert await query(postgres, "SELECT id FROM kept") == 7


async def test_the_end_of_valkey_is_reported(data: Path) -> None:
    async with DataDirectory(data) as directory, EmbeddedValkey(directory) as valkey:
        (pid,) = holders(data)
        os.kill(pid, signal.SIGTERM)
        async with asyncio.timeout(30):
            assert (await valkey.wait_dead()).startswith("Valkey ended with status 0: ")


async def test_a_server_that_does_not_start_is_quoted(data: Path) -> None:
    cluster = data / "postgres-18"
    cluster.mkdir(parents=True)
    async with DataDirectory(data) as directory:
        directory.account.take(cluster)
        with pytest.raises(StartupError, match=r"PostgreSQL ended with status 2: .*postgresql\.conf.*postgres\.log"):
            async with EmbeddedPostgres(directory):
                pytest.fail("there is nothing in its directory")


async def test_one_directory_has_one_owner(used: Path) -> None:
    async with DataDirectory(used):
        with pytest.raises(StartupError, match=rf"in use by another modelcatalog \(pid {os.getpid()}\)"):
            async with DataDirectory(used, lock_timeout_s=0.1):
                pytest.fail("it has an owner")
    async with DataDirectory(used, lock_timeout_s=0.1):
        pass


async def test_a_file_in_place_of_the_directory_is_refused(parent: Path) -> None:
    (parent / "file").touch()
    for path, reason in ((parent / "file", "is not a directory"), (parent / "file/data", "Not a directory")):
        with pytest.raises(StartupError, match=f"{reason}.*MODELCATALOG_DATA_DIR"):
            async with DataDirectory(path):
                pytest.fail("there is a file")


@needs_root
async def test_a_directory_that_the_unprivileged_user_cannot_reach_is_refused(parent: Path) -> None:
    (parent / "private").mkdir(mode=0o700)
    with pytest.raises(StartupError, match=rf"cannot be reached by user \w+.*chmod o\+x {parent}/private"):
        async with DataDirectory(parent / "private/data"):
            pytest.fail("nobody cannot pass")


async def test_the_cluster_of_another_major_version_is_not_ignored(data: Path) -> None:
    (data / "postgres-17").mkdir(parents=True)
    with pytest.raises(StartupError, match="postgres-17 was written by another major version"):
        async with postgres_in(data):
            pytest.fail("it would start with an empty catalog")


async def test_a_large_log_is_put_aside(data: Path) -> None:
    (data / "log").mkdir(parents=True)
    with (data / "log/valkey.log").open("wb") as log:
        log.truncate(5_000_000)
    async with DataDirectory(data) as directory, EmbeddedValkey(directory):
        pass
    assert (data / "log/valkey.log.1").stat().st_size == 5_000_000
    assert (data / "log/valkey.log").stat().st_size < 10_000
