"""The comparison in a process of its own: the same result, and no process left behind, whatever happens."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys

import pytest

from modelcatalog_server.domain.errors import RefreshError, UpstreamInvalidError
from modelcatalog_server.domain.models import Source
from modelcatalog_server.domain.refresh import Difference, KnownState, Payload
from modelcatalog_server.modelsdev.comparison import SpawnedComparison
from modelcatalog_server.modelsdev.sift import compare_payload
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
    async with SpawnedComparison() as comparison:
        await comparison.compare(payload, known, provider_id=None, full=False)
        print(comparison._process.pid, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def compare(comparison: SpawnedComparison, payload: Payload, known: KnownState = NOTHING) -> Difference:
    return await comparison.compare(payload, known, provider_id=None, full=False)


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
    async with SpawnedComparison() as comparison:
        assert await comparison.compare(CATALOG, NOTHING, provider_id="openai", full=True) == expected
        whole = await compare(comparison, CATALOG)
    assert whole == compare_payload(CATALOG, NOTHING, provider_id=None, full=False)
    assert len(whole.models) == 5276


async def test_takes_one_question_after_the_other() -> None:
    async with SpawnedComparison() as comparison:
        with pytest.raises(UpstreamInvalidError, match=r"catalog\.json \(13 bytes\) is no JSON object"):
            await compare(comparison, BROKEN)
        first = await compare(comparison, CATALOG)
        known = KnownState(
            models={record.id: record.content_hash for record in first.models},
            removed_models={},
            providers={record.id: record.content_hash for record in first.providers},
            removed_providers=frozenset(),
            canonical_models={record.id: record.content_hash for record in first.canonical_models},
            removed_canonical_models=frozenset(),
        )
        assert (await compare(comparison, CATALOG, known)).is_empty


async def test_leaves_no_process_behind() -> None:
    async with SpawnedComparison() as comparison:
        await compare(comparison, CATALOG)
        pid = pid_of(comparison)
        assert not is_gone(pid)
    assert is_gone(pid)


async def test_leaves_no_process_behind_when_cancelled_at_work() -> None:
    async def run() -> None:
        async with SpawnedComparison() as comparison:
            pids.append(pid_of(comparison))
            await compare(comparison, ENDLESS)

    pids: list[int] = []
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(run(), 0.5)
    assert [is_gone(pid) for pid in pids] == [True]


async def test_a_killed_process_is_an_error_with_a_clear_line() -> None:
    async with SpawnedComparison() as comparison:
        pid = pid_of(comparison)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(RefreshError) as raised:
            await compare(comparison, CATALOG)
        assert str(raised.value) == "the comparison process ended by signal 9 and gave no result"
    assert is_gone(pid)


async def test_a_cancelled_question_is_never_answered_later() -> None:
    async with SpawnedComparison() as comparison:
        question = asyncio.create_task(compare(comparison, ENDLESS))
        await asyncio.sleep(0)
        question.cancel()
        with pytest.raises(asyncio.CancelledError):
            await question
        with pytest.raises(RefreshError):
            await compare(comparison, CATALOG)


async def test_must_be_entered() -> None:
    with pytest.raises(RefreshError, match="has not been started"):
        await compare(SpawnedComparison(), CATALOG)


def test_dies_with_the_server() -> None:
    with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        child = os.pidfd_open(int(server.stdout.readline()))
        try:
            server.kill()
            assert select.select([child], [], [], 10)[0]
        finally:
            os.close(child)
