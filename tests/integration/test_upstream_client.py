"""The client of Models.dev against a real HTTP server that behaves, and one that does not."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import random
import zlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp import web

import upstream_server
from modelcatalog_server.domain.errors import StartupError, UpstreamInvalidError, UpstreamUnavailableError
from modelcatalog_server.modelsdev.client import BUNDLED_SNAPSHOT, ModelsDevUpstream
from seeds import seed_of
from upstream_server import Fault, UpstreamServer, recorded

CATALOG = b'{"providers": {}, "models": {}}'
API = b'{"lab": {}}'
MODELS = b'{"lab/one": {}}'
NOW = datetime(2026, 7, 2, 12, 0, 0, tzinfo=UTC)


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[UpstreamServer]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    async with UpstreamServer() as server:
        server.serve("/catalog.json", CATALOG)
        yield server


@pytest.fixture
async def upstream(server: UpstreamServer) -> AsyncIterator[ModelsDevUpstream]:
    async with make_upstream(server.url) as upstream:
        yield upstream


def make_upstream(url: str, *, total_timeout_s: float = 5.0, max_bytes: int = 1024 * 1024) -> ModelsDevUpstream:
    return ModelsDevUpstream(url, total_timeout_s=total_timeout_s, max_bytes=max_bytes, now=lambda: NOW)


def late(body: bytes, after_s: float) -> Fault:
    """An upstream that thinks first."""

    async def answer(_request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(after_s)
        return web.Response(body=body, content_type="application/json")

    return answer


def no_progress(_done: int, _total: int | None) -> None:
    pass


def serve_pair(server: UpstreamServer) -> None:
    server.withdraw("/catalog.json")
    server.serve("/api.json", API)
    server.serve("/models.json", MODELS)


class TestTurns:
    """The limit of requests a minute: as many are free, and then one comes each time that another would have been."""

    async def test_waiting_for_a_turn_takes_nothing_of_the_time_for_an_answer(self, server: UpstreamServer) -> None:
        server.misbehave("/catalog.json", late(CATALOG, 2.0))
        async with ModelsDevUpstream(server.url, total_timeout_s=3.5, requests_per_minute=30) as upstream:
            begin = asyncio.get_running_loop().time()
            await asyncio.gather(*(upstream._bucket.acquire() for _ in range(30)))
            assert await upstream.fetch(etag=None, progress=no_progress) is not None
        assert asyncio.get_running_loop().time() - begin > 3.5, "it waited for both"

    async def test_a_turn_that_does_not_come_is_not_put_down_to_upstream(self, server: UpstreamServer) -> None:
        async with ModelsDevUpstream(server.url, total_timeout_s=0.2, requests_per_minute=1) as upstream:
            await upstream._bucket.acquire()
            with pytest.raises(UpstreamUnavailableError, match="upstream was not asked: the limit of 1 ") as raised:
                await upstream.fetch(etag=None, progress=no_progress)
        assert not raised.value.passing, "the next attempt would wait as well"
        assert server.requests == []


class TestFetch:
    async def test_returns_the_document_with_its_etag_and_source(
        self, server: UpstreamServer, upstream: ModelsDevUpstream
    ) -> None:
        etag = server.serve("/catalog.json", CATALOG)
        payload = await upstream.fetch(etag=None, progress=no_progress)
        assert payload is not None
        assert (payload.catalog, payload.api, payload.models) == (CATALOG, None, None)
        assert payload.etag == etag
        assert payload.source.url == f"{server.url}/catalog.json?type=all"
        assert payload.source.snapshot == hashlib.sha256(CATALOG).hexdigest()
        assert not payload.is_bundled

    async def test_asks_politely_for_every_type_compressed(
        self, server: UpstreamServer, upstream: ModelsDevUpstream
    ) -> None:
        await upstream.fetch(etag='"old"', progress=no_progress)
        (request,) = server.requests
        assert (request.path, request.query) == ("/catalog.json", {"type": "all"})
        assert request.headers["User-Agent"].startswith("modelcatalog/")
        assert request.headers["Accept"] == "application/json"
        assert request.headers["Accept-Encoding"] == "gzip, deflate"
        assert request.headers["If-None-Match"] == '"old"'

    async def test_is_none_while_the_etag_is_the_same(
        self, server: UpstreamServer, upstream: ModelsDevUpstream
    ) -> None:
        etag = server.serve("/catalog.json", CATALOG)
        assert await upstream.fetch(etag=etag, progress=no_progress) is None
        server.serve("/catalog.json", CATALOG + b" ")
        assert await upstream.fetch(etag=etag, progress=no_progress) is not None

    async def test_fetches_the_real_document_whole(self, server: UpstreamServer) -> None:
        body = recorded("catalog-2026-07-02")
        server.serve("/catalog.json", body)
        async with ModelsDevUpstream(server.url) as upstream:
            payload = await upstream.fetch(etag=None, progress=no_progress)
        assert payload is not None
        assert payload.catalog == body

    async def test_reports_progress_in_bytes_received(
        self, server: UpstreamServer, upstream: ModelsDevUpstream
    ) -> None:
        server.compress = False
        server.serve("/catalog.json", b" " * 100_000)
        seen: list[tuple[int, int | None]] = []
        await upstream.fetch(etag=None, progress=lambda done, total: seen.append((done, total)))
        assert seen[-1] == (100_000, 100_000)
        assert seen == sorted(seen)

    async def test_sends_no_etag_that_is_none(self, server: UpstreamServer, upstream: ModelsDevUpstream) -> None:
        await upstream.fetch(etag="no etag\r\nX: y", progress=no_progress)
        assert "If-None-Match" not in server.requests[0].headers

    async def test_keeps_credentials_out_of_source_and_errors(self, server: UpstreamServer) -> None:
        url = server.url.replace("http://", "http://someone:s3cret@") + "/mirror/?token=t0ken"
        server.serve("/mirror/catalog.json", CATALOG)
        async with make_upstream(url) as upstream:
            payload = await upstream.fetch(etag=None, progress=no_progress)
            assert payload is not None
            assert payload.source.url == f"{server.url}/mirror/catalog.json?type=all"
            assert server.requests[0].query == {"token": "t0ken", "type": "all"}
            assert server.requests[0].headers["Authorization"].startswith("Basic ")
            server.misbehave("*", upstream_server.status(503))
            with pytest.raises(UpstreamUnavailableError) as raised:
                await upstream.fetch(etag=None, progress=no_progress)
        assert not any(part in str(raised.value) for part in ("someone", "s3cret", "t0ken", "127.0.0.1"))

    @pytest.mark.parametrize("wbits", [zlib.MAX_WBITS, -zlib.MAX_WBITS], ids=["zlib", "raw"])
    async def test_takes_both_forms_of_deflate(
        self, server: UpstreamServer, upstream: ModelsDevUpstream, wbits: int
    ) -> None:
        packer = zlib.compressobj(wbits=wbits)
        packed = packer.compress(CATALOG) + packer.flush()
        server.misbehave("/catalog.json", upstream_server.content(packed, encoding="deflate"))
        payload = await upstream.fetch(etag=None, progress=no_progress)
        assert payload is not None
        assert payload.catalog == CATALOG

    async def test_takes_gzip_of_several_members(self, server: UpstreamServer, upstream: ModelsDevUpstream) -> None:
        packed = gzip.compress(CATALOG[:10]) + gzip.compress(CATALOG[10:])
        server.misbehave("/catalog.json", upstream_server.content(packed, encoding="gzip"))
        payload = await upstream.fetch(etag=None, progress=no_progress)
        assert payload is not None
        assert payload.catalog == CATALOG

    async def test_tolerates_a_mirror_without_content_type(
        self, server: UpstreamServer, upstream: ModelsDevUpstream
    ) -> None:
        server.misbehave("/catalog.json", upstream_server.content(CATALOG, content_type=""))
        assert await upstream.fetch(etag=None, progress=no_progress) is not None

    async def test_goes_through_the_proxy_of_the_environment(
        self, server: UpstreamServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("http_proxy", server.url)
        async with make_upstream("http://models.invalid") as upstream:
            payload = await upstream.fetch(etag=None, progress=no_progress)
        assert payload is not None
        assert payload.catalog == CATALOG
        assert server.requests[0].headers["Host"] == "models.invalid"

    async def test_is_cancelled_at_once(self, server: UpstreamServer, upstream: ModelsDevUpstream) -> None:
        server.misbehave("/catalog.json", upstream_server.hang)
        task = asyncio.create_task(upstream.fetch(etag=None, progress=no_progress))
        await server.wait_for_request()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


class TestFallback:
    @pytest.mark.parametrize("missing", [upstream_server.not_found, upstream_server.redirect])
    async def test_without_a_catalog_the_pair_is_fetched(
        self, server: UpstreamServer, upstream: ModelsDevUpstream, missing: Fault
    ) -> None:
        serve_pair(server)
        server.misbehave("/catalog.json", missing)
        payload = await upstream.fetch(etag=None, progress=no_progress)
        assert payload is not None
        assert (payload.catalog, payload.api, payload.models) == (None, API, MODELS)
        assert payload.source.snapshot == hashlib.sha256(API + MODELS).hexdigest()
        assert payload.source.url == f"{server.url}/api.json?type=all"
        assert "/index.html" not in server.paths

    @pytest.mark.parametrize("missing", [upstream_server.not_found, upstream_server.redirect])
    async def test_canonical_models_may_be_missing_too(
        self, server: UpstreamServer, upstream: ModelsDevUpstream, missing: Fault
    ) -> None:
        serve_pair(server)
        server.misbehave("/models.json", missing)
        payload = await upstream.fetch(etag=None, progress=no_progress)
        assert payload is not None
        assert (payload.api, payload.models) == (API, None)
        assert await upstream.fetch(etag=payload.etag, progress=no_progress) is None
        server.behave()
        again = await upstream.fetch(etag=payload.etag, progress=no_progress)
        assert again is not None
        assert (again.api, again.models) == (API, MODELS)

    async def test_is_none_only_while_both_are_the_same(
        self, server: UpstreamServer, upstream: ModelsDevUpstream
    ) -> None:
        serve_pair(server)
        first = await upstream.fetch(etag=None, progress=no_progress)
        assert first is not None
        assert await upstream.fetch(etag=first.etag, progress=no_progress) is None
        for path in ("/api.json", "/models.json"):
            serve_pair_with_change(server, path)
            changed = await upstream.fetch(etag=first.etag, progress=no_progress)
            assert changed is not None
            assert changed.api is not None
            assert changed.models is not None
            assert await upstream.fetch(etag=changed.etag, progress=no_progress) is None

    async def test_a_catalog_that_appears_is_preferred(
        self, server: UpstreamServer, upstream: ModelsDevUpstream
    ) -> None:
        serve_pair(server)
        first = await upstream.fetch(etag=None, progress=no_progress)
        assert first is not None
        server.serve("/catalog.json", CATALOG)
        second = await upstream.fetch(etag=first.etag, progress=no_progress)
        assert second is not None
        assert second.catalog == CATALOG

    async def test_a_failing_catalog_is_no_missing_one(
        self, server: UpstreamServer, upstream: ModelsDevUpstream
    ) -> None:
        serve_pair(server)
        server.misbehave("/catalog.json", upstream_server.status(500))
        with pytest.raises(UpstreamUnavailableError):
            await upstream.fetch(etag=None, progress=no_progress)
        assert server.paths == ["/catalog.json"]


def serve_pair_with_change(server: UpstreamServer, path: str) -> None:
    server.serve("/api.json", API)
    server.serve("/models.json", MODELS)
    server.serve(path, {"/api.json": API, "/models.json": MODELS}[path] + b" ")


class TestMisbehaviour:
    @pytest.mark.parametrize(
        ("fault", "message"),
        [
            (upstream_server.redirect, "neither catalog.json nor api.json (status 302)"),
            (upstream_server.not_found, "neither catalog.json nor api.json (status 404)"),
            (upstream_server.html(), "catalog.json came as 'text/html', not as JSON"),
            (upstream_server.status(401), "status 401"),
            (upstream_server.status(403), "status 403"),
            (upstream_server.status(204), "status 204"),
            (upstream_server.status(304), "status 304"),
            (upstream_server.content(b"<html>", content_type=""), "without a content type"),
            (upstream_server.content(b""), "catalog.json is empty"),
            (upstream_server.content(b"", encoding="gzip"), "catalog.json is empty"),
            (upstream_server.content(b"x", encoding="br"), "an encoding that was not asked for"),
            (upstream_server.truncated_gzip(CATALOG * 100), "its compression ends early"),
            (upstream_server.corrupt_gzip(CATALOG), "its compression is corrupt"),
            (upstream_server.content(b"no gzip at all", encoding="gzip"), "its compression is corrupt"),
            (upstream_server.content(b" " * 1_048_577), "1,048,577 bytes, more than 1,048,576"),
            (upstream_server.gzip_bomb(100 * 1024 * 1024), "more than 1,048,576 bytes uncompressed"),
            (upstream_server.garbage, "the answer is no HTTP"),
        ],
    )
    async def test_is_invalid(
        self, server: UpstreamServer, upstream: ModelsDevUpstream, fault: Fault, message: str
    ) -> None:
        server.misbehave("*", fault)
        with pytest.raises(UpstreamInvalidError) as raised:
            await upstream.fetch(etag=None, progress=no_progress)
        assert message in str(raised.value)
        assert "127.0.0.1" not in str(raised.value)

    @pytest.mark.parametrize(
        ("fault", "message"),
        [
            (upstream_server.status(500), "status 500"),
            (upstream_server.status(503), "status 503"),
            (upstream_server.status(429), "status 429"),
            (upstream_server.disconnect, "the connection ended before the answer did"),
            (upstream_server.disconnect_midway(CATALOG), "the connection ended before the answer did"),
        ],
    )
    async def test_is_unavailable(
        self, server: UpstreamServer, upstream: ModelsDevUpstream, fault: Fault, message: str
    ) -> None:
        server.misbehave("*", fault)
        with pytest.raises(UpstreamUnavailableError) as raised:
            await upstream.fetch(etag=None, progress=no_progress)
        assert message in str(raised.value)
        assert "127.0.0.1" not in str(raised.value)

    @pytest.mark.parametrize("fault", [upstream_server.hang, upstream_server.hang_midway(CATALOG)])
    async def test_a_stalled_answer_ends_in_time(self, server: UpstreamServer, fault: Fault) -> None:
        server.misbehave("*", fault)
        async with make_upstream(server.url, total_timeout_s=0.2) as upstream:
            with pytest.raises(UpstreamUnavailableError, match=r"no complete answer within 0\.2 s"):
                await upstream.fetch(etag=None, progress=no_progress)

    async def test_nobody_listens(self, server: UpstreamServer) -> None:
        async with make_upstream("http://127.0.0.1:1") as upstream:
            with pytest.raises(UpstreamUnavailableError) as raised:
                await upstream.fetch(etag=None, progress=no_progress)
        assert str(raised.value) == "no connection to upstream: Connection refused"

    async def test_too_much_without_a_length_is_stopped(self, server: UpstreamServer) -> None:
        server.serve("/catalog.json", b" " * 100_000)
        async with make_upstream(server.url, max_bytes=50_000) as upstream:
            with pytest.raises(UpstreamInvalidError, match="more than 50,000 bytes uncompressed"):
                await upstream.fetch(etag=None, progress=no_progress)

    @pytest.mark.parametrize(
        ("header", "seconds"),
        [
            ("7", 7.0),
            ("Thu, 02 Jul 2026 12:01:30 GMT", 90.0),
            ("Thu, 02 Jul 2026 11:00:00 GMT", 0.0),
            ("soon", None),
            ("-3", None),
        ],
    )
    async def test_carries_retry_after(
        self, server: UpstreamServer, upstream: ModelsDevUpstream, header: str, seconds: float | None
    ) -> None:
        server.misbehave("*", upstream_server.status(429, {"Retry-After": header}))
        with pytest.raises(UpstreamUnavailableError) as raised:
            await upstream.fetch(etag=None, progress=no_progress)
        assert raised.value.retry_after == seconds

    async def test_works_again_after_a_fault(self, server: UpstreamServer, upstream: ModelsDevUpstream) -> None:
        server.misbehave("*", upstream_server.disconnect)
        with pytest.raises(UpstreamUnavailableError):
            await upstream.fetch(etag=None, progress=no_progress)
        server.behave()
        assert await upstream.fetch(etag=None, progress=no_progress) is not None


class TestSource:
    @pytest.mark.parametrize("address", ["{0}", "{0}/", "{0}?key=secret"])
    async def test_a_payload_has_the_address_that_it_came_from(self, server: UpstreamServer, address: str) -> None:
        server.serve("/catalog.json", CATALOG)
        async with make_upstream(address.format(server.url)) as upstream, make_upstream("http://127.0.0.1:1") as other:
            whole = await upstream.fetch(etag=None, progress=no_progress)
            serve_pair(server)
            pair = await upstream.fetch(etag=None, progress=no_progress)
            for payload in (whole, pair):
                assert payload is not None
                assert await upstream.is_source(payload.source.url)
                assert not await other.is_source(payload.source.url)

    async def test_a_folder_too(self, tmp_path: Path) -> None:
        folder, other = tmp_path / "a b", tmp_path / "a"
        folder.mkdir()
        write(folder, "catalog.json", CATALOG, compressed=True)
        payload = await make_upstream(folder.as_uri()).fetch(etag=None, progress=no_progress)
        assert payload is not None
        assert await make_upstream(folder.as_uri()).is_source(payload.source.url)
        assert not await make_upstream(other.as_uri()).is_source(payload.source.url)

    async def test_a_bundled_snapshot_came_from_none(self, upstream: ModelsDevUpstream) -> None:
        assert not await upstream.is_source(f"bundled:{BUNDLED_SNAPSHOT}")


class TestFolder:
    @pytest.mark.parametrize("compressed", [False, True])
    async def test_catalog(self, tmp_path: Path, compressed: bool) -> None:
        write(tmp_path, "catalog.json", CATALOG, compressed=compressed)
        async with make_upstream(tmp_path.as_uri()) as upstream:
            payload = await upstream.fetch(etag=None, progress=no_progress)
            assert payload is not None
            assert payload.catalog == CATALOG
            assert payload.source.url.startswith(f"{tmp_path.as_uri()}/catalog.json")
            assert payload.source.snapshot == hashlib.sha256(CATALOG).hexdigest()
            assert await upstream.fetch(etag=payload.etag, progress=no_progress) is None

    async def test_pair(self, tmp_path: Path) -> None:
        write(tmp_path, "api.json", API, compressed=False)
        async with make_upstream(tmp_path.as_uri()) as upstream:
            alone = await upstream.fetch(etag=None, progress=no_progress)
            assert alone is not None
            assert (alone.api, alone.models) == (API, None)
            write(tmp_path, "models.json", MODELS, compressed=True)
            both = await upstream.fetch(etag=alone.etag, progress=no_progress)
            assert both is not None
            assert (both.api, both.models) == (API, MODELS)

    async def test_large_documents_are_read_hashed_and_inflated_whole(self, tmp_path: Path) -> None:
        api, models = (random.Random(seed_of("SEED")).randbytes(900_000 - size) for size in (0, 1))  # noqa: S311
        write(tmp_path, "api.json", api, compressed=False)
        packed = gzip.compress(models[:300_001]) + gzip.compress(b"") + gzip.compress(models[300_001:])
        (tmp_path / "models.json.gz").write_bytes(packed)
        async with make_upstream(tmp_path.as_uri()) as upstream:
            payload = await upstream.fetch(etag=None, progress=no_progress)
        assert payload is not None
        assert (payload.api, payload.models) == (api, models)
        assert payload.etag == f'"sha256-{payload.source.snapshot}"'
        assert payload.source.snapshot == hashlib.sha256(api + models).hexdigest()

    async def test_a_file_as_large_as_the_bound_is_not_too_large(self, tmp_path: Path) -> None:
        async with make_upstream(tmp_path.as_uri()) as upstream:
            write(tmp_path, "catalog.json", b" " * 1_048_576, compressed=False)
            payload = await upstream.fetch(etag=None, progress=no_progress)
            assert payload is not None
            assert payload.catalog == b" " * 1_048_576
            write(tmp_path, "catalog.json", b" " * 1_048_577, compressed=False)
            with pytest.raises(UpstreamInvalidError, match=r"more than 1,048,576 bytes$"):
                await upstream.fetch(etag=None, progress=no_progress)

    async def test_address_with_escapes(self, tmp_path: Path) -> None:
        folder = tmp_path / "a b%ü"
        folder.mkdir()
        write(folder, "catalog.json", CATALOG, compressed=False)
        async with make_upstream(folder.as_uri()) as upstream:
            assert await upstream.fetch(etag=None, progress=no_progress) is not None

    async def test_empty_folder(self, tmp_path: Path) -> None:
        async with make_upstream(tmp_path.as_uri()) as upstream:
            with pytest.raises(UpstreamUnavailableError, match=r"neither catalog\.json nor api\.json"):
                await upstream.fetch(etag=None, progress=no_progress)

    async def test_no_folder(self, tmp_path: Path) -> None:
        async with make_upstream((tmp_path / "none").as_uri()) as upstream:
            with pytest.raises(UpstreamUnavailableError, match=r"neither catalog\.json nor api\.json"):
                await upstream.fetch(etag=None, progress=no_progress)

    async def test_what_is_no_file_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "catalog.json").mkdir()
        async with make_upstream(tmp_path.as_uri()) as upstream:
            with pytest.raises(UpstreamUnavailableError, match=r"catalog\.json is not a file"):
                await upstream.fetch(etag=None, progress=no_progress)

    async def test_a_dangling_link_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "catalog.json").symlink_to(tmp_path / "gone")
        async with make_upstream(tmp_path.as_uri()) as upstream:
            with pytest.raises(UpstreamUnavailableError, match=r"catalog\.json cannot be read: No such file"):
                await upstream.fetch(etag=None, progress=no_progress)

    async def test_broken_compression(self, tmp_path: Path) -> None:
        (tmp_path / "catalog.json.gz").write_bytes(gzip.compress(CATALOG)[:-9])
        async with make_upstream(tmp_path.as_uri()) as upstream:
            with pytest.raises(UpstreamInvalidError, match=r"catalog\.json\.gz: its compression ends early"):
                await upstream.fetch(etag=None, progress=no_progress)

    async def test_too_large(self, tmp_path: Path) -> None:
        write(tmp_path, "catalog.json", b" " * 2_000_000, compressed=True)
        async with make_upstream(tmp_path.as_uri()) as upstream:
            with pytest.raises(UpstreamInvalidError, match="more than 1,048,576 bytes uncompressed"):
                await upstream.fetch(etag=None, progress=no_progress)


def write(folder: Path, name: str, body: bytes, *, compressed: bool) -> None:
    path = folder / (f"{name}.gz" if compressed else name)
    path.write_bytes(gzip.compress(body) if compressed else body)


async def test_the_bundled_snapshot_needs_no_network() -> None:
    payload = await ModelsDevUpstream("https://upstream.invalid").load_bundled()
    assert payload.is_bundled
    assert payload.etag is None
    assert payload.source.url == "bundled:catalog-2026-07-02.json.gz"
    # The figure is that of tests/data's origin, not of our own reading.
    assert payload.source.snapshot == "4035a577bc67933757a88881fe88e0a96d16d514f36961ab0f0547f6a9b45592"
    assert payload.catalog is not None
    assert hashlib.sha256(payload.catalog).hexdigest() == payload.source.snapshot


@pytest.mark.parametrize(
    "url", ["", "models.dev", "ftp://models.dev", "https://", "file:relative", "file://host/folder", "http://[::1"]
)
def test_an_address_of_another_kind_is_refused(url: str) -> None:
    with pytest.raises(StartupError):
        ModelsDevUpstream(url)
