"""Bad days upstream: the run says what was wrong, and everything that was served is served as before."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from conftest import Services, StartApp, refresh_to_end
from modelcatalog_client import AsyncModelCatalogClient
from modelcatalog_client.errors import CatalogNotReadyError, UpstreamInvalidError, refresh_error
from modelcatalog_server import app
from modelcatalog_server.domain.errors import StartupError
from modelcatalog_server.domain.refresh import State
from modelcatalog_server.refresh.runner import MAX_WARNINGS
from small_catalog import SmallCatalog, Stage, clone_small, follow, marks_of_rows
from upstream_server import (
    Fault,
    content,
    disconnect_midway,
    garbage,
    html,
    status,
    truncated_gzip,
)

ALL = 87
BODY = SmallCatalog().body


@pytest.fixture
def database(templates: Services) -> Iterator[str]:
    yield from clone_small(templates)


@pytest.fixture
async def stage(start_app: StartApp, database: str) -> AsyncIterator[Stage]:
    async with follow(start_app, database) as stage:
        yield stage


@pytest.fixture
async def client(stage: Stage) -> AsyncIterator[AsyncModelCatalogClient]:
    async with AsyncModelCatalogClient(stage.running.server.address) as client:
        yield client


async def read_everything(client: AsyncModelCatalogClient) -> list[bytes]:
    """Return the answer of every kind of read."""
    answers = [
        await client.get_model("openai/gpt-5", view="full"),
        await client.batch_get_models(["openai/gpt-5", "openai/none"]),
        await anext(client.list_models(page_size=1000).pages()),
        await anext(client.list_models(provider_id="anthropic").pages()),
        await anext(client.list_providers().pages()),
        await client.get_provider("openai"),
        await client.list_model_benchmarks("openai/gpt-5.5"),
        (await client.get_catalog_info()).counts,
    ]
    return [answer.SerializeToString(deterministic=True) for answer in answers]


WHOLE_PAYLOAD: dict[str, tuple[Fault, str, str]] = {
    "HTML": (html(), "UPSTREAM_INVALID", "text/html"),
    "not JSON": (content(b"models: [gpt-5]"), "UPSTREAM_INVALID", "is no JSON object"),
    "cut short": (content(BODY[: len(BODY) // 2]), "UPSTREAM_INVALID", "is no JSON object"),
    "truncated gzip": (truncated_gzip(BODY), "UPSTREAM_INVALID", "compression ends early"),
    "empty body": (content(b""), "UPSTREAM_INVALID", "is empty"),
    "empty object": (content(b"{}"), "UPSTREAM_INVALID", 'neither "providers" nor "models"'),
    "no provider": (content(b'{"providers": {}, "models": {}}'), "UPSTREAM_INVALID", "has no providers"),
    "not one model": (
        content(b'{"providers": {"openai": {"id": "openai", "name": "OpenAI", "models": {}}}}'),
        "UPSTREAM_INVALID",
        "not one model",
    ),
    "503": (status(503), "UPSTREAM_UNAVAILABLE", "503"),
    "no HTTP": (garbage, "UPSTREAM_INVALID", "is no HTTP"),
    "closed midway": (disconnect_midway(BODY), "UPSTREAM_UNAVAILABLE", ""),
}


async def test_an_answer_that_is_no_catalog_changes_nothing(stage: Stage, client: AsyncModelCatalogClient) -> None:
    before = await read_everything(client)
    marks = await marks_of_rows(stage.database_url)
    state = await stage.fetch("SELECT * FROM catalog_state")
    for what, (fault, reason, text) in WHOLE_PAYLOAD.items():
        stage.upstream.misbehave("*", fault)
        refresh = await stage.refresh()
        assert refresh.state is State.FAILED, what
        assert refresh.failure is not None
        assert (refresh.failure.reason, text in refresh.failure.message) == (reason, True), refresh.failure
        assert "\n" not in refresh.failure.message
        assert "127.0.0.1" not in refresh.failure.message, "an address left the process"
        assert refresh.result_revision is None
    assert await marks_of_rows(stage.database_url) == marks
    assert await stage.fetch("SELECT * FROM catalog_state") == state
    assert await read_everything(client) == before

    stage.upstream.behave()
    stage.catalog.model("openai/gpt-5")["name"] = "new"
    recovered = await stage.refresh()
    assert (recovered.state, recovered.result_revision) == (State.SUCCEEDED, 2)


async def test_a_caller_reads_why_a_run_failed(stage: Stage, client: AsyncModelCatalogClient) -> None:
    stage.upstream.misbehave("*", html())
    started = (await client.start_refresh()).refresh
    events = [event async for event in client.watch_refresh_status(started.id)]
    ended = (await client.get_refresh(started.id)).refresh
    assert events[-1].refresh == ended
    assert ended.state == ended.STATE_FAILED
    error = refresh_error(ended)
    assert isinstance(error, UpstreamInvalidError)
    assert "text/html" in error.message
    overview = await client.get_refresh_status()
    assert overview.last_finished.id == ended.id
    assert overview.last_success.id != ended.id


def _text_price(model: dict[str, Any]) -> None:
    model["cost"]["input"] = "1.25"


def _huge_text(model: dict[str, Any]) -> None:
    model["description"] = "x" * 10_000_000


BROKEN: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no name": (lambda model: model.pop("name"), "missing required field name"),
    "name of spaces": (lambda model: model.update(name="  "), "name: expected str"),
    "name that is a number": (lambda model: model.update(name=5), "name: expected str, got int"),
    "price as text": (_text_price, "cost.input: expected"),
    "negative price": (lambda model: model["cost"].update(input=-1), "cost: a price of -1"),
    "limits that are a list": (lambda model: model.update(limit=[1, 2]), "limit: expected object, got array"),
    "context with a fraction": (lambda model: model["limit"].update(context=1.5), "limit.context: expected int"),
    "flag as text": (lambda model: model.update(tool_call="yes"), "tool_call: expected bool, got str"),
    "another id": (lambda model: model.update(id="gpt-4"), "is not the record's key"),
    "10 MB of text": (_huge_text, "the record has 10,00"),
    "U+0000": (lambda model: model.update(description="a\0b"), "U+0000"),
    "half a surrogate pair": (lambda model: model.update(description="\ud800"), "half a surrogate pair"),
    "nested without end": (lambda model: model.update(interleaved=_nested(500)), "nested"),
    "number out of range": (lambda model: model.update(extra=10**400), "out of range"),
}


def _nested(depth: int) -> Any:
    return {"in": _nested(depth - 1)} if depth else 1


async def test_a_broken_record_is_set_aside_and_the_rest_is_applied(
    stage: Stage, client: AsyncModelCatalogClient
) -> None:
    """All at once: each keeps its last good version, and none costs another."""
    targets = [id_ for id_ in stage.catalog.model_ids if "cost" in stage.catalog.model(id_)][: len(BROKEN)]
    before = {model.id: model async for model in client.list_models(page_size=1000)}
    for id_, (break_, _) in zip(targets, BROKEN.values(), strict=True):
        break_(stage.catalog.model(id_))
    stage.catalog.model("openai/gpt-5")["name"] = "new"
    stage.catalog.providers["openai"]["models"]["bad"] = "a model that never was good"

    refresh = await stage.refresh()

    assert refresh.state is State.PARTIALLY_SUCCEEDED
    assert refresh.failure is None
    bad = len(BROKEN) + 1
    assert (refresh.counts.seen, refresh.counts.quarantined, refresh.counts.changed) == (ALL + 1, bad, 1)
    assert (refresh.counts.removed, refresh.counts.unchanged) == (0, ALL - len(BROKEN) - 1)
    for id_, (what, (_, complaint)) in zip(targets, BROKEN.items(), strict=True):
        provider_id, _, key = id_.partition("/")
        pointer = f"/providers/{provider_id}/models/{key.replace('/', '~1')}: "
        (line,) = [line for line in refresh.warnings if pointer in line]
        assert complaint in line, what
        assert len(line) < 400
        assert line.isprintable()
    after = {model.id: model async for model in client.list_models(page_size=1000, min_revision=2)}
    assert after.pop("openai/gpt-5").name == "new"
    before.pop("openai/gpt-5")
    assert after == before

    mended = SmallCatalog()
    mended.model("openai/gpt-5")["name"] = "new"
    stage.catalog.document = mended.document
    again = await stage.refresh()
    assert (again.state, again.counts.unchanged, again.warnings) == (State.SUCCEEDED, ALL, ())


async def test_a_provider_that_cannot_be_read_keeps_its_models(stage: Stage, client: AsyncModelCatalogClient) -> None:
    stage.catalog.providers["anthropic"] = ["not", "a", "provider"]
    stage.catalog.providers["zeldoc"].pop("name")
    refresh = await stage.refresh()
    assert refresh.state is State.PARTIALLY_SUCCEEDED
    assert (refresh.counts.removed, refresh.counts.quarantined) == (0, 0)
    assert len(refresh.warnings) == 2
    assert refresh.result_revision == 1
    assert len([model async for model in client.list_models(provider_id="anthropic")]) == 24


async def test_a_canonical_model_that_cannot_be_read_keeps_its_benchmarks_and_links(
    stage: Stage, client: AsyncModelCatalogClient
) -> None:
    before = await client.list_model_benchmarks("openai/gpt-5.5")
    stage.catalog.canonical_models["openai/gpt-5.5"]["benchmarks"] = "many"
    refresh = await stage.refresh()
    assert refresh.state is State.PARTIALLY_SUCCEEDED
    assert "/models/openai~1gpt-5.5: benchmarks: expected array" in refresh.warnings[0]
    assert await client.list_model_benchmarks("openai/gpt-5.5") == before
    assert (await client.get_model("openai/gpt-5.5")).model.canonical_id == "openai/gpt-5.5"


async def test_not_modified_still_says_that_records_are_set_aside(stage: Stage) -> None:
    whole = stage.catalog.model("openai/gpt-5").pop("limit")
    partial = await stage.refresh()
    assert partial.state is State.PARTIALLY_SUCCEEDED
    for _ in range(2):
        same = await refresh_to_end(stage.running)
        assert (same.state, same.not_modified) == (State.SUCCEEDED, True)
        assert same.warnings == (
            f"records are still set aside: the report of refresh {partial.id} has them with their reasons",
        )
    stage.catalog.model("openai/gpt-5")["limit"] = whole
    assert (await stage.refresh()).warnings == ()
    mended = await refresh_to_end(stage.running)
    assert (mended.not_modified, mended.warnings) == (True, ())


@pytest.mark.parametrize(
    "providers",
    [{}, {"p": {"id": "p", "name": "P", "models": {}}}, {"p": {"id": "p", "models": {"m": {"id": "m"}}}}],
    ids=["no provider", "no model", "no good record"],
)
async def test_a_first_load_that_brings_nothing_ends_the_start_with_open_gates_too(
    start_app: StartApp, empty_database: str, providers: dict[str, Any]
) -> None:
    gates = {"gate_min_models": 0, "gate_min_providers": 0, "gate_max_quarantined_percent": 100}
    async with follow(start_app, empty_database, **gates) as stage:
        stage.catalog.document = {"models": {}, "providers": providers}
        stage.publish()
        with pytest.raises(StartupError, match="cannot load a first catalog: "):
            await app._load_if_empty(stage.running)
        assert len(stage.upstream.requests) == 1, "the next try would fare the same"


async def test_thousands_of_bad_records_are_counted_and_named_within_bounds(
    stage: Stage, client: AsyncModelCatalogClient
) -> None:
    models = stage.catalog.providers["openai"]["models"]
    models.update({f"bad-{number}-{'x' * 200}": {"name": number} for number in range(3000)})
    refresh = await stage.refresh()
    assert (refresh.state, refresh.counts.quarantined) == (State.PARTIALLY_SUCCEEDED, 3000)
    assert len(refresh.warnings) == MAX_WARNINGS
    listed = await anext(client.list_refreshes(page_size=1000).pages())
    assert len(listed.refreshes[0].warnings) == MAX_WARNINGS


async def test_names_from_upstream_are_data_and_nothing_else(stage: Stage, client: AsyncModelCatalogClient) -> None:
    names = ["'; DROP TABLE models_metadata; --", "%(name)s %s %", "\\N", "\t a \n", "{0}", "nul\u200bl", "🦆" * 100]
    for number, name in enumerate(names):
        stage.catalog.add(f"openai/odd-{number}", name=name, description=name)
    stage.catalog.add("openai/odd '%s' \\N \"id\"", name="odd id")
    refresh = await stage.refresh()
    assert (refresh.state, refresh.counts.added, refresh.warnings) == (State.SUCCEEDED, len(names) + 1, ())
    for number, name in enumerate(names):
        model = (await client.get_model(f"openai/odd-{number}", view="full", min_revision=2)).model
        assert (model.name, model.description, model.raw["name"]) == (name, name, name)
    assert (await client.get_model("openai/odd '%s' \\N \"id\"")).model.name == "odd id"


async def test_an_empty_database_gets_the_bundled_snapshot_and_the_reason(
    start_app: StartApp, empty_database: str
) -> None:
    async with follow(start_app, empty_database) as stage:
        async with AsyncModelCatalogClient(stage.running.server.address) as client:
            with pytest.raises(CatalogNotReadyError):
                await client.get_model("openai/gpt-5", timeout=5)
        stage.upstream.misbehave("*", status(503))
        refresh = await stage.refresh(validate_only=True)
        assert (refresh.state, refresh.counts.added) == (State.SUCCEEDED, 5276)
        (warning,) = refresh.warnings
        assert "503" in warning
        assert "loaded the bundled snapshot instead" in warning
