"""RPCs that are switched off answer UNIMPLEMENTED, to whoever may call them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NoReturn

import grpc

from modelcatalog_server.domain.errors import FeatureDisabledError
from modelcatalog_server.domain.features import Feature
from modelcatalog_server.rpc.context import Context, MethodHandler

_METHODS = {
    Feature.SEARCH: "ModelCatalog/SearchModels",
    Feature.RESOLVE: "ModelCatalog/ResolveModel",
    Feature.OFFERS: "ModelCatalog/ListModelOffers",
    Feature.COMPARE: "ModelCatalog/CompareModels",
    Feature.FACETS: "ModelCatalog/ListModelFacets",
    Feature.BENCHMARKS: "ModelCatalog/ListModelBenchmarks",
    Feature.WATCH: "RefreshService/WatchRefreshStatus",
    Feature.REFRESH: "RefreshService/StartRefresh RefreshService/CancelRefresh",
    Feature.ADMIN: "CatalogAdmin/UpdateProvider CatalogAdmin/InvalidateCache CatalogAdmin/GetCacheStats"
    " CatalogAdmin/ListAuditEvents",
}

#: By the method's full name; a method that is not here is always there.
FEATURES = {f"/modelcatalog.v1.{name}": feature for feature, names in _METHODS.items() for name in names.split()}


def without_disabled(method: str, handler: MethodHandler, enabled: Collection[Feature]) -> MethodHandler:
    """Return the handler of a method, or one that refuses where its feature is switched off."""
    feature = FEATURES.get(method)
    if feature is None or feature in enabled:
        return handler

    async def refuse(_request: Any, _context: Context) -> NoReturn:
        raise FeatureDisabledError(feature)

    make = (
        grpc.unary_stream_rpc_method_handler
        if handler.unary_stream is not None
        else grpc.unary_unary_rpc_method_handler
    )
    return make(refuse, handler.request_deserializer, handler.response_serializer)
