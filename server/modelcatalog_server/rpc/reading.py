"""What every read has in common: the revision it asks for, and the trailers that say what it got."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC

from modelcatalog_server.catalog.snapshots import AtLeast
from modelcatalog_server.domain.errors import InvalidQueryError
from modelcatalog_server.domain.ports.catalog import CatalogState
from modelcatalog_server.rpc.context import Context, remaining_time

#: Trailer: the revision that was read.
REVISION = "x-catalog-revision"
#: Request metadata: the revision that a caller must see.
MIN_REVISION = "x-catalog-min-revision"
# Time left for reading once the revision is there; of a shorter call, half.
_READ_RESERVE_S = 0.5


def at_least(context: Context) -> AtLeast:
    """Return the revision that the caller must see, out of ``x-catalog-min-revision``."""
    asked = [value for key, value in context.invocation_metadata() or () if key == MIN_REVISION]
    if not asked:
        return AtLeast()
    revision = newest_asked(asked)
    if revision is None:
        raise InvalidQueryError(MIN_REVISION, "must be a revision number")
    remaining = remaining_time(context)
    return AtLeast(revision=revision, timeout_s=max(remaining - _READ_RESERVE_S, remaining / 2))


def newest_asked(values: Sequence[str | bytes]) -> int | None:
    """Return the largest of the revisions in the metadata; ``None`` where one of them is none.

    There are several where a proxy adds its own to the caller's, in an entry of its own or behind a comma, which is the
    same in gRPC.
    """
    newest = 0
    for value in values:
        text = value if isinstance(value, str) else value.decode(errors="replace")
        for digits in text.replace(", ", ",").split(","):
            if not (digits.isascii() and digits.isdigit() and len(digits) <= 18):
                return None
            newest = max(newest, int(digits))
    return newest


def announce(context: Context | SharedRead, state: CatalogState) -> None:
    """Put the revision that was read, and when upstream was last checked, in the trailers."""
    if isinstance(context, SharedRead):
        context.state = state
    else:
        context.set_trailing_metadata((*context.trailing_metadata(), *state_trailers(state)))


def state_trailers(state: CatalogState) -> tuple[tuple[str, str], ...]:
    """Return the trailers of an answer that belongs to this state."""
    revision = (REVISION, str(state.revision))
    if state.checked_at is None:
        return (revision,)
    checked_at = state.checked_at.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return revision, ("x-catalog-checked-at", checked_at)


class SharedRead:
    """Stands for the context of a call where a response is made for several calls at once, or for none yet.

    It has what handlers of reads ask of a context. What each caller has of its own, its revision, time and request id,
    is looked after for each of them before.

    Attributes:
        state: What the handler announced.
    """

    state: CatalogState | None = None

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        """No caller's wishes."""
        return ()

    def time_remaining(self) -> float | None:
        """No caller's time."""
        return None
