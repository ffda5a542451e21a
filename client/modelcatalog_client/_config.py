"""What a client is made of, checked once and without I/O."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path

import grpc

from modelcatalog_client._timeouts import check_timeout
from modelcatalog_client._tracing import trace_metadata

Pem = bytes | str | os.PathLike[str]
Metadata = tuple[tuple[str, str], ...]

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Tls:
    """Encrypts the connection. ``Tls()`` trusts the public authorities that come with gRPC.

    Each of the three is PEM as bytes, or the path of a file that is read on the first call.

    Attributes:
        ca: Certificates of the authorities that may sign the server's. None: the public ones.
        certificate: The client's own certificate chain, where the server asks for one. With ``key``.
        key: The private key of ``certificate``.
        server_name: The name to expect in the server's certificate, when it is not the target's host.
    """

    ca: Pem | None = field(default=None, repr=False)
    certificate: Pem | None = field(default=None, repr=False)
    key: Pem | None = field(default=None, repr=False)
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together: pass both or none")

    def credentials(self) -> grpc.ChannelCredentials:
        """Reads the files. OSError when one cannot be read."""
        return grpc.ssl_channel_credentials(_read(self.ca), _read(self.key), _read(self.certificate))


def _read(pem: Pem | None) -> bytes | None:
    return pem if pem is None or isinstance(pem, bytes) else Path(pem).read_bytes()


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """The arguments of a client's constructor; its docstring says what each is."""

    target: str
    token: str | None = field(default=None, repr=False)
    tls: Tls | None = None
    timeout: float | None = None
    user_agent: str = ""
    compression: grpc.Compression | None = None
    options: Sequence[tuple[str, str | int]] = ()

    def __post_init__(self) -> None:
        if not self.target or self.target.startswith(("http://", "https://")):
            raise ValueError(f"target must be host:port, without http: {self.target!r}")
        if self.token is not None and not (self.token.isascii() and self.token.isprintable() and self.token.strip()):
            raise ValueError("token must be printable ASCII")  # without the token: the text may be logged
        check_timeout(self.timeout)

    def metadata(self, min_revision: int | None = None) -> Metadata:
        """Request metadata of a call."""
        token = (("authorization", f"Bearer {self.token}"),) if self.token else ()
        revision = (("x-catalog-min-revision", str(min_revision)),) if min_revision is not None else ()
        # gRPC's own header says what a client understands, not what it wants.
        encoding = (("x-catalog-accept-encoding", "gzip"),) if self.compression is grpc.Compression.Gzip else ()
        return token + revision + encoding + trace_metadata()

    def channel_options(self) -> list[tuple[str, str | int]]:
        """Arguments of the channel; those of the caller win."""
        return list((_defaults() | self._server_name() | self._user_agent() | dict(self.options)).items())

    def _user_agent(self) -> dict[str, str | int]:
        own = f"modelcatalog-python/{package_version()}"
        return {"grpc.primary_user_agent": f"{self.user_agent} {own}".strip()}

    def _server_name(self) -> dict[str, str | int]:
        if self.tls is None or self.tls.server_name is None:
            return {}
        return {"grpc.ssl_target_name_override": self.tls.server_name, "grpc.default_authority": self.tls.server_name}


def _defaults() -> dict[str, str | int]:
    return {
        "grpc.service_config": service_config(),
        # Ours is the one that was tested; no TXT record replaces it.
        "grpc.service_config_disable_resolution": 1,
        # http_proxy in the environment would capture calls to internal services.
        "grpc.enable_http_proxy": 0,
        # Finds a dead connection under an idle watch. The server allows a ping every 10 s; without the 0 the pings
        # stop after two, because a watch sends no data of its own.
        "grpc.keepalive_time_ms": 30_000,
        "grpc.keepalive_timeout_ms": 10_000,
        "grpc.http2.max_pings_without_data": 0,
        # gRPC's own maximum is two minutes, longer than a watch tries to get back.
        "grpc.initial_reconnect_backoff_ms": 500,
        "grpc.max_reconnect_backoff_ms": 5_000,
        # A new client tries at once, also where another one of this process has just found nobody and waits.
        "grpc.use_local_subchannel_pool": 1,
        "grpc.max_receive_message_length": 16 * _MIB,
    }


def service_config() -> str:
    """The shipped service config: load balancing, and which RPC is retried on which code."""
    return files("modelcatalog_client").joinpath("service_config.json").read_text("utf-8")


def package_version() -> str:
    """Version of the installed distribution; ``0`` when run from a source tree."""
    try:
        return version("modelcatalog")
    except PackageNotFoundError:
        return "0"
