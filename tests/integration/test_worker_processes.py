"""The supervisor of workers, with real processes that behave as badly as it takes, and the port that it holds."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from modelcatalog_server.backends import room_for
from modelcatalog_server.domain.errors import StartupError
from modelcatalog_server.domain.tasks import end_tasks
from modelcatalog_server.settings import load_settings, reveal
from modelcatalog_server.storage.pools import PoolSettings
from modelcatalog_server.workers import supervisor
from modelcatalog_server.workers.messages import Report, encode_report, encode_settings
from modelcatalog_server.workers.port import reserved_port
from modelcatalog_server.workers.supervisor import MAX_DEATHS, Workers
from small_catalog import until

SERVE = f"print({encode_report(Report(ready='ready'))!r}, flush=True); time.sleep(600)"
# One dies, however many start at the same instant: who makes the folder.
FIRST_DIES = """
try: os.mkdir({marker!r})
except FileExistsError: pass
else: sys.exit(0)
"""


def program(code: str) -> list[str]:
    """A worker that runs this with its own pid, after it has read its settings."""
    return [sys.executable, "-S", "-c", f"import os, signal, sys, time; told = sys.stdin.readline(); {code}"]


class Starts:
    """What was announced, and a folder in which programs leave a file for each start."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines: list[str] = []

    def workers(self, code: str, count: int = 1, **more: Any) -> Workers:
        folder = str(self.folder)
        left = f"open({folder!r} + f'/{{os.getpid()}}', 'w').write(told); "
        end = {"end_timeout_s": 10.0, "first_pause_s": 0.001, **more}
        workers = Workers(count, announce=self.lines.append, command=program(left + code), **end)
        workers.settings = encode_settings({"listen": "127.0.0.1:1"})
        return workers

    @property
    def pids(self) -> list[int]:
        return [int(file.name) for file in self.folder.iterdir() if file.is_file()]


@pytest.fixture
def starts(tmp_path: Path) -> Starts:
    return Starts(tmp_path)


def lives(pid: int) -> bool:
    with suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


async def test_one_that_dies_at_once_again_and_again_ends_the_service(starts: Starts) -> None:
    async with starts.workers("sys.exit(3)") as workers:
        with pytest.raises(StartupError) as failure:
            await workers.run()
    assert str(failure.value) == "worker 1 ended with status 3, as 8 times in a row before it had served 10 s"
    assert len(starts.pids) == MAX_DEATHS == 8
    assert starts.lines == []


async def test_one_that_says_why_it_cannot_start_ends_the_service_with_that(starts: Starts) -> None:
    said = encode_report(Report(failure="cannot load a first catalog: no"))
    async with starts.workers(f"print({said!r}, flush=True); sys.exit(1)", count=2) as workers:
        with pytest.raises(StartupError, match=r"^cannot load a first catalog: no$"):
            await workers.run()
    assert not any(map(lives, starts.pids))


async def test_all_are_told_their_settings_and_are_announced_once_when_the_last_one_serves(starts: Starts) -> None:
    die_once = FIRST_DIES.format(marker=str(starts.folder / "died"))
    async with starts.workers(die_once + SERVE, count=3) as workers:
        running = asyncio.create_task(workers.run())
        try:
            await until(lambda: starts.lines)
            assert len(list(filter(lives, starts.pids))) == 3, "one died first and was replaced"
            assert len(starts.pids) == 4
        finally:
            await end_tasks(running)
    assert starts.lines == ["ready"]
    assert {(starts.folder / str(pid)).read_text() for pid in starts.pids} == {'{"listen": "127.0.0.1:1"}\n'}
    assert not any(map(lives, starts.pids))


async def test_one_that_has_served_for_a_while_may_die_as_often_as_it_likes(
    starts: Starts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "SETTLED_S", 0.0)
    async with starts.workers(SERVE.replace("600", "0"), first_pause_s=600.0) as workers:
        running = asyncio.create_task(workers.run())
        await until(lambda: len(starts.pids) > MAX_DEATHS + 1)
        await end_tasks(running)
    assert starts.lines == ["ready"]


async def test_one_that_does_not_end_when_it_is_asked_to_is_killed(starts: Starts) -> None:
    deaf = f"signal.signal(signal.SIGTERM, signal.SIG_IGN); {SERVE}"
    async with starts.workers(deaf, end_timeout_s=0.1) as workers:
        running = asyncio.create_task(workers.run())
        await until(lambda: starts.lines)
        await end_tasks(running)
        began = time.monotonic()
    assert time.monotonic() - began < 60, "it would have lived for ten minutes"
    assert not any(map(lives, starts.pids))


async def test_a_program_that_cannot_be_run_is_said_to_be_one() -> None:
    workers = Workers(2, 1.0, print, command=["/nowhere/python"])
    with pytest.raises(StartupError, match="worker 1 cannot be started: No such file or directory"):
        async with workers:
            pass


def test_a_worker_gets_the_settings_of_its_supervisor_secrets_and_all(tmp_path: Path) -> None:
    settings = load_settings(database_url="postgresql://a:b@c/d", data_dir=tmp_path, workers=3, offline=True)
    assert load_settings(**reveal(settings)) == settings


@pytest.mark.parametrize("count", [1, 2, 4, 7, 64])
def test_the_own_postgres_has_room_for_all_workers_and_for_people(count: int) -> None:
    assert room_for(count) - count * PoolSettings.shared_by(count).connections >= 20


# --- the port -----------------------------------------------------------------------------------------------------


def listen_on(address: str, *, shared: bool) -> socket.socket:
    host, _, port = address.rpartition(":")
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
    try:
        listener.bind((host, int(port)))
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener


def test_a_port_is_held_for_workers_alone_and_nobody_can_connect_before_one_listens() -> None:
    with reserved_port("127.0.0.1:0") as address:
        target = ("127.0.0.1", int(address.removeprefix("127.0.0.1:")))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(target, timeout=5)
        with pytest.raises(OSError, match="in use"):
            listen_on(address, shared=False)
        with closing(listen_on(address, shared=True)), closing(listen_on(address, shared=True)):
            socket.create_connection(target, timeout=5).close()


@contextmanager
def somebody_listening() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("taken", [lambda: reserved_port("127.0.0.1:0"), somebody_listening], ids=["held", "listened"])
def test_a_port_that_somebody_has_is_refused(taken: Callable[[], AbstractContextManager[str]]) -> None:
    with taken() as address, pytest.raises(StartupError) as refusal, reserved_port(address):
        pass
    assert str(refusal.value) == f"cannot listen on {address}: Address already in use. Choose another with --listen."


def test_a_port_whose_last_connections_linger_can_be_had_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as before:
        host, port = before.getsockname()
        with socket.create_connection((host, port), timeout=5):
            before.accept()[0].close()  # who closes first is the one with whom it lingers
    with reserved_port(f"{host}:{port}") as address:
        assert address == f"{host}:{port}"


def test_a_name_that_stands_for_both_families_is_held_in_both() -> None:
    with reserved_port("localhost:0") as address:
        port = int(address.removeprefix("localhost:"))
        for family, *_, target in socket.getaddrinfo("localhost", port, type=socket.SOCK_STREAM):
            with socket.socket(family) as other, pytest.raises(OSError, match=r"in use|Cannot assign"):
                other.bind(target)


def test_a_host_that_is_none_is_refused() -> None:
    with pytest.raises(StartupError, match=r"^cannot listen on nowhere\.invalid:1: "):
        reserved_port("nowhere.invalid:1").__enter__()
