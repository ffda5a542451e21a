"""Sealed tokens: opaque to callers, tamper-proof, with an age, and good on every replica (the key is in PostgreSQL)."""

from __future__ import annotations

import time
from typing import Any

from itsdangerous import BadData, URLSafeTimedSerializer

#: Page and resume tokens are good for this long.
MAX_AGE_S = 24 * 3600


class InvalidTokenError(Exception):
    """Not one of ours, or of another kind."""


class ExpiredTokenError(Exception):
    """One of ours, but too old."""


class TokenSealer:
    """Seals small JSON values of one kind."""

    def __init__(self, key: bytes, kind: str) -> None:
        self._serializer = URLSafeTimedSerializer(key, salt=f"modelcatalog.{kind}")

    def seal(self, value: Any) -> str:
        """Return the value as a token."""
        token: str = self._serializer.dumps(value)
        return token

    def unseal(self, token: str, *, max_age_s: int = MAX_AGE_S) -> Any:
        """Return the value of a token.

        Raises:
            InvalidTokenError: it is not one of ours.
            ExpiredTokenError: it is older than ``max_age_s``.
        """
        try:
            value, sealed_at = self._serializer.loads(token, return_timestamp=True)
        except BadData as error:
            raise InvalidTokenError from error
        # Not by itsdangerous, for which a token from a replica whose clock is a second ahead is an expired one.
        if time.time() - sealed_at.timestamp() > max_age_s:
            raise ExpiredTokenError
        return value
