"""The server's certificate, its key and the authorities of callers: checked to work together before they are used."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path

from modelcatalog_server.identity.following import BadFileError, read_file

# The authorities that a system trusts are a fifth of that.
_MAX_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class TlsMaterial:
    """PEM, as the files have it. ``client_ca``: ``None`` where callers need no certificate."""

    certificate: bytes
    key: bytes = field(repr=False)
    client_ca: bytes | None = None


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where the PEM files are."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    @property
    def paths(self) -> list[Path]:
        """All that there are."""
        return [path for path in (self.certificate, self.key, self.client_ca) if path is not None]

    def read(self) -> TlsMaterial:
        """Return what is in the files.

        Raises:
            BadFileError: one cannot be read, is no PEM, or the key is another certificate's.
        """
        material = self._read()
        self._check()
        if self._read() != material:  # what was checked is not what was read
            raise BadFileError(f"{self.certificate}, {self.key}: are being written")
        return material

    def _read(self) -> TlsMaterial:
        client_ca = read_file(self.client_ca, _MAX_BYTES) if self.client_ca is not None else None
        return TlsMaterial(read_file(self.certificate, _MAX_BYTES), read_file(self.key, _MAX_BYTES), client_ca)

    def _check(self) -> None:
        """Load them as TLS would: gRPC's own word on a bad pair is a line in its log and connections that fail."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            # Without a passphrase of ours OpenSSL would ask for one at the terminal.
            context.load_cert_chain(self.certificate, self.key, password=_no_passphrase)
        except (ssl.SSLError, OSError) as error:
            raise BadFileError(f"{self.certificate}, {self.key}: {_describe(error)}") from error
        if self.client_ca is not None:
            try:
                context.load_verify_locations(self.client_ca)
            except (ssl.SSLError, OSError) as error:
                raise BadFileError(f"{self.client_ca}: is no certificate in PEM") from error


def _no_passphrase() -> str:
    raise _EncryptedKeyError


class _EncryptedKeyError(OSError):
    """The key needs a passphrase."""


def _describe(error: OSError) -> str:
    if isinstance(error, _EncryptedKeyError):
        return "the key is encrypted; TLS takes one without a passphrase"
    if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
        return "the key is not that of the certificate"
    return "are no certificate and key in PEM"
