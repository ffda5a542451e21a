"""The comparison in a process of its own: the same result, and no process left behind, whatever happens."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from modelcatalog_server.domain.errors import RefreshError, UpstreamInvalidError
from modelcatalog_server.domain.models import Source
from modelcatalog_server.domain.refresh import Difference, KnownState, Payload
from modelcatalog_server.modelsdev.comparison import SpawnedComparison
from modelcatalog_server.modelsdev.sift import compare_payload
from modelcatalog_server.rpc.model_messages import encode_model
from small_catalog import until
from upstream_server import recorded

SOURCE = Source(url="https://models.dev/catalog.json?type=all", snapshot="0" * 64)
NOTHING = KnownState(
    models={},
    removed_models={},
    providers={},
    removed_providers=frozenset(),
    canonical_models={},
    removed_canonical_models=frozenset(),
)
CATALOG = Payload(source=SOURCE, catalog=recorded("catalog-2026-07-02"))
BROKEN = Payload(source=SOURCE, catalog=b"<html></html>")
#: Enough to be at work on for as long as a test takes.
ENDLESS = Payload(
    source=SOURCE,
    catalog=b'{"providers": {"p": {"id": "p", "name": "P", "models": {%s}}}}'
    % b",".join(b'"m%d": {"name": 1}' % number for number in range(400_000)),
)

#: A server that has a large payload compared, says so and hangs. Without a main guard: nothing may run it again.
SERVER = """
import asyncio
from modelcatalog_server.domain.models import Source
from modelcatalog_server.domain.refresh import KnownState, Payload
from modelcatalog_server.modelsdev.comparison import SpawnedComparison
from modelcatalog_server.rpc.model_messages import encode_model

models = ",".join('"m%d": {"name": 1}' % number for number in range(30_000))
payload = Payload(
    source=Source(url="", snapshot=""),
    catalog=('{"providers": {"p": {"id": "p", "name": "P", "models": {%s}}}}' % models).encode(),
)
known = KnownState(
    models={},
    removed_models={},
    providers={},
    removed_providers=frozenset(),
    canonical_models={},
    removed_canonical_models=frozenset(),
)

async def main():
    async with SpawnedComparison(encode_model) as comparison:
        await comparison.compare(payload, known, provider_id=None, full=False)
        print(comparison._process.pid, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def compare(comparison: SpawnedComparison, payload: Payload, known: KnownState = NOTHING) -> Difference:
    return await comparison.compare(payload, known, provider_id=None, full=False)


def holding(difference: Difference) -> KnownState:
    """Return what a catalog holds once a first load has been applied to it."""
    hashes = {
        kind: {id_: hash_ for id_, hash_ in by_id.items() if hash_} for kind, by_id in difference.source_hashes.items()
    }
    return KnownState(
        models={record.id: record.content_hash for record in difference.models},
        removed_models={},
        providers={record.id: record.content_hash for record in difference.providers},
        removed_providers=frozenset(),
        canonical_models={record.id: record.content_hash for record in difference.canonical_models},
        removed_canonical_models=frozenset(),
        source_hashes=hashes,
    )


def pid_of(comparison: SpawnedComparison) -> int:
    assert comparison._process is not None
    return comparison._process.pid


def is_gone(pid: int) -> bool:
    """Return whether a child of ours has ended and been waited for."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def test_gives_what_the_function_gives() -> None:
    expected = compare_payload(CATALOG, NOTHING, provider_id="openai", full=True)
    async with SpawnedComparison(encode_model) as comparison:
        part = await comparison.compare(CATALOG, NOTHING, provider_id="openai", full=True)
        assert replace(part, messages={}) == expected
        whole = await compare(comparison, CATALOG)
    assert replace(whole, messages={}) == compare_payload(CATALOG, NOTHING, provider_id=None, full=False)
    assert len(whole.models) == 5276


async def test_gives_the_message_of_each_model_to_write_wherever_it_was_decoded() -> None:
    async with SpawnedComparison(encode_model) as comparison:
        few = await comparison.compare(CATALOG, NOTHING, provider_id="zeldoc", full=False)
        assert comparison._process is None
        assert few.messages == {model.id: encode_model(model) for model in few.models}
        assert len(few.messages) == 1
        many = await compare(comparison, CATALOG)
        assert many.messages == {model.id: encode_model(model) for model in many.models}
        nothing = await compare(comparison, CATALOG, holding(many))
        assert nothing.messages == {}


async def test_takes_one_question_after_the_other() -> None:
    async with SpawnedComparison(encode_model) as comparison:
        with pytest.raises(UpstreamInvalidError, match=r"catalog\.json \(13 bytes\) is no JSON object"):
            await compare(comparison, BROKEN)
        first = await compare(comparison, CATALOG)
        assert (await comparison.compare(CATALOG, holding(first), provider_id=None, full=True)).is_empty


async def test_leaves_no_process_behind() -> None:
    async with SpawnedComparison(encode_model) as comparison:
        await compare(comparison, CATALOG)
        pid = pid_of(comparison)
        assert not is_gone(pid)
    assert is_gone(pid)


async def test_starts_a_process_only_for_many_records() -> None:
    async with SpawnedComparison(encode_model) as comparison:
        first = compare_payload(CATALOG, NOTHING, provider_id=None, full=False)
        assert (await compare(comparison, CATALOG, holding(first))).is_empty
        document = json.loads(recorded("catalog-2026-07-02"))
        document["providers"]["openai"]["models"]["gpt-5"]["name"] = "new"
        changed = Payload(
            source=SOURCE, catalog=json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
        )
        assert (await compare(comparison, changed, holding(first))).touched_models == {"openai/gpt-5"}
        assert comparison._process is None
        assert (await comparison.compare(CATALOG, holding(first), provider_id=None, full=True)).is_empty
        assert comparison._process is not None


async def test_others_run_while_it_sifts() -> None:
    """The event loop turns hundreds of times; how fast is for the benchmark to say."""
    first = compare_payload(CATALOG, NOTHING, provider_id=None, full=False)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    async with SpawnedComparison(encode_model) as comparison:
        await compare(comparison, CATALOG, holding(first))
    counting.cancel()
    assert turns > 20


async def test_leaves_no_process_behind_when_cancelled_at_work() -> None:
    async with SpawnedComparison(encode_model) as comparison:
        question = asyncio.create_task(compare(comparison, ENDLESS))
        await until(lambda: comparison._process is not None)
        pid = pid_of(comparison)
        question.cancel()
        with pytest.raises(asyncio.CancelledError):
            await question
    assert is_gone(pid)


async def test_a_killed_process_is_an_error_with_a_clear_line() -> None:
    async with SpawnedComparison(encode_model) as comparison:
        question = asyncio.create_task(compare(comparison, ENDLESS))
        await until(lambda: comparison._process is not None)
        pid = pid_of(comparison)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(RefreshError) as raised:
            await question
        assert str(raised.value) == "the comparison process ended by signal 9 and gave no result"
    assert is_gone(pid)


async def test_a_cancelled_question_is_never_answered_later() -> None:
    async with SpawnedComparison(encode_model) as comparison:
        question = asyncio.create_task(compare(comparison, ENDLESS))
        await until(lambda: comparison._process is not None)
        question.cancel()
        with pytest.raises(asyncio.CancelledError):
            await question
        with pytest.raises(RefreshError):
            await compare(comparison, CATALOG)


async def test_must_be_entered() -> None:
    with pytest.raises(RefreshError, match="has not been started"):
        await compare(SpawnedComparison(encode_model), CATALOG)


def test_dies_with_the_server() -> None:
    with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        child = os.pidfd_open(int(server.stdout.readline()))
        try:
            server.kill()
            assert select.select([child], [], [], 10)[0]
        finally:
            os.close(child)
