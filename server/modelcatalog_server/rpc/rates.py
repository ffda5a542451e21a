"""How often a caller may call: by principal, by address, and more seldom with a token that is none.

Quotas are shared by all processes. A near hit cannot ask for them, so each process takes some ahead, a *lease*, and
counts that down by itself; when it is half used more is asked for in the background. Who finds it empty waits for the
answer, and who is refused is refused here until there is something to be had again.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Self, TypeVar

import structlog

from modelcatalog_server.domain.deadlines import create_lasting_task
from modelcatalog_server.domain.errors import CatalogError, InvalidTokenError, RateLimitedError, RoleRequiredError
from modelcatalog_server.domain.identity import ANONYMOUS, Principal
from modelcatalog_server.domain.limits import RateLimit
from modelcatalog_server.domain.ports.quotas import Quotas
from modelcatalog_server.domain.tasks import end_tasks
from modelcatalog_server.rpc.peers import LOCAL, address_of

_log = structlog.get_logger(__name__)

_K = TypeVar("_K")
_V = TypeVar("_V")

# Addresses are the callers' choice.
_MAX_SUBJECTS = 10_000
# Parts of the amount that are leased at once: at first, and when they turn out to be used.
_FIRST_PART, _PART = 100, 20
# Who is refused is not looked at again before. Seconds.
_MIN_DELAY_S = 0.02

_address_of = lru_cache(4096)(address_of)


@dataclass(slots=True)
class Lease:
    """What this process has of one subject's quota."""

    subject: str
    limit: RateLimit
    quotas: Quotas
    own: Callable[[asyncio.Task[None]], None]
    clock: Callable[[], float]
    left: int = 0
    ends_at: float = 0.0
    refused_until: float = 0.0
    asking: asyncio.Task[None] | None = None
    size: int = field(init=False)

    def __post_init__(self) -> None:
        self.size = self._first_size

    @property
    def _first_size(self) -> int:
        return max(self.limit.amount // _FIRST_PART, 1)

    def has_left(self, now: float) -> bool:
        """Whether one more gets in without being asked for."""
        if self.left and now >= self.ends_at:  # what was not used in its window is lost
            self.left, self.size = 0, self._first_size
        return self.left > 0

    def use(self) -> None:
        """Let one in."""
        self.left -= 1
        if self.size > 1 and self.left <= self.size // 2:
            self._begin_to_ask()

    async def renew(self) -> None:
        """Wait for the answer on more: there is some left then, or it is refused."""
        await asyncio.wait({self._begin_to_ask()})

    def _begin_to_ask(self) -> asyncio.Task[None]:
        if self.asking is None or self.asking.done():
            self.asking = create_lasting_task(self._ask(), name="rate-limit-lease")
            self.own(self.asking)
        return self.asking

    async def _ask(self) -> None:
        try:
            taken = await self._take()
            delay_s = 0.0 if taken else await self.quotas.get_delay(self.limit, self.subject)
        except Exception:
            _log.exception("cannot count calls: they get in")
            taken, delay_s = self.size, 0.0
        now = self.clock()
        if taken:
            self.left += taken
            self.ends_at = now + self.limit.window_s
        else:
            self.refused_until = now + max(delay_s, _MIN_DELAY_S)

    async def _take(self) -> int:
        if await self.quotas.take(self.limit, self.subject, self.size):
            taken = self.size
            self.size = min(self.size * 2, max(self.limit.amount // _PART, 1))
            return taken
        if self.size == 1:
            return 0
        self.size = 1  # near the end of the quota each one counts
        return int(await self.quotas.take(self.limit, self.subject, 1))


@dataclass(frozen=True, slots=True)
class Unsettled:
    """A caller who may get in, if there is something left of the quotas: that has to be asked for."""

    principal: Principal
    leases: Sequence[Lease]
    rates: CallRates

    async def settle(self) -> Principal | RateLimitedError:
        """Wait for the answer."""
        while True:
            admitted = self.rates.take(self.leases, self.principal)
            if not isinstance(admitted, Unsettled):
                return admitted
            now = self.rates.now()
            await asyncio.gather(*(lease.renew() for lease in self.leases if not lease.has_left(now)))


class CallRates:
    """Counts the calls of each caller. An async context manager that owns what asks for quotas.

    Args:
        quotas: Shared by all processes.
        per_principal: Of one that is known; ``None`` for no limit, as of the others.
        per_address: From one address, or one network of IPv6.
        failures: Of tokens that are none, from one address. After that it gets in with those that got in before.
        spares_local: Callers on this machine, who are not identified, are not limited by address.
        clock: Seconds, not of the wall clock.
    """

    def __init__(
        self,
        quotas: Quotas,
        *,
        per_principal: RateLimit | None = None,
        per_address: RateLimit | None = None,
        failures: RateLimit | None = None,
        spares_local: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._quotas = quotas
        self._per_principal = per_principal
        self._per_address = per_address
        self._failures = failures
        self._spares_local = spares_local
        self.now = clock
        self._leases: OrderedDict[str, Lease] = OrderedDict()
        self._seen: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._asking: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await end_tasks(*self._asking)

    def admit(self, peer: str, principal: Principal) -> Principal | RateLimitedError | Unsettled:
        """Count a call of somebody who may make it, without waiting."""
        address = self._address_of(peer)
        if self._failures is not None and address and (address, principal.name) not in self._seen:
            blocked = self._leases.get(_failures_of(address))
            if blocked is not None and blocked.refused_until > self.now():
                return _refusal(blocked, principal.name, self.now())
            _remember(self._seen, (address, principal.name), None)
        leases = [*self._leases_by_address(address)]
        if self._per_principal is not None and principal is not ANONYMOUS:
            leases.append(self._lease(f"principal:{principal.name}", self._per_principal))
        return self.take(leases, principal)

    async def charge(self, peer: str, refused: CatalogError) -> CatalogError:
        """Count a call of somebody who may not make it; return what the caller gets."""
        address = self._address_of(peer)
        leases = [*self._leases_by_address(address)]
        name = refused.principal if isinstance(refused, RoleRequiredError) else ""
        if self._per_principal is not None and name:
            leases.append(self._lease(f"principal:{name}", self._per_principal))
        if self._failures is not None and address and isinstance(refused, InvalidTokenError):
            leases.append(self._lease(_failures_of(address), self._failures))
        counted = await Unsettled(ANONYMOUS, leases, self).settle()
        if isinstance(counted, RateLimitedError):
            counted.principal = name
            return counted
        return refused

    def take(self, leases: Iterable[Lease], principal: Principal) -> Principal | RateLimitedError | Unsettled:
        """Count one call in each of the leases, or in none."""
        now = self.now()
        leases = list(leases)
        lacking = [lease for lease in leases if not lease.has_left(now)]
        if not lacking:
            for lease in leases:
                lease.use()
            return principal
        for lease in lacking:
            if lease.refused_until > now:
                return _refusal(lease, principal.name, now)
        return Unsettled(principal, leases, self)

    def _address_of(self, peer: str) -> str:
        """Return the address to count by; empty for none."""
        if self._per_address is None and self._failures is None:
            return ""
        address = _address_of(peer.rpartition(":")[0] + ":")  # without the port, which tells connections apart
        return "" if self._spares_local and address == LOCAL else address

    def _leases_by_address(self, address: str) -> Iterable[Lease]:
        if self._per_address is not None and address:
            yield self._lease(f"address:{address}", self._per_address)

    def _lease(self, subject: str, limit: RateLimit) -> Lease:
        lease = self._leases.get(subject)
        if lease is None:
            lease = Lease(subject, limit, self._quotas, self._own, self.now)
            _remember(self._leases, subject, lease)
        else:
            self._leases.move_to_end(subject)
        return lease

    def _own(self, task: asyncio.Task[None]) -> None:
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)


def _failures_of(address: str) -> str:
    return f"failures:{address}"


def _remember(known: OrderedDict[_K, _V], key: _K, value: _V) -> None:
    """Keep it, and let go of what was asked for longest ago when there is too much."""
    known[key] = value
    if len(known) > _MAX_SUBJECTS:
        known.popitem(last=False)


def _refusal(lease: Lease, principal: str, now: float) -> RateLimitedError:
    kind, _, name = lease.subject.partition(":")
    subject = f"address:{name}" if kind == "failures" else lease.subject
    limit = f"{lease.limit}" if kind != "failures" else f"{lease.limit} with tokens that are none"
    return RateLimitedError(subject, limit, retry_after_s=lease.refused_until - now, principal=principal)
