"""The one tree of errors. Adapters raise these; rpc has the one table from class to (status code, reason).

``str(error)`` is written for the caller and may be sent to it: no driver text, no address, no SQL.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from modelcatalog_server.domain.features import Feature


class StartupError(Exception):
    """The process cannot start. ``str(error)`` is one line that says what is wrong and what to do."""


class CatalogError(Exception):
    """Base of everything a caller can be told."""


class InvalidArgumentError(CatalogError):
    """An argument is out of its bounds. ``field`` is its path in the request."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


class InvalidQueryError(InvalidArgumentError):
    """An argument without an error of its own is out of its bounds."""


class InvalidModelIdError(InvalidArgumentError):
    """An id is empty, too long or holds characters that no id has."""


class TooManyIdsError(InvalidArgumentError):
    """More ids than one call takes, or none."""


class InvalidFieldMaskError(InvalidArgumentError):
    """A mask names a field that does not exist."""


class InvalidExpressionError(InvalidArgumentError):
    """An argument in a language of its own has a mistake. ``column``: where, in characters from 1."""

    def __init__(self, field: str, message: str, *, column: int | None = None) -> None:
        super().__init__(field, message if column is None else f"column {column}: {message}")
        self.column = column


class InvalidFilterError(InvalidExpressionError):
    """A filter does not parse, or asks for what a field cannot be asked for."""


class InvalidOrderByError(InvalidExpressionError):
    """An order does not parse, or names a field that gives none."""


class InvalidPageTokenError(InvalidArgumentError):
    """A page token is not one of ours or belongs to other arguments."""


class InvalidResumeTokenError(InvalidArgumentError):
    """A resume token is not one of ours or belongs to another refresh."""


class PageTokenExpiredError(CatalogError):
    """A page token is too old."""


class ResumeTokenExpiredError(CatalogError):
    """A resume token is too old."""


class NotFoundError(CatalogError):
    """Nothing has this id. ``candidates`` are up to ten near ones."""

    kind = "resource"

    def __init__(self, id_: str, candidates: Sequence[str] = ()) -> None:
        hint = f"; did you mean {candidates[0]}?" if candidates else ""
        super().__init__(f"no {self.kind} has the id {id_!r}{hint}")
        self.id = id_
        self.candidates = tuple(candidates)


class ModelNotFoundError(NotFoundError):
    """No model has this id."""

    kind = "model"


class ProviderNotFoundError(NotFoundError):
    """No provider has this id."""

    kind = "provider"


class RefreshNotFoundError(NotFoundError):
    """No refresh has this id."""

    kind = "refresh"


class AmbiguousModelError(CatalogError):
    """A reference fits several models equally. ``candidates`` are up to ten of them."""

    def __init__(self, reference: str, candidates: Sequence[str]) -> None:
        few = ", ".join(candidates[:3]) + (", …" if len(candidates) > 3 else "")
        super().__init__(f"{reference!r} fits several models equally; say which: {few}")
        self.reference = reference
        self.candidates = tuple(candidates)


class RefreshNotCancellableError(CatalogError):
    """The refresh is over, or has got too far to be stopped."""


class RequestIdReusedError(CatalogError):
    """A request id was used before, with other arguments."""


class MissingTokenError(CatalogError):
    """The call says nothing of who makes it."""

    def __init__(self, message: str = "this server has to know who calls: send a token") -> None:
        super().__init__(message)


class InvalidTokenError(CatalogError):
    """The token is not known, or expired; the caller is not told which."""

    def __init__(self, message: str = "the token is not known here, or has expired") -> None:
        super().__init__(message)


class RoleRequiredError(CatalogError):
    """The caller is known and may not do this. ``principal`` is its name, for the logs."""

    def __init__(self, message: str, principal: str = "") -> None:
        super().__init__(message)
        self.principal = principal


class DatabaseUnavailableError(CatalogError):
    """PostgreSQL cannot be reached or gave no answer in time."""


class CatalogNotReadyError(CatalogError):
    """No catalog has been loaded yet."""


class ServerDrainingError(CatalogError):
    """This process is shutting down."""


class RevisionNotAvailableError(CatalogError):
    """The revision that was asked for did not arrive in time."""


class SlowConsumerError(CatalogError):
    """The reader of a stream did not keep up."""


class TooManyStreamsError(CatalogError):
    """Too many streams are open. ``subject``: whose, in all or those of one caller."""

    def __init__(self, message: str, *, subject: str = "process") -> None:
        super().__init__(message)
        self.subject = subject


class RateLimitedError(CatalogError):
    """A caller calls too often.

    Attributes:
        subject: Whose calls are counted: ``principal:…`` or ``address:…``.
        principal: The caller's name; empty where it is not known who calls.
        retry_after_s: After so many seconds the next call gets in.
    """

    def __init__(self, subject: str, limit: str, *, retry_after_s: float, principal: str = "") -> None:
        super().__init__(f"{subject} has had its {limit}")
        self.subject = subject
        self.principal = principal
        self.retry_after_s = retry_after_s


class OverloadedError(CatalogError):
    """There is too much to do at once. ``retry_after_s``: when it may be better, in seconds."""

    def __init__(self, *, retry_after_s: float) -> None:
        super().__init__("this server has too much to do at once")
        self.retry_after_s = retry_after_s


class DeadlineError(CatalogError):
    """The call's time was over."""


class FeatureDisabledError(CatalogError):
    """What was asked for is switched off in the settings."""

    def __init__(self, feature: Feature) -> None:
        super().__init__(f"the feature {feature} is switched off here; GetCatalogInfo lists what there is")
        self.feature = feature


class RefreshError(CatalogError):
    """A refresh cannot go on; the catalog stays as it is."""


class UpstreamUnavailableError(RefreshError):
    """Upstream did not answer.

    ``retry_after``: seconds it asked to wait before the next attempt, if it did. ``passing``: another attempt may do.
    """

    def __init__(self, message: str, *, retry_after: float | None = None, passing: bool = True) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.passing = passing


class UpstreamInvalidError(RefreshError):
    """Upstream's answer is no catalog."""


class SlotTakenError(RefreshError):
    """Another process has started what a slot of the schedule is for."""


class RefreshCancelledError(RefreshError):
    """Somebody asked for the refresh to be stopped."""


class GateRefusedError(RefreshError):
    """The payload looks wrong as a whole. ``metadata`` has the figures as text, ``gate`` among them."""

    def __init__(self, gate: str, message: str, metadata: Mapping[str, str]) -> None:
        super().__init__(message)
        self.gate = gate
        self.message = message
        self.metadata = {**metadata, "gate": gate}


class OwnerLostError(RefreshError):
    """The process that ran the refresh is gone, or no longer owns it."""
