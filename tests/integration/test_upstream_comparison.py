"""The comparison in a process of its own: the same result, and no process left behind, whatever happens."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence

import pytest

from modelcatalog_server.domain.errors import DatabaseUnavailableError, RefreshError, UpstreamInvalidError
from modelcatalog_server.domain.models import ModelRecord, Source
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


def some_of(providers: Iterable[str]) -> Payload:
    document = json.loads(CATALOG.catalog or b"")
    document["providers"] = {id_: document["providers"][id_] for id_ in providers}
    return Payload(source=SOURCE, catalog=json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode())


#: Enough records for a process.
MANY = some_of(["zeldoc", "openai", "anthropic", "groq", "openrouter", "llmgateway", "vercel", "nano-gpt", "kilo"])
BROKEN = Payload(source=SOURCE, catalog=b"<html></html>")
#: Enough to be at work on for as long as a test takes.
ENDLESS = Payload(
    source=SOURCE,
    catalog=b'{"providers": {"p": {"id": "p", "name": "P", "models": {%s}}}}'
    % b",".join(b'"m%d": {"name": 1}' % number for number in range(60_000)),
)

#: A server that has a large payload compared, says so and hangs. Without a main guard: nothing may run it again.
SERVER = """
import asyncio
from modelcatalog_server.domain.models import Source
from modelcatalog_server.domain.refresh import KnownState, Payload
from modelcatalog_server.modelsdev.comparison import SpawnedComparison
from modelcatalog_server.rpc.model_messages import encode_model

models = ",".join('"m%d": {"name": 1}' % number for number in range(60_000))
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

async def ignore(models):
    pass

async def main():
    async with SpawnedComparison(encode_model) as comparison:
        await comparison.compare(payload, known, provider_id=None, full=False, take=ignore)
        print(comparison._process.pid, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


class Taken(list[tuple[ModelRecord, bytes]]):
    """What was handed on. The first time it says so."""

    def __init__(self) -> None:
        self.any = asyncio.Event()

    async def take(self, models: Sequence[tuple[ModelRecord, bytes]]) -> None:
        self.extend(models)
        self.any.set()


async def compare(
    comparison: SpawnedComparison,
    payload: Payload,
    known: KnownState = NOTHING,
    provider_id: str | None = None,
    *,
    full: bool = False,
    taken: Taken | None = None,
) -> Difference:
    return await comparison.compare(
        payload, known, provider_id=provider_id, full=full, take=(Taken() if taken is None else taken).take
    )


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
        assert await compare(comparison, CATALOG, NOTHING, "openai", full=True) == expected
        whole = await compare(comparison, CATALOG)
    assert whole == compare_payload(CATALOG, NOTHING, provider_id=None, full=False)
    assert len(whole.models) == 5276


async def test_hands_on_each_model_to_write_with_its_message_wherever_it_was_decoded() -> None:
    async with SpawnedComparison(encode_model) as comparison:
        few = await compare(comparison, MANY, NOTHING, "zeldoc", taken=(taken := Taken()))
        assert comparison._process is None
        assert taken == [(model, encode_model(model)) for model in few.models]
        assert len(taken) == 1
        many = await compare(comparison, MANY, taken=(taken := Taken()))
        assert taken == [(model, encode_model(model)) for model in many.models]
        await compare(comparison, MANY, holding(many), taken=(taken := Taken()))
        assert taken == []


async def test_hands_models_on_while_others_are_still_to_come() -> None:
    taken, size = Taken(), len(compare_payload(MANY, NOTHING, provider_id=None, full=False).models)
    async with SpawnedComparison(encode_model) as comparison:
        comparing = asyncio.create_task(compare(comparison, MANY, taken=taken))
        await taken.any.wait()
        assert (len(taken) < size, comparing.done()) == (True, False)
        await comparing
    assert len(taken) == size


async def test_stops_when_what_it_hands_on_is_not_taken() -> None:
    async def refuse(_: object) -> None:
        raise DatabaseUnavailableError("gone")

    async with SpawnedComparison(encode_model) as comparison:
        with pytest.raises(DatabaseUnavailableError, match="gone"):
            await comparison.compare(MANY, NOTHING, provider_id=None, full=False, take=refuse)
        pid = pid_of(comparison)
    assert is_gone(pid)


async def test_takes_one_question_after_the_other() -> None:
    async with SpawnedComparison(encode_model) as comparison:
        with pytest.raises(UpstreamInvalidError, match=r"catalog\.json \(13 bytes\) is no JSON object"):
            await compare(comparison, BROKEN)
        first = await compare(comparison, MANY)
        assert (await compare(comparison, MANY, holding(first), full=True)).is_empty


async def test_leaves_no_process_behind() -> None:
    async with SpawnedComparison(encode_model) as comparison:
        await compare(comparison, MANY)
        pid = pid_of(comparison)
        assert not is_gone(pid)
    assert is_gone(pid)


async def test_starts_a_process_only_for_many_records() -> None:
    async with SpawnedComparison(encode_model) as comparison:
        first = compare_payload(MANY, NOTHING, provider_id=None, full=False)
        assert (await compare(comparison, MANY, holding(first))).is_empty
        document = json.loads(MANY.catalog or b"")
        document["providers"]["openai"]["models"]["gpt-5"]["name"] = "new"
        changed = Payload(
            source=SOURCE, catalog=json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
        )
        assert (await compare(comparison, changed, holding(first))).touched_models == {"openai/gpt-5"}
        assert comparison._process is None
        assert (await compare(comparison, MANY, holding(first), full=True)).is_empty
        assert comparison._process is not None


async def test_others_run_while_it_sifts() -> None:
    """The event loop turns hundreds of times; how fast is for the benchmark to say."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    async with SpawnedComparison(encode_model) as comparison:
        await compare(comparison, CATALOG)
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


async def test_a_process_that_is_stopped_and_goes_on_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")  # as in the image

    async def stop_and_go(comparison: SpawnedComparison) -> None:
        await until(lambda: comparison._process is not None)
        while True:
            for number in (signal.SIGSTOP, signal.SIGCONT):
                os.kill(pid_of(comparison), number)
                await asyncio.sleep(0.005)

    async with SpawnedComparison(encode_model) as comparison, asyncio.TaskGroup() as group:
        stopping = group.create_task(stop_and_go(comparison))
        whole = await compare(comparison, CATALOG)
        stopping.cancel()
    assert whole == compare_payload(CATALOG, NOTHING, provider_id=None, full=False)


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
            await compare(comparison, MANY)


async def test_must_be_entered() -> None:
    with pytest.raises(RefreshError, match="has not been started"):
        await compare(SpawnedComparison(encode_model), MANY)


def test_dies_with_the_server() -> None:
    with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        child = os.pidfd_open(int(server.stdout.readline()))
        try:
            server.kill()
            assert select.select([child], [], [], 10)[0]
        finally:
            os.close(child)
