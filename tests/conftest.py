"""Real services for the tests: one PostgreSQL and one Valkey per session, a database of its own for each test.

Databases are cloned from templates: ``mc_empty`` has the schema, ``mc_loaded`` the full catalog of 2026-07-02 as the
service itself loads it.
"""

from __future__ import annotations

import asyncio
import atexit
import gzip
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from modelcatalog_client import AsyncModelCatalogClient
from modelcatalog_server import app
from modelcatalog_server.domain.refresh import Refresh, RefreshRequest, Trigger
from modelcatalog_server.logs import set_up_logs
from modelcatalog_server.settings import Settings, load_settings
from modelcatalog_server.storage.pools import PoolSettings

# `make check-deploy` runs those, in an environment of theirs.
collect_ignore = ["deployment"]

DATA = Path(__file__).parent / "data"
SNAPSHOT = Path(app.__file__).parent / "modelsdev" / "snapshot" / "catalog-2026-07-02.json.gz"


@dataclass(frozen=True)
class Services:
    """Where the session's PostgreSQL and Valkey are."""

    database_url: str
    redis_url: str

    @cached_property
    def connection(self) -> psycopg.Connection:
        return psycopg.connect(self.database_url, autocommit=True)

    def execute(self, statement: str) -> None:
        self.connection.execute(statement.encode())

    def url_of(self, database: str) -> str:
        return self.database_url.replace("/modelcatalog?", f"/{database}?")

    def clone(self, template: str) -> str:
        """Return the address of a new database that is a copy of a template."""
        name = f"mc_{uuid4().hex}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        return self.url_of(name)

    def drop(self, url: str) -> None:
        name = url.rpartition("?")[0].rpartition("/")[2]
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture(scope="session", autouse=True)
def quiet_logs() -> None:
    """Log as the service does, without the calls."""
    set_up_logs("warning", "console")


@pytest.fixture(scope="session")
def work_dir() -> Iterator[Path]:
    """A directory that an unprivileged user can reach too: pytest's own is private to root."""
    path = Path(tempfile.mkdtemp(prefix="modelcatalog-tests-", dir=scratch()))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def scratch() -> str:
    """Return where files cost least: in memory, if there is room and programs may run there. Every user can pass it."""
    memory = Path("/dev/shm")
    if memory.is_dir():
        status = os.statvfs(memory)
        if status.f_bavail * status.f_frsize > 2**30 and not status.f_flag & os.ST_NOEXEC:
            return str(memory)
    return "/tmp"


@pytest.fixture(scope="session")
def services(work_dir: Path) -> Iterator[Services]:
    script = Path(__file__).parent / "services.py"
    process = subprocess.Popen(
        [sys.executable, str(script), str(work_dir / "services")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        services = Services(**json.loads(process.stdout.readline()))
        # Nobody needs these databases after the session, so nothing has to reach the disk.
        services.execute("ALTER SYSTEM SET fsync = off")
        services.execute("ALTER SYSTEM SET full_page_writes = off")
        services.execute("SELECT pg_reload_conf()")
        yield services
        services.connection.close()
        process.stdin.close()
        process.wait(timeout=30)


@pytest.fixture(scope="session")
def templates(services: Services) -> Services:
    """The services with both templates made."""
    for name in ("mc_empty", "mc_loaded"):
        services.execute(f"CREATE DATABASE {name}")
        asyncio.run(app.migrate_database(load_settings(database_url=services.url_of(name))))
    asyncio.run(_load(make_settings(services, services.url_of("mc_loaded"), upstream_url=folder_url(SNAPSHOT))))
    return services


#: The recorded payloads, weeks apart, are replayed within seconds, and the small catalog has 87 models: the defaults
#: are there to refuse just that. Tests of the gates pass limits of their own.
OPEN_GATES = {
    "gate_min_models": 0,
    "gate_min_providers": 0,
    "gate_max_quarantined_percent": 100,
    "gate_max_removed_percent": 100,
    "gate_max_provider_removed_percent": 100,
    "gate_max_price_unit_slips": 10**6,
}


def make_settings(services: Services, database_url: str, **more: Any) -> Settings:
    defaults = {
        "listen": "127.0.0.1:0",
        "redis_url": services.redis_url,
        "log_level": "warning",
        "offline": False,
        "cache_redis_budget_ms": 10_000,  # a busy machine may take longer than 5 ms; those who test that say so
        "refresh_backoff_seconds": 0.05,
        **OPEN_GATES,
    }
    return load_settings(database_url=database_url, **{**defaults, **more})


async def _load(settings: Settings) -> None:
    async with app.start(settings) as running:
        await refresh_to_end(running, trigger=Trigger.STARTUP)


async def refresh_to_end(running: app.App, **request: Any) -> Refresh:
    """Start a run and follow it to its end."""
    refresh, _ = await running.refreshes.start(RefreshRequest(**request))
    async with asyncio.timeout(60), await running.feed.watch(refresh.id, "", 15) as watch:
        while (notice := await watch.next()) is not None:
            refresh = notice.refresh or refresh
    assert refresh.state.is_over
    return refresh


_FOLDERS: dict[Path, Path] = {}


def folder_url(*documents: Path) -> str:
    """Return a file:// upstream that holds one dated document under the name that the site serves it under."""
    folder = Path(tempfile.mkdtemp(prefix="modelcatalog-upstream-", dir="/tmp"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for document in documents:
        shutil.copy(document, folder / (document.name.partition("-")[0] + ".json.gz"))
    return folder.as_uri()


def read_json(path: Path) -> Any:
    """Return a recorded document as the standard library reads it."""
    return json.loads(gzip.decompress(path.read_bytes()))


@pytest.fixture
def empty_database(templates: Services) -> Iterator[str]:
    """A database with the schema and nothing else."""
    url = templates.clone("mc_empty")
    yield url
    templates.drop(url)


@pytest.fixture
def loaded_database(templates: Services) -> Iterator[str]:
    """A database with the full catalog of 2026-07-02, revision 1."""
    url = templates.clone("mc_loaded")
    yield url
    templates.drop(url)


StartApp = Callable[..., AbstractAsyncContextManager[app.App]]


@pytest.fixture
def start_app(templates: Services) -> StartApp:
    """Start the service in this process on a database: ``async with start_app(url) as running``."""

    def start(database_url: str, **settings: Any) -> AbstractAsyncContextManager[app.App]:
        return app.start(make_settings(templates, database_url, **settings))

    return start


@dataclass(frozen=True)
class ImpatientPools(PoolSettings):
    """Bounds of pools that give up on PostgreSQL sooner than by default."""

    acquire_timeout_s: float = 4.0  # more than a connection is asked whether it is alive
    connect_timeout_s: int = 2
    read_timeout_s: float = 3.0
    silence_s: float = 0.5


@pytest.fixture
def impatient_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that would only wait longer: services that start in this process give up sooner on PostgreSQL."""
    monkeypatch.setattr(app, "PoolSettings", ImpatientPools)


@dataclass(frozen=True)
class PatientPools(PoolSettings):
    """Bounds of pools that wait for what a test holds as long as it takes."""

    acquire_timeout_s: float = 100.0
    read_timeout_s: float = 100.0


@pytest.fixture
def patient_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that hold a lock while a service in this process reads: a busy machine may need longer for the rest."""
    monkeypatch.setattr(app, "PoolSettings", PatientPools)


@pytest.fixture
async def running(start_app: StartApp, loaded_database: str) -> AsyncIterator[app.App]:
    """The service on a database with the full catalog."""
    async with start_app(loaded_database, offline=True) as running:
        running.server.set_serving(True)
        yield running


@pytest.fixture
async def client(running: app.App) -> AsyncIterator[AsyncModelCatalogClient]:
    """A typed client of the running service."""
    async with AsyncModelCatalogClient(running.server.address) as client:
        yield client
