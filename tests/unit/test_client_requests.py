# ruff: noqa: S105, S106 -- page and resume tokens, and one that opens nothing

from __future__ import annotations

import pytest

from modelcatalog.v1.model_catalog_service_pb2 import GetModelRequest, ListModelsRequest, ListProvidersRequest
from modelcatalog_client import ModelCatalogClient, ModelView, Refresh
from modelcatalog_client import _requests as requests


def test_the_default_view_is_left_unsaid_so_that_callers_share_a_cache_entry() -> None:
    assert requests.view_value("basic") == ModelView.MODEL_VIEW_UNSPECIFIED


def test_names_and_enum_values_mean_the_same() -> None:
    assert requests.view_value("full") == requests.view_value(ModelView.MODEL_VIEW_FULL)
    assert requests.refresh_type_value("full") == requests.refresh_type_value(Refresh.TYPE_FULL)


def test_a_name_there_is_not_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="basic, full"):
        requests.view_value("FULL")  # type: ignore[arg-type]  # what a caller without mypy may write


def test_one_string_is_not_taken_for_its_letters() -> None:
    with pytest.raises(TypeError, match="model_ids"):
        ModelCatalogClient().batch_get_models("openai/gpt-5")
    with pytest.raises(TypeError, match="read_mask"):
        requests.field_mask("id")


def test_no_paths_are_no_mask() -> None:
    assert requests.field_mask(()) is None


def test_the_following_page_keeps_the_arguments_but_those_of_the_first_page() -> None:
    request = ListModelsRequest(filter="a = b", page_size=7, page_token="one", if_none_match="etag")
    assert requests.following(request, "two") == ListModelsRequest(filter="a = b", page_size=7, page_token="two")
    assert request.if_none_match == "etag"


def test_the_following_page_of_a_listing_without_such_arguments() -> None:
    assert requests.following(ListProvidersRequest(page_size=7), "two").page_token == "two"


def test_an_rpc_is_called_after_its_request() -> None:
    assert requests.rpc_name(GetModelRequest()) == "GetModel"
