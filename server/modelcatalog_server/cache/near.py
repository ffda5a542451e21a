"""The near cache: encoded responses in the memory of the process, all of one revision."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

#: What an entry costs beside the bytes of its request and response: objects, and its place in the table.
ENTRY_BYTES = 400
# A response larger than this part of the room would drive out what many callers ask for.
_LARGEST_PART = 8
# Of settling.
_ENTRIES_A_STEP = 200


@dataclass(slots=True, eq=False)
class _Entry:
    body: bytes
    size: int
    expires_at: float
    reads: int


class NearCache(Generic[K]):
    """Least recently used out first, bounded in entries and bytes.

    It holds one version of the catalog: entries of another are of no use to anybody, so all of them go when it turns to
    a new one. What was read most is remembered then, for whoever rebuilds it.

    Args:
        max_entries: 0 keeps nothing.
        max_bytes: With an allowance for what an entry costs beside its bytes.
        max_hot: How many keys are remembered.
        clock: Seconds.
    """

    def __init__(self, *, max_entries: int, max_bytes: int, max_hot: int, clock: Callable[[], float]) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self.max_hot = max_hot
        self._clock = clock
        self._entries: OrderedDict[K, _Entry] = OrderedDict()
        self._heat: dict[K, int] = {}
        self._before: OrderedDict[K, _Entry] = OrderedDict()
        self._version = ""
        self.bytes = 0
        self.hits = 0
        self.evictions = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, version: str, key: K) -> bytes | None:
        """Return the response, ``None`` when there is none of this version."""
        if version != self._version:
            self.turn_to(version)
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.expires_at <= self._clock():
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        entry.reads += 1
        self.hits += 1
        return entry.body

    def put(self, version: str, key: K, body: bytes, *, size: int, ttl_s: float) -> None:
        """Keep a response of the version that the cache is at; ``size`` is that of key and response in bytes."""
        if version != self._version or self._max_entries == 0:
            return
        size += ENTRY_BYTES
        if size * _LARGEST_PART > self._max_bytes:
            return
        reads = self._drop(key) or self._take_heat(key) // 2
        self._entries[key] = _Entry(body, size, self._clock() + ttl_s, reads)
        self.bytes += size
        while len(self._entries) > self._max_entries or self.bytes > self._max_bytes:
            self._drop(next(iter(self._entries)))
            self.evictions += 1

    def turn_to(self, version: str) -> None:
        """Let go of everything that is not of this version.

        Who asks then waits for a response that is made anew, so this does not go through the entries: see `settle`.
        """
        if version == self._version:
            return
        self._settle()
        self._before = self._entries
        self._version = version
        self.clear()

    def settle(self) -> Iterator[None]:
        """Remember what was read most before the turn, and free the memory of the rest, step by step."""
        while self._before:
            some = [self._before.popitem() for _ in range(min(_ENTRIES_A_STEP, len(self._before)))]
            self._heat = self._hottest_of(self._heat, {key: entry.reads for key, entry in some})
            yield

    def _settle(self) -> None:
        for _ in self.settle():
            pass

    def rank(self, ranked: list[tuple[K, int]]) -> Iterator[None]:
        """Fill in the keys that were read most, with how often, hottest first, step by step.

        After a turn they are those of the version before. A rebuilt entry begins with half of what it had, so that what
        nobody asks for any more cools down.
        """
        yield from self.settle()
        # Not the items: so many new pairs set the garbage collector off. Nor in order, which matters to nobody here: to
        # walk through 5,000 entries that way took more than a millisecond.
        heat, keys = self._heat, list(dict.keys(self._entries))
        for start in range(0, len(keys), _ENTRIES_A_STEP):
            some = keys[start : start + _ENTRIES_A_STEP]
            heat = self._hottest_of(heat, {key: self._entries[key].reads for key in some if key in self._entries})
            yield
        ranked.extend(heat.items())

    def _hottest_of(self, heat: Mapping[K, int], reads: Mapping[K, int]) -> dict[K, int]:
        both = {**heat, **{key: count for key, count in reads.items() if count}}
        return dict(heapq.nlargest(self.max_hot, both.items(), key=itemgetter(1)))

    def _take_heat(self, key: K) -> int:
        heat, before = self._heat.pop(key, 0), self._before.pop(key, None)
        return before.reads if before else heat

    def __contains__(self, key: K) -> bool:
        return key in self._entries

    def items(self) -> Iterator[tuple[K, bytes]]:
        """Yield keys and responses as they are now."""
        return iter([(key, entry.body) for key, entry in self._entries.items()])

    def discard(self, key: K) -> bool:
        """Let go of one entry; return whether there was one."""
        return self._drop(key) is not None

    def clear(self) -> int:
        """Let go of all entries; return how many."""
        count = len(self._entries)
        self._entries = OrderedDict()
        self.bytes = 0
        return count

    def _drop(self, key: K) -> int | None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return None
        self.bytes -= entry.size
        return entry.reads
