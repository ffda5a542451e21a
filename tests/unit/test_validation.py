"""Requests are held against the bounds that the contract declares, and every field of every request has one."""

# ruff: noqa: S106 -- page tokens

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from modelcatalog.v1 import catalog_admin_service_pb2 as admin
from modelcatalog.v1 import model_catalog_service_pb2 as catalog
from modelcatalog.v1 import refresh_service_pb2 as refresh
from modelcatalog_server.domain import errors
from modelcatalog_server.rpc.validation import check_request

REQUESTS = [
    method.input_type
    for file in (catalog, refresh, admin)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
MODEL, OTHER = "openai/gpt-5", "openai/gpt-5-mini"
UUID = "123e4567-e89b-12d3-a456-426614174000"
#: Requests that are good but for what a test adds to them.
GOOD: dict[str, Any] = {
    "GetModelRequest": {"model_id": MODEL},
    "BatchGetModelsRequest": {"model_ids": [MODEL]},
    "SearchModelsRequest": {"query": "gpt"},
    "CompareModelsRequest": {"model_ids": [MODEL, OTHER]},
    "ResolveModelRequest": {"reference": "gpt-5"},
    "ListModelOffersRequest": {"model_id": MODEL},
    "ListModelBenchmarksRequest": {"model_id": MODEL},
    "GetProviderRequest": {"provider_id": "openai"},
    "UpdateProviderRequest": {"provider_id": "openai"},
    "GetRefreshRequest": {"refresh_id": UUID},
    "CancelRefreshRequest": {"refresh_id": UUID},
}
INTEGERS = {FieldDescriptor.CPPTYPE_INT32: 2**31 - 1, FieldDescriptor.CPPTYPE_INT64: 2**63 - 1}
FLOATS = {FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT}
#: Whatever is more than the most is taken for the most, which is no mistake (AIP-158).
COERCED = "page_size"


def good(request: Descriptor) -> Message:
    return GetMessageClass(request)(**GOOD.get(request.name, {}))


def fields(message: Descriptor) -> Iterator[FieldDescriptor]:
    names: Any = message.fields_by_name
    yield from names.values()


def beyond(field: FieldDescriptor) -> Iterator[Any]:
    """Yield values of a field that no bound can let in. Nothing for one with nothing to bound."""
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        yield "x" * 600_000
    elif field.cpp_type in INTEGERS:
        yield -1
        if field.name != COERCED:
            yield INTEGERS[field.cpp_type]
    elif field.cpp_type in FLOATS:
        yield from (-1.0, math.inf, math.nan, sys.float_info.max)
    elif field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        yield from (99, -1)
    elif field.message_type is FieldMask.DESCRIPTOR:
        yield from (FieldMask(paths=["id"] * 10_000), FieldMask(paths=["x" * 10_000]))
    elif field.message_type is Duration.DESCRIPTOR:
        yield from (Duration(seconds=-1), Duration(seconds=315_576_000_000))
    elif field.message_type is not None:
        yield from nested_beyond(field.message_type)
    else:
        assert field.cpp_type == FieldDescriptor.CPPTYPE_BOOL, f"{field.full_name}: no bound can be tested"


def nested_beyond(message: Descriptor) -> Iterator[Message]:
    for field in fields(message):
        for value in beyond(field):
            yield GetMessageClass(message)(**{field.name: value})


def requests_beyond() -> Iterator[Any]:
    for request in REQUESTS:
        for field in fields(request):
            values = list(beyond(field))
            if field.is_repeated:
                values = [[value] * 2 for value in values] + [[MODEL] * 10_000]
            for index, value in enumerate(values):
                yield pytest.param(request, field, value, id=f"{request.name}.{field.name}-{index}")


def put(message: Message, field: FieldDescriptor, value: Any) -> Message:
    message.ClearField(field.name)
    message.MergeFrom(type(message)(**{field.name: value}))
    return message


@pytest.mark.parametrize("request_type", REQUESTS, ids=lambda each: each.name)
def test_what_is_within_its_bounds_is_taken(request_type: Descriptor) -> None:
    check_request(good(request_type))


@pytest.mark.parametrize(("request_type", "field", "value"), list(requests_beyond()))
def test_every_field_has_a_bound(request_type: Descriptor, field: FieldDescriptor, value: Any) -> None:
    with pytest.raises(errors.InvalidArgumentError) as caught:
        check_request(put(good(request_type), field, value))
    assert caught.value.field.partition(".")[0].partition("[")[0] == field.name
    assert len(str(caught.value)) < 200, "what was sent is not sent back at full length"


@pytest.mark.parametrize(
    "model_id",
    [MODEL, "gpt-5", "a", "x" * 512, "a b+c(d)/~e:@f", "提供者/模型", "ü" * 256, " gpt-5 ", "'; DROP TABLE models;--"],
)
def test_whatever_could_be_a_model_is_taken(model_id: str) -> None:
    check_request(catalog.GetModelRequest(model_id=model_id))
    check_request(catalog.BatchGetModelsRequest(model_ids=[model_id]))
    check_request(catalog.ResolveModelRequest(reference=model_id))


@pytest.mark.parametrize(
    ("model_id", "complaint"),
    [
        ("", "is required"),
        ("  ", "is blank"),
        ("x" * 513, "at most 512 bytes"),
        ("ü" * 257, "at most 512 bytes"),
        ("a\tb", "characters that no id has"),
        ("a\0", "characters that no id has"),
        ("a\n", "characters that no id has"),
        ("\u200fa", "characters that no id has"),
        ("a\u2028b", "characters that no id has"),
        ("a\u00a0b", "characters that no id has"),
        ("\ue000", "characters that no id has"),
    ],
)
def test_what_cannot_be_a_model_is_refused(model_id: str, complaint: str) -> None:
    with pytest.raises(errors.InvalidModelIdError, match=complaint) as caught:
        check_request(catalog.GetModelRequest(model_id=model_id))
    assert caught.value.field == "model_id"


@pytest.mark.parametrize("provider_id", ["", "a/b", "/", "x" * 129, "a\nb"])
def test_what_cannot_be_a_provider_is_refused(provider_id: str) -> None:
    with pytest.raises(errors.InvalidQueryError) as caught:
        check_request(catalog.GetProviderRequest(provider_id=provider_id))
    assert caught.value.field == "provider_id"


TOO_MANY, FINE = errors.TooManyIdsError, None
TOKENS = 10**12
REFUSED = [
    (catalog.BatchGetModelsRequest(), "model_ids", TOO_MANY),
    (catalog.BatchGetModelsRequest(model_ids=[MODEL] * 101), "model_ids", TOO_MANY),
    (catalog.BatchGetModelsRequest(model_ids=[MODEL] * 41 + [""]), "model_ids[41]", errors.InvalidModelIdError),
    (catalog.CompareModelsRequest(model_ids=[MODEL]), "model_ids", TOO_MANY),
    (catalog.CompareModelsRequest(model_ids=[MODEL] * 11), "model_ids", TOO_MANY),
    (catalog.ListModelsRequest(page_size=-1), "page_size", errors.InvalidQueryError),
    (catalog.ListModelsRequest(page=1_000_001), "page", errors.InvalidQueryError),
    (catalog.ListModelsRequest(page=1, page_token="x"), "page", errors.InvalidQueryError),
    (catalog.SearchModelsRequest(query="x", page=1, page_token="x"), "page", errors.InvalidQueryError),
    (catalog.SearchModelsRequest(query="ü" * 129), "query", errors.InvalidQueryError),
    (catalog.ListModelsRequest(filter="é" * 1025), "filter", errors.InvalidFilterError),
    (catalog.ListModelsRequest(order_by="x" * 2049), "order_by", errors.InvalidOrderByError),
    (catalog.ListProvidersRequest(page_token="x" * 524_289), "page_token", errors.InvalidPageTokenError),
    (catalog.GetModelRequest(model_id=MODEL, if_none_match="x" * 257), "if_none_match", errors.InvalidQueryError),
    (catalog.GetModelRequest(model_id=MODEL, view=7), "view", errors.InvalidQueryError),  # type: ignore[arg-type] # no view is meant
    (
        catalog.GetModelRequest(model_id=MODEL, read_mask=FieldMask(paths=["id"] * 101)),
        "read_mask",
        errors.InvalidFieldMaskError,
    ),
    (catalog.ListModelOffersRequest(), "canonical_id", errors.InvalidQueryError),
    (catalog.ListModelOffersRequest(model_id="a", canonical_id="b"), "canonical_id", errors.InvalidQueryError),
    (catalog.ListModelOffersRequest(canonical_id="a\0"), "canonical_id", errors.InvalidModelIdError),
    (
        catalog.ListModelOffersRequest(model_id="a", input_output_ratio=1e6 + 1),
        "input_output_ratio",
        errors.InvalidQueryError,
    ),
    (
        catalog.ResolveModelRequest(reference="a", preferred_provider_ids=["a"] * 21),
        "preferred_provider_ids",
        errors.InvalidQueryError,
    ),
    (
        catalog.ResolveModelRequest(reference="a", preferred_provider_ids=["a", "b/c"]),
        "preferred_provider_ids[1]",
        errors.InvalidQueryError,
    ),
    (admin.InvalidateCacheRequest(model_id="a", provider_id="b"), "provider_id", errors.InvalidQueryError),
    (refresh.StartRefreshRequest(request_id="7"), "request_id", errors.InvalidQueryError),
    (refresh.GetRefreshRequest(), "refresh_id", errors.InvalidQueryError),
    (refresh.WatchRefreshStatusRequest(refresh_id="{}"), "refresh_id", errors.InvalidQueryError),
    (refresh.WatchRefreshStatusRequest(resume_token="x" * 1025), "resume_token", errors.InvalidResumeTokenError),
]


@pytest.mark.parametrize(("request_", "field", "error"), REFUSED, ids=lambda each: getattr(each, "__name__", None))
def test_a_field_out_of_its_bounds_is_refused_for_its_own_reason(
    request_: Message, field: str, error: type[errors.InvalidArgumentError]
) -> None:
    with pytest.raises(errors.InvalidArgumentError) as caught:
        check_request(request_)
    assert type(caught.value) is error
    assert caught.value.field == field


@pytest.mark.parametrize("ratio", [-1, -5e-324, 1000000.0000001, math.inf, -math.inf, math.nan])
def test_a_ratio_that_cannot_be_is_refused(ratio: float) -> None:
    with pytest.raises(errors.InvalidQueryError, match="input_output_ratio"):
        check_request(catalog.ListModelOffersRequest(model_id=MODEL, input_output_ratio=ratio))


@pytest.mark.parametrize(
    ("workload", "field"),
    [
        (catalog.Workload(input_tokens=-1), "workload.input_tokens"),
        (catalog.Workload(output_tokens=-1), "workload.output_tokens"),
        (catalog.Workload(cached_tokens=-1), "workload.cached_tokens"),
        (catalog.Workload(input_tokens=TOKENS + 1), "workload.input_tokens"),
        (catalog.Workload(input_tokens=1, cached_tokens=2), "workload.cached_tokens"),
    ],
)
def test_a_workload_that_cannot_be_is_refused(workload: catalog.Workload, field: str) -> None:
    with pytest.raises(errors.InvalidQueryError) as caught:
        check_request(catalog.CompareModelsRequest(model_ids=[MODEL, OTHER], workload=workload))
    assert caught.value.field == field


@pytest.mark.parametrize(
    "request_",
    [
        catalog.CompareModelsRequest(
            model_ids=[MODEL] * 10,
            workload=catalog.Workload(**dict.fromkeys(("input_tokens", "output_tokens", "cached_tokens"), TOKENS)),
        ),
        catalog.BatchGetModelsRequest(model_ids=["x" * 512] * 100),
        catalog.ListModelsRequest(filter="é" * 1024, order_by="x" * 2048, page=1_000_000, page_size=2**31 - 1),
        catalog.ListModelsRequest(
            page_token="x" * 524_288, provider_id="x" * 128, read_mask=FieldMask(paths=["id"] * 100)
        ),
        catalog.ListModelOffersRequest(canonical_id="a", input_output_ratio=1e6),
        catalog.ListModelOffersRequest(canonical_id="a", input_output_ratio=-0.0),
        catalog.ResolveModelRequest(reference="a", preferred_provider_ids=["x" * 128] * 20),
        refresh.StartRefreshRequest(request_id=UUID.upper()),
        refresh.WatchRefreshStatusRequest(heartbeat_interval=Duration(nanos=1)),
        refresh.WatchRefreshStatusRequest(heartbeat_interval=Duration(seconds=86_400)),
        admin.InvalidateCacheRequest(),
    ],
    ids=lambda each: type(each).__name__,
)
def test_the_bounds_themselves_are_taken(request_: Message) -> None:
    check_request(request_)


def test_unknown_fields_that_one_parser_takes_and_the_other_does_not_are_refused() -> None:
    """Found by the fuzz: a group in a mask, which protobuf keeps as an unknown field."""
    request = catalog.GetModelRequest.FromString(b"\n\x01x\x1a\x18\n\x02idc\xf0\xbaT\x999\x017\n\x02id\n\x02id\n\x02id")
    with pytest.raises(errors.InvalidQueryError, match="request: holds fields that cannot be read"):
        check_request(request)


def test_the_code_that_callers_get_brings_the_rules_and_no_package_for_them() -> None:
    """They are options of the fields: whoever has protovalidate can hold a request against them before sending it."""
    for file in (catalog, refresh, admin):
        assert not [each.name for each in file.DESCRIPTOR.dependencies if each.name.startswith("buf/")]
    assert catalog.GetModelRequest.DESCRIPTOR.fields_by_name["model_id"].GetOptions().ByteSize() > 0
