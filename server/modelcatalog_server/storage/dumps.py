"""The whole database in a file and back, by PostgreSQL's own programs."""

from __future__ import annotations

import os
from asyncio import StreamWriter, create_subprocess_exec
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from modelcatalog_server.domain.errors import StartupError
from modelcatalog_server.storage import queries
from modelcatalog_server.storage.pools import connect

_STATEMENTS = queries.load("state")

# Owners and grants are those of the database that it comes to. Comments on extensions only their owner may write.
_PLAIN = ("--no-owner", "--no-privileges", "--no-comments")
# pg_restore says so whatever server it is for. Those before 17 do not know it, and by default nothing times out.
_UNKNOWN_BEFORE_17 = b"SET transaction_timeout = 0;\n"
_STRICT = ("--set=ON_ERROR_STOP=1", "--output=/dev/null")
_CHUNK_BYTES = 64 * 1024


async def dump_database(database_url: str, file: Path, programs: Path) -> None:
    """Write a database into a new file that only its owner can read; it appears when it is whole.

    Args:
        database_url: Of a database that may be in use meanwhile: what is written is one moment's.
        file: In the custom format of pg_dump.
        programs: Where pg_dump is.

    Raises:
        StartupError: the database cannot be read, or the file is there already or cannot be written.
    """
    try:
        with _appearing_whole(file) as output:
            command: list[str | Path] = [programs / "pg_dump", "--format=custom", *_PLAIN]
            async with _running(command, database_url, stdout=output) as process:
                await _check_end(process, "pg_dump")
    except OSError as error:
        raise StartupError(f"cannot write {file}: {error.strerror}") from error


async def restore_database(database_url: str, file: Path, programs: Path) -> None:
    """Bring what was dumped into an empty database, all of it or nothing.

    Its key is a new one: the revisions after it come again with other content, and page and resume tokens of the first
    time must not be taken for those of the second.

    Raises:
        StartupError: the file cannot be read, the database has a catalog already, or what is in the file does not fit.
    """
    if not os.access(file, os.R_OK):
        raise StartupError(f"cannot read {file}")
    await _check_empty(database_url)
    read: list[str | Path] = [programs / "pg_restore", "--file=-", *_PLAIN, file]
    write: list[str | Path] = [programs / "psql", "--quiet", "--no-psqlrc", "--single-transaction", *_STRICT]
    async with _running(read, stdout=PIPE) as reading, _running(write, database_url, stdin=PIPE) as writing:
        with suppress(BrokenPipeError, ConnectionResetError):  # psql has ended, and said why
            await _pass_on(reading, writing)
        await _check_end(reading, "pg_restore")  # before psql hears of the end, at which it commits
        _end_of(writing).close()
        await _check_end(writing, "psql")
    async with await connect(database_url) as connection:
        await connection.execute(_STATEMENTS["renew_token_key"])


async def _check_empty(database_url: str) -> None:
    async with await connect(database_url) as connection:
        found = await (await connection.execute("SELECT to_regclass('schema_migrations') AS table")).fetchone()
        if found and found["table"]:
            raise StartupError("the database has a catalog already: restore into an empty one")


@contextmanager
def _appearing_whole(file: Path) -> Iterator[BinaryIO]:
    """Open a new file that has its name only when it is whole and on the disk."""
    if file.exists():
        raise FileExistsError(0, "it is there already")
    partial = file.with_name(f"{file.name}.partial")
    # Nobody else's to read: what is in it opens tokens.
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as output:
        try:
            yield output
            os.fsync(output.fileno())
        except BaseException:
            partial.unlink()
            raise
    partial.rename(file)


async def _pass_on(reading: Process, writing: Process) -> None:
    """Give what one process writes to another, but for the line that older servers do not know."""
    assert reading.stdout is not None, "it was started with a pipe"  # noqa: S101 - a broken invariant, not a check
    source, target = reading.stdout, _end_of(writing)
    head = b""
    while len(head) < _CHUNK_BYTES and (chunk := await source.read(_CHUNK_BYTES)):
        head += chunk
    target.write(head.replace(_UNKNOWN_BEFORE_17, b"", 1))
    while chunk := await source.read(_CHUNK_BYTES):
        target.write(chunk)
        await target.drain()


def _end_of(process: Process) -> StreamWriter:
    assert process.stdin is not None, "it was started with a pipe"  # noqa: S101 - a broken invariant, not a check
    return process.stdin


@asynccontextmanager
async def _running(
    command: Sequence[str | Path],
    database_url: str | None = None,
    *,
    stdin: int | None = None,
    stdout: BinaryIO | int | None = None,
) -> AsyncIterator[Process]:
    """Run one of the programs as long as the block, on a database if one is given.

    Its complaints go to standard error. The password is not among its arguments.
    """
    parts = conninfo_to_dict(database_url or "")
    password = parts.pop("password", None)
    secret = {"PGPASSWORD": str(password)} if password else {}
    target = [f"--dbname={make_conninfo('', **parts)}"] if database_url else []
    environment = {**os.environ, **secret}
    process = await create_subprocess_exec(*command, *target, stdin=stdin, stdout=stdout, env=environment)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()  # psql, too: what is not committed never is
            await process.wait()


async def _check_end(process: Process, name: str) -> None:
    status = await process.wait()
    if status:
        raise StartupError(f"{name} failed with exit code {status}")
