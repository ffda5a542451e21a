"""The endpoint of metrics and probes as an operator meets it."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, build_opener

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from acceptance.serving import OFFLINE, Serve, Server, refused, until
from conftest import Services
from small_catalog import clone_small

pytest_plugins = "acceptance.fixtures"

ANY_PORT = "127.0.0.1:0"


def address_of(server: Server) -> str:
    """Return where a server shows its metrics, as its log says; not its workers, whom it asks."""

    def shown_at() -> list[str]:
        lines = [event for event in server.events if event["event"] == "metrics are shown"]
        return [event["address"] for event in lines if "worker" not in event]

    return str(until(shown_at)[-1])


def get(address: str, path: str) -> tuple[int, str]:
    try:
        with build_opener(ProxyHandler({})).open(f"http://{address}{path}", timeout=10) as response:
            return response.status, response.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


def scrape(address: str) -> Mapping[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(get(address, "/metrics")[1])}


def value(families: Mapping[str, Metric], name: str, **labels: str) -> float:
    return sum(
        sample.value
        for family in families.values()
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


@pytest.fixture
def backends(templates: Services) -> Iterator[dict[str, str]]:
    for url in clone_small(templates):
        yield {"MODELCATALOG_DATABASE_URL": url, "MODELCATALOG_REDIS_URL": templates.redis_url}


def test_a_process_shows_its_metrics_and_that_it_is_ready(serve: Serve, backends: dict[str, str]) -> None:
    server = serve(*OFFLINE, "--metrics-listen", ANY_PORT, **backends)
    address = address_of(server)
    assert get(address, "/readyz") == (200, "ok\n")
    assert get(address, "/healthz") == (200, "ok\n")
    with server.client() as client:
        client.get_model("openai/gpt-5")
    families = scrape(address)
    assert value(families, "grpc_server_handled_total", grpc_method="GetModel", grpc_code="OK") == 1
    assert value(families, "process_resident_memory_bytes") > 10e6
    assert server.stop() == 0
    with pytest.raises(URLError):
        get(address, "/healthz")


def test_off_shows_nothing(serve: Serve, backends: dict[str, str]) -> None:
    server = serve(*OFFLINE, "--metrics-listen", "off", **backends)
    assert server.is_serving()
    assert not any("metrics" in event["event"] for event in server.events)
    assert server.stop() == 0


def test_an_address_that_is_taken_is_refused_at_once(backends: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        line = refused("serve", *OFFLINE, "--metrics-listen", address, **backends)
    assert line == (
        f"cannot show metrics on {address}: Address already in use."
        " Choose another address with --metrics-listen, or off."
    )


def test_a_unix_socket_that_is_left_over_is_taken_over(serve: Serve, backends: dict[str, str], work_dir: Path) -> None:
    path = str(work_dir / "metrics.sock")
    for _ in range(2):
        server = serve(*OFFLINE, "--metrics-listen", f"unix:{path}", **backends)
        assert address_of(server) == f"unix:{path}"
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(path)
            connection.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.0 200")
        line = refused("serve", *OFFLINE, "--metrics-listen", f"unix:{path}", **backends)
        assert "Address already in use" in line, "somebody answers there"
        server.process.kill()
        server.process.wait(10)


def test_workers_are_one_target_and_each_has_its_label(serve: Serve, backends: dict[str, str]) -> None:
    server = serve(*OFFLINE, "--workers", "2", "--metrics-listen", ANY_PORT, **backends)
    address = address_of(server)
    until(lambda: value(scrape(address), "modelcatalog_worker_up") == 2)
    assert get(address, "/readyz")[0] == 200
    with server.client() as client:
        client.get_model("openai/gpt-5")
    # One that does not answer in time is left out, also where the machine is busy.
    families = until(lambda: whole if value(whole := scrape(address), "modelcatalog_worker_up") == 2 else None)
    handled = families["grpc_server_handled"].samples
    assert {sample.labels["worker"] for sample in handled} == {"1", "2"}
    assert value(families, "grpc_server_handled_total", grpc_method="GetModel", grpc_code="OK") == 1
    assert value(families, "modelcatalog_revision", worker="2") == 1
    killed = next(pid for pid, command in server.family.items() if "workers.worker" in command)
    os.kill(killed, signal.SIGSTOP)
    until(lambda: value(scrape(address), "modelcatalog_worker_up") == 1)  # one that hangs hides nobody
    os.kill(killed, signal.SIGKILL)
    until(lambda: value(scrape(address), "modelcatalog_worker_up") == 2)
    assert server.stop() == 0
