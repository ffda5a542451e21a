"""The callers that a server knows: by the digest of a token, or by a name in a certificate."""

from __future__ import annotations

import hashlib
import hmac
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from modelcatalog_server.domain.identity import Principal, Role

#: The name of the entry that holds for every certificate without one of its own.
EVERY_CERTIFICATE = "*"
#: Characters of a name that has an entry, at most.
MAX_CERTIFICATE_NAME = 512


def digest_of(token: str) -> bytes:
    """Return what is kept of a token.

    A plain SHA-256: it is slow hashes that make guessing expensive where people choose the secrets, and 256 random bits
    are beyond guessing. This one is computed for each call.
    """
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()


def name_in_certificate(value: bytes) -> str:
    """Return a name as it may stand in a log: printable, and cut where it is too long to have an entry."""
    text = value.decode(errors="replace")[: MAX_CERTIFICATE_NAME + 1]
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)


@dataclass(frozen=True, slots=True)
class KnownToken:
    """A token, without the token. ``expires_at``: seconds since 1970."""

    digest: bytes
    principal: Principal
    expires_at: float = math.inf


@dataclass(frozen=True, slots=True)
class KnownCertificate:
    """What a name in a certificate stands for. Without ``principal`` the caller is called what its certificate says."""

    role: Role
    principal: str | None = None


class Identities:
    """The tokens and certificates of one state of the file."""

    def __init__(self, tokens: Iterable[KnownToken] = (), certificates: Mapping[str, KnownCertificate] | None = None):
        self._tokens = {token.digest: token for token in tokens}
        self._certificates = dict(certificates or {})

    def find_by_token(self, token: str, now: float) -> Principal | None:
        """Return whose token it is; ``None`` when it is nobody's, none, or expired. ``now``: seconds since 1970."""
        if not token:  # has a digest too, which scripts with an unset variable put into files
            return None
        digest = digest_of(token)
        known = self._tokens.get(digest)
        # What the look-up takes tells of the digest at most, which does not lead back to a token; the comparison that
        # decides takes the same time for all.
        if known is None or not hmac.compare_digest(known.digest, digest) or now >= known.expires_at:
            return None
        return known.principal

    def find_by_certificate(self, names: Sequence[str]) -> Principal | None:
        """Return whose certificate has these names; the first that is known decides. ``None``: nobody's."""
        for name in names:
            if known := self._certificates.get(name):
                return Principal(known.principal or name, known.role)
        every = self._certificates.get(EVERY_CERTIFICATE)
        return Principal(every.principal or names[0], every.role) if every and names else None
