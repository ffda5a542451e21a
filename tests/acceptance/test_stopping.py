"""The end of a server: asked for, forced, by a crash of its own or of its database, and the start after it."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from grpc_health.v1 import health_pb2

from acceptance.serving import MODELS, OFFLINE, FirstLife, Serve, Server, until
from modelcatalog.v1.model_catalog_service_pb2 import GetModelRequest
from modelcatalog.v1.refresh_service_pb2 import WatchRefreshStatusRequest
from modelcatalog_client import OwnerLostError, ServerDrainingError, from_rpc_error, refresh_error

pytest_plugins = "acceptance.fixtures"

#: What is made anew for whoever asks first: no answer with this mask is prepared ahead.
GPT_5 = GetModelRequest(model_id="openai/gpt-5", read_mask=FieldMask(paths=["id"]))
#: That somebody asks for it; what prepares answers ahead waits as well, but asks for pages and not for an id.
WAITING = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%model_id = ANY%'"


@pytest.fixture
def server(first_life: FirstLife, serve: Serve) -> Server:
    """A server with PostgreSQL and Valkey of its own, on a loaded catalog."""
    return serve(*OFFLINE, data=first_life.data)


@contextmanager
def models_locked(server: Server) -> Iterator[Callable[[], bool]]:
    """Lock the models, so that reading one takes until the block ends; yield what tells that somebody waits."""
    with closing(server.connect_to_database()) as holder, closing(server.connect_to_database()) as observer:
        observer.autocommit = True
        holder.execute("LOCK TABLE models_metadata IN ACCESS EXCLUSIVE MODE")
        yield lambda: observer.execute(WAITING).fetchone() is not None


@pytest.mark.parametrize(
    ("number", "to_group"),
    [(signal.SIGINT, True), (signal.SIGTERM, False)],
    ids=["Ctrl-C in a terminal", "SIGTERM"],
)
def test_streams_end_at_once_and_calls_are_finished(server: Server, number: int, to_group: bool) -> None:
    watch = server.refreshes.WatchRefreshStatus(WatchRefreshStatusRequest())
    next(watch)
    persistent = server.client().watch_refresh_status(timeout=30)  # watches again when it is told to
    next(persistent)
    health = server.health.Watch(health_pb2.HealthCheckRequest())
    assert next(health).status == health_pb2.HealthCheckResponse.SERVING
    with models_locked(server) as is_waiting:
        call = server.catalog.GetModel.future(GPT_5, timeout=10)
        until(is_waiting)
        family = server.family
        assert os.getsid(server.process.pid) not in map(os.getsid, family), "the terminal would stop them before we do"
        os.killpg(server.process.pid, number) if to_group else os.kill(server.process.pid, number)
        with pytest.raises(grpc.RpcError) as ended:
            list(watch)
        assert isinstance(from_rpc_error(ended.value), ServerDrainingError)
        with pytest.raises(grpc.RpcError) as ended:
            list(health)
        assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
        assert not call.done()
    assert call.result().model.id == "openai/gpt-5"
    assert server.wait_end() == 0
    server.wait_nothing_left(family)
    persistent.close()
    assert "Traceback" not in server.stderr


def test_a_second_signal_ends_it_at_once(server: Server) -> None:
    health = server.health.Watch(health_pb2.HealthCheckRequest())
    next(health)
    with models_locked(server) as is_waiting:
        call = server.catalog.GetModel.future(GPT_5, timeout=20)
        until(is_waiting)
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(grpc.RpcError):
            list(health)
        assert server.process.poll() is None
        assert server.stop(signal.SIGTERM) == 1
        assert call.code() is grpc.StatusCode.UNAVAILABLE


def test_it_can_be_stopped_while_it_starts(serve: Serve, work_dir: Path) -> None:
    server = serve(*OFFLINE, data=work_dir / "interrupted", wait=False)
    until(lambda: server.child("initdb"))
    assert server.stop(signal.SIGINT) == 0
    assert "Traceback" not in server.stderr
    assert sorted(path.name for path in (work_dir / "interrupted").iterdir()) == ["lock", "log"]


def test_it_ends_when_its_own_postgres_dies(server: Server) -> None:
    postmaster = server.child("postgres -D")
    assert postmaster is not None
    os.kill(postmaster, signal.SIGKILL)
    assert server.wait_end() == 1
    last = server.stderr.splitlines()[-1]
    assert last.startswith("modelcatalog: PostgreSQL was killed by SIGKILL: ")
    assert last.endswith(f"(log: {server.data}/log/postgres.log)")
    assert "Traceback" not in server.stderr


def test_a_killed_server_takes_its_children_along_and_loses_nothing(
    server: Server, first_life: FirstLife, serve: Serve
) -> None:
    server.kill()
    leave_traces_of_a_lost_machine(first_life.data)
    again = serve(*OFFLINE, data=first_life.data)
    assert again.ready["revision"] == "1"
    assert int(again.ready["models"]) == MODELS
    with again.client() as client:
        assert client.get_model("openai/gpt-5").model.revision == 1


def leave_traces_of_a_lost_machine(data: Path) -> None:
    """Have pid files name a process that lives (this one), as after a boot that gave its number to another."""
    for file in (data / "postgres-18/postmaster.pid", data / "lock"):
        file.write_text(f"{os.getpid()}\n")
    (data / "run").mkdir(exist_ok=True)
    with socket.socket(socket.AF_UNIX) as stale:
        (data / "run/valkey.sock").unlink(missing_ok=True)
        stale.bind(str(data / "run/valkey.sock"))


def test_a_server_killed_at_the_worst_moments_starts_again(serve: Serve, work_dir: Path) -> None:
    data = work_dir / "killed"
    server = serve(*OFFLINE, data=data, wait=False)
    until((data / "postgres-18.partial/PG_VERSION").exists)
    server.kill()

    server = serve(*OFFLINE, data=data, wait=False)
    until(lambda: server.child("comparison_process"), timeout_s=30)
    server.kill()

    server = serve(*OFFLINE, data=data)
    assert int(server.ready["models"]) == MODELS
    assert not list(data.glob("*.partial"))
    with server.client() as client:
        loaded, orphan = client.list_refreshes()
        assert refresh_error(loaded) is None
        assert isinstance(refresh_error(orphan), OwnerLostError)
