"""TLS: who is encrypted to whom, whose certificates are let in, and files that change while connections are open."""

from __future__ import annotations

import asyncio
import socket
import ssl
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from google.protobuf.duration_pb2 import Duration
from structlog.testing import capture_logs

from certificates import Authority, Pair
from conftest import Services, StartApp
from identities import TOKENS, bearer, write_identities
from modelcatalog.v1 import refresh_service_pb2 as pb
from modelcatalog.v1.refresh_pb2 import RefreshStatus
from modelcatalog.v1.refresh_service_pb2_grpc import RefreshServiceStub
from modelcatalog_client import AsyncModelCatalogClient, ModelCatalogClient, Tls
from modelcatalog_client.errors import (
    InvalidTokenError,
    MissingTokenError,
    RoleRequiredError,
    UnavailableError,
)
from modelcatalog_server.domain.errors import StartupError
from small_catalog import clone_small, fetch, until

MODEL = "openai/gpt-5"
SPIFFE = "spiffe://corp.example/billing"
CERTIFICATES = f"""
[[certificates]]
name = "{SPIFFE}"
principal = "billing"
role = "operator"

[[certificates]]
name = "batch"
role = "reader"
"""


@pytest.fixture(scope="module")
def database(templates: Services) -> Iterator[str]:
    yield from clone_small(templates)


@dataclass
class Site:
    """What a server is started with, and where it is."""

    folder: Path
    authority: Authority
    callers: Authority
    pair: Pair
    address: str = ""

    def write(self, pair: Pair) -> None:
        self.pair = pair
        pair.write(self.folder, "server")

    def write_text(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def write_bytes(self, name: str, content: bytes) -> None:
        (self.folder / name).write_bytes(content)

    def client(self, *, token: str | None = None, pair: Pair | None = None, ca: bytes = b"") -> AsyncModelCatalogClient:
        own = (pair.certificate, pair.key) if pair else (None, None)
        tls = Tls(ca or self.authority.certificate, *own)
        return AsyncModelCatalogClient(self.address, token=token, tls=tls, options=[("grpc.enable_retries", 0)])

    async def serial(self) -> int:
        """Return the number of the certificate that a new connection is shown."""
        return await asyncio.to_thread(self._serial)

    def _serial(self) -> int:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        with _connect(self.address) as plain, context.wrap_socket(plain) as encrypted:
            certificate = encrypted.getpeercert(binary_form=True)
        assert certificate is not None
        return x509.load_der_x509_certificate(certificate).serial_number


def _connect(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=5)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    authority, callers = Authority(), Authority("callers")
    site = Site(tmp_path, authority, callers, authority.sign("localhost", "127.0.0.1"))
    site.write(site.pair)
    site.write_bytes("callers.crt", callers.certificate)
    write_identities(tmp_path / "identities.toml", CERTIFICATES)
    return site


@asynccontextmanager
async def serving(
    site: Site, start_app: StartApp, database: str, *, mutual: bool = False, **settings: Any
) -> AsyncIterator[Site]:
    client_ca = {"tls_client_ca": site.folder / "callers.crt"} if mutual else {}
    async with start_app(
        database,
        offline=True,
        tls_cert=site.folder / "server.crt",
        tls_key=site.folder / "server.key",
        tokens_file=site.folder / "identities.toml",
        **client_ca,
        **settings,
    ) as running:
        running.server.set_serving(True)
        site.address = running.server.address
        yield site


# --- server --------------------------------------------------------------------------------------------------------


async def test_the_typed_clients_call_through_tls_with_a_token(site: Site, start_app: StartApp, database: str) -> None:
    async with serving(site, start_app, database):
        async with site.client(token=TOKENS["reader"]) as client:
            assert (await client.get_model(MODEL)).model.id == MODEL
        async with site.client() as stranger:
            with pytest.raises(MissingTokenError):
                await stranger.get_model(MODEL)

        def blocking() -> str:
            tls = Tls(site.authority.certificate)
            with ModelCatalogClient(site.address, token=TOKENS["reader"], tls=tls) as client:
                return client.get_model(MODEL).model.id

        assert await asyncio.to_thread(blocking) == MODEL


async def test_a_server_of_another_authority_and_a_plain_connection_are_refused(
    site: Site, start_app: StartApp, database: str
) -> None:
    async with serving(site, start_app, database):
        other = Authority("nobody's").certificate
        for client in (
            site.client(token=TOKENS["reader"], ca=other),
            AsyncModelCatalogClient(site.address, token=TOKENS["reader"], options=[("grpc.enable_retries", 0)]),
        ):
            async with client:
                with pytest.raises(UnavailableError):
                    await client.get_model(MODEL, timeout=5)


@pytest.mark.parametrize(
    ("version", "works"),
    [(ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True), (ssl.TLSVersion.TLSv1_3, True)],
    ids=str,
)
async def test_tls_is_1_2_or_later(
    site: Site,
    start_app: StartApp,
    database: str,
    version: ssl.TLSVersion,
    works: bool,
    capfd: pytest.CaptureFixture[str],
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=site.authority.certificate.decode())
    context.set_alpn_protocols(["h2"])
    context.set_ciphers("DEFAULT:@SECLEVEL=0")  # this side would offer it
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version

    def shake_hands() -> str | None:
        with _connect(site.address) as plain, context.wrap_socket(plain, server_hostname="localhost") as encrypted:
            return encrypted.selected_alpn_protocol()

    async with serving(site, start_app, database):
        if works:
            assert await asyncio.to_thread(shake_hands) == "h2"
        else:
            with pytest.raises((ssl.SSLError, ConnectionResetError)):
                await asyncio.to_thread(shake_hands)
            await until(lambda: "UNSUPPORTED_PROTOCOL" in capfd.readouterr().err)


# --- certificates of callers ---------------------------------------------------------------------------------------


async def test_a_certificate_stands_for_a_principal_with_a_role(site: Site, start_app: StartApp, database: str) -> None:
    async with serving(site, start_app, database, mutual=True):
        async with site.client(pair=site.callers.sign("unknown.example", SPIFFE)) as billing:
            assert (await billing.start_refresh()).refresh.requested_by == "billing"
            with pytest.raises(RoleRequiredError, match="takes the role admin"):
                await billing.get_cache_stats()
        async with site.client(pair=site.callers.sign(common_name="batch")) as batch:
            for _ in range(2):  # made anew, and at hand
                assert (await batch.get_model(MODEL)).model.id == MODEL
            with pytest.raises(RoleRequiredError, match="takes the role operator"):
                await batch.start_refresh()


async def test_a_certificate_without_an_entry_may_nothing(site: Site, start_app: StartApp, database: str) -> None:
    async with serving(site, start_app, database, mutual=True):
        pairs = [
            site.callers.sign("unknown.example"),
            site.callers.sign("unknown.example", common_name="batch"),  # where there are names, this one is a label
            site.callers.sign(),
        ]
        async with site.client(pair=site.callers.sign(SPIFFE)) as billing:
            await billing.get_model(MODEL)  # at hand
        for pair in pairs:
            async with site.client(pair=pair) as client:
                with pytest.raises(RoleRequiredError, match="certificate stands for no role"):
                    await client.get_model(MODEL)
        write_identities(
            site.folder / "identities.toml", CERTIFICATES, '[[certificates]]\nname = "*"\nrole = "reader"\n'
        )

        async def is_reader() -> bool:
            try:
                async with site.client(pair=pairs[0]) as client:
                    return bool((await client.get_model(MODEL)).model.id)
            except RoleRequiredError:
                return False

        await until(is_reader)


async def test_a_name_in_a_certificate_is_told_without_what_moves_a_cursor(
    site: Site, start_app: StartApp, database: str
) -> None:
    async with (
        serving(site, start_app, database, mutual=True),
        site.client(pair=site.callers.sign(common_name="evil\x1b[2J\n")) as client,
    ):
        with pytest.raises(RoleRequiredError):
            await client.start_refresh()

        async def is_noted() -> bool:
            return "evil\ufffd[2J\ufffd" in await fetch(database, "SELECT principal FROM audit_log")

        await until(is_noted)


async def test_a_token_wins_over_a_certificate(site: Site, start_app: StartApp, database: str) -> None:
    async with serving(site, start_app, database, mutual=True):
        pair = site.callers.sign(SPIFFE)
        async with site.client(pair=pair, token=TOKENS["admin"]) as admin:
            assert (await admin.get_cache_stats()).layers
        async with site.client(pair=pair, token=TOKENS["reader"]) as reader:
            with pytest.raises(RoleRequiredError):
                await reader.start_refresh()
        async with site.client(pair=pair, token=TOKENS["reader"] + "x") as stranger:
            with pytest.raises(InvalidTokenError):
                await stranger.get_model(MODEL)


async def test_a_connection_without_a_certificate_of_the_authority_is_refused(
    site: Site, start_app: StartApp, database: str
) -> None:
    async with serving(site, start_app, database, mutual=True):
        for pair in (None, Authority("callers").sign(SPIFFE)):
            async with site.client(pair=pair, token=TOKENS["admin"]) as client:
                with pytest.raises(UnavailableError):
                    await client.get_model(MODEL, timeout=5)


# --- files that change ---------------------------------------------------------------------------------------------


async def test_new_connections_see_a_new_certificate_and_old_ones_go_on(
    site: Site, start_app: StartApp, database: str
) -> None:
    first, second = site.pair, site.authority.sign("localhost", "127.0.0.1")
    async with serving(site, start_app, database):
        credentials = grpc.ssl_channel_credentials(site.authority.certificate)
        async with grpc.aio.secure_channel(site.address, credentials) as channel:
            request = pb.WatchRefreshStatusRequest(heartbeat_interval=Duration(seconds=5))
            stub: Any = RefreshServiceStub(channel)
            watch = stub.WatchRefreshStatus(request, metadata=bearer(TOKENS["reader"]))
            await watch.read()
            assert await site.serial() == first.serial
            site.write(second)
            await until(lambda: _is(site, second))
            heartbeat = await watch.read()  # of the same call, so on the connection of before
            assert heartbeat.status.kind == RefreshStatus.Kind.KIND_HEARTBEAT
            watch.cancel()
        async with site.client(token=TOKENS["reader"]) as client:
            assert (await client.get_model(MODEL)).model.id == MODEL


def _say(lines: list[Any], reason: str) -> bool:
    return any(reason in str(line.get("reason")) for line in lines)


async def _is(site: Site, pair: Pair) -> bool:
    return await site.serial() == pair.serial


async def test_a_half_written_pair_changes_nothing_until_it_is_whole(
    site: Site, start_app: StartApp, database: str
) -> None:
    first, second = site.pair, site.authority.sign("localhost", "127.0.0.1")
    async with serving(site, start_app, database):
        for certificate, reason in (
            (second.certificate, "the key is not that of the certificate"),
            (second.certificate[:100], "are no certificate and key in PEM"),
            (b"", "are no certificate and key in PEM"),
        ):
            with capture_logs() as lines:
                site.write_bytes("server.crt", certificate)
                await until(partial(_say, lines, reason))
            assert await site.serial() == first.serial
            async with site.client(token=TOKENS["reader"]) as client:
                assert (await client.get_model(MODEL)).model.id == MODEL
        site.write(second)
        await until(lambda: _is(site, second))


async def test_authorities_of_callers_are_followed(site: Site, start_app: StartApp, database: str) -> None:
    new = Authority("new callers")
    old_pair, new_pair = site.callers.sign(SPIFFE), new.sign(SPIFFE)

    async def is_let_in(pair: Pair) -> bool:
        async with site.client(pair=pair) as client:
            try:
                return bool((await client.get_model(MODEL, timeout=5)).model.id)
            except UnavailableError:
                return False

    async with serving(site, start_app, database, mutual=True), site.client(pair=old_pair) as old:
        assert (await old.get_model(MODEL)).model.id == MODEL
        assert not await is_let_in(new_pair)
        site.write_bytes("callers.crt", new.certificate)
        await until(lambda: is_let_in(new_pair))
        assert not await is_let_in(old_pair)
        assert (await old.get_model(MODEL)).model.id == MODEL, "the connection of before goes on"


# --- start ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("missing", "server.crt: No such file or directory"),
        ("other key", "the key is not that of the certificate"),
        ("encrypted", "the key is encrypted; TLS takes one without a passphrase"),
        ("no pem", "are no certificate and key in PEM"),
        ("authorities", "callers.crt: is no certificate in PEM"),
        ("identities", "identities.toml: tokens[1].id: Field required"),
    ],
)
async def test_bad_files_are_told_at_the_start(
    site: Site, start_app: StartApp, database: str, broken: str, said: str
) -> None:
    match broken:
        case "missing":
            (site.folder / "server.crt").unlink()
        case "other key":
            site.write_bytes("server.key", site.authority.sign("localhost").key)
        case "encrypted":
            site.write(site.authority.sign("localhost", passphrase=b"secret"))
        case "no pem":
            site.write_bytes("server.crt", b"nothing")
        case "authorities":
            site.write_bytes("callers.crt", b"nothing")
        case "identities":
            site.write_text("identities.toml", '[[tokens]]\nprincipal = "a"\n')
    with pytest.raises(StartupError) as caught:
        async with serving(site, start_app, database, mutual=True):
            pass
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
