"""One command on a fresh machine: what it says, what answers, for whom, and with which upstream."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import modelcatalog_server
from acceptance.serving import (
    COMMAND,
    MODELS,
    OFFLINE,
    SERVICES,
    FirstLife,
    Serve,
    Server,
    as_ordinary_user,
    command,
    refused,
    run,
    until,
    users,
)
from conftest import Services
from small_catalog import SmallCatalog
from upstream_server import UpstreamServer

pytest_plugins = "acceptance.fixtures"

BUNDLED = "bundled:catalog-2026-07-02.json.gz"


@pytest.fixture(scope="module")
def server(first_life: FirstLife, serve_for_module: Serve) -> Server:
    """A second start on the same data."""
    return serve_for_module(*OFFLINE, data=first_life.data)


def test_a_first_start_says_one_line_with_the_address_and_what_it_serves(first_life: FirstLife) -> None:
    assert first_life.ready["address"].startswith("127.0.0.1:")
    assert int(first_life.ready["models"]) == MODELS
    assert first_life.ready["revision"] == "1"
    assert first_life.rest_of_stdout == "", "it says more than one line"


def test_offline_it_says_that_the_bundled_snapshot_was_loaded(first_life: FirstLife) -> None:
    assert first_life.ready["source"] == f"{BUNDLED}, not checked against upstream"
    assert f"set to offline; loaded the bundled snapshot instead ({BUNDLED})" in first_life.stderr


def test_the_command_that_it_suggests_works_as_it_stands(first_life: FirstLife) -> None:
    assert first_life.tried.returncode == 0, first_life.tried.stderr
    assert '"id": "openai/gpt-5"' in first_life.tried.stdout


def test_sigint_ends_it_with_exit_code_0(first_life: FirstLife) -> None:
    assert first_life.status == 0
    assert "Traceback" not in first_life.stderr


def test_a_second_start_finds_the_catalog(
    first_life: FirstLife, server: Server, record_property: Callable[[str, object], None]
) -> None:
    assert {**server.ready, "address": "", "command": ""} == {**first_life.ready, "address": "", "command": ""}
    with server.client() as client:
        assert client.get_catalog_info().catalog_revision == 1
        assert len(list(client.list_refreshes())) == 1
    # Not asserted: what a machine does in a second is its own affair. `pytest -rP` shows it.
    for name, seconds in (("first", first_life.ready_after_s), ("second", server.ready_after_s)):
        record_property(f"{name}_start_s", round(seconds, 2))
        print(f"{name} start: {seconds:.2f} s")


def test_grpcurl_lists_the_services_and_calls_them(server: Server) -> None:
    assert set(server.grpcurl("list")) == {
        *SERVICES,
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    answer = server.grpcurl("modelcatalog.v1.ModelCatalog/GetModel", data={"model_id": "openai/gpt-5"})
    assert answer["model"]["provider_name"] == "OpenAI"


def test_every_service_is_healthy_when_the_line_is_there(server: Server) -> None:
    for service in ("", *SERVICES):
        assert server.is_serving(service)
        answer = server.grpcurl("grpc.health.v1.Health/Check", data={"service": service})
        assert answer == {"status": "SERVING"}


def test_the_typed_client_reads_the_whole_catalog(server: Server) -> None:
    with server.client() as client:
        assert len({model.id for model in client.list_models(page_size=1000)}) == MODELS


def test_reads_go_on_without_the_cache(server: Server) -> None:
    valkey = server.child("valkey-server")
    assert valkey is not None
    os.kill(valkey, signal.SIGKILL)
    until(lambda: server.child("valkey-server") is None)
    with server.client() as client:
        assert client.get_model("openai/gpt-5").model.id == "openai/gpt-5"
    assert server.is_serving()


def test_a_data_directory_serves_one_at_a_time(server: Server) -> None:
    assert refused("serve", *OFFLINE, "--data-dir", str(server.data)) == (
        f"data directory {server.data} is in use by another modelcatalog (pid {server.process.pid}): "
        "stop that one, or set MODELCATALOG_DATA_DIR to another directory"
    )


# --- who runs it ----------------------------------------------------------------------------------------------


def test_an_ordinary_user_without_a_network_needs_but_a_home(serve: Serve, work_dir: Path) -> None:
    home = work_dir / "home"
    home.mkdir()
    home.chmod(0o777)
    away = ["--upstream-url", "http://127.0.0.1:1"]
    server = serve("--listen", "127.0.0.1:0", *away, prefix=as_ordinary_user(), HOME=str(home))
    assert int(server.ready["models"]) == MODELS
    assert server.ready["source"] == f"{BUNDLED}, not checked against upstream"
    warnings = [event["event"] for event in server.events if event["level"] == "warning"]
    # On a busy machine Redis may be given up for a second; that is no affair of this test.
    assert [warning for warning in warnings if not warning.startswith("redis is ")] == [
        f"no connection to upstream: Connection refused; loaded the bundled snapshot instead ({BUNDLED})"
    ]
    assert len(users([server.process.pid, *server.family]) - {0}) == 1
    server.data = home / ".local/share/modelcatalog"
    assert (server.data / "postgres-18").is_dir()
    assert server.stop() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user's home is in the user database")
def test_a_user_without_a_home_is_told_to_choose_a_directory() -> None:
    line = refused("serve", *OFFLINE, prefix=as_ordinary_user())
    assert line.endswith("or set MODELCATALOG_DATA_DIR to another directory")


# --- upstream -------------------------------------------------------------------------------------------------


async def test_a_first_catalog_comes_from_upstream(serve: Serve, templates: Services, empty_database: str) -> None:
    async with UpstreamServer() as upstream:
        upstream.serve("/catalog.json", SmallCatalog().body)
        flags = [
            "--listen",
            "127.0.0.1:0",
            "--upstream-url",
            upstream.url,
            "--gate-min-models",
            "1",
            "--gate-min-providers",
            "1",
            "--refresh-full-cron",
            "off",
            "--refresh-incremental-cron",
            "off",
        ]
        settings = {"MODELCATALOG_DATABASE_URL": empty_database, "MODELCATALOG_REDIS_URL": templates.redis_url}
        server = await asyncio.to_thread(serve, *flags, **settings)
        assert server.ready["source"] == f"{upstream.url}/catalog.json?type=all"
        assert int(server.ready["models"]) == len(SmallCatalog().model_ids)
        assert upstream.paths == ["/catalog.json"]


# --- help -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [[], ["serve"], ["migrate"], ["refresh"]])
def test_every_command_explains_itself(arguments: list[str]) -> None:
    result = command(*arguments, "--help")
    assert result.returncode == 0
    assert result.stdout.startswith("Usage: ")
    assert ("[MODELCATALOG_DATABASE_URL]" in result.stdout) == (arguments in [["serve"], ["migrate"]])
    assert len(result.stdout.splitlines()) < 250, "nobody reads that"


def test_the_help_waits_for_nothing_that_only_a_command_needs() -> None:
    program = (
        "import sys; from modelcatalog_server.__main__ import cli; cli(['--help'], standalone_mode=False);"
        " print({'grpc', 'modelcatalog_client', 'psycopg', 'aiohttp'} & sys.modules.keys())"
    )
    assert run([sys.executable, "-c", program]).stdout.splitlines()[-1] == "set()"


def test_version() -> None:
    assert run([*COMMAND, "--version"]).stdout.split()[-1] == "0.1.0"


def test_an_install_of_the_client_alone_says_what_the_command_needs() -> None:
    # -S leaves out site-packages, and so all that the extra would have brought.
    folder = Path(modelcatalog_server.__path__[0]).parent
    result = run([sys.executable, "-S", "-m", "modelcatalog_server", "serve"], PYTHONPATH=str(folder))
    assert result.returncode == 1
    assert result.stderr == ("the command needs the server: pip install 'modelcatalog[server]' (missing: click)\n")
