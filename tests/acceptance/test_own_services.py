"""With a PostgreSQL and a Redis of one's own: prepared by ``migrate``, shared by two servers, away for a while."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from acceptance.serving import COMMAND, GRPCURL, OFFLINE, Serve, Server, refused, run, until
from conftest import DATA, Services, read_json
from modelcatalog.v1.model_catalog_service_pb2 import GetCatalogInfoRequest, GetModelRequest
from modelcatalog_client import DatabaseUnavailableError, Refresh, RefreshCancelledError, from_rpc_error, refresh_error
from modelcatalog_server.storage.migrations import load_migrations

pytest_plugins = "acceptance.fixtures"

GPT_5 = GetModelRequest(model_id="openai/gpt-5")
PASSWORD = "correct-horse"  # noqa: S105 -- it opens nothing
# The pool waits 5 s for a connection before a call is given up, and longer from one attempt to the next.
OUTAGE_TIMEOUT_S = 30
#: Its upstream has one provider: a small site of one's own is what these two settings are for.
SMALL = ["--gate-min-models", "1", "--gate-min-providers", "1"]
#: No run but those of the tests.
UNSCHEDULED = ["--refresh-full-cron", "off", "--refresh-incremental-cron", "off"]


@pytest.fixture
def fresh_database(services: Services) -> Iterator[str]:
    """A database with nothing in it."""
    url = services.clone("template1")
    yield url
    services.drop(url)


def test_a_database_is_prepared_by_migrate_and_only_by_that(
    fresh_database: str, services: Services, serve: Serve, folder: Path
) -> None:
    flags = ["--listen", "127.0.0.1:0", "--upstream-url", folder.as_uri(), *SMALL]
    settings = {"MODELCATALOG_DATABASE_URL": fresh_database, "MODELCATALOG_REDIS_URL": services.redis_url}
    assert refused("serve", *flags, **settings).endswith("run `modelcatalog migrate` first")
    assert migrate(fresh_database) == [f"applied {each.version:04} {each.name}" for each in load_migrations()]
    assert migrate(fresh_database) == ["the schema is up to date"]

    server = serve(*OFFLINE, wait=False, **settings)  # of the whole catalog: a small one is loaded in no time
    until(lambda: server.child("comparison_process"), timeout_s=30)
    assert server.stop(signal.SIGTERM) == 0, "in the middle of the first load"

    server = serve(*flags, **settings)
    with server.client() as client:
        loaded, stopped = client.list_refreshes()
    assert refresh_error(loaded) is None
    assert isinstance(refresh_error(stopped), RefreshCancelledError)


def migrate(url: str) -> list[str]:
    result = run([*COMMAND, "migrate", "--database-url", url])
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout.splitlines()


@pytest.fixture(scope="module")
def folder(work_dir: Path) -> Path:
    """An upstream in a folder."""
    folder = work_dir / "upstream"
    folder.mkdir()
    publish(folder, price=1.25)
    return folder


@dataclass
class Pair:
    """Two servers on one database and one upstream folder.

    The second has no Redis where it was told to find one, and does not offer reflection.
    """

    first: Server
    second: Server
    folder: Path
    database: str


@pytest.fixture(scope="module")
def pair(templates: Services, folder: Path, serve_for_module: Serve) -> Iterator[Pair]:
    database = templates.clone("mc_empty")
    # Nobody asks for the password, so nobody but these two knows it.
    url = database.replace("modelcatalog@", f"modelcatalog:{PASSWORD}@")
    flags = ["--listen", "127.0.0.1:0", "--upstream-url", folder.as_uri(), "--log-level", "debug", *SMALL, *UNSCHEDULED]
    settings = {"MODELCATALOG_DATABASE_URL": url, "wait": False}
    first = serve_for_module(*flags, MODELCATALOG_REDIS_URL=templates.redis_url, **settings)
    second = serve_for_module(
        *flags, "--no-reflection", MODELCATALOG_REDIS_URL=f"redis://:{PASSWORD}@127.0.0.1:1", **settings
    )
    first.wait_ready()
    second.wait_ready()
    yield Pair(first, second, folder, database)
    assert first.stop() == second.stop() == 0
    templates.drop(database)


def publish(folder: Path, *, price: float) -> None:
    """Have upstream list one provider, and one of its models at this price."""
    openai = read_json(DATA / "api-2026-07-02.json.gz")["openai"]
    openai["models"]["gpt-5"]["cost"]["input"] = price
    (folder / "api.json").write_text(json.dumps({"openai": openai}))


def test_two_servers_that_start_at_once_load_once(pair: Pair) -> None:
    assert pair.first.ready["revision"] == pair.second.ready["revision"] == "1"
    assert pair.first.ready["models"] == pair.second.ready["models"]
    assert pair.first.ready["source"].startswith(pair.folder.as_uri())
    with pair.second.client() as client:
        assert [run.trigger for run in client.list_refreshes()].count(Refresh.TRIGGER_STARTUP) == 1


def test_at_level_debug_every_call_leaves_a_line_also_one_that_memory_answers(pair: Pair) -> None:
    mask = ["id", "name"]  # which nobody else asks for

    def lines() -> list[Any]:
        calls = [line for line in pair.first.events if line["event"] == "call" and "GetModel" in line["method"]]
        return [line for line in calls if "name" in str(line["request"])]

    with pair.first.client() as client:
        for _ in range(2):
            client.get_model("openai/gpt-5", read_mask=mask)
        hits = client.get_cache_stats().layers[0].hits
        client.get_model("openai/gpt-5", read_mask=mask)
        assert client.get_cache_stats().layers[0].hits > hits
    until(lambda: len(lines()) >= 3)
    assert [(line["code"], len(line["request_id"])) for line in lines()] == [("OK", 32)] * 3


def test_a_redis_that_is_away_is_a_warning(pair: Pair) -> None:
    told = [event for event in pair.second.events if event["event"].startswith("redis is ")]
    assert [(event["event"], event["level"]) for event in told] == [
        ("redis is down: reads go on without it", "warning")
    ]
    assert pair.second.is_serving()


def test_reflection_can_be_switched_off(pair: Pair) -> None:
    assert not pair.second.ready["command"], "grpcurl does not work without reflection"
    result = run([GRPCURL, "-plaintext", pair.second.address, "list"])
    assert "does not support the reflection API" in result.stderr


def test_a_refresh_by_one_server_is_seen_by_the_other(pair: Pair) -> None:
    publish(pair.folder, price=2.5)
    with pair.first.client() as first, pair.second.client() as second:
        before = second.get_catalog_info().catalog_revision
        refresh = first.start_refresh().refresh
        with second.watch_refresh_status(refresh.id, timeout=30) as watch:
            states = [status.refresh.state for status in watch if status.HasField("refresh")]
        assert states[-1] == Refresh.STATE_SUCCEEDED
        assert second.get_refresh(refresh.id).refresh.counts.changed == 1
        assert second.get_model("openai/gpt-5").model.pricing.input == "2.5"
        assert second.get_catalog_info().catalog_revision == before + 1


def test_a_database_that_goes_away_and_comes_back(pair: Pair, services: Services) -> None:
    until(lambda: pair.first.is_serving() and pair.second.is_serving())
    pair.first.catalog.GetModel(GPT_5, timeout=10)
    with away(pair.database, services):
        until(lambda: failure_of_info(pair.first) is DatabaseUnavailableError, OUTAGE_TIMEOUT_S)
        until(lambda: not pair.first.is_serving(), OUTAGE_TIMEOUT_S)
        assert pair.first.catalog.GetModel(GPT_5, timeout=10).model.id, "what was read before is still answered"
    until(lambda: failure_of_info(pair.first) is None, OUTAGE_TIMEOUT_S)
    until(pair.first.is_serving, OUTAGE_TIMEOUT_S)
    with pair.first.client() as client:
        with client.watch_refresh_status(client.start_refresh(force=True).refresh.id, timeout=60) as watch:
            *_, last = watch
        assert refresh_error(last.refresh) is None


def test_the_log_is_structured_and_keeps_secrets(pair: Pair) -> None:
    for server in (pair.first, pair.second):
        assert PASSWORD not in server.stderr
        text, *_ = server.stderr.rpartition("\n")  # it goes on writing
        lines = text.splitlines()
        assert lines
        assert [line for line in lines if "exception" in json.loads(line)] == []


@contextmanager
def away(database: str, services: Services) -> Iterator[None]:
    """Have PostgreSQL refuse a database to everybody, those who are in it first."""
    name = database.rpartition("?")[0].rpartition("/")[2]
    services.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    services.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    try:
        yield
    finally:
        services.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")


def failure_of_info(server: Server) -> type[Exception] | None:
    """Return what a read that nothing caches fails with, if it does."""
    try:
        server.catalog.GetCatalogInfo(GetCatalogInfoRequest(), timeout=10)
    except grpc.RpcError as error:
        return type(from_rpc_error(error))
    return None
