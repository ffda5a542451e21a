from __future__ import annotations

import copy
import pickle
import re
from pathlib import Path

import grpc
import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc import aio

import modelcatalog_client
from modelcatalog.v1.error_reason_pb2 import ErrorReason
from modelcatalog.v1.refresh_pb2 import Refresh
from modelcatalog_client import errors

PREFIX = "ERROR_REASON_"
REASONS = [value.name.removeprefix(PREFIX) for value in ErrorReason.DESCRIPTOR.values if value.number]
OWN_CODE_ONLY = {"DEADLINE", "INTERNAL", "NOT_IMPLEMENTED"}


DOCUMENT = Path(__file__).parents[2] / "docs" / "client.md"


def any_of(message: Message) -> Any:
    packed = Any()
    packed.Pack(message)
    return packed


def status(*details: Message, code: int = 5, message: str = "") -> status_pb2.Status:
    return status_pb2.Status(code=code, message=message, details=[any_of(detail) for detail in details])


def info(reason: str, domain: str = "modelcatalog", **metadata: str) -> error_details_pb2.ErrorInfo:
    return error_details_pb2.ErrorInfo(reason=reason, domain=domain, metadata=metadata)


def rpc_error(
    code: grpc.StatusCode, message: str, *details: Message, trailers: tuple[tuple[str, str | bytes], ...] = ()
) -> aio.AioRpcError:
    packed = status(*details).SerializeToString()
    found = (("grpc-status-details-bin", packed), *trailers) if details else trailers
    return aio.AioRpcError(code, aio.Metadata(), aio.Metadata(*found), message)


def code_of(reason: str) -> grpc.StatusCode:
    return errors.CLASS_BY_REASON[reason].code


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_of_the_contract_has_a_class_under_that_of_its_code(reason: str) -> None:
    typed = errors.from_rpc_error(rpc_error(code_of(reason), "no", info(reason)))

    assert type(typed) is errors.CLASS_BY_REASON[reason]
    assert typed.reason == reason
    assert typed.code is code_of(reason)
    if not isinstance(typed, errors.RefreshFailedError):
        assert isinstance(typed, errors.CLASS_BY_CODE[typed.code])


def test_the_table_has_no_reason_that_the_contract_lacks() -> None:
    assert set(errors.CLASS_BY_REASON) == set(REASONS)


def test_the_documented_table_is_that_of_the_code() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| `(\w+)` \|", DOCUMENT.read_text("utf-8"), re.MULTILINE)
    documented = {reason: (code, name) for code, reason, name in rows}
    assert documented == {
        reason: (each.code.name if not issubclass(each, errors.RefreshFailedError) else "Refresh", each.__name__)
        for reason, each in errors.CLASS_BY_REASON.items()
    }


@pytest.mark.parametrize("reason", sorted(set(REASONS) - OWN_CODE_ONLY))
def test_a_class_names_its_reason(reason: str) -> None:
    assert errors.CLASS_BY_REASON[reason].reason == reason


@pytest.mark.parametrize("reason", REASONS)
def test_every_class_is_exported(reason: str) -> None:
    name = errors.CLASS_BY_REASON[reason].__name__
    assert getattr(modelcatalog_client, name) is errors.CLASS_BY_REASON[reason]
    assert name in modelcatalog_client.__all__


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_an_error_without_details_is_the_class_of_its_code(code: grpc.StatusCode) -> None:
    typed = errors.from_rpc_error(rpc_error(code, "Bad gateway"))

    assert type(typed) is errors.CLASS_BY_CODE.get(code, errors.CatalogError)
    assert (typed.code, typed.reason, typed.message) == (code, "", "Bad gateway")


def test_a_reason_of_a_later_version_is_kept_on_the_class_of_the_code() -> None:
    typed = errors.from_rpc_error(rpc_error(grpc.StatusCode.NOT_FOUND, "no", info("LAB_NOT_FOUND")))
    assert type(typed) is errors.NotFoundError
    assert typed.reason == "LAB_NOT_FOUND"


def test_another_domain_is_not_taken_for_ours() -> None:
    typed = errors.from_rpc_error(
        rpc_error(grpc.StatusCode.UNAVAILABLE, "no", info("RATE_LIMITED", domain="proxy.example"))
    )
    assert type(typed) is errors.UnavailableError
    assert typed.reason == ""


def test_details_that_do_not_parse_leave_the_error_readable() -> None:
    trailers = (("grpc-status-details-bin", b"\xff\xff\xff"),)
    typed = errors.from_rpc_error(rpc_error(grpc.StatusCode.INTERNAL, "broken", trailers=trailers))
    assert type(typed) is errors.InternalError
    assert typed.message == "broken"


def test_everything_that_came_with_the_error_is_on_it() -> None:
    violation = error_details_pb2.BadRequest.FieldViolation(field="page_size", description="must not be negative")
    error = rpc_error(
        grpc.StatusCode.INVALID_ARGUMENT,
        "bad argument",
        info("INVALID_QUERY", limit="1000"),
        error_details_pb2.BadRequest(field_violations=[violation]),
        error_details_pb2.RetryInfo(retry_delay=Duration(seconds=2, nanos=500_000_000)),
        trailers=(("x-request-id", "r-7"),),
    )
    typed = errors.from_rpc_error(error, method="ListModels", target="catalog:50051")

    assert typed.metadata == {"limit": "1000"}
    assert typed.field_violations == (errors.FieldViolation("page_size", "must not be negative"),)
    assert typed.retry_delay == 2.5
    assert (typed.request_id, typed.method, typed.target) == ("r-7", "ListModels", "catalog:50051")
    assert str(typed) == (
        "bad argument [INVALID_QUERY from ListModels, request r-7]; page_size: must not be negative; try again in 2.5 s"
    )


@pytest.mark.parametrize("reason", ["MODEL_NOT_FOUND", "PROVIDER_NOT_FOUND", "AMBIGUOUS_MODEL"])
def test_candidates_come_as_ids_and_in_the_text(reason: str) -> None:
    near = info(reason, candidates="openai/gpt-5,openai/gpt-5-mini")
    typed = errors.from_rpc_error(rpc_error(code_of(reason), "which one", near))

    assert isinstance(typed, errors.ModelNotFoundError | errors.ProviderNotFoundError | errors.AmbiguousModelError)
    assert typed.candidates == ("openai/gpt-5", "openai/gpt-5-mini")
    assert str(typed).endswith("near: openai/gpt-5, openai/gpt-5-mini")


def test_no_candidates_are_an_empty_tuple() -> None:
    assert errors.ModelNotFoundError("no").candidates == ()


def test_a_failure_to_connect_says_where_and_what_to_do() -> None:
    error = rpc_error(grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses")
    text = str(errors.from_rpc_error(error, method="GetModel", target="localhost:50051"))
    assert "localhost:50051" in text
    assert "modelcatalog serve" in text


def test_an_error_survives_pickle_and_copy() -> None:
    original = errors.from_rpc_error(
        rpc_error(grpc.StatusCode.NOT_FOUND, "no", info("MODEL_NOT_FOUND", candidates="a/b")), method="GetModel"
    )
    for twin in (pickle.loads(pickle.dumps(original)), copy.copy(original)):  # noqa: S301 -- our own bytes
        assert type(twin) is errors.ModelNotFoundError
        assert vars(twin) == vars(original)
        assert str(twin) == str(original)


def test_a_caller_can_make_an_error_for_its_own_tests() -> None:
    error = errors.PageTokenExpiredError("too old")
    assert (error.code, error.reason) == (grpc.StatusCode.OUT_OF_RANGE, "PAGE_TOKEN_EXPIRED")


def test_a_refresh_that_went_well_has_no_error() -> None:
    assert errors.refresh_error(Refresh()) is None


@pytest.mark.parametrize(
    "reason", ["UPSTREAM_UNAVAILABLE", "UPSTREAM_INVALID", "GATE_REFUSED", "OWNER_LOST", "REFRESH_CANCELLED"]
)
def test_the_error_of_a_refresh_is_typed(reason: str) -> None:
    refresh = Refresh(error=status(info(reason, gate="shrink"), code=9, message="refused"))
    typed = errors.refresh_error(refresh)

    assert type(typed) is errors.CLASS_BY_REASON[reason]
    assert isinstance(typed, errors.RefreshFailedError)
    assert (typed.code, typed.message) == (grpc.StatusCode.FAILED_PRECONDITION, "refused")
    assert typed.metadata == {"gate": "shrink"}
