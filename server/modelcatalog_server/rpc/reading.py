"""What every read has in common: the revision it asks for, and the trailers that say what it got."""

from __future__ import annotations

from datetime import UTC

from modelcatalog_server.catalog.snapshots import AtLeast
from modelcatalog_server.domain.errors import InvalidQueryError
from modelcatalog_server.domain.ports import CatalogState
from modelcatalog_server.rpc.context import Context
from modelcatalog_server.rpc.interceptor import remaining_time

_MIN_REVISION = "x-catalog-min-revision"
# Time left for reading once the revision is there; of a shorter call, half.
_READ_RESERVE_S = 0.5


def at_least(context: Context) -> AtLeast:
    """Return the revision that the caller must see, out of ``x-catalog-min-revision``."""
    for key, value in context.invocation_metadata() or ():
        if key == _MIN_REVISION:
            text = value if isinstance(value, str) else value.decode(errors="replace")
            if not (text.isascii() and text.isdigit() and len(text) <= 18):
                raise InvalidQueryError(_MIN_REVISION, "must be a revision number")
            remaining = remaining_time(context)
            return AtLeast(revision=int(text), timeout_s=max(remaining - _READ_RESERVE_S, remaining / 2))
    return AtLeast()


def announce(context: Context, state: CatalogState) -> None:
    """Put the revision that was read, and when upstream was last checked, in the trailers."""
    trailers = [*context.trailing_metadata(), ("x-catalog-revision", str(state.revision))]
    if state.checked_at is not None:
        trailers.append(("x-catalog-checked-at", state.checked_at.astimezone(UTC).isoformat().replace("+00:00", "Z")))
    context.set_trailing_metadata(tuple(trailers))
