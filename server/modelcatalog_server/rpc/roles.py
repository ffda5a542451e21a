"""The role that each RPC takes, as the contract has it."""

from __future__ import annotations

from modelcatalog_server.domain.identity import Role

_BY_SERVICE: dict[str, dict[Role, str]] = {
    "ModelCatalog": {
        Role.READER: """
            GetModel BatchGetModels ListModels SearchModels CompareModels ResolveModel ListModelOffers ListModelFacets
            ListModelBenchmarks ListProviders GetProvider GetCatalogInfo
        """,
    },
    "RefreshService": {
        Role.READER: "GetRefreshStatus GetRefresh ListRefreshes WatchRefreshStatus",
        Role.OPERATOR: "StartRefresh CancelRefresh",
    },
    "CatalogAdmin": {
        Role.ADMIN: "UpdateProvider InvalidateCache GetCacheStats ListAuditEvents",
    },
}

#: By the method's full name. A method without a role does not get into a server.
ROLES = {
    f"/modelcatalog.v1.{service}/{name}": role
    for service, names_by_role in _BY_SERVICE.items()
    for role, names in names_by_role.items()
    for name in names.split()
}


def required_role(method: str, *, reflection_is_open: bool = False) -> Role | None:
    """Return the role that a method takes; ``None``: none, also of who is not known.

    Health is open: what asks for it, a load balancer or an orchestrator, has no token, and is told nothing else.
    """
    if method.startswith("/grpc.health."):
        return None
    if method.startswith("/grpc.reflection."):
        return None if reflection_is_open else Role.READER
    return ROLES[method]
