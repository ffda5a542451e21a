"""The same answer from others on the same machine and data: nginx, the LiteLLM proxy, and reading the file oneself."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import socket
import statistics
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from serving import h2load
from serving.h2load import Load
from serving.report import table
from serving.stage import SNAPSHOT, Process, Stage
from serving.throughput import GET_MODEL

#: Of the catalog, those whose provider LiteLLM knows how to call.
PROVIDER = "openai"


def beside(stage: Stage, rounds: int, calls: int, litellm: str) -> None:
    """Print calls a second of one model from each, and what reading the whole catalog costs."""
    rows = []
    with stage.serve() as server:
        server.call(GET_MODEL)
        rows.append(measure("modelcatalog, GetModel, near hit", server, rounds, calls, by_grpc(stage, server)))
    if shutil.which("nginx") is None:
        print("\nnginx is left out: apt-get install nginx-light")
    else:
        with nginx(stage) as server:
            ask = by_http(stage, server, "/model.json")
            rows.append(measure("nginx, the same model as a file of JSON", server, rounds, 10 * calls, ask))
    if not litellm:
        print("\nLiteLLM is left out: --litellm names the command of an environment that has litellm[proxy]")
    else:
        with proxy(stage, litellm) as (server, models):
            ask = by_http(stage, server, f"/model/info?litellm_model_id={PROVIDER}/gpt-5")
            name = f"LiteLLM proxy with {models} models, /model/info of one"
            rows.append(measure(name, server, rounds, max(calls // 20, 100), ask))
    rows.append(("reading the whole catalog.json in Python for one model", *read_whole(rounds)))
    print(f"\none model, {rounds} rounds, server and load on a core each, 100 at once\n")
    table(("", "calls/s", "CPU per call"), rows)


Ask = Callable[[int], Load]


def by_grpc(stage: Stage, server: Process) -> Ask:
    return lambda calls: h2load.run(server.address, GET_MODEL, core=stage.load_core, calls=calls)


def by_http(stage: Stage, server: Process, path: str) -> Ask:
    url = f"http://{server.address}{path}"
    with urllib.request.urlopen(url, timeout=30) as response:
        assert b"gpt-5" in response.read()
    return lambda calls: h2load.get(url, core=stage.load_core, calls=calls)


def measure(name: str, server: Process, rounds: int, calls: int, ask: Ask) -> tuple[str, str, str]:
    ask(max(calls // 10, 100))
    rates, cpu = [], server.cpu_s()
    for _ in range(rounds):
        load = ask(calls)
        assert load.failed == 0, load
        rates.append(load.per_second)
    each = (server.cpu_s() - cpu) / (rounds * calls)
    return name, f"{statistics.median(rates):,.0f}", f"{each * 1e6:,.0f} µs"


@contextmanager
def nginx(stage: Stage) -> Iterator[Process]:
    """Serve one model as Debian's nginx does, from one worker."""
    folder = stage.folder / "nginx"
    folder.mkdir()
    model = json.loads(gzip.decompress(SNAPSHOT.read_bytes()))["providers"][PROVIDER]["models"]["gpt-5"]
    (folder / "model.json").write_text(json.dumps(model))
    port = free_port()
    (folder / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/errors;\n"
        "events {}\n"
        f"http {{ access_log off; keepalive_requests 1000000; client_body_temp_path {folder}/body;\n"
        f"server {{ listen 127.0.0.1:{port}; root {folder}; }} }}\n"
    )
    command = ("taskset", "-c", str(stage.server_core), "nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"))
    with listening(command, dict(os.environ), port, folder) as process:
        yield process


@contextmanager
def proxy(stage: Stage, command: str) -> Iterator[tuple[Process, int]]:
    """Serve what LiteLLM itself knows of one provider's models, with an entry for each, as its proxy does."""
    folder = stage.folder / "litellm"
    folder.mkdir()
    models = json.loads(gzip.decompress(SNAPSHOT.read_bytes()))["providers"][PROVIDER]["models"]
    entries: list[dict[str, Any]] = [
        {
            "model_name": f"{PROVIDER}/{id_}",
            "litellm_params": {"model": f"{PROVIDER}/{id_}", "api_key": "none"},
            "model_info": {"id": f"{PROVIDER}/{id_}"},
        }
        for id_ in models
    ]
    (folder / "config.yaml").write_text(json.dumps({"model_list": entries}))  # JSON is YAML
    port = free_port()
    environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False"}
    arguments = ("--config", str(folder / "config.yaml"), "--host", "127.0.0.1", "--port", str(port))
    pinned = ("taskset", "-c", str(stage.server_core), command, *arguments)
    with listening(pinned, environment, port, folder) as process:
        yield process, len(entries)


@contextmanager
def listening(command: tuple[str, ...], environment: dict[str, str], port: int, folder: Path) -> Iterator[Process]:
    """Start a server, wait until it listens, and end it."""
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 90
            while not is_listening(port):
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.2)
            yield Process(process.pid, f"127.0.0.1:{port}")
        finally:
            process.terminate()
            process.wait(timeout=30)


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def read_whole(rounds: int) -> tuple[str, str]:
    """What it costs to have one model out of the document as Models.dev serves it, without the network."""
    body = gzip.decompress(SNAPSHOT.read_bytes())
    times = []
    for _ in range(max(rounds, 3)):
        begun = time.process_time()
        model = json.loads(body)["providers"][PROVIDER]["models"]["gpt-5"]
        times.append(time.process_time() - begun)
        assert model["id"] == "gpt-5"
    each = statistics.median(times)
    return f"{1 / each:,.0f}", f"{each * 1e6:,.0f} µs"
