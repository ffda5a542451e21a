"""Sealed tokens: what comes out is what went in, and nothing that anybody else made comes out at all."""

from __future__ import annotations

import pytest
from itsdangerous import URLSafeTimedSerializer

from aged_tokens import DAY_S, sealed_ago
from modelcatalog_server.tokens import ExpiredTokenError, InvalidTokenError, TokenSealer

KEY = bytes(range(32))
VALUE = ["models", None, True, 17, "openrouter/openai/gpt-5:free", "ünï\u2028"]


@pytest.fixture
def sealer() -> TokenSealer:
    return TokenSealer(KEY, "page")


@pytest.mark.parametrize("value", [VALUE, [], "", 0, {"a": [1]}, "x" * 5000])
def test_gives_back_what_was_sealed(sealer: TokenSealer, value: object) -> None:
    assert sealer.unseal(sealer.seal(value)) == value


def test_is_good_on_every_process_that_has_the_key(sealer: TokenSealer) -> None:
    assert TokenSealer(KEY, "page").unseal(sealer.seal(VALUE)) == VALUE


def test_can_travel_in_a_url_and_in_metadata(sealer: TokenSealer) -> None:
    token = sealer.seal(VALUE)
    assert token.isascii()
    assert set(token) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.")


def test_changes_with_every_character_that_is_altered(sealer: TokenSealer) -> None:
    token = sealer.seal(VALUE)
    for position in range(len(token) - 1):  # the last character holds two bits that stand for nothing
        altered = token[:position] + ("A" if token[position] != "A" else "B") + token[position + 1 :]
        with pytest.raises(InvalidTokenError):
            sealer.unseal(altered)


@pytest.mark.parametrize(
    "token",
    ["", ".", "..", "a.b.c", "x" * 100_000, "ü", "\0", "eyJhIjoxfQ", "=", "%41", " " * 10, "null", "🦆.🦆.🦆"],
)
def test_refuses_what_is_no_token(sealer: TokenSealer, token: str) -> None:
    with pytest.raises(InvalidTokenError):
        sealer.unseal(token)


def test_refuses_a_token_cut_short(sealer: TokenSealer) -> None:
    token = sealer.seal(VALUE)
    for length in range(len(token) - 1):
        with pytest.raises(InvalidTokenError):
            sealer.unseal(token[:length])


def test_refuses_a_token_of_another_key(sealer: TokenSealer) -> None:
    with pytest.raises(InvalidTokenError):
        TokenSealer(bytes(32), "page").unseal(sealer.seal(VALUE))


def test_refuses_a_token_of_another_kind(sealer: TokenSealer) -> None:
    with pytest.raises(InvalidTokenError):
        TokenSealer(KEY, "resume").unseal(sealer.seal(VALUE))


def test_refuses_a_token_that_the_key_signed_for_another_purpose() -> None:
    with pytest.raises(InvalidTokenError):
        TokenSealer(KEY, "page").unseal(str(URLSafeTimedSerializer(KEY).dumps(VALUE)))


def test_lets_a_token_expire_after_a_day(sealer: TokenSealer) -> None:
    assert sealer.unseal(sealed_ago(DAY_S - 60, KEY, "page", VALUE)) == VALUE
    with pytest.raises(ExpiredTokenError):
        sealer.unseal(sealed_ago(DAY_S + 60, KEY, "page", VALUE))


def test_does_not_call_an_altered_old_token_expired(sealer: TokenSealer) -> None:
    token = sealed_ago(DAY_S + 60, KEY, "page", VALUE)
    with pytest.raises(InvalidTokenError):
        sealer.unseal(("A" if token[0] != "A" else "B") + token[1:])


def test_takes_a_token_of_a_process_whose_clock_is_ahead(sealer: TokenSealer) -> None:
    assert sealer.unseal(sealed_ago(-5, KEY, "page", VALUE)) == VALUE
