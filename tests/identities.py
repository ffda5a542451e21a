"""An identities file for tests: who calls with which token."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

#: The token of each role, and one that has expired.
TOKENS = {name: f"mcat_{name}-{'x' * 32}" for name in ("reader", "operator", "admin", "expired")}


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """Return the metadata of a call with a token."""
    return (("authorization", f"Bearer {token}"),)


def token_entry(name: str, token: str, role: str, *, expires: datetime | None = None) -> str:
    """Return an entry whose principal is called ``<name>-person``."""
    expiry = f"expires = {expires.isoformat()}\n" if expires else ""
    digest = sha256(token.encode()).hexdigest()
    return f'[[tokens]]\nid = "{name}"\nprincipal = "{name}-person"\nrole = "{role}"\nsha256 = "{digest}"\n{expiry}\n'


def write_identities(path: Path, *more: str) -> Path:
    """Write a file with the tokens above, and further entries."""
    entries = [token_entry(name, TOKENS[name], name) for name in ("reader", "operator", "admin")]
    past = datetime.now(UTC) - timedelta(seconds=1)
    path.write_text("".join([*entries, token_entry("expired", TOKENS["expired"], "admin", expires=past), *more]))
    path.chmod(0o600)
    return path
