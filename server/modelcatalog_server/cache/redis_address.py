"""Which Redis an address names: one server, the master that Sentinels know, or a cluster.

The addresses of redis-py, and for what it has none the ones that are usual in Python (limits, coredis, Prefect)::

    redis://[user:password@]host[:port][/db][?options], rediss:// with TLS, unix://path[?options]
    redis+sentinel://[user:password@]host[:port][,host[:port]…]/service[/db][?options], rediss+sentinel://
    redis+cluster://[user:password@]host[:port][,host[:port]…][?options], rediss+cluster://

Options are those of redis-py. User, password and options are for the servers; ``sentinel_username`` and
``sentinel_password`` for the Sentinels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from redis.asyncio.connection import SSLConnection, parse_url

_SENTINEL_PORT = 26379
_PORT = 6379
_FOR_SENTINELS = "sentinel_"
_SCHEMES = (
    "redis://",
    "rediss://",
    "redis+sentinel://",
    "rediss+sentinel://",
    "redis+cluster://",
    "rediss+cluster://",
    "unix://",
)
_BAD_PORT = "a port must be a number from 1 to 65535"


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """What to connect to.

    Attributes:
        kind: What the hosts are.
        hosts: Some of them; of a cluster and of Sentinels the others are found.
        service: What the Sentinels call the master.
        options: Of connections to servers.
        sentinel_options: Of connections to Sentinels.
    """

    kind: Literal["server", "sentinel", "cluster"]
    hosts: tuple[tuple[str, int], ...] = ()
    service: str = ""
    options: dict[str, Any]
    sentinel_options: dict[str, Any]


def parse_address(url: str) -> Address:
    """Return what an address names.

    Raises:
        ValueError: it is none; the text does not hold it.
    """
    scheme, _, rest = url.partition("://")
    plain, _, kind = scheme.lower().partition("+")
    if f"{scheme.lower()}://" not in _SCHEMES or "://" not in url:
        raise ValueError(f"it must begin with one of {', '.join(_SCHEMES)}")
    if not kind:
        return Address(kind="server", options=_parse_server(url), sentinel_options={})
    place, _, query = rest.partition("?")
    authority, _, path = place.partition("/")
    user, at, listed = authority.rpartition("@")
    service, _, database = path.partition("/") if kind == "sentinel" else ("", "", path)
    if kind == "sentinel" and not service:
        raise ValueError("the name of the service is missing: redis+sentinel://host:26379/service")
    if kind == "cluster" and database not in {"", "0"}:
        raise ValueError("a cluster has no databases")
    options = _parse_server(f"{plain}://{user}{at}host/{database}?{query}")
    del options["host"]
    options["ssl"] = options.pop("connection_class", None) is SSLConnection
    default_port = _SENTINEL_PORT if kind == "sentinel" else _PORT
    return Address(
        kind="sentinel" if kind == "sentinel" else "cluster",
        hosts=tuple(_parse_host(host, default_port) for host in listed.split(",")),
        service=unquote(service),
        options={name: value for name, value in options.items() if not name.startswith(_FOR_SENTINELS)},
        sentinel_options={
            name.removeprefix(_FOR_SENTINELS): value
            for name, value in options.items()
            if name.startswith((_FOR_SENTINELS, "ssl"))
        },
    )


def _parse_server(url: str) -> dict[str, Any]:
    try:
        parts = urlsplit(url)
    except ValueError as error:  # whose text has what is between the brackets, which may be of a password
        raise ValueError("a host in brackets must be an IPv6 address; elsewhere they must be escaped") from error
    try:
        port = parts.port
    except ValueError as error:  # whose text has what stands there, which may be a password, too
        raise ValueError(_BAD_PORT) from error
    if port == 0:
        raise ValueError(_BAD_PORT)
    return dict(parse_url(url))


def _parse_host(text: str, default_port: int) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or port.endswith("]"):  # [::1] has colons and no port
        host, port = text, str(default_port)
    if not host.strip("[]"):
        raise ValueError("it must list host:port, separated by commas")
    if not (port.isascii() and port.isdigit() and 0 < int(port) <= 65535):
        raise ValueError(_BAD_PORT)
    return host.strip("[]"), int(port)
