"""Tokens as another process of the service made them, some time ago."""

from __future__ import annotations

import time
from typing import Any

from itsdangerous import TimestampSigner, URLSafeTimedSerializer

DAY_S = 24 * 3600


def sealed_ago(seconds: float, key: bytes, kind: str, value: Any) -> str:
    """Return a token that was sealed so many seconds ago; less than none by a process whose clock is ahead."""

    class Signer(TimestampSigner):
        def get_timestamp(self) -> int:
            return int(time.time() - seconds)

    token: str = URLSafeTimedSerializer(key, salt=f"modelcatalog.{kind}", signer=Signer).dumps(value)
    return token
