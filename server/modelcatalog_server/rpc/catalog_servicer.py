"""``ModelCatalog``: each RPC takes its request apart, asks the reader, and puts the response together."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from importlib.metadata import version

from modelcatalog.v1 import model_catalog_service_pb2 as pb
from modelcatalog.v1 import model_catalog_service_pb2_grpc as pb_grpc
from modelcatalog_server.catalog.comparison import ComparisonReader
from modelcatalog_server.catalog.etags import model_etag, page_etag
from modelcatalog_server.catalog.facets import FacetReader
from modelcatalog_server.catalog.offers import OfferQuery, OfferReader
from modelcatalog_server.catalog.reader import CatalogReader, ModelQuery, ProviderQuery
from modelcatalog_server.catalog.search import ModelSearch, SearchQuery
from modelcatalog_server.domain.features import Feature
from modelcatalog_server.domain.ports.catalog import CatalogState
from modelcatalog_server.refresh.service import RefreshService
from modelcatalog_server.rpc.comparison_messages import read_workload, to_comparison
from modelcatalog_server.rpc.context import Context
from modelcatalog_server.rpc.model_messages import (
    ModelShape,
    to_benchmark,
    to_model,
    to_provider,
    to_resolution,
    to_timestamp,
)
from modelcatalog_server.rpc.offer_messages import to_facet, to_offer
from modelcatalog_server.rpc.page_bytes import check_batch, fit_page
from modelcatalog_server.rpc.reading import announce, at_least
from modelcatalog_server.rpc.refresh_messages import to_duration


class CatalogServicer(pb_grpc.ModelCatalogServicer):
    """Reads of the catalog."""

    def __init__(
        self,
        reader: CatalogReader,
        search: ModelSearch,
        offers: OfferReader,
        comparisons: ComparisonReader,
        facets: FacetReader,
        refreshes: RefreshService,
        features: Collection[Feature] = tuple(Feature),
    ) -> None:
        self._reader = reader
        self._search = search
        self._offers = offers
        self._comparisons = comparisons
        self._facets = facets
        self._refreshes = refreshes
        self._features = [pb.Feature(name=each, enabled=each in features) for each in Feature]
        self._version = version("modelcatalog")

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:
        """One model, by exact id or by what people write for it."""
        shape = ModelShape(request.view, request.read_mask)
        read = await self._reader.get_model(request.model_id, with_raw=shape.with_raw, at_least=at_least(context))
        announce(context, read.state)
        model, resolution = read.value.model, to_resolution(request.model_id, read.value.resolution)
        if request.if_none_match and request.if_none_match == model_etag(model):
            return pb.GetModelResponse(not_modified=True, resolution=resolution, catalog_revision=read.state.revision)
        return pb.GetModelResponse(
            model=shape.to_model(model), resolution=resolution, catalog_revision=read.state.revision
        )

    async def BatchGetModels(self, request: pb.BatchGetModelsRequest, context: Context) -> pb.BatchGetModelsResponse:
        """Up to 100 models by exact id."""
        shape = ModelShape(request.view, request.read_mask)
        read = await self._reader.get_models(request.model_ids, with_raw=shape.with_raw, at_least=at_least(context))
        announce(context, read.state)
        models = shape.to_models(read.value[id_] for id_ in request.model_ids if id_ in read.value)
        check_batch(models)
        return pb.BatchGetModelsResponse(
            models=models,
            missing_model_ids=[id_ for id_ in request.model_ids if id_ not in read.value],
            catalog_revision=read.state.revision,
        )

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        """Models, page by page."""
        shape = ModelShape(request.view, request.read_mask)
        query = ModelQuery(
            provider_id=request.provider_id or None,
            filter=request.filter,
            order_by=request.order_by,
            page_size=request.page_size,
            page_token=request.page_token,
            page=request.page,
            show_removed=request.show_removed,
            with_raw=shape.with_raw,
        )
        read = await self._reader.list_models(query, at_least=at_least(context))
        announce(context, read.state)
        page, models = fit_page(read.value, shape.to_models(read.value.items), number=request.page)
        etag = page_etag(page)
        if request.if_none_match and request.if_none_match == etag:
            return pb.ListModelsResponse(not_modified=True, etag=etag, catalog_revision=page.revision)
        return pb.ListModelsResponse(
            models=models,
            next_page_token=page.next_token,
            total_size=page.total,
            catalog_revision=page.revision,
            etag=etag,
        )

    async def ListModelBenchmarks(
        self, request: pb.ListModelBenchmarksRequest, context: Context
    ) -> pb.ListModelBenchmarksResponse:
        """Published results of the canonical model behind a model."""
        read = await self._reader.list_benchmarks(request.model_id, at_least=at_least(context))
        announce(context, read.state)
        return pb.ListModelBenchmarksResponse(
            benchmarks=[to_benchmark(benchmark) for benchmark in read.value.items],
            canonical_id=read.value.canonical_id or "",
            resolution=to_resolution(request.model_id, read.value.resolution),
            catalog_revision=read.state.revision,
        )

    async def ListProviders(self, request: pb.ListProvidersRequest, context: Context) -> pb.ListProvidersResponse:
        """Providers, page by page."""
        query = ProviderQuery(
            filter=request.filter,
            order_by=request.order_by,
            page_size=request.page_size,
            page_token=request.page_token,
            show_removed=request.show_removed,
        )
        read = await self._reader.list_providers(query, at_least=at_least(context))
        announce(context, read.state)
        page = read.value
        return pb.ListProvidersResponse(
            providers=[to_provider(provider) for provider in page.items],
            next_page_token=page.next_token,
            total_size=page.total,
            catalog_revision=page.revision,
        )

    async def GetProvider(self, request: pb.GetProviderRequest, context: Context) -> pb.GetProviderResponse:
        """One provider."""
        read = await self._reader.get_provider(request.provider_id, at_least=at_least(context))
        announce(context, read.state)
        return pb.GetProviderResponse(provider=to_provider(read.value), catalog_revision=read.state.revision)

    async def GetCatalogInfo(self, request: pb.GetCatalogInfoRequest, context: Context) -> pb.GetCatalogInfoResponse:
        """What the catalog holds and how fresh it is."""
        read = await self._reader.get_info(at_least=at_least(context))
        announce(context, read.state)
        age, stale = self._refreshes.get_age(read.state)
        counts = read.value.counts
        response = _to_info(read.state, age, stale=stale)
        response.counts.CopyFrom(
            pb.CatalogCounts(
                providers=counts.providers,
                models=counts.models,
                enabled_models=counts.enabled_models,
                removed_models=counts.removed_models,
                canonical_models=counts.canonical_models,
                benchmarks=counts.benchmarks,
            )
        )
        response.schema_version = read.value.schema_version
        response.server_version = self._version
        response.features.extend(self._features)
        return response

    async def SearchModels(self, request: pb.SearchModelsRequest, context: Context) -> pb.SearchModelsResponse:
        """Models that fit a text, page by page."""
        shape = ModelShape(request.view, request.read_mask)
        query = SearchQuery(
            query=request.query,
            filter=request.filter,
            page_size=request.page_size,
            page_token=request.page_token,
            page=request.page,
            with_raw=shape.with_raw,
        )
        read = await self._search.search(query, at_least=at_least(context))
        announce(context, read.state)
        results = [
            pb.SearchResult(
                model=shape.to_model(result.model), score=result.score, matched_fields=result.matched_fields
            )
            for result in read.value.items
        ]
        page, results = fit_page(read.value, results, number=request.page)
        return pb.SearchModelsResponse(
            results=results,
            next_page_token=page.next_token,
            total_size=page.total,
            catalog_revision=page.revision,
        )

    async def CompareModels(self, request: pb.CompareModelsRequest, context: Context) -> pb.CompareModelsResponse:
        """Models side by side."""
        workload = read_workload(request)
        read = await self._comparisons.get_compared(request.model_ids, at_least=at_least(context))
        announce(context, read.state)
        compared = read.value
        response = to_comparison([to_model(model) for model in compared.models], compared.benchmarks, workload)
        resolutions = [to_resolution(*each) for each in compared.resolutions.items()]
        response.resolutions.extend(each for each in resolutions if each is not None)
        response.catalog_revision = read.state.revision
        return response

    async def ResolveModel(self, request: pb.ResolveModelRequest, context: Context) -> pb.ResolveModelResponse:
        """The model behind a reference, and what else it could have been."""
        read = await self._reader.resolve_model(
            request.reference, request.preferred_provider_ids, at_least=at_least(context)
        )
        announce(context, read.state)
        resolved = read.value
        return pb.ResolveModelResponse(
            model=to_model(resolved.model),
            canonical_id=resolved.resolution.canonical_id or "",
            rule=resolved.resolution.rule,
            confidence=resolved.resolution.confidence,
            candidates=[to_model(candidate) for candidate in resolved.candidates],
            catalog_revision=read.state.revision,
        )

    async def ListModelOffers(self, request: pb.ListModelOffersRequest, context: Context) -> pb.ListModelOffersResponse:
        """Every provider's offer of a model, page by page."""
        shape = ModelShape(request.view, request.read_mask)
        query = OfferQuery(
            canonical_id=request.canonical_id,
            model_id=request.model_id,
            ratio=request.input_output_ratio if request.HasField("input_output_ratio") else None,
            page_size=request.page_size,
            page_token=request.page_token,
            with_raw=shape.with_raw,
        )
        read = await self._offers.list_offers(query, at_least=at_least(context))
        announce(context, read.state)
        offers = read.value
        messages = [to_offer(offer, offers.ratio, offers.differing, shape) for offer in offers.page.items]
        page, messages = fit_page(offers.page, messages)
        return pb.ListModelOffersResponse(
            offers=messages,
            canonical_id=offers.canonical_id or "",
            differing_fields=offers.differing,
            resolution=to_resolution(request.model_id, offers.resolution),
            next_page_token=page.next_token,
            total_size=page.total,
            catalog_revision=page.revision,
        )

    async def ListModelFacets(self, request: pb.ListModelFacetsRequest, context: Context) -> pb.ListModelFacetsResponse:
        """What a query can be built from."""
        read = await self._facets.list_model_facets(request.filter, at_least=at_least(context))
        announce(context, read.state)
        return pb.ListModelFacetsResponse(
            facets=[to_facet(facet) for facet in read.value.items],
            total_size=read.value.total,
            catalog_revision=read.state.revision,
        )


def _to_info(state: CatalogState, age: timedelta | None, *, stale: bool) -> pb.GetCatalogInfoResponse:
    return pb.GetCatalogInfoResponse(
        catalog_revision=state.revision,
        checked_time=to_timestamp(state.checked_at),
        changed_time=to_timestamp(state.changed_at),
        age=to_duration(age),
        stale=stale,
        upstream_url=state.source_url or "",
        upstream_etag=state.source_etag or "",
        upstream_snapshot=state.source_snapshot or "",
    )
