"""Digests of texts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def digest(parts: Iterable[str]) -> str:
    """Return 32 hex digits for some texts; which of them ended where counts."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
