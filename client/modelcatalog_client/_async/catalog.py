"""Reads of the catalog: the service ModelCatalog."""

# The arguments are called as the fields of the requests are.
# ruff: noqa: A002, ASYNC109

from __future__ import annotations

from collections.abc import Sequence

from modelcatalog.v1.model_catalog_service_pb2 import (
    BatchGetModelsRequest,
    BatchGetModelsResponse,
    CompareModelsRequest,
    CompareModelsResponse,
    GetCatalogInfoRequest,
    GetCatalogInfoResponse,
    GetModelRequest,
    GetModelResponse,
    GetProviderRequest,
    GetProviderResponse,
    ListModelBenchmarksRequest,
    ListModelBenchmarksResponse,
    ListModelFacetsRequest,
    ListModelFacetsResponse,
    ListModelOffersRequest,
    ListModelOffersResponse,
    ListModelsRequest,
    ListModelsResponse,
    ListProvidersRequest,
    ListProvidersResponse,
    ModelOffer,
    ResolveModelRequest,
    ResolveModelResponse,
    SearchModelsRequest,
    SearchModelsResponse,
    SearchResult,
    Workload,
)
from modelcatalog.v1.model_pb2 import Model
from modelcatalog.v1.provider_pb2 import Provider
from modelcatalog_client._async.calls import AsyncCalls
from modelcatalog_client._async.pager import AsyncPager
from modelcatalog_client._requests import View, field_mask, strings, view_value


class AsyncCatalogMethods(AsyncCalls):
    """Reads of the catalog. Every one may also raise ``UnavailableError`` and ``DeadlineExceededError``."""

    async def get_model(
        self,
        model_id: str,
        *,
        view: View = "basic",
        read_mask: Sequence[str] = (),
        if_none_match: str = "",
        timeout: float | None = None,
        min_revision: int | None = None,
    ) -> GetModelResponse:
        """One model.

        Args:
            model_id: ``provider/served-id``, e.g. ``openai/gpt-5``. Should the service resolve another reference, the
                response's ``resolution`` says how.
            view: ``full`` adds ``raw``, the upstream record.
            read_mask: Fields of ``Model`` to fill, instead of a view.
            if_none_match: An etag that you have. While it is right, the response has ``not_modified`` and no model.
            timeout: Seconds.
            min_revision: Catalog revision that the answer must have seen.

        Returns:
            The response; prices in it are US dollars per 1,000,000 tokens, as decimal strings.

        Raises:
            ModelNotFoundError: With near ids in ``candidates``.
            AmbiguousModelError: The id stands for several models.
            InvalidModelIdError: It cannot be an id.
            InvalidFieldMaskError: ``read_mask`` names a field that does not exist.
        """
        request = GetModelRequest(
            model_id=model_id,
            view=view_value(view),
            read_mask=field_mask(read_mask),
            if_none_match=if_none_match,
        )
        return await self._call(self._connect().catalog.GetModel, request, timeout, min_revision)

    async def batch_get_models(
        self,
        model_ids: Sequence[str],
        *,
        view: View = "basic",
        read_mask: Sequence[str] = (),
        timeout: float | None = None,
        min_revision: int | None = None,
    ) -> BatchGetModelsResponse:
        """Up to 100 models by exact id.

        Args:
            model_ids: 1 to 100 ids.
            view: ``full`` adds ``raw``, the upstream record.
            read_mask: Fields of ``Model`` to fill, instead of a view.
            timeout: Seconds.
            min_revision: Catalog revision that the answer must have seen.

        Returns:
            The models in the order of the request, and the ids that no model has in ``missing_model_ids``.

        Raises:
            TooManyIdsError: More than 100, or none.
            InvalidModelIdError: One of them cannot be an id.
            InvalidFieldMaskError: ``read_mask`` names a field that does not exist.
        """
        request = BatchGetModelsRequest(
            model_ids=strings("model_ids", model_ids),
            view=view_value(view),
            read_mask=field_mask(read_mask),
        )
        return await self._call(self._connect().catalog.BatchGetModels, request, timeout, min_revision)

    def list_models(
        self,
        *,
        provider_id: str = "",
        filter: str = "",
        order_by: str = "",
        page_size: int = 0,
        page_token: str = "",
        page: int = 0,
        view: View = "basic",
        read_mask: Sequence[str] = (),
        show_removed: bool = False,
        if_none_match: str = "",
        timeout: float | None = None,
        min_revision: int | None = None,
    ) -> AsyncPager[Model, ListModelsResponse]:
        """Models, by id or as ordered. All pages are of the revision of the first one.

        Args:
            provider_id: Only models of this provider. Empty: of every enabled one.
            filter: Subset of AIP-160 over the fields of ``Model``, e.g. ``pricing.input <= 1.25``.
            order_by: Fields of ``Model``, with ``desc`` where wanted.
            page_size: Models per request, at most 1000. 0: the server's default of 50.
            page_token: Where to begin: ``next_page_token`` of an earlier response.
            page: Only the page of this number, from 1.
            view: ``full`` adds ``raw``, the upstream record.
            read_mask: Fields of ``Model`` to fill, instead of a view.
            show_removed: Models that upstream no longer lists, too.
            if_none_match: The etag of the first page that you have. While it is right, there are no models and
                the response has ``not_modified``.
            timeout: Seconds, for each page.
            min_revision: Catalog revision that the answer must have seen.

        Returns:
            A pager; nothing is requested before it is iterated over.

        Raises:
            ProviderNotFoundError: From the iteration, as all of these.
            InvalidFilterError: ``filter`` does not parse or names a field it cannot use.
            InvalidOrderByError: The same for ``order_by``.
            InvalidPageTokenError: ``page_token`` belongs to other arguments.
            PageTokenExpiredError: The listing took more than 24 hours.
            InvalidFieldMaskError: ``read_mask`` names a field that does not exist.
        """
        request = ListModelsRequest(
            provider_id=provider_id,
            filter=filter,
            order_by=order_by,
            page_size=page_size,
            page_token=page_token,
            page=page,
            view=view_value(view),
            read_mask=field_mask(read_mask),
            show_removed=show_removed,
            if_none_match=if_none_match,
        )

        async def fetch(request: ListModelsRequest) -> ListModelsResponse:
            return await self._call(self._connect().catalog.ListModels, request, timeout, min_revision)

        return AsyncPager(fetch, request, lambda page: page.models, single_page=page != 0)

    def search_models(
        self,
        query: str,
        *,
        filter: str = "",
        page_size: int = 0,
        page_token: str = "",
        page: int = 0,
        view: View = "basic",
        read_mask: Sequence[str] = (),
        timeout: float | None = None,
        min_revision: int | None = None,
    ) -> AsyncPager[SearchResult, SearchModelsResponse]:
        """Models that fit a text, best first.

        Args:
            query: Words, prefixes, ids.
            filter: Subset of AIP-160 over the fields of ``Model``.
            page_size: Results per request, at most 1000. 0: the server's default of 50.
            page_token: Where to begin: ``next_page_token`` of an earlier response.
            page: That page alone, by number from 1.
            view: ``full`` adds ``raw``, the upstream record.
            read_mask: Fields of ``Model`` to fill, instead of a view.
            timeout: Seconds, for each page.
            min_revision: Catalog revision that the answer must have seen.

        Returns:
            A pager; nothing is requested before it is iterated over.

        Raises:
            InvalidQueryError: From the iteration, as all of these.
            InvalidFilterError: ``filter`` does not parse or names a field it cannot use.
            InvalidPageTokenError: ``page_token`` belongs to other arguments.
            PageTokenExpiredError: The listing took more than 24 hours.
            InvalidFieldMaskError: ``read_mask`` names a field that does not exist.
        """
        request = SearchModelsRequest(
            query=query,
            filter=filter,
            page_size=page_size,
            page_token=page_token,
            page=page,
            view=view_value(view),
            read_mask=field_mask(read_mask),
        )

        async def fetch(request: SearchModelsRequest) -> SearchModelsResponse:
            return await self._call(self._connect().catalog.SearchModels, request, timeout, min_revision)

        return AsyncPager(fetch, request, lambda page: page.results, single_page=page != 0)

    async def compare_models(
        self,
        model_ids: Sequence[str],
        *,
        workload: Workload | None = None,
        timeout: float | None = None,
        min_revision: int | None = None,
    ) -> CompareModelsResponse:
        """Models side by side.

        Args:
            model_ids: Two to ten.
            workload: Tokens to compute ``costs`` for.
            timeout: Seconds.
            min_revision: Catalog revision that the answer must have seen.

        Returns:
            The models, a row per field, and what the workload costs with each in US dollars.

        Raises:
            TooManyIdsError: Not two to ten.
            ModelNotFoundError: With near ids in ``candidates``.
            AmbiguousModelError: An id stands for several models.
        """
        request = CompareModelsRequest(model_ids=strings("model_ids", model_ids), workload=workload)
        return await self._call(self._connect().catalog.CompareModels, request, timeout, min_revision)

    async def resolve_model(
        self,
        reference: str,
        *,
        preferred_provider_ids: Sequence[str] = (),
        timeout: float | None = None,
        min_revision: int | None = None,
    ) -> ResolveModelResponse:
        """The model behind a reference as people write it.

        Args:
            reference: An id as somebody has it in hand.
            preferred_provider_ids: Win over other providers, first one first.
            timeout: Seconds.
            min_revision: Catalog revision that the answer must have seen.

        Returns:
            The model, the rule that found it with its confidence from 0 to 1, and other candidates.

        Raises:
            ModelNotFoundError: With near ids in ``candidates``.
            AmbiguousModelError: It stands for several models.
            InvalidModelIdError: It cannot be a reference.
        """
        request = ResolveModelRequest(
            reference=reference,
            preferred_provider_ids=strings("preferred_provider_ids", preferred_provider_ids),
        )
        return await self._call(self._connect().catalog.ResolveModel, request, timeout, min_revision)

    def list_model_offers(
        self,
        *,
        canonical_id: str = "",
        model_id: str = "",
        input_output_ratio: float | None = None,
        page_size: int = 0,
        page_token: str = "",
        view: View = "basic",
        read_mask: Sequence[str] = (),
        timeout: float | None = None,
        min_revision: int | None = None,
    ) -> AsyncPager[ModelOffer, ListModelOffersResponse]:
        """Every provider that serves a canonical model, cheapest first. Takes one of the two ids.

        Args:
            canonical_id: ``lab/slug``.
            model_id: A served model; its canonical model is taken.
            input_output_ratio: Input tokens per output token in the blended price. None: the server's default of 3.
            page_size: Offers per request, at most 1000. 0: the server's default of 50.
            page_token: Where to begin: ``next_page_token`` of an earlier response.
            view: ``full`` adds ``raw``, the upstream record.
            read_mask: Fields of ``Model`` to fill, instead of a view.
            timeout: Seconds, for each page.
            min_revision: Catalog revision that the answer must have seen.

        Returns:
            A pager of offers, with blended prices in US dollars per 1,000,000 tokens as decimal strings; nothing is
            requested before it is iterated over.

        Raises:
            ModelNotFoundError: From the iteration, as all of these. With near ids in ``candidates``.
            AmbiguousModelError: ``model_id`` stands for several models.
            InvalidQueryError: Both ids, or none, or a ratio that cannot be.
            InvalidPageTokenError: ``page_token`` belongs to other arguments.
            PageTokenExpiredError: The listing took more than 24 hours.
            InvalidFieldMaskError: ``read_mask`` names a field that does not exist.
        """
        request = ListModelOffersRequest(
            canonical_id=canonical_id,
            model_id=model_id,
            input_output_ratio=input_output_ratio,
            page_size=page_size,
            page_token=page_token,
            view=view_value(view),
            read_mask=field_mask(read_mask),
        )

        async def fetch(request: ListModelOffersRequest) -> ListModelOffersResponse:
            return await self._call(self._connect().catalog.ListModelOffers, request, timeout, min_revision)

        return AsyncPager(fetch, request, lambda page: page.offers)

    async def list_model_facets(
        self,
        *,
        filter: str = "",
        timeout: float | None = None,
        min_revision: int | None = None,
    ) -> ListModelFacetsResponse:
        """What a query can be built from: fields, operators, values.

        Args:
            filter: Subset of AIP-160 over the fields of ``Model``. Empty: all models.
            timeout: Seconds.
            min_revision: Catalog revision that the answer must have seen.

        Returns:
            One facet per field that a filter takes.

        Raises:
            InvalidFilterError: ``filter`` does not parse or names a field it cannot use.
        """
        request = ListModelFacetsRequest(filter=filter)
        return await self._call(self._connect().catalog.ListModelFacets, request, timeout, min_revision)

    async def list_model_benchmarks(
        self,
        model_id: str,
        *,
        timeout: float | None = None,
        min_revision: int | None = None,
    ) -> ListModelBenchmarksResponse:
        """Published results of the canonical model behind a model.

        Args:
            model_id: A served model, or a canonical one.
            timeout: Seconds.
            min_revision: Catalog revision that the answer must have seen.

        Returns:
            All results; empty when none are known.

        Raises:
            ModelNotFoundError: With near ids in ``candidates``.
            AmbiguousModelError: The id stands for several models.
            InvalidModelIdError: It cannot be an id.
        """
        request = ListModelBenchmarksRequest(model_id=model_id)
        return await self._call(self._connect().catalog.ListModelBenchmarks, request, timeout, min_revision)

    def list_providers(
        self,
        *,
        page_size: int = 0,
        page_token: str = "",
        filter: str = "",
        order_by: str = "",
        show_removed: bool = False,
        timeout: float | None = None,
        min_revision: int | None = None,
    ) -> AsyncPager[Provider, ListProvidersResponse]:
        """Providers, by id or as ordered; disabled ones too.

        Args:
            page_size: Providers per request, at most 1000. 0: the server's default of 50.
            page_token: Where to begin: ``next_page_token`` of an earlier response.
            filter: Subset of AIP-160 over the fields of ``Provider``.
            order_by: Fields of ``Provider``, with ``desc`` where wanted.
            show_removed: Providers that upstream no longer lists, too.
            timeout: Seconds, for each page.
            min_revision: Catalog revision that the answer must have seen.

        Returns:
            A pager; nothing is requested before it is iterated over.

        Raises:
            InvalidFilterError: From the iteration, as all of these.
            InvalidOrderByError: ``order_by`` does not parse or names a field it cannot use.
            InvalidPageTokenError: ``page_token`` belongs to other arguments.
            PageTokenExpiredError: The listing took more than 24 hours.
        """
        request = ListProvidersRequest(
            page_size=page_size,
            page_token=page_token,
            filter=filter,
            order_by=order_by,
            show_removed=show_removed,
        )

        async def fetch(request: ListProvidersRequest) -> ListProvidersResponse:
            return await self._call(self._connect().catalog.ListProviders, request, timeout, min_revision)

        return AsyncPager(fetch, request, lambda page: page.providers)

    async def get_provider(
        self,
        provider_id: str,
        *,
        timeout: float | None = None,
        min_revision: int | None = None,
    ) -> GetProviderResponse:
        """One provider, also when it is disabled or removed.

        Args:
            provider_id: e.g. ``openai``.
            timeout: Seconds.
            min_revision: Catalog revision that the answer must have seen.

        Returns:
            The response.

        Raises:
            ProviderNotFoundError: With near ids in ``candidates``.
            InvalidQueryError: It cannot be an id.
        """
        request = GetProviderRequest(provider_id=provider_id)
        return await self._call(self._connect().catalog.GetProvider, request, timeout, min_revision)

    async def get_catalog_info(
        self,
        *,
        timeout: float | None = None,
        min_revision: int | None = None,
    ) -> GetCatalogInfoResponse:
        """What the catalog holds and how fresh it is.

        Args:
            timeout: Seconds.
            min_revision: Catalog revision that the answer must have seen.

        Returns:
            The response.
        """
        request = GetCatalogInfoRequest()
        return await self._call(self._connect().catalog.GetCatalogInfo, request, timeout, min_revision)
