"""Which server a command asks, and as whom: the flags and environment variables that all such commands share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from modelcatalog_client import ModelCatalogClient, Tls

DEFAULT_ADDRESS = "127.0.0.1:50051"

_UNSPECIFIED_HOSTS = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 -- read back


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """Where the server is and how to talk to it. Files are PEM."""

    address: str = DEFAULT_ADDRESS
    token: str | None = field(default=None, repr=False)
    use_tls: bool = False
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_server_name: str | None = None

    @property
    def target(self) -> str:
        """Where to connect to: a server that listens on every address is asked on the loopback one."""
        host, _, port = self.address.rpartition(":")
        return f"{_UNSPECIFIED_HOSTS.get(host, host)}:{port}"

    @property
    def flags(self) -> list[str]:
        """What a command line that asks the same server has to say. Never the token: it is for the environment."""
        address = ["--address", self.address] if self.address != DEFAULT_ADDRESS else []
        values = {
            "--tls-ca": self.tls_ca,
            "--tls-cert": self.tls_cert,
            "--tls-key": self.tls_key,
            "--tls-server-name": self.tls_server_name,
        }
        given = [word for name, value in values.items() if value for word in (name, value)]
        return address + given + (["--tls"] if self.use_tls and not given else [])

    def connect(self) -> ModelCatalogClient:
        """Return a client; it connects on the first call. click.UsageError for what cannot work."""
        from modelcatalog_client import ModelCatalogClient

        try:
            return ModelCatalogClient(self.target, token=self.token, tls=self._tls(), user_agent="modelcatalog-command")
        except ValueError as error:
            raise click.UsageError(str(error)) from None

    def _tls(self) -> Tls | None:
        from modelcatalog_client import Tls

        files = (self.tls_ca, self.tls_cert, self.tls_key)
        if not (self.use_tls or any(files) or self.tls_server_name):
            return None
        return Tls(*files, server_name=self.tls_server_name)


def _check_address(_context: click.Context, _option: click.Parameter, value: str) -> str:
    host, _, port = value.rpartition(":")
    if not (host and port.isascii() and port.isdigit() and 0 < int(port) <= 65535):
        raise click.BadParameter("must be host:port, e.g. 127.0.0.1:50051")
    return value


_FILE = click.Path(exists=True, dir_okay=False)

_OPTIONS = (
    click.option(
        "--address",
        envvar=["MODELCATALOG_ADDRESS", "MODELCATALOG_LISTEN"],
        default=DEFAULT_ADDRESS,
        metavar="HOST:PORT",
        callback=_check_address,
        help=f"The server to ask. [MODELCATALOG_ADDRESS, else MODELCATALOG_LISTEN, default {DEFAULT_ADDRESS}]",
    ),
    click.option(
        "--token",
        envvar="MODELCATALOG_TOKEN",
        help="Who is asking. Others see a command line, so better in the environment. [MODELCATALOG_TOKEN]",
    ),
    click.option(
        "--tls",
        "use_tls",
        is_flag=True,
        envvar="MODELCATALOG_CLIENT_TLS",
        help="Encrypt, trusting the public authorities. Any other --tls-… encrypts too. [MODELCATALOG_CLIENT_TLS]",
    ),
    click.option(
        "--tls-ca",
        type=_FILE,
        envvar="MODELCATALOG_CLIENT_TLS_CA",
        help="Authorities that may sign the server's certificate, PEM. [MODELCATALOG_CLIENT_TLS_CA]",
    ),
    click.option(
        "--tls-cert",
        type=_FILE,
        envvar="MODELCATALOG_CLIENT_TLS_CERT",
        help="The caller's own certificate, PEM; with --tls-key. [MODELCATALOG_CLIENT_TLS_CERT]",
    ),
    click.option(
        "--tls-key",
        type=_FILE,
        envvar="MODELCATALOG_CLIENT_TLS_KEY",
        help="The key of --tls-cert, PEM. [MODELCATALOG_CLIENT_TLS_KEY]",
    ),
    click.option(
        "--tls-server-name",
        metavar="NAME",
        envvar="MODELCATALOG_CLIENT_TLS_SERVER_NAME",
        help="The name in the server's certificate, where it is not the host. [MODELCATALOG_CLIENT_TLS_SERVER_NAME]",
    ),
)

#: The environment variables above, beside the server's own settings.
VARIABLES = (
    "MODELCATALOG_ADDRESS",
    "MODELCATALOG_TOKEN",
    "MODELCATALOG_CLIENT_TLS",
    "MODELCATALOG_CLIENT_TLS_CA",
    "MODELCATALOG_CLIENT_TLS_CERT",
    "MODELCATALOG_CLIENT_TLS_KEY",
    "MODELCATALOG_CLIENT_TLS_SERVER_NAME",
)


def read_server_options(values: dict[str, Any]) -> ServerOptions:
    """Take the values of the flags out of a command's arguments."""
    names = ("address", "token", "use_tls", "tls_ca", "tls_cert", "tls_key", "tls_server_name")
    return ServerOptions(**{name: value for name in names if (value := values.pop(name, None)) is not None})


def server_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the flags; it gets them as ``server``."""

    @functools.wraps(command)
    def run(*arguments: Any, **values: Any) -> None:
        server = read_server_options(values)
        command(*arguments, server=server, **values)

    decorated: Callable[..., None] = run
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated
