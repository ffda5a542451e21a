"""The log as an operator reads it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from acceptance.serving import OFFLINE, Serve, Server, until
from conftest import Services
from modelcatalog.v1.model_catalog_service_pb2 import GetModelRequest
from small_catalog import clone_small

pytest_plugins = "acceptance.fixtures"


@pytest.fixture
def backends(templates: Services) -> Iterator[dict[str, str]]:
    for url in clone_small(templates):
        yield {"MODELCATALOG_DATABASE_URL": url, "MODELCATALOG_REDIS_URL": templates.redis_url}


def calls(server: Server) -> list[dict[str, Any]]:
    return [event for event in server.events if event["event"] == "call"]


def ask(server: Server, model_id: str = "openai/gpt-5") -> str:
    """Call once and return the request id that the caller gets."""
    call = server.catalog.GetModel.with_call(GetModelRequest(model_id=model_id), timeout=10)[1]
    return str(dict(call.trailing_metadata())["x-request-id"])


def test_sigusr1_turns_to_debug_and_back(serve: Serve, backends: dict[str, str]) -> None:
    server = serve(*OFFLINE, "--access-log-percent", "0", **backends)
    ask(server)
    server.process.send_signal(signal.SIGUSR1)
    until(lambda: [event["to"] for event in server.events if event["event"] == "log level switched"] == ["debug"])
    loud = ask(server)
    until(lambda: calls(server))
    server.process.send_signal(signal.SIGUSR1)
    until(lambda: [event["event"] for event in server.events].count("log level switched") == 2)
    ask(server)
    assert server.stop() == 0
    (line,) = calls(server)
    assert line.pop("duration_ms") < 10_000
    assert line.pop("timestamp")
    assert line == {
        "event": "call",
        "level": "info",
        "method": "/modelcatalog.v1.ModelCatalog/GetModel",
        "code": "OK",
        "principal": "anonymous",
        "request_id": loud,
        "revision": 1,
        "request": {"model_id": "openai/gpt-5"},
    }


def test_workers_are_told_by_their_supervisor(serve: Serve, backends: dict[str, str]) -> None:
    server = serve(*OFFLINE, "--workers", "2", **backends)
    server.process.send_signal(signal.SIGUSR1)
    until(lambda: {event["worker"] for event in server.events if event["event"] == "log level switched"} == {1, 2})
    assert server.stop() == 0


def test_every_line_is_json_and_those_of_a_run_have_its_id(serve: Serve, backends: dict[str, str]) -> None:
    server = serve(*OFFLINE, **backends)
    with server.client() as client:
        refresh = client.start_refresh().refresh
        for _ in client.watch_refresh_status(refresh.id):
            pass
    until(lambda: [event for event in server.events if event["event"] == "refresh failed"])
    assert server.stop() == 0
    lines = [json.loads(line) for line in server.stderr.splitlines()]
    (failed,) = [line for line in lines if line["event"] == "refresh failed"]
    assert failed["refresh_id"] == refresh.id


def test_a_line_has_the_id_of_the_callers_trace_and_a_collector_that_is_away_holds_nothing_up(
    serve: Serve, backends: dict[str, str]
) -> None:
    server = serve(
        *OFFLINE, "--traces-endpoint", "http://127.0.0.1:1", MODELCATALOG_ACCESS_LOG_PERCENT="100", **backends
    )
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    for _ in range(2):  # from PostgreSQL, and from memory
        server.catalog.GetModel(
            GetModelRequest(model_id="openai/gpt-5"),
            metadata=(("traceparent", f"00-{trace_id}-00f067aa0ba902b7-01"),),
            timeout=10,
        )
    until(lambda: len(calls(server)) == 2)
    assert {line["trace_id"] for line in calls(server)} == {trace_id}
    assert server.stop() == 0


def test_what_is_read_at_a_terminal_does_nothing_to_it() -> None:
    program = """
import logging, structlog
from modelcatalog_server.logs import set_up_logs
set_up_logs("info", "console")
bad = "\\x1b[2J\\r\\n\\u202efake"
structlog.get_logger().info("event " + bad, text=bad, several=[bad])
logging.getLogger("library").warning("library %s", bad)
try:
    raise ValueError(bad)
except ValueError:
    structlog.get_logger().exception("failed")
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    written = run.stderr
    assert written.count("\\x1b[2J") == 5
    assert all(character.isprintable() or character == "\n" for character in written), repr(written)
    event, library, failed, *traceback = written.splitlines()
    assert [r"event \x1b[2J\r\n\u202efake" in event, "library" in library, "failed" in failed] == [True] * 3
    assert traceback[0] == "Traceback (most recent call last):"
    assert traceback[-2:] == [r"ValueError: \x1b[2J\r", r"\u202efake"]
