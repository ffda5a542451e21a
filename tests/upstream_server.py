"""A Models.dev on a free port of this machine: serves recorded payloads, and misbehaves on request.

    async with UpstreamServer() as upstream:
        upstream.serve("/catalog.json", body)
        ...                                    # upstream.url is the base URL
        upstream.misbehave("/catalog.json", status(503, {"Retry-After": "7"}))
        upstream.behave()

What is not served is answered as the site does: a redirect to an HTML page.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import zlib
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from aiohttp import web

from modelcatalog_server import modelsdev

_CLOSING = web.AppKey("closing", asyncio.Event)

Fault = Callable[[web.Request], Awaitable[web.StreamResponse]]

DATA = Path(__file__).parent / "data"
SNAPSHOT = Path(modelsdev.__path__[0]) / "snapshot"


def recorded(name: str) -> bytes:
    """Return a recorded payload of tests/data, or the bundled one, uncompressed: ``recorded("api-2026-07-02")``."""
    folder = SNAPSHOT if name.startswith("catalog") else DATA
    path = folder / f"{name}.json.gz"
    return gzip.decompress(path.read_bytes())


@dataclass(frozen=True)
class Asked:
    """A request that came in."""

    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]


class UpstreamServer:
    """The server. ``requests`` are all that came in; ``compress`` is whether gzip is given to who accepts it."""

    def __init__(self) -> None:
        self.requests: list[Asked] = []
        self.compress = True
        self._documents: dict[str, bytes] = {}
        self._faults: dict[str, Fault] = {}
        self._closing = asyncio.Event()
        self._asked = asyncio.Event()
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._answer)
        application.on_response_prepare.append(_drop_empty_content_type)
        application[_CLOSING] = self._closing
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
        self._port = 0

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._closing.set()
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def paths(self) -> list[str]:
        """The paths that were asked for, in order."""
        return [request.path for request in self.requests]

    def serve(self, path: str, body: bytes) -> str:
        """Serve a document from now on. Returns its ETag."""
        self._documents[path] = body
        return _etag(body)

    def withdraw(self, path: str) -> None:
        del self._documents[path]

    def misbehave(self, path: str, fault: Fault) -> None:
        """Answer every request for a path (``*`` for any) with a fault, until :meth:`behave`."""
        self._faults[path] = fault

    async def wait_for_request(self) -> None:
        """Wait until the first request has come in."""
        await self._asked.wait()

    def behave(self) -> None:
        self._faults.clear()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(Asked(request.path, dict(request.query), dict(request.headers)))
        self._asked.set()
        fault = self._faults.get(request.path) or self._faults.get("*")
        if fault is not None:
            return await fault(request)
        body = self._documents.get(request.path)
        if body is None:
            return await redirect(request)
        return self._document(request, body)

    def _document(self, request: web.Request, body: bytes) -> web.Response:
        headers = {"ETag": _etag(body), "Cache-Control": "public, max-age=0, must-revalidate"}
        if request.headers.get("If-None-Match") == headers["ETag"]:
            return web.Response(status=304, headers=headers)
        response = web.Response(body=body, content_type="application/json", headers=headers)
        if self.compress:
            response.enable_compression()
        return response


def status(code: int, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Fault:
    """Answer with a status."""

    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=code, headers=headers, body=body)

    return answer


def content(body: bytes, content_type: str = "application/json", encoding: str = "") -> Fault:
    """Answer 200 with these very bytes; no content type where it is empty."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(body)), "Content-Type": content_type})
        if encoding:
            response.headers["Content-Encoding"] = encoding
        await response.prepare(request)
        await response.write(body)
        return response

    return answer


def html() -> Fault:
    return content(b"<!doctype html><title>models</title>", "text/html; charset=utf-8")


async def redirect(_request: web.Request) -> web.StreamResponse:
    """Answer as the site does where it has no document."""
    return web.Response(status=302, headers={"Location": "/index.html"})


async def not_found(_request: web.Request) -> web.StreamResponse:
    return web.Response(status=404)


async def hang(request: web.Request) -> web.StreamResponse:
    """Never answer."""
    await request.app[_CLOSING].wait()
    return web.Response(status=503)


def hang_midway(body: bytes) -> Fault:
    """Send half a body, then nothing."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = await _begin(request, body)
        await response.write(body[: len(body) // 2])
        await hang(request)
        return response

    return answer


def disconnect_midway(body: bytes) -> Fault:
    """Promise a body and close the connection after half of it."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = await _begin(request, body)
        await response.write(body[: len(body) // 2])
        if request.transport is not None:
            request.transport.close()
        return response

    return answer


async def disconnect(request: web.Request) -> web.StreamResponse:
    """Close the connection instead of an answer."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


async def garbage(request: web.Request) -> web.StreamResponse:
    """Answer with something that is no HTTP."""
    if request.transport is not None:
        request.transport.write(b"\x00\x01 no HTTP at all\r\n\r\n")
        request.transport.close()
    return web.Response()


def truncated_gzip(body: bytes) -> Fault:
    packed = gzip.compress(body, compresslevel=1)
    return content(packed[: len(packed) // 2], encoding="gzip")


def corrupt_gzip(body: bytes) -> Fault:
    packed = bytearray(gzip.compress(body, compresslevel=1))
    packed[-6] ^= 0xFF  # in the checksum, which comes last
    return content(bytes(packed), encoding="gzip")


def in_turn(*faults: Fault) -> Fault:
    """Answer with one after the other, and with the last one from then on."""
    left = deque(faults)

    async def answer(request: web.Request) -> web.StreamResponse:
        fault = left.popleft() if len(left) > 1 else left[0]
        return await fault(request)

    return answer


def drip(body: bytes, interval_s: float = 1.0) -> Fault:
    """Send one byte at a time, as long as somebody reads them."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = await _begin(request, body)
        closing = request.app[_CLOSING]
        for byte in body:
            await response.write(bytes([byte]))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(closing.wait(), interval_s)
            if closing.is_set():
                break
        return response

    return answer


def endless(size: int) -> Fault:
    """Send ``size`` bytes in chunks, without saying beforehand how many there will be."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        piece = b" " * (1024 * 1024)
        for _ in range(size // len(piece)):
            await response.write(piece)
        return response

    return answer


def gzip_bomb(size: int) -> Fault:
    """Answer with ``size`` spaces in about a thousandth of that."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    piece = b" " * (1024 * 1024)
    packed = b"".join(packer.compress(piece) for _ in range(size // len(piece)))
    return content(packed + packer.flush(), encoding="gzip")


async def _begin(request: web.Request, body: bytes) -> web.StreamResponse:
    headers = {"Content-Length": str(len(body)), "Content-Type": "application/json"}
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    return response


async def _drop_empty_content_type(_request: web.Request, response: web.StreamResponse) -> None:
    """Send no Content-Type where aiohttp would fill in its default."""
    if not response.headers.get("Content-Type"):
        response.headers.popall("Content-Type", None)


def _etag(body: bytes) -> str:
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'
