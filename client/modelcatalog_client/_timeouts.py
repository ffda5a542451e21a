"""How long a call may take when nobody says: call > client > table."""

from __future__ import annotations

import math
from collections.abc import Mapping

# Seconds by RPC. Sent with every call: a timeout in the service config would never reach the server.
DEFAULT_TIMEOUTS: Mapping[str, float] = {
    "GetModel": 5,
    "BatchGetModels": 10,
    "ListModels": 15,
    "SearchModels": 10,
    "CompareModels": 10,
    "ResolveModel": 5,
    "ListModelOffers": 10,
    "ListModelFacets": 10,
    "ListModelBenchmarks": 5,
    "ListProviders": 10,
    "GetProvider": 5,
    "GetCatalogInfo": 5,
    "StartRefresh": 10,
    "GetRefreshStatus": 5,
    "GetRefresh": 5,
    "ListRefreshes": 10,
    "CancelRefresh": 10,
    # A watch lasts as long as what it watches; only a timeout of the call itself ends it.
    "WatchRefreshStatus": math.inf,
    "UpdateProvider": 10,
    "InvalidateCache": 10,
    "GetCacheStats": 5,
    "ListAuditEvents": 10,
}


def check_timeout(timeout: float | None) -> None:
    """Raises ValueError for a timeout that no call could meet."""
    if timeout is not None and not timeout > 0:
        raise ValueError(f"timeout must be more than 0 seconds, or None for the default: {timeout}")


def timeout_of(rpc: str, call: float | None, client: float | None) -> float | None:
    """Picks the timeout of a unary call.

    Args:
        rpc: Name of the RPC.
        call: What the caller of the method said, in seconds.
        client: What the constructor of the client was given, in seconds.

    Returns:
        Seconds; None (for ``math.inf``) is no limit.
    """
    check_timeout(call)
    given = call if call is not None else client
    seconds = given if given is not None else DEFAULT_TIMEOUTS[rpc]
    return None if seconds == math.inf else seconds
