"""What is done to the services, to the network before them, and to the replicas."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from chaos.ground import REPLICAS, Ground
from fault_proxy import FaultProxy

Strike = Callable[[Ground, random.Random], AbstractAsyncContextManager[None]]


@dataclass(frozen=True)
class Fault:
    """One that lasts some seconds. ``strike`` begins it and, at its exit, mends what it did."""

    target: str
    what: str
    seconds: float
    strike: Strike

    @property
    def name(self) -> str:
        return f"{self.target} {self.what}"

    @property
    def spares_calls(self) -> bool:
        """Whether no call may fail meanwhile, and health may not change: what is struck is none that a call needs."""
        return self.target in ("redis", "upstream")


def _network(target: str, hurt: Callable[[FaultProxy], None]) -> Strike:
    @asynccontextmanager
    async def strike(ground: Ground, _random: random.Random) -> AsyncIterator[None]:
        proxy = ground.proxies[target]
        hurt(proxy)
        try:
            yield
        finally:
            proxy.mend()

    return strike


def _frozen(target: str) -> Strike:
    @asynccontextmanager
    async def strike(ground: Ground, _random: random.Random) -> AsyncIterator[None]:
        ground.nodes[target].signal(signal.SIGSTOP)
        try:
            yield
        finally:
            ground.nodes[target].signal(signal.SIGCONT)

    return strike


def _killed(target: str) -> Strike:
    @asynccontextmanager
    async def strike(ground: Ground, _random: random.Random) -> AsyncIterator[None]:
        await asyncio.to_thread(ground.nodes[target].kill)
        try:
            yield
        finally:
            await asyncio.to_thread(ground.nodes[target].start)

    return strike


@asynccontextmanager
async def _replica_frozen(ground: Ground, random_: random.Random) -> AsyncIterator[None]:
    replica = ground.replicas[random_.randrange(REPLICAS)]
    replica.send(signal.SIGSTOP)
    try:
        yield
    finally:
        replica.send(signal.SIGCONT)


@asynccontextmanager
async def _replica_killed(ground: Ground, random_: random.Random) -> AsyncIterator[None]:
    place = random_.randrange(REPLICAS)
    replica = ground.replicas[place]
    await replica.kill()
    yield
    await ground.start_replica(place, replica.address)


def _faults_of(target: str, *, bytes_per_s: float, delay_s: float, black_hole_s: float) -> list[Fault]:
    return [
        Fault(target, "cut", 2, _network(target, FaultProxy.cut)),
        Fault(target, "late", 3, _network(target, lambda proxy: proxy.delay(delay_s))),
        Fault(target, "dripping", 3, _network(target, lambda proxy: proxy.drip(bytes_per_s))),
        Fault(target, "black hole", black_hole_s, _network(target, FaultProxy.black_hole)),
        Fault(target, "half open", 1, _network(target, FaultProxy.half_open)),
        Fault(target, "frozen", 3, _frozen(target)),
        Fault(target, "killed", 1, _killed(target)),
    ]


#: Every fault there is.
FAULTS = (
    *_faults_of("postgres", bytes_per_s=20_000, delay_s=0.2, black_hole_s=7),
    *_faults_of("redis", bytes_per_s=5_000, delay_s=0.2, black_hole_s=3),
    *_faults_of("upstream", bytes_per_s=20_000, delay_s=0.5, black_hole_s=3),
    Fault("replica", "frozen", 3, _replica_frozen),
    Fault("replica", "killed", 1, _replica_killed),
)


def find_fault(name: str) -> Fault:
    """Return the fault of this name.

    Raises:
        LookupError: there is none.
    """
    for fault in FAULTS:
        if fault.name == name:
            return fault
    raise LookupError(f"no fault {name!r}; there are: {', '.join(fault.name for fault in FAULTS)}")
