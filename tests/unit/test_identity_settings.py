"""Which settings of identity go together, and which addresses they allow."""

from __future__ import annotations

from typing import Any

import pytest

from modelcatalog_server.domain.errors import StartupError
from modelcatalog_server.settings import Settings, load_settings

TOKENS = {"tokens_file": "identities.toml"}
TLS = {"tls_cert": "server.crt", "tls_key": "server.key"}
CLIENT_CA = {"tls_client_ca": "callers.crt"}
ANYWHERE = {"listen": "0.0.0.0:50051"}


@pytest.fixture(autouse=True)
def nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"MODELCATALOG_{name.upper()}", raising=False)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        TOKENS,
        TLS,
        {"listen": "[::1]:50051"},
        {**TOKENS, **TLS, **CLIENT_CA},
        {**ANYWHERE, **TOKENS, **TLS},
        {**ANYWHERE, **TOKENS, **TLS, **CLIENT_CA},
        {**ANYWHERE, "insecure": True},
        {**ANYWHERE, **TOKENS, "insecure": True},
        {**ANYWHERE, **TLS, "insecure": True},
    ],
)
def test_what_goes_together(settings: dict[str, Any]) -> None:
    assert load_settings(**settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (ANYWHERE, "LISTEN: must be a loopback address while callers are not identified, or pass --insecure"),
        ({"listen": "127.example.com:50051"}, "LISTEN: must be a loopback address while callers are not identified"),
        ({**ANYWHERE, **TLS}, "LISTEN: must be a loopback address while callers are not identified"),
        ({**ANYWHERE, **TOKENS}, "LISTEN: must be a loopback address while tokens would travel unencrypted"),
        ({"tls_cert": "server.crt"}, "TLS_KEY: TLS_CERT and TLS_KEY belong together"),
        ({"tls_key": "server.key"}, "TLS_KEY: TLS_CERT and TLS_KEY belong together"),
        ({**CLIENT_CA, **TOKENS}, "TLS_CLIENT_CA: needs TLS_CERT too"),
        ({**CLIENT_CA, **TLS}, "TLS_CLIENT_CA: needs TOKENS_FILE too"),
    ],
)
def test_what_does_not(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(StartupError) as caught:
        load_settings(**settings)
    assert str(caught.value).startswith(f"bad settings: MODELCATALOG_{said}")
    assert str(caught.value).count("MODELCATALOG_") == 1
