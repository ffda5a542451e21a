"""Where responses are kept: in the process, and in a cache that all processes share."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from modelcatalog_server.domain.ports.catalog import CatalogState


class SharedCache(Protocol):
    """A cache that all processes share. It never raises: what it holds can always be had again."""

    @property
    def available(self) -> bool:
        """Whether it answered when it was last asked."""
        ...

    async def get(self, key: str) -> bytes | None:
        """Return the value, ``None`` when there is none or nobody who says so soon enough."""
        ...

    async def set(self, key: str, value: bytes, *, ttl_s: int) -> None:
        """Store the value for ``ttl_s`` seconds, if there is somebody to ask."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedResponse:
    """The bytes of a response, and the state of the catalog that it belongs to."""

    body: bytes
    state: CatalogState


#: Full name of an RPC, and the bytes of a request of it.
RequestKey = tuple[str, bytes]


class ResponseCache(Protocol):
    """Keeps responses that are a function of the catalog's revision, the RPC and the request, and nothing else."""

    def peek(self, key: RequestKey) -> EncodedResponse | None:
        """Return the response if this process has it for the revision that it is at. Costs no I/O."""
        ...

    async def read(
        self, key: RequestKey, fetch: Callable[[bytes], Coroutine[Any, Any, EncodedResponse]], *, ttl_s: float
    ) -> EncodedResponse:
        """Return the response of the revision that this process is at, or of a newer one.

        ``fetch`` makes it of the request, when nobody has it; many who ask at once cause one call of it. ``ttl_s``: how
        long it may be given out.

        Raises what ``fetch`` raises. Of that only that something does not exist is kept, for seconds.
        """
        ...

    async def rebuild(
        self, key: RequestKey, fetch: Callable[[bytes], Coroutine[Any, Any, EncodedResponse]], *, ttl_s: float
    ) -> None:
        """Have the response at hand before somebody asks for it. Raises what ``fetch`` raises."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheLayerStats:
    """Figures of one layer of the response cache. What it holds is 0 while it is not available, or does not tell."""

    name: str
    available: bool
    entries: int
    bytes: int
    hits: int
    misses: int
    evictions: int


class CacheControl(Protocol):
    """What an operator sees of the response cache, and does to it."""

    async def get_stats(self) -> list[CacheLayerStats]:
        """Return the figures of each layer, nearest first."""
        ...

    async def invalidate(self, naming: str = "") -> int:
        """Let every process and Redis go of what names this, of everything if empty; return how many entries went.

        Those of other processes are not counted. Never needed for correct answers.
        """
        ...
