"""The client of Models.dev: conditional, compressed, bounded in bytes and time, and without redirects."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum
from http import HTTPStatus
from importlib import metadata, resources
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import unquote

import aiohttp
from aiolimiter import AsyncLimiter
from yarl import URL

from modelcatalog_server.domain.errors import (
    RefreshError,
    StartupError,
    UpstreamInvalidError,
    UpstreamUnavailableError,
)
from modelcatalog_server.domain.measures import NO_ANSWER, UpstreamMeasures
from modelcatalog_server.domain.models import Source
from modelcatalog_server.domain.ports.upstream import Progress
from modelcatalog_server.domain.refresh import Payload
from modelcatalog_server.domain.spans import Kind, span
from modelcatalog_server.domain.tasks import run_in_slices
from modelcatalog_server.modelsdev.body import BoundedBody
from modelcatalog_server.modelsdev.folder import read_file, read_folder, sha256

BUNDLED_SNAPSHOT = "catalog-2026-07-02.json.gz"

_CHUNK_BYTES = 64 * 1024
_NO_ETAG = "-"
_ETAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e]*"')
# Those of the statuses below 500 that another attempt may better.
_PASSING = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}


class _Unchanged(Enum):
    UNCHANGED = "UNCHANGED"


_UNCHANGED = _Unchanged.UNCHANGED


@dataclass(frozen=True, slots=True)
class _Missing:
    """There is no such document. The site says so with a redirect to its front page as well as with 404."""

    status: int


@dataclass(frozen=True, slots=True)
class _Document:
    body: bytes
    etag: str | None


_Answer = _Document | _Missing | _Unchanged


class ModelsDevUpstream:
    """Fills the port ``Upstream``. An async context manager; nothing is opened before it is entered.

    Asks for ``catalog.json``; where there is none, for ``api.json`` and ``models.json``, of which the latter may be
    missing too. A proxy comes from the environment. Nothing is tried twice: that is for the refresh to decide.
    """

    def __init__(
        self,
        base_url: str,
        *,
        connect_timeout_s: float = 5.0,
        total_timeout_s: float = 60.0,
        max_bytes: int = 64 * 1024 * 1024,
        requests_per_minute: float = 20.0,
        measures: UpstreamMeasures | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Prepare a client.

        Args:
            base_url: ``https://``, ``http://`` (with ``user:password@``, a path or a query if need be), or a
                ``file://`` folder that holds the documents, each perhaps compressed as ``.gz``.
            connect_timeout_s: Bound for one connection: name, TCP, TLS and proxy.
            total_timeout_s: Bound for one fetch, all its documents together.
            max_bytes: Bound for each document, as received and uncompressed.
            requests_per_minute: Rate of the token bucket in front of upstream, which holds those of one minute at most.
            measures: Where requests are counted.
            now: The time, to understand a ``Retry-After`` that is a date.

        Raises:
            StartupError: The address is none of these.
        """
        self._base = _base_url(base_url)
        self._folder = Path(unquote(self._base.raw_path)) if self._base.scheme == "file" else None
        self._connect_timeout_s = connect_timeout_s
        self._total_timeout_s = total_timeout_s
        self._max_bytes = max_bytes
        self._measures = measures or UpstreamMeasures()
        self._now = now
        self._requests_per_minute = requests_per_minute
        self._bucket = AsyncLimiter(max(requests_per_minute, 1), 60 * max(1, 1 / requests_per_minute))
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Open the session. Connections are made on the first fetch."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=2),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, connect=self._connect_timeout_s),  # fetch() bounds the whole
            trust_env=True,
            auto_decompress=False,  # BoundedBody does
            headers={
                "Accept": "application/json",
                "Accept-Encoding": "gzip, deflate",
                "User-Agent": f"modelcatalog/{metadata.version('modelcatalog')}",
            },
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the session."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def fetch(self, *, etag: str | None, progress: Progress) -> Payload | None:
        """Return the document, or ``None`` when it still has this ETag. Progress is in bytes as received.

        Raises:
            UpstreamUnavailableError: No answer, or an answer that another attempt may better.
            UpstreamInvalidError: An answer that is no catalog: a redirect, HTML, too large, broken compression.
        """
        meter = _Meter(progress, self._total_timeout_s)
        try:
            if self._folder is None:
                return await self._fetch_site(etag, meter)
            async with meter.spending():
                return await self._fetch_folder(self._folder, etag, progress)
        except TimeoutError as error:
            raise UpstreamUnavailableError(f"no complete answer within {self._total_timeout_s:g} s") from error

    async def get_source_url(self) -> str:
        """Return the address of ``catalog.json`` here, as callers may see it."""
        return f"{self._folder.as_uri()}/catalog.json" if self._folder else self._source_url("catalog.json")

    async def is_source(self, url: str) -> bool:
        """Whether a payload with this source address came from here: its ETag means nothing to another upstream."""
        if self._folder is not None:
            return url.startswith(f"{self._folder.as_uri().rstrip('/')}/")
        return url in {self._source_url(name) for name in ("catalog.json", "api.json")}

    async def load_bundled(self) -> Payload:
        """Return the snapshot that ships with the package."""
        snapshot = resources.files("modelcatalog_server.modelsdev") / "snapshot" / BUNDLED_SNAPSHOT
        with resources.as_file(snapshot) as path:
            body = await read_file(path, self._max_bytes)
        source = Source(url=f"bundled:{BUNDLED_SNAPSHOT}", snapshot=await sha256(body))
        return Payload(source=source, catalog=body, is_bundled=True)

    async def _fetch_folder(self, folder: Path, etag: str | None, progress: Progress) -> Payload | None:
        payload = await read_folder(folder, self._max_bytes)
        size = sum(len(body or b"") for body in (payload.catalog, payload.api, payload.models))
        progress(size, size)
        return None if payload.etag == etag else payload

    async def _fetch_site(self, etag: str | None, meter: _Meter) -> Payload | None:
        # No ETag holds a space: one is of catalog.json, two are of the pair.
        api_etag, _, models_etag = (etag or "").partition(" ")
        catalog = await self._get("catalog.json", None if models_etag else etag, meter)
        if catalog is _UNCHANGED:
            return None
        if isinstance(catalog, _Document):
            source = await self._source("catalog.json", catalog.body)
            return Payload(source=source, catalog=catalog.body, etag=catalog.etag)
        if not models_etag:
            api_etag = ""
        return await self._fetch_pair(api_etag, models_etag, meter)

    async def _fetch_pair(self, api_etag: str, models_etag: str, meter: _Meter) -> Payload | None:
        api = await self._get("api.json", api_etag, meter)
        if isinstance(api, _Missing):
            raise UpstreamInvalidError(f"there is neither catalog.json nor api.json (status {api.status})")
        models = await self._get("models.json", models_etag, meter)
        was_missing = isinstance(models, _Missing) and models_etag == _NO_ETAG
        if api is _UNCHANGED and (models is _UNCHANGED or was_missing):
            return None
        # Only one of the two has changed, and the comparison needs both.
        api = await self._get("api.json", None, meter) if api is _UNCHANGED else api
        models = await self._get("models.json", None, meter) if models is _UNCHANGED else models
        if not isinstance(api, _Document):
            raise UpstreamUnavailableError("api.json went away between two requests")
        models_body = models.body if isinstance(models, _Document) else None
        return Payload(
            source=await self._source("api.json", api.body + (models_body or b"")),
            api=api.body,
            models=models_body,
            etag=_join_etags(api, models),
        )

    async def _source(self, name: str, body: bytes) -> Source:
        return Source(url=self._source_url(name), snapshot=await sha256(body))

    def _source_url(self, name: str) -> str:
        """Return a document's address as callers may see it."""
        return str(self._url(name).with_user(None).with_query(type="all"))

    def _url(self, name: str) -> URL:
        """Return a document's address. ``type=all``: without it newer sites leave out what is no chat model."""
        return (self._base / name).with_query(self._base.query).update_query(type="all").with_fragment(None)

    async def _get(self, name: str, etag: str | None, meter: _Meter) -> _Answer:
        if self._session is None:
            raise RuntimeError("the upstream client has not been entered")
        condition = {"If-None-Match": etag} if etag and _ETAG.fullmatch(etag) else {}
        await self._wait_for_turn()
        begun, answered = time.perf_counter(), NO_ANSWER
        try:
            with span("GET", Kind.CLIENT, self._describe(name)) as traced:
                async with (
                    meter.spending(),
                    self._session.get(self._url(name), headers=condition, allow_redirects=False) as response,
                ):
                    status = response.status
                    answered = str(status)
                    traced.note("http.response.status_code", status)
                    if status == HTTPStatus.NOT_MODIFIED and condition:
                        return _UNCHANGED
                    if status == HTTPStatus.NOT_FOUND or (response.headers.get("Location") and 300 <= status < 400):
                        return _Missing(status)
                    if status != HTTPStatus.OK:
                        raise self._refusal(name, status, response.headers)
                    return await self._read(name, response, meter)
        except aiohttp.ClientError as error:
            raise _translate(name, error, self._connect_timeout_s) from error
        finally:
            self._measures.note(answered, time.perf_counter() - begun)

    def _describe(self, name: str) -> dict[str, str | int]:
        """Return the attributes of a request in a trace; the address without what it takes to get in."""
        host = self._url(name).host or ""
        return {"http.request.method": "GET", "url.full": self._source_url(name), "server.address": host}

    async def _wait_for_turn(self) -> None:
        """Take a token of the bucket. Waiting for our own limit is not upstream's fault nor of its time."""
        try:
            async with asyncio.timeout(self._total_timeout_s):
                await self._bucket.acquire()
        except TimeoutError as error:
            raise UpstreamUnavailableError(
                f"upstream was not asked: the limit of {self._requests_per_minute:g} requests a minute gave no turn"
                f" within {self._total_timeout_s:g} s",
                passing=False,
            ) from error

    async def _read(self, name: str, response: aiohttp.ClientResponse, meter: _Meter) -> _Document:
        content_type = response.headers.get("Content-Type")
        if content_type is not None and not _is_json(content_type):
            raise UpstreamInvalidError(f"{name} came as {response.content_type[:64]!a}, not as JSON")
        length = response.content_length
        if length is not None and length > self._max_bytes:
            raise UpstreamInvalidError(f"{name} has {length:,} bytes, more than {self._max_bytes:,}")
        body = BoundedBody(name, response.headers.get("Content-Encoding", ""), self._max_bytes)
        meter.begin(length)
        async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
            await run_in_slices(body.feed(chunk))
            meter.count(len(chunk))
        document = body.finish()
        if content_type is None and not document.lstrip().startswith(b"{"):
            raise UpstreamInvalidError(f"{name} came without a content type and is no JSON object")
        etag = response.headers.get("ETag", "")
        return _Document(document, etag if _ETAG.fullmatch(etag) else None)

    def _refusal(self, name: str, status: int, headers: Mapping[str, str]) -> RefreshError:
        message = f"{name} was answered with status {status}"
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _PASSING:
            return UpstreamUnavailableError(message, retry_after=_retry_after(headers.get("Retry-After"), self._now()))
        return UpstreamInvalidError(message)


class _Meter:
    """Counts bytes and seconds over all documents of a fetch.

    How many bytes there will be is known while the last document comes.
    """

    def __init__(self, progress: Progress, seconds: float) -> None:
        self._progress = progress
        self._seconds_left = seconds
        self._done = 0
        self._total: int | None = None

    @asynccontextmanager
    async def spending(self) -> AsyncIterator[None]:
        """Bound what happens inside by the time that is left, and take it from that.

        Raises:
            TimeoutError: Nothing is left.
        """
        clock = asyncio.get_running_loop().time
        begin = clock()
        async with asyncio.timeout(self._seconds_left):
            yield
        self._seconds_left -= clock() - begin

    def begin(self, length: int | None) -> None:
        self._total = None if length is None else self._done + length

    def count(self, size: int) -> None:
        self._done += size
        self._progress(self._done, self._total)


def _base_url(text: str) -> URL:
    try:
        url = URL(text)
    except ValueError as error:
        raise StartupError("the upstream address is not a URL") from error
    if url.scheme in {"http", "https"} and url.host:
        return url
    if url.scheme == "file" and url.host in {None, "", "localhost"} and url.path.startswith("/"):
        return url
    raise StartupError("the upstream address must begin with https://host, http://host or file:///folder")


def _is_json(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind in {"application/json", "text/json"} or (kind.startswith("application/") and kind.endswith("+json"))


def _join_etags(api: _Document, models: _Answer) -> str | None:
    """Return one ETag for the pair, or none where the site gives none to either."""
    second = models.etag if isinstance(models, _Document) else _NO_ETAG
    return f"{api.etag} {second}" if api.etag and second else None


def _retry_after(text: str | None, now: datetime) -> float | None:
    """Return the seconds that a Retry-After asks for, given as such or as a date."""
    if not text:
        return None
    if re.fullmatch(r"[0-9]{1,9}", text):
        return float(text)
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, ((date if date.tzinfo else date.replace(tzinfo=UTC)) - now).total_seconds())


def _translate(name: str, error: aiohttp.ClientError, connect_timeout_s: float) -> RefreshError:
    """Say what went wrong in words of our own: aiohttp's hold hosts, proxies and URLs with their credentials."""
    match error:
        case aiohttp.ConnectionTimeoutError():
            return UpstreamUnavailableError(f"no connection to upstream within {connect_timeout_s:g} s")
        case aiohttp.ClientConnectorDNSError():
            return UpstreamUnavailableError("the name of the upstream host cannot be resolved")
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError():
            return UpstreamUnavailableError(
                "no TLS connection to upstream: its certificate or protocol is not accepted"
            )
        case aiohttp.ClientProxyConnectionError() | aiohttp.ClientHttpProxyError():
            return UpstreamUnavailableError("no connection to upstream through the proxy")
        case aiohttp.ClientConnectorError():
            # Not strerror: asyncio puts the address there.
            why = os.strerror(error.errno) if error.errno else "every address refused"
            return UpstreamUnavailableError(f"no connection to upstream: {why}")
        case aiohttp.ClientPayloadError() | aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError():
            return UpstreamUnavailableError(f"{name}: the connection ended before the answer did")
        case aiohttp.ClientResponseError():
            return UpstreamInvalidError(f"{name}: the answer is no HTTP")
        case _:
            return UpstreamUnavailableError(f"{name}: the request failed")
