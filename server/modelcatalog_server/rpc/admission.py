"""Who calls, and whether that caller may: decided for each call, before anything of it is read.

Both ways through the server ask the same :class:`Gate`: the long one, and that of near hits, which has a few
microseconds in all. So it takes no await, no message and no I/O, and returns an error rather than raise it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Protocol

from modelcatalog_server.domain.errors import (
    CatalogError,
    InvalidTokenError,
    MissingTokenError,
    RateLimitedError,
    RoleRequiredError,
)
from modelcatalog_server.domain.identity import ANONYMOUS, Principal, Role
from modelcatalog_server.identity.identities import Identities, name_in_certificate
from modelcatalog_server.rpc.context import Context
from modelcatalog_server.rpc.peers import address_of
from modelcatalog_server.rpc.rates import CallRates, Unsettled
from modelcatalog_server.rpc.roles import required_role

#: Request metadata: ``Bearer`` and the token.
AUTHORIZATION = "authorization"

#: Who was admitted, or why nobody was; or who is to be once there is something left of a quota.
Admitted = Principal | CatalogError | Unsettled

_SCHEME = "bearer "
# Of what grpc tells of a client's certificate. Where there are alternative names, the common name is but a label.
_CERTIFICATE_NAMES = ("x509_subject_alternative_name", "x509_common_name")

_caller: ContextVar[str] = ContextVar("caller", default=ANONYMOUS.name)


class _IdentitiesNow(Protocol):
    @property
    def current(self) -> Identities:
        """The identities as they are now."""


def caller() -> str:
    """Return the name of the principal that makes the call that is being handled."""
    return _caller.get()


def note_caller(admitted: Admitted) -> str:
    """Have :func:`caller` name whoever calls from here on, in the task of the call; return that name.

    It is empty where it is not known who calls.
    """
    name = ""
    if isinstance(admitted, Principal):
        name = admitted.name
    elif isinstance(admitted, Unsettled):
        name = admitted.principal.name
    elif isinstance(admitted, RoleRequiredError | RateLimitedError):
        name = admitted.principal
    _caller.set(name)
    return name


def subject_of(context: Context) -> str:
    """Return whose call is being handled: a principal's, or that of who has an address."""
    name = caller()
    return f"address:{address_of(context.peer())}" if name == ANONYMOUS.name else f"principal:{name}"


def authorization_of(context: Context) -> str | bytes | None:
    """Return what a call says of who makes it."""
    for key, value in context.invocation_metadata() or ():
        if key == AUTHORIZATION:
            return value
    return None


class Admission:
    """Makes the gates of methods.

    Args:
        identities: Who may call; ``None``: no identity is configured, and everybody has every role.
        with_certificates: Whether callers show certificates that were verified.
        reflection_is_open: Whether reflection answers everybody.
        rates: How often each may call; ``None``: as often as they like.
        now: Seconds since 1970.
    """

    def __init__(
        self,
        identities: _IdentitiesNow | None = None,
        *,
        with_certificates: bool = False,
        reflection_is_open: bool = False,
        rates: CallRates | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._identities = identities
        self._with_certificates = with_certificates
        self._reflection_is_open = reflection_is_open
        self.rates = rates
        self._now = now

    def gate(self, method: str) -> Gate:
        """Return what admits to a method."""
        if method.startswith("/grpc.health."):
            return Gate(self, method, None, is_limited=False)
        return Gate(self, method, required_role(method, reflection_is_open=self._reflection_is_open))

    def identify(self, context: Context, authorization: str | bytes | None) -> Admitted:
        """Return who calls, or why that is not known. A token wins over a certificate."""
        if self._identities is None:
            return ANONYMOUS
        identities = self._identities.current
        if authorization is not None:
            return identities.find_by_token(_token_in(authorization), self._now()) or InvalidTokenError()
        if not self._with_certificates:
            return MissingTokenError()
        names = _names_of(context)
        principal = identities.find_by_certificate(names)
        return principal or RoleRequiredError("this certificate stands for no role here", names[0] if names else "")


class Gate:
    """Admits callers to one method.

    Args:
        admission: What is known of all callers.
        method: Its path.
        role: What it takes; ``None``: it is open to everybody.
        is_limited: Whether its calls count.
    """

    def __init__(self, admission: Admission, method: str, role: Role | None, *, is_limited: bool = True) -> None:
        self._admission = admission
        self._method = method.rpartition("/")[2]
        self._role = role
        self._rates = admission.rates if is_limited else None

    def admit(self, context: Context, authorization: str | bytes | None) -> Admitted:
        """Return who is admitted, or the error that the caller gets."""
        principal = ANONYMOUS if self._role is None else self._admission.identify(context, authorization)
        if not isinstance(principal, Principal):
            return principal
        if self._role is not None and principal.role < self._role:
            return RoleRequiredError(f"{self._method} takes the role {self._role}", principal.name)
        return principal if self._rates is None else self._rates.admit(context.peer(), principal)

    async def settle(self, context: Context, admitted: Admitted) -> Principal | CatalogError:
        """Return who is admitted after all, and count the call where nobody is."""
        if isinstance(admitted, Unsettled):
            return await admitted.settle()
        if self._rates is None or isinstance(admitted, Principal | RateLimitedError):
            return admitted
        return await self._rates.charge(context.peer(), admitted)


def _token_in(authorization: str | bytes) -> str:
    """Return the token of a ``Bearer`` header; of another one nothing, which is nobody's token."""
    text = authorization if isinstance(authorization, str) else authorization.decode(errors="replace")
    return text[len(_SCHEME) :].strip() if text[: len(_SCHEME)].lower() == _SCHEME else ""


def _names_of(context: Context) -> list[str]:
    """Return the names in the certificate that the caller's connection was made with."""
    described = context.auth_context()
    for kind in _CERTIFICATE_NAMES:
        if values := described.get(kind):
            return [name_in_certificate(value) for value in values]
    return []
