"""What upstream does wrong, each by itself: how the run ends, what is asked again, and that reads never notice."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from conftest import Services, StartApp, refresh_to_end
from modelcatalog_client import AsyncModelCatalogClient
from modelcatalog_server.domain.refresh import Refresh, RefreshRequest, RefreshType, State
from modelcatalog_server.refresh.gates import GateLimits
from modelcatalog_server.refresh.runner import MAX_WARNINGS
from small_catalog import SmallCatalog, Stage, clone_small, follow, marks_of_rows, runs_owned_here, until
from upstream_server import (
    Fault,
    content,
    corrupt_gzip,
    disconnect,
    disconnect_midway,
    drip,
    endless,
    garbage,
    gzip_bomb,
    hang,
    hang_midway,
    html,
    in_turn,
    redirect,
    status,
    truncated_gzip,
)

MIB = 1024 * 1024
#: The defaults, but for the size of the whole.
GATES = {
    "gate_min_models": 40,
    "gate_min_providers": 3,
    "gate_max_quarantined_percent": GateLimits().max_quarantined_percent,
    "gate_max_removed_percent": GateLimits().max_removed_percent,
    "gate_max_removed_percent_per_day": GateLimits().max_removed_percent_per_day,
    "gate_max_provider_removed_percent": GateLimits().max_provider_removed_percent,
    "gate_max_price_unit_slips": GateLimits().max_price_unit_slips,
}


@pytest.fixture
def database(templates: Services) -> Iterator[str]:
    yield from clone_small(templates)


@pytest.fixture
async def stage(start_app: StartApp, database: str) -> AsyncIterator[Stage]:
    """A service with gates for 87 models."""
    async with follow(start_app, database, **GATES) as stage:
        yield stage


@dataclass
class Reader:
    """Somebody who reads the catalog all the time."""

    reads: int = 0
    names: set[str] = field(default_factory=set)

    async def read(self, client: AsyncModelCatalogClient) -> None:
        while True:
            model = (await client.get_model("openai/gpt-5", timeout=10)).model
            providers = [provider.id async for provider in client.list_providers(timeout=10)]
            assert providers == ["anthropic", "openai", "openrouter", "zeldoc"]
            self.names.add(model.name)
            self.reads += 1
            await asyncio.sleep(0.05)  # it is what runs do to readers that is looked for, not the other way round


@asynccontextmanager
async def reading(stage: Stage) -> AsyncIterator[Reader]:
    """Read meanwhile; whatever goes wrong with a read fails the test."""
    reader = Reader()
    async with AsyncModelCatalogClient(stage.running.server.address) as client:
        task = asyncio.create_task(reader.read(client))
        try:
            yield reader
            seen = reader.reads
            await until(lambda: reader.reads > seen or task.done())
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def run_through(stage: Stage, fault: Fault, **request: Any) -> Refresh:
    """Refresh while upstream misbehaves and somebody reads. The catalog has to stay what it was unless it succeeds."""
    stage.upstream.misbehave("/catalog.json", fault)
    before = await marks_of_rows(stage.database_url)
    async with reading(stage) as reader:
        refresh = await refresh_to_end(stage.running, **request)
    assert reader.reads > 0
    if refresh.state is State.FAILED:
        assert await marks_of_rows(stage.database_url) == before
        assert reader.names == {"GPT-5"}
        assert refresh.failure is not None
    return refresh


def reason_of(refresh: Refresh) -> str | None:
    return refresh.failure.reason if refresh.failure else None


BODY = SmallCatalog().body


# --- what may pass is asked for again ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(status(500), id="500"),
        pytest.param(status(503), id="503"),
        pytest.param(status(429), id="429"),
        pytest.param(status(408), id="408"),
        pytest.param(disconnect, id="no answer"),
        pytest.param(disconnect_midway(BODY), id="half an answer"),
    ],
)
async def test_what_may_pass_is_tried_three_times(stage: Stage, fault: Fault) -> None:
    refresh = await run_through(stage, fault)
    assert (refresh.state, reason_of(refresh)) == (State.FAILED, "UPSTREAM_UNAVAILABLE")
    assert [attempt.number for attempt in refresh.attempts] == [1, 2, 3]
    # Where the connection goes away instead of an answer, the HTTP library asks once more on a new one.
    assert len(stage.upstream.requests) in ({3, 6} if fault is disconnect else {3})
    for attempt in refresh.attempts:
        assert attempt.failure is not None
        assert attempt.failure.reason == "UPSTREAM_UNAVAILABLE"
        assert attempt.duration is not None
    assert [attempt.retry_delay is not None for attempt in refresh.attempts] == [True, True, False]


@pytest.mark.parametrize("fault", [hang, hang_midway(BODY), drip(BODY)], ids=["silence", "half, then silence", "drip"])
async def test_an_answer_that_does_not_come_to_its_end_is_given_up(
    start_app: StartApp, database: str, fault: Fault
) -> None:
    async with follow(start_app, database, upstream_timeout_seconds=0.3) as stage:
        refresh = await run_through(stage, fault)
    assert (refresh.state, reason_of(refresh)) == (State.FAILED, "UPSTREAM_UNAVAILABLE")
    assert refresh.attempt == 3
    assert all("within 0.3 s" in attempt.failure.message for attempt in refresh.attempts if attempt.failure)


async def test_two_errors_and_then_the_catalog_is_a_success(stage: Stage) -> None:
    stage.catalog.model("openai/gpt-5")["name"] = "GPT-5 (new)"
    answers = in_turn(status(500), status(502), content(stage.catalog.body))
    refresh = await run_through(stage, answers)
    assert (refresh.state, refresh.attempt, refresh.counts.changed) == (State.SUCCEEDED, 3, 1)
    assert [attempt.failure is None for attempt in refresh.attempts] == [False, False, True]
    pauses = [attempt.retry_delay for attempt in refresh.attempts]
    assert pauses[0] is not None
    assert pauses[1] is not None
    # 0.05 s, then twice as much, each less a jitter of up to half.
    assert timedelta(seconds=0.025) <= pauses[0] <= timedelta(seconds=0.05) <= pauses[1] <= timedelta(seconds=0.1)


async def test_the_attempts_are_events_of_the_watch(stage: Stage) -> None:
    stage.upstream.misbehave("/catalog.json", in_turn(status(500), content(stage.catalog.body)))
    refresh, _ = await stage.running.refreshes.start(RefreshRequest())
    messages = []
    async with asyncio.timeout(30), await stage.running.feed.watch(refresh.id, "", 5) as watch:
        while (notice := await watch.next()) is not None:
            messages.append(notice.message)
    assert any("status 500; asking again in" in message for message in messages)
    assert any("attempt 2" in message for message in messages)


# --- Retry-After ---------------------------------------------------------------------------------------------------


async def test_upstream_is_given_the_time_that_it_asks_for(stage: Stage) -> None:
    answers = in_turn(status(429, {"Retry-After": "1"}), content(stage.catalog.body))
    refresh = await run_through(stage, answers)
    assert (refresh.state, refresh.attempt) == (State.SUCCEEDED, 2)
    first, second = refresh.attempts
    assert first.retry_delay is not None
    assert first.duration is not None
    assert first.retry_delay >= timedelta(seconds=1)
    assert second.started_at - (first.started_at + first.duration) >= timedelta(seconds=0.99)


async def test_a_long_pause_is_not_waited_for_but_kept(stage: Stage) -> None:
    refresh = await run_through(stage, status(429, {"Retry-After": "3600"}))
    assert (refresh.state, reason_of(refresh), refresh.attempt) == (State.FAILED, "UPSTREAM_UNAVAILABLE", 1)
    stage.upstream.behave()
    again = await refresh_to_end(stage.running, force=True)
    assert (again.state, reason_of(again), again.attempt) == (State.FAILED, "UPSTREAM_UNAVAILABLE", 0)
    assert again.failure is not None
    assert "asked to be left alone until" in again.failure.message
    assert len(stage.upstream.requests) == 1, "the second run was not to ask"

    await stage.fetch("UPDATE catalog_state SET upstream_not_before = clock_timestamp() RETURNING 1")
    assert (await refresh_to_end(stage.running)).state is State.SUCCEEDED


async def test_a_pause_that_one_upstream_asked_for_does_not_hold_for_another(
    start_app: StartApp, database: str
) -> None:
    async with follow(start_app, database) as stage:
        await run_through(stage, status(429, {"Retry-After": "3600"}))
    async with follow(start_app, database) as other:
        assert other.upstream.url != stage.upstream.url
        assert (await refresh_to_end(other.running)).state is State.SUCCEEDED


async def test_no_pause_is_longer_than_six_hours(stage: Stage) -> None:
    await run_through(stage, status(503, {"Retry-After": "99999999"}))
    [until_when] = await stage.fetch("SELECT upstream_not_before FROM catalog_state")
    left = until_when - datetime.now(UTC)
    assert timedelta(hours=5) < left <= timedelta(hours=6)


# --- what is no catalog is not asked for again ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(html(), id="HTML with 200"),
        pytest.param(status(403), id="403"),
        pytest.param(truncated_gzip(BODY), id="truncated gzip"),
        pytest.param(corrupt_gzip(BODY), id="corrupt gzip"),
        pytest.param(gzip_bomb(100 * MIB), id="gzip bomb"),
        pytest.param(content(b" " * 100 * MIB), id="100 MB"),
        pytest.param(endless(100 * MIB), id="100 MB that were not announced"),
        pytest.param(content(b"{}"), id="empty object"),
        pytest.param(content(b'{"models": {}, "providers": {}}'), id="empty maps"),
        pytest.param(content(b""), id="nothing"),
        pytest.param(content(BODY[:-1]), id="truncated JSON"),
        pytest.param(content(b"[]"), id="a list"),
        pytest.param(content(b"\xff\xfe" + BODY), id="another encoding"),
        pytest.param(garbage, id="no HTTP"),
    ],
)
async def test_what_is_no_catalog_is_refused_at_once(stage: Stage, fault: Fault) -> None:
    refresh = await run_through(stage, fault)
    assert (refresh.state, reason_of(refresh)) == (State.FAILED, "UPSTREAM_INVALID")
    assert refresh.attempt == 1
    assert len(stage.upstream.requests) == 1


async def test_a_redirect_is_a_document_that_is_missing(stage: Stage) -> None:
    refresh = await run_through(stage, redirect)
    assert (refresh.state, reason_of(refresh)) == (State.FAILED, "UPSTREAM_INVALID")
    assert stage.upstream.paths == ["/catalog.json", "/api.json"], "and is not followed"


async def test_invalid_utf_8_in_a_record_costs_that_record(stage: Stage) -> None:
    stage.catalog.model("openai/gpt-5-mini")["name"] = "@@"
    refresh = await run_through(stage, content(stage.catalog.body.replace(b"@@", b"\xff\xfe")))
    assert (refresh.state, refresh.counts.quarantined) == (State.PARTIALLY_SUCCEEDED, 1)


# --- gates ---------------------------------------------------------------------------------------------------------


def fewer_models(catalog: SmallCatalog) -> None:
    ids = catalog.model_ids
    for model_id in ids[: len(ids) * 2 // 5]:
        catalog.remove(model_id)


def hardly_any_canonical_model(catalog: SmallCatalog) -> None:
    for canonical_id in list(catalog.canonical_models)[1:]:
        del catalog.canonical_models[canonical_id]


def far_fewer_models(catalog: SmallCatalog) -> None:
    for model_id in catalog.model_ids[:60]:
        catalog.remove(model_id)


def one_provider(catalog: SmallCatalog) -> None:
    for provider_id in list(catalog.providers)[1:]:
        for model_id in list(catalog.providers[provider_id]["models"]):
            catalog.remove(f"{provider_id}/{model_id}")
        del catalog.providers[provider_id]


def thousandfold_prices(catalog: SmallCatalog) -> None:
    for provider in catalog.providers.values():
        for model in provider["models"].values():
            cost = model.get("cost", {})
            cost.update({name: value * 1000 for name, value in cost.items() if isinstance(value, int | float)})


def bad_records(catalog: SmallCatalog) -> None:
    for model_id in catalog.model_ids[:12]:
        catalog.model(model_id)["limit"] = "none"
    catalog.model("openai/gpt-5")["name"] = "GPT-5 (new)"


@pytest.mark.parametrize(
    ("spoil", "gate"),
    [
        (fewer_models, "removed_models"),
        (hardly_any_canonical_model, "removed_models"),
        (far_fewer_models, "minimum_models"),
        (thousandfold_prices, "price_unit"),
        (bad_records, "quarantine"),
    ],
)
async def test_a_payload_that_looks_wrong_is_refused_unless_an_operator_accepts_it(
    stage: Stage, spoil: Callable[[SmallCatalog], None], gate: str
) -> None:
    spoil(stage.catalog)
    fault = content(stage.catalog.body)
    for request in ({}, {"force": True}, {"type": RefreshType.FULL}, {"override_gate": "duplicate_ids"}):
        refused = await run_through(stage, fault, **request)
        assert (refused.state, reason_of(refused)) == (State.FAILED, "GATE_REFUSED")
        assert refused.failure is not None
        assert refused.failure.metadata["gate"] == gate
        assert refused.counts.seen > 0
        assert (refused.base_revision, refused.result_revision) == (1, None)
    assert refused.failure is not None
    gates = refused.failure.metadata["gates"]
    accepted = await run_through(stage, fault, override_gate=gates)
    assert accepted.result_revision == 2
    for each in gates.split(","):
        assert any(each in warning for warning in accepted.warnings)


async def test_of_several_refusals_accepting_some_is_not_enough(stage: Stage) -> None:
    far_fewer_models(stage.catalog)
    fault = content(stage.catalog.body)
    refused = await run_through(stage, fault)
    assert refused.failure is not None
    first, rest = refused.failure.metadata["gates"].split(",", 1)
    for accepted, left in ((first, rest), (rest, first)):
        refused = await run_through(stage, fault, override_gate=accepted)
        assert (refused.state, reason_of(refused)) == (State.FAILED, "GATE_REFUSED")
        assert refused.failure is not None
        assert refused.failure.metadata["gates"] == left
        assert refused.failure.metadata["gate"] == left.partition(",")[0]


async def test_what_an_operator_accepted_is_said_also_of_a_payload_full_of_bad_records(stage: Stage) -> None:
    for record in [*stage.catalog.canonical_models.values(), *map(stage.catalog.model, stage.catalog.model_ids[:40])]:
        del record["name"]
    refresh = await stage.refresh(override_gate="quarantine")
    assert refresh.state is State.PARTIALLY_SUCCEEDED
    assert refresh.warnings[-1].startswith("accepted in spite of the gate quarantine: 40 of 87 models cannot be read")
    assert len(refresh.warnings) == MAX_WARNINGS + 1


async def test_a_key_that_is_there_twice_is_refused(stage: Stage) -> None:
    twice = stage.catalog.body.replace(b'"gpt-5": {', b'"gpt-5": {"id": "hidden by the next"}, "gpt-5": {', 1)
    refused = await run_through(stage, content(twice))
    assert (refused.state, reason_of(refused)) == (State.FAILED, "GATE_REFUSED")
    assert refused.failure is not None
    assert refused.failure.metadata["gate"] == "duplicate_ids"
    assert refused.failure.metadata["examples"] == "/providers/openai/models/gpt-5"


async def test_an_id_that_comes_twice_is_refused(stage: Stage) -> None:
    document = json.dumps(stage.catalog.document)
    again = json.dumps({"gpt-5": stage.catalog.model("openai/gpt-5")})[1:-1]
    start = document.index('"models": {', document.index('"openai": {', document.index('"providers"')))
    body = document[: start + len('"models": {')] + again + ", " + document[start + len('"models": {') :]
    refresh = await run_through(stage, content(body.encode()))
    assert (refresh.state, reason_of(refresh)) == (State.FAILED, "GATE_REFUSED")
    assert refresh.failure is not None
    assert refresh.failure.metadata["gate"] == "duplicate_ids"


# --- nothing new ---------------------------------------------------------------------------------------------------


async def test_not_modified_is_a_success_in_one_request(stage: Stage) -> None:
    await stage.refresh()
    stage.upstream.requests.clear()
    before = await marks_of_rows(stage.database_url)
    async with reading(stage):
        refresh = await refresh_to_end(stage.running)
    assert (refresh.state, refresh.not_modified, refresh.attempt) == (State.SUCCEEDED, True, 1)
    assert len(stage.upstream.requests) == 1
    assert await marks_of_rows(stage.database_url) == before


# --- a failed incremental run is followed by a full one ------------------------------------------------------------


async def refreshes(stage: Stage) -> list[Refresh]:
    return await stage.running.refreshes.list_refreshes(before=None, limit=10)


@pytest.fixture
async def hasty(start_app: StartApp, database: str) -> AsyncIterator[Stage]:
    async with follow(start_app, database, refresh_fallback_seconds=0) as stage:
        yield stage


async def test_a_full_run_follows_a_failed_incremental_one(hasty: Stage) -> None:
    hasty.catalog.model("openai/gpt-5")["name"] = "GPT-5 (new)"
    hasty.upstream.misbehave("/catalog.json", in_turn(html(), content(hasty.catalog.body)))
    failed = await refresh_to_end(hasty.running)
    assert failed.state is State.FAILED

    async def full_is_over() -> bool:
        newest = (await refreshes(hasty))[0]
        return newest.id != failed.id and newest.state.is_over

    await until(full_is_over)
    full = (await refreshes(hasty))[0]
    assert (full.state, full.request.type, full.request.fallback_of) == (State.SUCCEEDED, RefreshType.FULL, failed.id)
    assert full.counts.changed == 1


@pytest.mark.parametrize("request_", [{"type": RefreshType.FULL}, {"validate_only": True}], ids=["full", "dry run"])
async def test_nothing_follows_a_full_or_a_dry_run(hasty: Stage, request_: dict[str, Any]) -> None:
    before = len(await refreshes(hasty))
    hasty.upstream.misbehave("/catalog.json", html())
    assert (await refresh_to_end(hasty.running, **request_)).state is State.FAILED
    await until(lambda: not runs_owned_here())
    assert len(await refreshes(hasty)) == before + 1


async def test_a_request_that_the_bucket_has_no_token_for_is_not_sent(start_app: StartApp, database: str) -> None:
    """Two requests are more than one a minute, so the second one is not sent within its time."""
    async with follow(start_app, database, upstream_requests_per_minute=1, upstream_timeout_seconds=3) as stage:
        assert (await refresh_to_end(stage.running)).state is State.SUCCEEDED
        refused = await refresh_to_end(stage.running)
        assert (refused.state, reason_of(refused), refused.attempt) == (State.FAILED, "UPSTREAM_UNAVAILABLE", 1)
        assert refused.failure is not None
        assert refused.failure.message == (
            "upstream was not asked: the limit of 1 requests a minute gave no turn within 3 s"
        )
        assert len(stage.upstream.requests) == 1
