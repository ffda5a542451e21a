"""Which Redis an address names, without asking any."""

from __future__ import annotations

import pytest
from redis.asyncio.connection import SSLConnection, UnixDomainSocketConnection

from modelcatalog_server.cache.redis_address import parse_address

SCHEMES = (
    "it must begin with one of redis://, rediss://, redis\\+sentinel://, rediss\\+sentinel://, redis\\+cluster://, "
    "rediss\\+cluster://, unix://"
)


def test_the_addresses_of_redis_py_are_what_they_are_there() -> None:
    one = parse_address("redis://me:secret@cache:6380/2?health_check_interval=3")
    assert (one.kind, one.hosts, one.service) == ("server", (), "")
    assert one.options == {
        "host": "cache",
        "port": 6380,
        "db": 2,
        "username": "me",
        "password": "secret",
        "health_check_interval": 3,
    }
    assert parse_address("rediss://cache").options["connection_class"] is SSLConnection
    assert parse_address("unix:///run/valkey.sock").options["connection_class"] is UnixDomainSocketConnection


def test_sentinels_have_a_port_of_their_own_a_service_and_a_database() -> None:
    address = parse_address("redis+sentinel://:p%40ss@one:1,two,[::1]:3,[fe80::2]/the%20catalog/4")
    assert address.kind == "sentinel"
    assert address.hosts == (("one", 1), ("two", 26379), ("::1", 3), ("fe80::2", 26379))
    assert address.service == "the catalog"
    assert address.options == {"password": "p@ss", "db": 4, "ssl": False}
    assert address.sentinel_options == {"ssl": False}


def test_what_is_for_the_sentinels_goes_to_them_and_tls_is_for_all() -> None:
    address = parse_address(
        "rediss+sentinel://me:secret@one/catalog?sentinel_username=watch&sentinel_password=other&ssl_ca_certs=/ca.pem"
    )
    tls = {"ssl": True, "ssl_ca_certs": "/ca.pem"}
    assert address.sentinel_options == {"username": "watch", "password": "other", **tls}
    assert address.options == {"username": "me", "password": "secret", **tls}


@pytest.mark.parametrize("end", ["", "/", "/0"])
def test_a_cluster_is_some_of_its_nodes(end: str) -> None:
    address = parse_address(f"REDIS+CLUSTER://me:secret@one:7000,two{end}?health_check_interval=3")
    assert (address.kind, address.hosts) == ("cluster", (("one", 7000), ("two", 6379)))
    assert address.options.pop("db", 0) == 0
    assert address.options == {"username": "me", "password": "secret", "health_check_interval": 3, "ssl": False}


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis+sentinel://one:1", "name of the service is missing"),
        ("redis+sentinel:///catalog", "must list host:port"),
        ("redis+sentinel://one:1,/catalog", "must list host:port"),
        ("redis+sentinel://one:secret/catalog", "a port must be a number from 1 to 65535"),
        ("redis+sentinel://one:65536/catalog", "a port must be a number from 1 to 65535"),
        ("redis+cluster://me:secret@one:99999", "a port must be a number from 1 to 65535"),
        ("redis://me:secret@one:99999", "a port must be a number from 1 to 65535"),
        ("redis://me:secret", "a port must be a number from 1 to 65535"),
        ("redis://me:[secret]@one", "a host in brackets must be an IPv6 address"),
        ("redis://one:0", "a port must be a number from 1 to 65535"),
        ("redis+cluster://one/1", "a cluster has no databases"),
        ("redis+raft://one", SCHEMES),
        ("http+cluster://one", SCHEMES),
        ("http://one", SCHEMES),
        ("localhost:6379", SCHEMES),
        ("me:secret@one", SCHEMES),
        ("redis", SCHEMES),
        ("", SCHEMES),
    ],
)
def test_what_is_no_address_is_refused_without_saying_what_was_in_it(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as refusal:
        parse_address(url)
    assert "secret" not in str(refusal.value)
