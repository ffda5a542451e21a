"""Every reason of the contract is provoked for real, and is the error of its class in the typed client.

What takes one call to a running server is here; what takes more, a slow reader, a lost database, a stop, has its test
elsewhere, which is named.
"""

# ruff: noqa: E501 -- the names of tests are as long as they are

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from aged_tokens import DAY_S, sealed_ago
from conftest import Services, make_settings, refresh_to_end
from modelcatalog.v1.error_reason_pb2 import ErrorReason
from modelcatalog_client import AsyncModelCatalogClient, errors
from modelcatalog_server import app
from modelcatalog_server.domain.refresh import Trigger
from small_catalog import fetch, wait_in_vain

pytestmark = pytest.mark.asyncio(loop_scope="module")

TESTS = Path(__file__).parents[1]
#: Provoked where it takes more than a call.
ELSEWHERE = {
    "RATE_LIMITED": "integration/test_rate_limits.py::test_a_refusal_says_whose_limit_it_is_and_when_to_come_back",
    "OVERLOADED": "integration/test_overload.py::test_what_is_too_much_is_refused_while_health_and_the_cache_answer",
    "TOO_MANY_STREAMS": "integration/test_watch_crowd.py::test_500_watch_one_process_and_the_next_one_is_refused",
    "SLOW_CONSUMER": "integration/test_watch_stream.py::test_a_reader_that_never_reads_again_loses_its_place",
    "MISSING_TOKEN": "contract/test_server_identity.py::test_who_may_call_what",
    "INVALID_TOKEN": "contract/test_server_identity.py::test_an_unknown_token_and_an_expired_one_get_the_same_answer",
    "ROLE_REQUIRED": "contract/test_server_identity.py::test_who_may_call_what",
    "DATABASE_UNAVAILABLE": "contract/test_server_errors.py::test_a_database_that_is_gone_is_unavailable_until_it_is_back",
    "CATALOG_NOT_READY": "contract/test_server_policy.py::test_before_the_first_catalog_there_is_nothing_to_hide",
    "SERVER_DRAINING": "integration/test_watch_stream.py::test_a_drain_ends_every_stream_with_its_reason_and_at_once",
    "INTERNAL": "acceptance/test_leaks.py::test_nothing_of_a_failure_gets_out_and_no_secret_into_the_log",
    "UPSTREAM_UNAVAILABLE": "integration/test_refresh_faults.py::test_what_may_pass_is_tried_three_times",
    "UPSTREAM_INVALID": "integration/test_refresh_bad_payloads.py::test_a_caller_reads_why_a_run_failed",
    "GATE_REFUSED": "integration/test_refresh_faults.py::test_a_payload_that_looks_wrong_is_refused_unless_an_operator_accepts_it",
    "OWNER_LOST": "acceptance/test_stuck.py::test_the_run_of_a_process_that_is_stuck_is_ended_by_another_and_it_writes_nothing_more",
    "REFRESH_CANCELLED": "integration/test_refresh_cancel.py::test_callers_are_told_the_same",
}
#: Nothing raises it: for RPCs and arguments that a later contract has and an older server has not.
FOR_LATER = {"NOT_IMPLEMENTED"}


@dataclass
class Stage:
    """A client, and what it has to know to be refused."""

    client: AsyncModelCatalogClient
    key: bytes
    finished: str


@pytest.fixture(scope="module")
def database(templates: Services) -> Iterator[str]:
    url = templates.clone("mc_loaded")
    yield url
    templates.drop(url)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(templates: Services, database: str) -> AsyncIterator[Stage]:
    (key,) = await fetch(database, "SELECT token_key FROM catalog_state")
    async with (
        app.start(make_settings(templates, database, offline=True)) as running,
        AsyncModelCatalogClient(running.server.address) as client,
    ):
        finished = await refresh_to_end(running, trigger=Trigger.MANUAL)
        yield Stage(client, key, str(finished.id))


async def _reuse_a_request_id(stage: Stage) -> None:
    request_id = str(uuid4())
    await stage.client.start_refresh(request_id=request_id)
    await stage.client.start_refresh(type="full", request_id=request_id)


def _old(stage: Stage, kind: str, value: Any) -> str:
    return sealed_ago(DAY_S + 60, stage.key, kind, value)


PROVOKED: dict[str, Callable[[Stage], Awaitable[object]]] = {
    "INVALID_QUERY": lambda s: s.client.get_provider("a/b"),
    "INVALID_MODEL_ID": lambda s: s.client.get_model("a\0b"),
    "TOO_MANY_IDS": lambda s: s.client.batch_get_models(["x"] * 101),
    "INVALID_FIELD_MASK": lambda s: s.client.get_model("openai/gpt-5", read_mask=["nothing"]),
    "INVALID_FILTER": lambda s: first(s.client.list_models(filter="nothing = 1")),
    "INVALID_ORDER_BY": lambda s: first(s.client.list_models(order_by="name up")),
    "INVALID_PAGE_TOKEN": lambda s: first(s.client.list_models(page_token="forged")),  # noqa: S106 -- of a page
    "INVALID_RESUME_TOKEN": lambda s: first(s.client.watch_refresh_status(resume_token="forged")),  # noqa: S106
    "MODEL_NOT_FOUND": lambda s: s.client.get_model("openai/no-such-model-at-all"),
    "PROVIDER_NOT_FOUND": lambda s: s.client.get_provider("nobody"),
    "REFRESH_NOT_FOUND": lambda s: s.client.get_refresh(str(uuid4())),
    "AMBIGUOUS_MODEL": lambda s: s.client.get_model("gpt-oss-120b"),
    "REFRESH_NOT_CANCELLABLE": lambda s: s.client.cancel_refresh(s.finished),
    "REQUEST_ID_REUSED": _reuse_a_request_id,
    "PAGE_TOKEN_EXPIRED": lambda s: first(
        s.client.list_models(page_token=_old(s, "page", [["models", None, False], 1, "zzz", 1]))
    ),
    "RESUME_TOKEN_EXPIRED": lambda s: first(s.client.watch_refresh_status(resume_token=_old(s, "resume", ["", 1]))),
    "REVISION_NOT_AVAILABLE": lambda s: wait_in_vain(s.client, revision=999),
    "DEADLINE": lambda s: s.client.get_model("gpt-5 of long ago", timeout=0.000001),
}


async def first(items: Any) -> object:
    """Take the first of a listing or a watch."""
    return await anext(aiter(items))


@pytest.mark.parametrize("reason", PROVOKED)
async def test_a_reason_is_there_and_back(stage: Stage, reason: str) -> None:
    with pytest.raises(errors.CatalogError) as caught:
        await PROVOKED[reason](stage)
    assert type(caught.value) is errors.CLASS_BY_REASON[reason]
    assert caught.value.code is errors.CLASS_BY_REASON[reason].code
    if reason != "DEADLINE":  # which may be over before the server hears of it
        assert caught.value.reason == reason
        assert caught.value.request_id


@pytest.mark.parametrize("reason", ELSEWHERE)
async def test_what_is_provoked_elsewhere_is(reason: str) -> None:
    path, _, test = ELSEWHERE[reason].partition("::")
    text = (TESTS / path).read_text()
    assert f"def {test}(" in text, "the test that is named is there"
    name = errors.CLASS_BY_REASON[reason].__name__
    assert re.search(rf"\b({reason}|{name})\b", text), "and is about it"


async def test_no_reason_is_left_out() -> None:
    contract = {name.removeprefix("ERROR_REASON_") for name in ErrorReason.keys()} - {"UNSPECIFIED"}  # noqa: SIM118
    assert contract == PROVOKED.keys() | ELSEWHERE.keys() | FOR_LATER
