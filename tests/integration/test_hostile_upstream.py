"""Upstream means harm: what it sends comes out as the data it is, to the terminal as what does nothing there."""

# ruff: noqa: RUF001 -- letters that look like others are what it is about

from __future__ import annotations

import asyncio
import json
import os
import pty
import select
from collections.abc import AsyncIterator, Iterator

import pytest
from google.protobuf.json_format import MessageToDict

from acceptance.serving import command, environment
from conftest import Services, StartApp, refresh_to_end
from forking import fork
from modelcatalog_client import AsyncModelCatalogClient
from modelcatalog_server.domain.refresh import State
from small_catalog import Stage, clone_small, follow

#: Each is the name, the description, a tag, a key and a value of its model.
HOSTILE = {
    "sql": "'; DROP TABLE models_metadata; --",
    "formats": "%s %(id)s {0} ${x} $1 \\N \\x41 \\' \\",
    "html": "<script>alert(1)</script><img src=x onerror=y>",
    "formula": "=cmd|'/C calc'!A1",
    "colours": "\x1b[31mred\x1b[0m \x1b]0;title\x07 \x1b[2J\x1b[H",
    "c1": "\x9b31m \x85 \x90",
    "lines": "a\r\nb\tc\x0bd\x0ce\u2028f",
    "bidi": "\u202egpt-5\u202c \u2066x\u2069 \u200f",
    "invisible": "a\u200bb\ufeffc\u00add\U000e0041",
    "look-alikes": "оpenai ｇｐｔ ﬁ e\u0301 \u0301\u0301\u0301",
    "edges": "\uffff \U0010ffff \ue000 \ud7ff",
    "emoji": "👩\u200d👩\u200d👧 🦆",
    "long": "x" * 40_000,
}
IDS = {f"openai/hostile-{kind}": text for kind, text in HOSTILE.items()}
MAX_NAME = 512
NAMES = {id_: text[:MAX_NAME] for id_, text in IDS.items()}


@pytest.fixture
def database(templates: Services) -> Iterator[str]:
    yield from clone_small(templates)


@pytest.fixture
async def stage(start_app: StartApp, database: str) -> AsyncIterator[Stage]:
    async with follow(start_app, database) as stage:
        for id_, text in IDS.items():
            stage.catalog.add(id_, name=text[:MAX_NAME], description=text, extra={text: [text, {"deep": text}]})
        refresh = await stage.refresh()
        assert (refresh.state, refresh.counts.added, refresh.warnings) == (State.SUCCEEDED, len(IDS), ())
        yield stage


async def test_hostile_texts_come_out_as_the_data_they_are(stage: Stage) -> None:
    async with AsyncModelCatalogClient(stage.running.server.address) as client:
        for id_, text in IDS.items():
            model = (await client.get_model(id_, view="full", min_revision=2)).model
            assert (model.name, model.description) == (NAMES[id_], text)
            assert MessageToDict(model.raw) == stage.catalog.model(id_)
        listed = {model.id: model.name async for model in client.list_models(filter="id:hostile-")}
        assert listed == NAMES
        for kind in ("sql", "html", "bidi", "colours"):
            quoted = HOSTILE[kind].replace("\\", "\\\\").replace('"', '\\"').replace("*", "\\*")
            found = [model.id async for model in client.list_models(filter=f'name = "{quoted}"')]
            assert found == [f"openai/hostile-{kind}"]


async def test_what_is_read_at_a_terminal_does_nothing_to_it(stage: Stage) -> None:
    address = stage.running.server.address
    for arguments in (
        ("models", "list", "--filter", "id:hostile-", "--fields", "id,name,description"),
        ("models", "get", "openai/hostile-colours"),
        ("models", "get", "openai/hostile-bidi"),
        ("models", "search", "hostile", "--fields", "id,name"),
        ("models", "compare", "openai/hostile-c1", "openai/hostile-lines"),
    ):
        result = await asyncio.to_thread(command, *arguments, "--address", address)
        assert result.returncode == 0, result.stderr
        assert harmful(result.stdout) == set()
        assert harmful(result.stderr) == set()
        shown = await asyncio.to_thread(at_a_terminal, *arguments, "--address", address)
        assert "hostile" in shown
        assert harmful(without_styles(shown)) == set()


async def test_json_is_escaped_and_still_the_data(stage: Stage) -> None:
    address = stage.running.server.address
    listing = ("models", "list", "--filter", "id:hostile-", "--json", "--address", address)
    result = await asyncio.to_thread(command, *listing)
    assert harmful(result.stdout) == set()
    models = [json.loads(line) for line in result.stdout.splitlines()]
    assert {model["id"]: model["name"] for model in models} == NAMES
    assert "ｇｐｔ" in result.stdout, "what can be read is not escaped"


def harmful(text: str) -> set[str]:
    """Return the characters that a terminal does something with, but for the ends of lines."""
    return {ascii(each) for each in text if not each.isprintable() and each != "\n"}


def without_styles(text: str) -> str:
    """Return what was shown without the styles that the command itself sets, and with plain ends of lines."""
    for style in ("\x1b[0m", "\x1b[1m", "\x1b[2m"):
        text = text.replace(style, "")
    return text.replace("\r\n", "\n")


def at_a_terminal(*arguments: str) -> str:
    """Run the command at a terminal, and return what that was sent."""
    terminal, its = pty.openpty()
    process = fork(arguments, environment(TERM="xterm", COLUMNS="100"), stdout=its, stderr=its)
    os.close(its)
    shown = b""
    try:
        while select.select([terminal], [], [], 30)[0] and (piece := os.read(terminal, 65536)):
            shown += piece
    except OSError:  # the other end is closed
        pass
    os.close(terminal)
    assert process.wait(30) == 0
    return shown.decode()


# --- what JSON itself allows --------------------------------------------------------------------------------------


async def test_of_a_key_that_comes_twice_the_last_one_counts(stage: Stage) -> None:
    """As with every reader of JSON that does not say otherwise; ``raw`` holds what was read."""
    body = stage.catalog.body.replace(b'"id": "hostile-sql"', b'"id": "x", "id": "hostile-sql", "open_weights": true')
    stage.upstream.serve("/catalog.json", body)
    refresh = await refresh_to_end(stage.running)
    assert refresh.state is State.SUCCEEDED
    async with AsyncModelCatalogClient(stage.running.server.address) as client:
        model = (await client.get_model("openai/hostile-sql", min_revision=refresh.result_revision)).model
        assert model.upstream_id == "hostile-sql"


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (b'"a\\u0000b"', "U+0000"),
        (b'"\\ud800"', "surrogate"),
        (b'"\\udc00\\ud800"', "surrogate"),
        (b"1e400", "out of range"),
        (b"-1e-400", "out of range"),
        (b"1e999999999999999999999", "out of range"),
        (b"9" * 5000, "out of range"),
        (b"[" * 60 + b"]" * 60, "nested"),
        (b"[" * 100_000 + b"]" * 100_000, "nested"),
        (b'"\xff\xfe"', "UTF-8"),
        (b'"' + b"x" * 1_000_000 + b'"', "the record has 1,00"),
        (b"NaN", "JSON"),
    ],
    ids=lambda each: ascii(each)[:24],
)
async def test_what_cannot_be_kept_is_set_aside_with_its_reason(stage: Stage, value: bytes, complaint: str) -> None:
    before = stage.catalog.body
    stage.upstream.serve(
        "/catalog.json", before.replace(b'"id": "hostile-html"', b'"id": "hostile-html", "x": ' + value)
    )
    refresh = await refresh_to_end(stage.running)
    async with AsyncModelCatalogClient(stage.running.server.address) as client:
        model = (await client.get_model("openai/hostile-html")).model
        assert model.name == HOSTILE["html"], "its last good version stays"
    if refresh.state is State.FAILED:  # what is no JSON at all ends the run, and says so
        assert refresh.failure is not None
        assert refresh.failure.reason == "UPSTREAM_INVALID"
        assert complaint in refresh.failure.message
        return
    assert refresh.state is State.PARTIALLY_SUCCEEDED
    (line,) = refresh.warnings
    assert complaint in line
    assert harmful(line) == set()
