"""TLS as gRPC takes it: each new connection is made with the certificate that holds at that time."""

from __future__ import annotations

from typing import Protocol

import grpc

from modelcatalog_server.identity.certificates import TlsMaterial


class TlsNow(Protocol):
    """Says what the certificate is now."""

    @property
    def current(self) -> TlsMaterial:
        """The certificate, the key and the authorities of callers."""


class ServerTls:
    """Makes the credentials of a server. TLS is 1.2 or later, as gRPC has it; connections that are open go on.

    With authorities of callers each connection has to show a certificate: gRPC for Python can ask for one that has to
    be there, or for none.

    Args:
        tls: What is in the files.
    """

    def __init__(self, tls: TlsNow) -> None:
        self._tls = tls
        self._given = tls.current

    def credentials(self) -> grpc.ServerCredentials:
        """Return what a port is opened with."""
        return grpc.dynamic_ssl_server_credentials(
            _configuration(self._given),
            self._fetch,  # type: ignore[arg-type]  # which may return None, as the documentation says
            require_client_authentication=self._given.client_ca is not None,
        )

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """Return what a new connection is made with, if it is not what the one before was. Called by gRPC's threads."""
        material = self._tls.current
        if material is self._given:
            return None
        self._given = material
        return _configuration(material)


def _configuration(material: TlsMaterial) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(material.key, material.certificate)], material.client_ca)
