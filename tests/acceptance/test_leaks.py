"""Failures are provoked in every layer, with secrets planted everywhere: none of them is in a reply or in the log.

Replies also hold no SQL, no address, no path and no traceback, whatever went wrong.
"""

# ruff: noqa: S105 -- planted secrets, which open nothing

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from acceptance.serving import Server, command, refused, serving, until
from conftest import Services
from modelcatalog.v1 import catalog_admin_service_pb2 as admin_pb
from modelcatalog.v1 import model_catalog_service_pb2 as pb
from modelcatalog.v1 import refresh_service_pb2 as refresh_pb
from modelcatalog.v1.catalog_admin_service_pb2_grpc import CatalogAdminStub
from small_catalog import SmallCatalog, clone_small, fetch
from upstream_server import UpstreamServer, garbage, html, status

DSN_PASSWORD, REDIS_PASSWORD, UPSTREAM_USER, UPSTREAM_PASSWORD = "dsn-hunter2", "redis-hunter3", "user-x1", "up-hunter4"
UNKNOWN_TOKEN = "mcat_planted-token-hunter5"
SECRETS = [DSN_PASSWORD, REDIS_PASSWORD, UPSTREAM_USER, UPSTREAM_PASSWORD, UNKNOWN_TOKEN]
#: What no reply has: the words of SQL and of drivers, tables, paths of ours, Python.
INTERNALS = re.compile(
    r"SELECT|INSERT|UPDATE |relation|column \"|models_metadata|model_benchmarks|psycopg|postgres|redis|Traceback"
    r"|\.py\b|File \"|/run/|host=|line \d+,|0x[0-9a-f]{6}",
    re.IGNORECASE,
)


class Upstream:
    """An upstream in a thread of its own: the server under test is another process, and calls here block."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self.server = UpstreamServer()

    def __enter__(self) -> UpstreamServer:
        self._thread.start()
        self._run(self.server.__aenter__())
        return self.server

    def __exit__(self, *exc_info: object) -> None:
        self._run(self.server.__aexit__(*exc_info))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(30)


@dataclass
class Site:
    """A server full of secrets, and all that it replied."""

    server: Server
    upstream: UpstreamServer
    database: str
    tokens: Path
    token: str
    replies: list[str] = field(default_factory=list)

    def call(self, method: Any, request: Any, *, token: str | None = None) -> tuple[str, Any]:
        """Call, keep everything that came back, and return the name of the code and the answer."""
        metadata = (("authorization", f"Bearer {token or self.token}"),)
        try:
            answer, call = method.with_call(request, timeout=20, metadata=metadata)
        except grpc.RpcError as error:
            answer, call = None, error
        self.replies.append(f"{answer} {call.details()} {call.trailing_metadata()} {call.initial_metadata()}")
        return call.code().name, answer

    def refresh(self) -> Any:
        """Run a refresh to its end."""
        refreshes = self.server.refreshes
        code, started = self.call(refreshes.StartRefresh, refresh_pb.StartRefreshRequest(force=True))
        assert code == "OK"
        request = refresh_pb.GetRefreshRequest(refresh_id=started.refresh.id)

        def ended() -> Any:
            _, answer = self.call(refreshes.GetRefresh, request)
            return answer.refresh if answer.refresh.HasField("end_time") else None

        refresh = until(ended, 40)
        self.call(refreshes.ListRefreshes, refresh_pb.ListRefreshesRequest())
        self.call(refreshes.GetRefreshStatus, refresh_pb.GetRefreshStatusRequest())
        return refresh


@pytest.fixture
def database(templates: Services) -> Iterator[str]:
    yield from clone_small(templates)


@pytest.fixture
def site(services: Services, database: str, work_dir: Path, tmp_path: Path) -> Iterator[Site]:
    tokens = tmp_path / "identities.toml"
    made = command("token", "create", "--principal", "x", "--role", "admin", "--file", str(tokens))
    with Upstream() as upstream, serving(tmp_path) as serve:
        upstream.serve("/catalog.json", SmallCatalog().body)
        server = serve(
            *("--listen", "127.0.0.1:0", "--log-level", "debug", "--log-format", "json", "--refresh-attempts", "1"),
            *("--access-log-percent", "100", "--tokens-file", str(tokens), "--gate-min-models", "0"),
            *("--gate-min-providers", "0", "--refresh-full-cron", "off", "--refresh-incremental-cron", "off"),
            *("--refresh-fallback-seconds", "3600"),
            MODELCATALOG_DATABASE_URL=database.replace("modelcatalog@", f"modelcatalog:{DSN_PASSWORD}@"),
            MODELCATALOG_REDIS_URL=with_password(services.redis_url),
            MODELCATALOG_UPSTREAM_URL=upstream.url.replace("//", f"//{UPSTREAM_USER}:{UPSTREAM_PASSWORD}@"),
        )
        yield Site(server, upstream, database, tokens, made.stdout.strip())


def with_password(redis_url: str) -> str:
    """Return an address whose password is right for nobody: the server of the tests takes none."""
    scheme, _, rest = redis_url.partition("://")
    return f"{scheme}://:{REDIS_PASSWORD}@{rest.rpartition('@')[2]}"


def test_nothing_of_a_failure_gets_out_and_no_secret_into_the_log(site: Site) -> None:
    codes = {}
    catalog, refreshes = site.server.catalog, site.server.refreshes
    get = pb.GetModelRequest(model_id="openai/gpt-5")

    codes["a good call, Redis refusing us"] = site.call(catalog.GetModel, get)[0]
    codes["a bad token"] = site.call(catalog.GetModel, get, token=UNKNOWN_TOKEN)[0]
    site.call(catalog.GetCatalogInfo, pb.GetCatalogInfoRequest())
    site.call(CatalogAdminStub(site.server.channel).GetCacheStats, admin_pb.GetCacheStatsRequest())

    for fault in (garbage, html(), status(500), status(401)):
        site.upstream.misbehave("*", fault)
        assert site.refresh().error.message
    site.upstream.behave()
    assert not site.refresh().HasField("error")
    _, info = site.call(catalog.GetCatalogInfo, pb.GetCatalogInfoRequest())
    assert info.upstream_url == f"{site.upstream.url}/catalog.json?type=all", "the address, and not who we are there"

    change(site, "ALTER TABLE model_benchmarks RENAME TO gone")
    benchmarks = pb.ListModelBenchmarksRequest(model_id="openai/gpt-5")
    codes["a statement that fails"] = site.call(catalog.ListModelBenchmarks, benchmarks)[0]
    change(site, "ALTER TABLE gone RENAME TO model_benchmarks")
    change(site, "ALTER TABLE refresh_events RENAME TO gone")
    started = site.call(refreshes.StartRefresh, refresh_pb.StartRefreshRequest(force=True))[0]
    codes["a refresh that cannot write"] = started
    change(site, "ALTER TABLE gone RENAME TO refresh_events")

    name = site.database.rpartition("?")[0].rpartition("/")[2]
    elsewhere = site.database.replace(f"/{name}?", "/postgres?")
    asyncio.run(fetch(elsewhere, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false"))
    asyncio.run(fetch(elsewhere, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", name))
    for each in ("claude-x", "gpt-x"):
        codes["no database"] = site.call(catalog.GetModel, pb.GetModelRequest(model_id=each))[0]
    codes["no database for a write"] = site.call(refreshes.StartRefresh, refresh_pb.StartRefreshRequest())[0]
    asyncio.run(fetch(elsewhere, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true"))

    assert codes == {
        "a good call, Redis refusing us": "OK",
        "a bad token": "UNAUTHENTICATED",
        "a statement that fails": "INTERNAL",
        "a refresh that cannot write": "INTERNAL",
        "no database": "UNAVAILABLE",
        "no database for a write": "UNAVAILABLE",
    }
    assert site.server.stop() == 0
    look_through(site)


def test_no_reply_tells_where_the_data_is(work_dir: Path, tmp_path: Path) -> None:
    """With the own PostgreSQL, whose address is a path."""
    data = work_dir / "a-folder-of-nobodys-business"
    with serving(tmp_path) as serve:
        server = serve("--offline", "--listen", "127.0.0.1:0", data=data)
        site = Site(server, UpstreamServer(), "", data, "none")
        with server.connect_to_database() as connection:
            connection.execute("ALTER TABLE model_benchmarks RENAME TO gone")
        benchmarks = pb.ListModelBenchmarksRequest(model_id="openai/gpt-5")
        assert site.call(server.catalog.ListModelBenchmarks, benchmarks)[0] == "INTERNAL"
        with server.connect_to_database() as connection:
            connection.execute("ALTER TABLE gone RENAME TO model_benchmarks")
        for method, request in (
            (server.catalog.GetCatalogInfo, pb.GetCatalogInfoRequest()),
            (server.refreshes.GetRefreshStatus, refresh_pb.GetRefreshStatusRequest()),
            (CatalogAdminStub(server.channel).GetCacheStats, admin_pb.GetCacheStatsRequest()),
            (CatalogAdminStub(server.channel).ListAuditEvents, admin_pb.ListAuditEventsRequest()),
        ):
            assert site.call(method, request)[0] == "OK"
        assert site.refresh().error.message, "offline, it says so"
        assert [reply for reply in site.replies if data.name in reply or INTERNALS.search(without_data(reply))] == []


def change(site: Site, statement: str) -> None:
    asyncio.run(fetch(site.database, statement))


def look_through(site: Site) -> None:
    """Look for secrets in all that was said, and for internals in what was said to callers."""
    log = site.server.stderr
    secrets = [*SECRETS, site.token]
    assert len(site.replies) > 25
    for reply in site.replies:
        assert [secret for secret in secrets if secret in reply] == [], reply
        assert INTERNALS.search(without_data(reply)) is None, reply
    assert [secret for secret in secrets if secret in log] == []
    assert any(line.get("reason") == "INVALID_TOKEN" for line in site.server.events), "it is the log of this"
    assert "UndefinedTable" in log, "who keeps the log finds the cause"


def without_data(reply: str) -> str:
    """Return a reply without what a catalog may hold and a cache layer is called."""
    return re.sub(r'name: "(redis|near)"|upstream_url: "[^"]*"', "", reply)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DATABASE_URL", f"postgresql://u:{DSN_PASSWORD}@[::1/x"),
        ("DATABASE_URL", f"postgresql://u:{DSN_PASSWORD}@127.0.0.1:1/x"),
        ("DATABASE_URL", f"mysql://u:{DSN_PASSWORD}@localhost/x"),
        ("DATABASE_URL", f"host=localhost password=my {DSN_PASSWORD}"),
        ("DATABASE_REPLICA_URL", f"postgresql://u:{DSN_PASSWORD}@[::1/x"),
        ("REDIS_URL", f"rediss://:{REDIS_PASSWORD}@[::1/0"),
        ("REDIS_URL", f"http://:{REDIS_PASSWORD}@localhost/0"),
        ("REDIS_URL", f"redis://:{REDIS_PASSWORD}@localhost:notaport/0"),
        ("UPSTREAM_URL", f"ftp://{UPSTREAM_USER}:{UPSTREAM_PASSWORD}@models.dev"),
        ("UPSTREAM_URL", f"https://{UPSTREAM_USER}:{UPSTREAM_PASSWORD}@models.dev:0"),
        ("UPSTREAM_URL", f"https://{UPSTREAM_USER}:{UPSTREAM_PASSWORD}@[::1"),
    ],
)
def test_a_setting_that_is_refused_keeps_its_secret(database: str, variable: str, value: str) -> None:
    variables = {"MODELCATALOG_DATABASE_URL": database, f"MODELCATALOG_{variable}": value}
    line = refused("serve", "--offline", "--listen", "127.0.0.1:0", **variables)
    assert [secret for secret in SECRETS if secret in line] == []


def test_settings_hide_their_secrets_wherever_they_are_shown() -> None:
    from modelcatalog_server.settings import load_settings

    settings = load_settings(
        database_url=f"postgresql://u:{DSN_PASSWORD}@h/x",
        database_replica_url=f"postgresql://u:{DSN_PASSWORD}@h/x",
        redis_url=f"redis://:{REDIS_PASSWORD}@h/0",
        upstream_url=f"https://{UPSTREAM_USER}:{UPSTREAM_PASSWORD}@models.dev",
    )
    shown = f"{settings} {settings!r}"
    assert [secret for secret in SECRETS if secret in shown] == []
