# ruff: noqa: S106 -- page and resume tokens, and one that opens nothing

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import grpc
import pytest

from modelcatalog_client import AsyncModelCatalogClient, ModelCatalogClient, Tls
from modelcatalog_client._config import ClientConfig, package_version

CLIENTS = [ModelCatalogClient, AsyncModelCatalogClient]


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_is_made_without_an_event_loop_and_without_reading_files(client: type) -> None:
    client("catalog:1", tls=Tls(ca="/nowhere/ca.pem"))


@pytest.mark.parametrize("client", CLIENTS)
def test_the_token_does_not_show(client: type) -> None:
    made = client(token="s3cret", tls=Tls(certificate=b"c3rt", key=b"k3y"))
    shown = repr(made) + repr(made._config)
    assert "localhost:50051" in shown
    assert not any(secret in shown for secret in ("s3cret", "c3rt", "k3y"))


@pytest.mark.parametrize(
    "arguments",
    [
        {"target": ""},
        {"target": "https://catalog:443"},
        {"token": ""},
        {"token": "s3cret\r\nx-role: admin"},
        {"token": "ключ"},
        {"timeout": 0},
        {"timeout": math.nan},
    ],
)
def test_an_argument_that_cannot_work_is_refused_without_naming_the_token(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"target|token|timeout") as caught:
        ModelCatalogClient(**arguments)
    assert "s3cret" not in str(caught.value)


def test_a_certificate_needs_its_key() -> None:
    with pytest.raises(ValueError, match="both"):
        Tls(certificate=b"pem")


def test_metadata_is_what_the_caller_asked_for() -> None:
    assert ClientConfig("a:1").metadata() == ()
    assert ClientConfig("a:1", token="t").metadata(7) == (
        ("authorization", "Bearer t"),
        ("x-catalog-min-revision", "7"),
    )


@pytest.mark.parametrize(
    ("compression", "asked"),
    [
        (None, ()),
        (grpc.Compression.NoCompression, ()),
        (grpc.Compression.Deflate, ()),
        (grpc.Compression.Gzip, ("gzip",)),
    ],
)
def test_responses_may_be_compressed_as_requests_are(compression: grpc.Compression, asked: tuple[str, ...]) -> None:
    metadata = ClientConfig("a:1", compression=compression).metadata()
    assert metadata == tuple(("x-catalog-accept-encoding", name) for name in asked)


def test_the_channel_keeps_idle_watches_alive_and_stays_out_of_proxies() -> None:
    options = dict(ClientConfig("a:1").channel_options())
    assert options["grpc.enable_http_proxy"] == 0
    assert options["grpc.service_config_disable_resolution"] == 1
    assert options["grpc.keepalive_time_ms"] == 30_000
    assert options["grpc.http2.max_pings_without_data"] == 0
    assert options["grpc.max_receive_message_length"] == 16 * 1024 * 1024
    assert "round_robin" in str(options["grpc.service_config"])


def test_options_of_the_caller_win() -> None:
    config = ClientConfig("a:1", options=[("grpc.keepalive_time_ms", 60_000), ("grpc.lb", 1)])
    assert config.channel_options().count(("grpc.keepalive_time_ms", 60_000)) == 1
    assert ("grpc.keepalive_time_ms", 30_000) not in config.channel_options()
    assert ("grpc.lb", 1) in config.channel_options()


def test_the_user_agent_names_the_caller_and_the_client() -> None:
    own = f"modelcatalog-python/{package_version()}"
    assert dict(ClientConfig("a:1").channel_options())["grpc.primary_user_agent"] == own
    named = ClientConfig("a:1", user_agent="billing/2.1").channel_options()
    assert dict(named)["grpc.primary_user_agent"] == f"billing/2.1 {own}"


def test_tls_reads_its_files_when_it_is_used(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Tls(ca=tmp_path / "missing.pem").credentials()
