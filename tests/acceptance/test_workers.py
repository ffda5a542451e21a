"""``serve --workers``: several processes on one port, replaced when they die, and ended together."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from acceptance.serving import MODELS, OFFLINE, FirstLife, Serve, Server, refused, until
from modelcatalog.v1.model_catalog_service_pb2 import GetCatalogInfoRequest, GetModelRequest
from modelcatalog.v1.model_catalog_service_pb2_grpc import ModelCatalogStub
from modelcatalog.v1.refresh_service_pb2 import WatchRefreshStatusRequest
from modelcatalog_client import ServerDrainingError, from_rpc_error

pytest_plugins = "acceptance.fixtures"

TWO = (*OFFLINE, "--workers", "2", "--log-level", "debug")
#: Each connection goes to one of two workers by chance: that all of them go to the same one is no chance.
MANY = 40


@pytest.fixture(scope="module")
def living(first_life: FirstLife, work_dir: Path, serve_for_module: Serve) -> Callable[[], Server]:
    """Return the server of this module, a new one if the one before has ended. Its data is a copy: it is changed."""
    data = work_dir / "workers"
    subprocess.run(["cp", "--archive", first_life.data, data], check=True)
    started: list[Server] = []

    def start() -> Server:
        if not started or started[-1].process.poll() is not None:
            started.append(serve_for_module(*TWO, data=data))
        return started[-1]

    return start


@pytest.fixture
def server(living: Callable[[], Server]) -> Server:
    """Two workers on a loaded catalog, with PostgreSQL and Valkey of their own."""
    return living()


def workers_of(server: Server) -> list[int]:
    """Return the pids of the workers that are alive."""
    return [pid for pid, command in server.family.items() if "workers.worker" in command]


@contextmanager
def connections(server: Server, count: int = MANY) -> Iterator[list[ModelCatalogStub]]:
    """Connect that often; channels of one address would share a connection if they were not told apart."""
    with ExitStack() as stack:
        yield [
            ModelCatalogStub(
                stack.enter_context(
                    grpc.insecure_channel(
                        server.address, [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
                    )
                )
            )
            for _ in range(count)
        ]


def test_the_ready_line_comes_once_and_both_workers_answer_on_its_address(server: Server) -> None:
    assert int(server.ready["models"]) == MODELS
    assert len(workers_of(server)) == 2
    with connections(server) as stubs:
        answers = [stub.GetCatalogInfo(GetCatalogInfoRequest(), timeout=10) for stub in stubs]
    assert all(answer.catalog_revision for answer in answers)
    until(lambda: {event["worker"] for event in calls_in(server)} == {1, 2})


def calls_in(server: Server) -> list[dict[str, object]]:
    return [event for event in server.events if event["event"] == "call"]


def test_what_one_worker_changed_the_others_serve_to_whoever_must_see_it(server: Server) -> None:
    with server.client() as client:
        revision = client.update_provider("zeldoc", enabled=False).catalog_revision
        asked = GetModelRequest(model_id="zeldoc/z-code")
        seeing = (("x-catalog-min-revision", str(revision)),)
        with connections(server) as stubs:
            calls = [stub.GetModel.future(asked, timeout=10, metadata=seeing) for stub in stubs]
            assert {call.code() for call in calls} == {grpc.StatusCode.NOT_FOUND}
        client.update_provider("zeldoc", enabled=True)


def test_a_worker_that_is_killed_is_replaced_while_the_other_serves(server: Server) -> None:
    killed, other = workers_of(server)
    os.kill(killed, signal.SIGKILL)
    until(lambda: killed not in workers_of(server))
    with connections(server) as stubs:
        until(lambda: len(workers_of(server)) == 2)
        for stub in stubs:
            assert stub.GetModel(GetModelRequest(model_id="openai/gpt-5"), timeout=10, wait_for_ready=True).model.id
    until(lambda: [event["event"] for event in server.events].count("a worker serves again") == 1)
    assert other in workers_of(server), "the other one was left alone"
    (replaced,) = [event for event in server.events if event["event"] == "a worker is replaced"]
    assert replaced["pid"] == killed
    assert str(replaced["reason"]).endswith("was killed by SIGKILL")


def test_no_other_server_gets_onto_the_port(server: Server) -> None:
    for count in ("1", "2"):
        line = refused(
            "serve",
            "--offline",
            f"--listen={server.address}",
            f"--workers={count}",
            MODELCATALOG_DATABASE_URL=f"postgresql://modelcatalog@/modelcatalog?host={server.data}/run",
            MODELCATALOG_REDIS_URL=f"unix://{server.data}/run/valkey.sock",
        )
        assert line == f"cannot listen on {server.address}: Address already in use. Choose another with --listen."


@contextmanager
def calls_under_way(server: Server) -> Iterator[list[Any]]:
    """Have calls in both workers that do not end before the block does: what they read is locked."""
    with connections(server) as stubs:
        with closing(server.connect_to_database()) as holder, closing(server.connect_to_database()) as observer:
            observer.autocommit = True
            holder.execute("LOCK TABLE models_metadata IN ACCESS EXCLUSIVE MODE")

            def how_many_wait() -> int:
                # What prepares the cache ahead, and waits as well, asks for pages and not for an id.
                cursor = observer.execute(
                    "SELECT count(*) FROM pg_stat_activity"
                    " WHERE wait_event_type = 'Lock' AND query LIKE '%model_id = ANY%'"
                )
                return int(cursor.fetchall()[0][0])

            asked = GetModelRequest(model_id="openai/gpt-5", read_mask=FieldMask(paths=["name"]))
            calls = [stub.GetModel.future(asked, timeout=20) for stub in stubs]
            until(lambda: how_many_wait() == 2)  # of all who ask the same, one in each process
            yield calls
        for call in calls:
            call.exception()


def test_sigterm_ends_all_and_each_finishes_its_calls(server: Server) -> None:
    with calls_under_way(server) as calls:
        watches = [server.refreshes.WatchRefreshStatus(WatchRefreshStatusRequest()) for _ in range(4)]
        for watch in watches:
            next(watch)
        os.kill(server.process.pid, signal.SIGTERM)
        for watch in watches:
            with pytest.raises(grpc.RpcError) as ended:
                list(watch)
            assert isinstance(from_rpc_error(ended.value), ServerDrainingError)
        assert not any(call.done() for call in calls)
    assert {call.result().model.name for call in calls} == {"GPT-5"}
    assert server.wait_end() == 0
    assert "Traceback" not in server.stderr


def test_a_second_signal_ends_all_at_once(server: Server) -> None:
    assert len({os.getsid(pid) for pid in [server.process.pid, *server.family]}) > 2, "Ctrl-C is the supervisor's alone"
    with calls_under_way(server) as calls:
        watch = server.refreshes.WatchRefreshStatus(WatchRefreshStatusRequest())
        next(watch)
        server.process.send_signal(signal.SIGINT)
        with pytest.raises(grpc.RpcError):
            list(watch)
        assert server.process.poll() is None
        assert server.stop(signal.SIGINT) == 1
        # The one or the other, by whether a worker still got to say so.
        assert {call.code() for call in calls} <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}


def test_it_ends_with_one_line_when_its_own_postgres_dies(server: Server) -> None:
    postmaster = server.child("postgres -D")
    assert postmaster is not None
    os.kill(postmaster, signal.SIGKILL)
    assert server.wait_end() == 1
    lines = [line for line in server.stderr.splitlines() if line.startswith("modelcatalog: ")]
    assert len(lines) == 1
    assert lines[0].startswith("modelcatalog: PostgreSQL was killed by SIGKILL: ")
