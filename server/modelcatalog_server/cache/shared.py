"""The layer that all processes share: encoded responses in Redis, sealed, written behind the reader's back."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from base64 import b64decode, b64encode
from collections.abc import Sequence
from contextlib import suppress
from typing import Self

from modelcatalog_server.domain.ports.caching import RequestKey, SharedCache
from modelcatalog_server.domain.tasks import end_tasks

#: How long Redis keeps a response.
SHARED_TTL_S = 3600
#: How long what was asked for most is of interest.
HOT_TTL_S = 24 * 3600
#: What is larger is not worth its room there: SQL makes it about as fast as Redis brings it.
MAX_SHARED_BYTES = 1024 * 1024
#: Bytes that may wait to be written. What comes then is not written.
MAX_WAITING_BYTES = 16 * 1024 * 1024
# Changes when the keys or the values are made in another way.
_FORMAT = "1"
_SEAL_BYTES = 16


class SharedResponses:
    """Responses under (catalog, release, version, RPC, request). An async context manager that owns the writer.

    A value is sealed together with its key by a secret of the catalog's. What was cut short, mixed up or written by
    somebody else is a miss.

    Args:
        cache: Where they are.
        secret: The same on every replica, and of no other catalog's.
        release: What another release may encode differently: its version, the contract, the schema.
    """

    def __init__(self, cache: SharedCache, *, secret: bytes, release: str) -> None:
        self._cache = cache
        self._seal_key = hashlib.blake2b(secret, person=b"mc.seal").digest()
        catalog = hashlib.blake2b(release.encode(), key=self._seal_key, digest_size=12).hexdigest()
        #: What every key of this catalog and release begins with.
        self.prefix = f"modelcatalog:{_FORMAT}:{catalog}"
        self._waiting: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
        self._waiting_bytes = 0
        self._writer: asyncio.Task[None] | None = None
        self.hits = 0
        self.misses = 0
        #: Responses that were not written because too many waited.
        self.dropped = 0

    async def __aenter__(self) -> Self:
        self._writer = asyncio.create_task(self._write(), name="shared-cache-writer")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._writer is not None:
            await end_tasks(self._writer)

    async def get(self, version: str, key: RequestKey) -> bytes | None:
        """Return the response, ``None`` when there is none, or when Redis does not say so at once."""
        name = self.name_of(version, key)
        value = await self._cache.get(name)
        body = None if value is None else self._open(name, value)
        if body is None:
            self.misses += 1
        else:
            self.hits += 1
        return body

    def put(self, version: str, key: RequestKey, body: bytes) -> None:
        """Have the response written. Nobody waits for it."""
        if len(body) > MAX_SHARED_BYTES:
            return
        if self._waiting_bytes + len(body) > MAX_WAITING_BYTES or not self._cache.available:
            self.dropped += 1
            return
        self._waiting_bytes += len(body)
        self._waiting.put_nowait((self.name_of(version, key), body))

    async def get_hot_requests(self, limit: int) -> list[RequestKey]:
        """Return what other processes are asked for most, hottest first."""
        name = f"{self.prefix}:hot"
        value = await self._cache.get(name)
        listed = None if value is None else self._open(name, value)
        if listed is None:
            return []
        return [(method, b64decode(request)) for method, request in json.loads(listed)[:limit]]

    async def put_hot_requests(self, keys: Sequence[RequestKey]) -> None:
        """Tell other processes what is asked for most here. The last one that does so is heard."""
        name = f"{self.prefix}:hot"
        listed = json.dumps([(method, b64encode(request).decode()) for method, request in keys]).encode()
        if len(listed) <= MAX_SHARED_BYTES:
            await self._cache.set(name, self._seal(name, listed) + listed, ttl_s=HOT_TTL_S)

    async def flushed(self) -> None:
        """Wait until everything that was put has been written, or given up."""
        await self._waiting.join()

    def name_of(self, version: str, key: RequestKey) -> str:
        """Return the key in Redis."""
        method, request = key
        return f"{self.prefix}:{version}:{method}:{hashlib.blake2b(request, digest_size=20).hexdigest()}"

    async def _write(self) -> None:
        while True:
            name, body = await self._waiting.get()
            try:
                with suppress(Exception):  # the port never raises; should it, the next one is written all the same
                    await self._cache.set(name, self._seal(name, body) + body, ttl_s=SHARED_TTL_S)
            finally:
                self._waiting_bytes -= len(body)
                self._waiting.task_done()

    def _open(self, name: str, value: bytes) -> bytes | None:
        seal, body = value[:_SEAL_BYTES], value[_SEAL_BYTES:]
        return body if hmac.compare_digest(seal, self._seal(name, body)) else None

    def _seal(self, name: str, body: bytes) -> bytes:
        seal = hashlib.blake2b(name.encode(), key=self._seal_key, digest_size=_SEAL_BYTES)
        seal.update(body)
        return seal.digest()
