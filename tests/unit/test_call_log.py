"""Which calls leave a line in the log, and what is in it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, MutableMapping
from random import random
from typing import Any

import pytest
import structlog
from structlog.testing import LogCapture

from modelcatalog.v1.model_catalog_service_pb2 import ListModelsRequest
from modelcatalog_server.domain.errors import ModelNotFoundError
from modelcatalog_server.rpc.call_log import CallLog

METHOD = "/modelcatalog.v1.ModelCatalog/GetModel"


class _Context:
    """What a call log asks of a context."""

    def __init__(self, *sent: tuple[str, str]) -> None:
        self._sent = sent

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._sent

    def trailing_metadata(self) -> tuple[tuple[str, str], ...]:
        return (("x-request-id", "abc"), ("x-catalog-revision", "7"))


CONTEXT: Any = _Context()


def recorded(percent: float, draws: Iterator[float] | None = None) -> tuple[CallLog, list[MutableMapping[str, Any]]]:
    """Return a log and the lines that it writes."""
    capture = LogCapture()
    logger = structlog.wrap_logger(None, processors=[capture], wrapper_class=structlog.BoundLogger)
    chance = random if draws is None else lambda: next(draws)
    return CallLog(percent, chance=chance, log=logger), capture.entries


@pytest.mark.parametrize(("percent", "expected"), [(0, 0), (1, 10), (12.5, 125), (100, 1000)])
def test_of_the_calls_that_succeed_the_share_that_was_asked_for_is_logged(percent: float, expected: int) -> None:
    log, lines = recorded(percent, iter([number / 1000 for number in range(1000)]))
    for number in range(1000):
        log.note_success(METHOD, str(number), 0.0, "anonymous", CONTEXT, b"")
    assert len(lines) == expected


def test_a_line_says_which_call_it_was_and_how_long_it_took() -> None:
    log, lines = recorded(100)
    log.note_success(METHOD, "abc", time.perf_counter() - 0.5, "billing", CONTEXT, b"")
    (line,) = lines
    assert 500 <= line.pop("duration_ms") < 5000
    assert line == {
        "event": "call",
        "log_level": "info",
        "code": "OK",
        "method": METHOD,
        "principal": "billing",
        "request_id": "abc",
        "revision": 7,
    }


def test_a_call_that_fails_is_always_logged() -> None:
    log, lines = recorded(0)
    log.note_failure(METHOD, "1", 0.0, "", CONTEXT, b"", ModelNotFoundError("a/b"))
    log.note_failure(METHOD, "2", 0.0, "", CONTEXT, b"", asyncio.CancelledError())
    log.note_failure(METHOD, "3", 0.0, "", CONTEXT, b"", ZeroDivisionError())
    assert [(line["request_id"], line["code"], line.get("reason"), line["log_level"]) for line in lines] == [
        ("1", "NOT_FOUND", "MODEL_NOT_FOUND", "info"),
        ("2", "CANCELLED", None, "info"),
        ("3", "INTERNAL", None, "error"),
    ]
    assert isinstance(lines[2]["exc_info"], ZeroDivisionError)
    assert {line["peer"] for line in lines} == {"ipv4:127.0.0.1:1"}
    assert not any("principal" in line for line in lines), "it was not known who called"


@pytest.mark.parametrize(
    ("sent", "written"),
    [("order-7:retry.2", "order-7:retry.2"), ("a" * 65, None), ("two\nlines", None), ("", None), ("\x1b[31m", None)],
)
def test_a_callers_own_id_is_written_if_it_may_stand_in_a_log(sent: str, written: str | None) -> None:
    log, lines = recorded(100)
    context: Any = _Context(("x-request-id", sent))
    log.note_success(METHOD, "abc", 0.0, "billing", context, b"")
    assert lines[0].get("caller_request_id") == written
    assert lines[0]["request_id"] == "abc"


def test_requests_are_written_at_debug_only_cut_and_without_tokens() -> None:
    method = "/modelcatalog.v1.ModelCatalog/ListModels"
    request = ListModelsRequest(filter="x" * 500, page_token="secret", page_size=5).SerializeToString()  # noqa: S106
    log, lines = recorded(0)
    log.note_failure(method, "1", 0.0, "", CONTEXT, request, ModelNotFoundError("a/b"))
    log.set_debug(True)
    log.note_success(method, "2", 0.0, "billing", CONTEXT, request)
    log.note_failure(method, "3", 0.0, "", CONTEXT, b"\xff", ModelNotFoundError("a/b"))
    log.set_debug(False)
    log.note_success(method, "4", 0.0, "billing", CONTEXT, request)
    assert [line["request_id"] for line in lines] == ["1", "2", "3"]
    assert "request" not in lines[0]
    assert lines[1]["request"] == {"filter": "x" * 199 + "…", "page_token": "…", "page_size": 5}
    assert "request" not in lines[2]
    assert "secret" not in str(lines)
