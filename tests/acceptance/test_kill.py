"""Sudden ends in the middle of a refresh: of the server, of its database sessions, of PostgreSQL.

Whatever is ended and whenever: the catalog is exactly the old one or the new one, every run has exactly one end, and
whoever watches it hears of that without doing anything.

When: a run in peace tells how long each phase takes. For each end a point is drawn from a shuffled deck that holds all
of :data:`POINTS` equally often, and a moment in it: a random part of up to one and a half of what that phase takes,
after it was seen to begin. ``KILLS`` says how many servers are killed, ``KILL_SEED`` repeats a drawing.
"""

# ruff: noqa: S311 -- what is drawn here is no secret

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

import services as services_script
from conftest import Services, StartApp, make_settings, refresh_to_end
from modelcatalog.v1.refresh_pb2 import Refresh, RefreshStatus
from modelcatalog_client import AsyncModelCatalogClient
from modelcatalog_client import errors as client_errors
from modelcatalog_server import app
from modelcatalog_server.domain.refresh import State
from replicas import Replica, StartReplica, assert_consistent, digest_content, kept_events, replicas
from seeds import seed_of
from small_catalog import SmallCatalog, clone_small, fetch, until
from upstream_server import UpstreamServer

KILLS = int(os.environ.get("KILLS", "50"))
SEED = seed_of("KILL_SEED")
#: Side by side, each on a database of its own: most of a turn is waiting.
LANES = 4

#: The contract's time within which the run of a lost owner is over, here from when all is well again.
OWNER_LOST_WITHIN_S = 30

#: While the run waits for its first step, in a phase, around the commit, and right behind the end.
POINTS = ("PENDING", "FETCH", "VALIDATE", "COMPARE", "APPLY", "COMMIT", "END")
PHASES = ("PENDING", "FETCH", "VALIDATE", "COMPARE", "APPLY")


# --- the catalogs -------------------------------------------------------------------------------------------------


def make_payload(which: int) -> bytes:
    """Return one of two catalogs of some 160 models: a third differs, and each lists some that the other does not."""
    catalog = SmallCatalog()
    for number in range(60):
        catalog.add(f"openai/shared-{number}", name=f"Shared {number}{' again' * (which * (number % 2))}")
    for number in range(10):
        catalog.add(f"openrouter/only-{which}-{number}")
    catalog.model("openai/gpt-5")["name"] = f"GPT-5 {which}"
    next(iter(catalog.canonical_models.values()))["name"] = f"Lab {which}"
    catalog.providers["anthropic"]["name"] = f"Anthropic {which}"
    return catalog.body


@dataclass(frozen=True)
class Ground:
    """A database that holds the first payload and has held the second: from here on it only goes to and fro."""

    url: str
    payloads: tuple[bytes, bytes]
    digests: tuple[str, str]
    revision: int
    durations: Mapping[str, float]

    def clone(self, services: Services) -> str:
        return services.clone(self.url.rpartition("?")[0].rpartition("/")[2])


async def prepare(start_app: StartApp, url: str) -> Ground:
    payloads = make_payload(0), make_payload(1)
    digests: dict[int, str] = {}
    async with UpstreamServer() as upstream, start_app(url, upstream_url=upstream.url) as running:
        for which in (0, 1, 0, 1, 0):
            upstream.serve("/catalog.json", payloads[which])
            refresh = await refresh_to_end(running)
            assert refresh.state is State.SUCCEEDED
            digests[which] = await digest_content(url)
    assert digests[0] != digests[1]
    return Ground(
        url, payloads, (digests[0], digests[1]), await assert_consistent(url), await durations_of(url, str(refresh.id))
    )


async def durations_of(url: str, refresh_id: str) -> dict[str, float]:
    """Return how many seconds each phase of a run took that came to its end."""
    begins = await fetch(
        url,
        "SELECT coalesce(phase, 'PENDING'), extract(epoch FROM min(happened_at))::float8 FROM refresh_events"
        " WHERE refresh_id = %s AND kind <> 'PROGRESS' GROUP BY 1 ORDER BY min(id)",
        refresh_id,
    )
    ends = [at for _, at in begins[1:]]
    return {phase: end - begin for (phase, begin), end in zip(begins, ends, strict=False)}


def draw(count: int, random_: random.Random) -> list[tuple[str, float]]:
    """Return points with the part of their phase that is to pass, each point as often as any other."""
    deck = [POINTS[number % len(POINTS)] for number in range(count)]
    random_.shuffle(deck)
    return [(point, random_.random()) for point in deck]


# --- a server that is hurt again and again -------------------------------------------------------------------------


@dataclass
class Patient:
    """A server that follows an upstream of its own, and what became of its runs."""

    ground: Ground
    url: str
    upstream: UpstreamServer
    start: StartReplica
    replica: Replica
    holds: int = 0
    revision: int = 0
    durations: Mapping[str, float] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)
    phases: Counter[str] = field(default_factory=Counter)
    waited_s: list[float] = field(default_factory=list)

    async def suffer(self, point: str, part: float, blow: Callable[[Patient], Awaitable[None]]) -> None:
        """Have a run hit at a moment, and look at what is left when it is over."""
        wanted = 1 - self.holds
        self.upstream.serve("/catalog.json", self.ground.payloads[wanted])
        request_id = str(uuid4())
        async with AsyncModelCatalogClient(self.replica.address) as client:
            started = await insist_on_start(client, request_id)
            watching = asyncio.create_task(watch_to_end(client, started.id))
            await self._reach(started.id, point, part)
            await blow(self)
            well_at = datetime.now(UTC)
            told = await watching
            # Asked again after all this, it is the same run.
            assert (await insist_on_start(client, request_id)).id == started.id
        ended = told[-1].refresh
        self.waited_s.append((ended.end_time.ToDatetime(UTC) - well_at).total_seconds())
        await self._check(ended, wanted)
        await assert_told_whole(self.url, started.id, told)

    async def _reach(self, refresh_id: str, point: str, part: float) -> None:
        """Wait for the moment; a run that is quicker is over by then."""
        phase = {"COMMIT": "APPLY", "END": ""}.get(point, point)
        awaited = PHASES[PHASES.index(phase) :] if phase else ()
        async with await psycopg.AsyncConnection.connect(self.url, autocommit=True) as connection:
            while True:
                cursor = await connection.execute(
                    "SELECT coalesce(phase, 'PENDING'), completed_at IS NOT NULL FROM models_refresh_history"
                    " WHERE id = %s",
                    (refresh_id,),
                )
                row = await cursor.fetchone()
                assert row is not None
                if row[1] or row[0] in awaited:
                    break
                await asyncio.sleep(0.001)
        whole = self.durations.get(phase, 0.01)
        await asyncio.sleep(whole * (0.7 + 0.6 * part) if point == "COMMIT" else whole * 1.5 * part)

    async def _check(self, ended: Refresh, wanted: int) -> None:
        revision, digest = await assert_consistent(self.url), await digest_content(self.url)
        if revision == self.revision:
            assert digest == self.ground.digests[self.holds], "neither the old catalog nor the new one"
            assert ended.state == Refresh.STATE_FAILED
            assert not ended.result_revision
            error = client_errors.refresh_error(ended)
            assert isinstance(error, (client_errors.OwnerLostError, client_errors.DatabaseUnavailableError)), error
            self.outcomes["old"] += 1
            (phase,) = await fetch(self.url, "SELECT phase FROM models_refresh_history WHERE id = %s", ended.id)
            self.phases[phase or "PENDING"] += 1
        else:
            assert revision == self.revision + 1 == ended.result_revision
            assert digest == self.ground.digests[wanted], "neither the old catalog nor the new one"
            assert ended.state == Refresh.STATE_SUCCEEDED
            self.outcomes["new"] += 1
            self.revision, self.holds = revision, wanted
            self.durations = await durations_of(self.url, ended.id)  # the machine may be busier by now


async def insist_on_start(client: AsyncModelCatalogClient, request_id: str) -> Refresh:
    """Start a run on a server whose pools may have to find out first that their sessions are gone."""
    async with asyncio.timeout(30):
        while True:
            with suppress(client_errors.UnavailableError):
                return (await client.start_refresh(request_id=request_id)).refresh


async def watch_to_end(client: AsyncModelCatalogClient, refresh_id: str) -> list[RefreshStatus]:
    async with asyncio.timeout(60), client.watch_refresh_status(refresh_id) as watch:
        return [status async for status in watch]


async def assert_told_whole(url: str, refresh_id: str, told: Sequence[RefreshStatus]) -> None:
    """A watch got the state first and then all that cannot be lost, once and in order, up to the one end."""
    first, *events = told
    assert first.kind == RefreshStatus.KIND_SNAPSHOT
    sequences = [event.sequence for event in events]
    assert sequences == sorted(set(sequences))
    kept = [
        (event.sequence, RefreshStatus.Kind.Name(event.kind).removeprefix("KIND_"))
        for event in events
        if event.kind != RefreshStatus.KIND_PROGRESS
    ]
    assert kept == [event for event in await kept_events(url, refresh_id) if event[0] > first.sequence]
    assert [kind for _, kind in kept].count("TERMINAL") == 1
    assert kept[-1][1] == "TERMINAL"


@asynccontextmanager
async def hospital(services: Services, folder: Path, ground: Ground, url: str) -> AsyncIterator[Patient]:
    async with UpstreamServer() as upstream, replicas(services, folder) as start:
        upstream.compress = False
        upstream.serve("/catalog.json", ground.payloads[0])
        replica = await start(url, upstream.url)
        yield Patient(ground, url, upstream, start, replica, revision=ground.revision, durations=ground.durations)


async def kill_server(patient: Patient) -> None:
    await patient.replica.kill()
    patient.replica = await patient.start(patient.url, patient.upstream.url, listen=patient.replica.address)


async def cut_sessions(patient: Patient) -> None:
    """End the sessions that the server writes with, the run's among them, as an operator would or a failing network."""
    await fetch(
        patient.url,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'modelcatalog-write'",
    )


def report(patients: Sequence[Patient]) -> tuple[Counter[str], Counter[str]]:
    """Print what became of the runs, and return it: which catalog was left, and where the lost ones stood."""
    outcomes, phases = Counter[str](), Counter[str]()
    for patient in patients:
        outcomes += patient.outcomes
        phases += patient.phases
    longest = max(max(patient.waited_s) for patient in patients)
    assert longest < OWNER_LOST_WITHIN_S
    print(f"seed {SEED}: {dict(outcomes)}, lost in {dict(phases)}, ended at most {longest:.2f} s after the restart")
    return outcomes, phases


# --- the tests ----------------------------------------------------------------------------------------------------


@pytest.fixture
def database(templates: Services) -> Iterator[str]:
    yield from clone_small(templates)


@pytest.fixture
async def ground(start_app: StartApp, database: str) -> Ground:
    return await prepare(start_app, database)


async def hurt_side_by_side(
    services: Services, folder: Path, ground: Ground, count: int, blow: Callable[[Patient], Awaitable[None]]
) -> list[Patient]:
    """Have so many runs hit, shared out among servers that each have a database of their own."""
    print(f"KILL_SEED={SEED}")
    plan = draw(count, random.Random(SEED))
    patients: list[Patient] = []

    async def hurt(points: Sequence[tuple[str, float]]) -> None:
        url = ground.clone(services)
        try:
            async with hospital(services, folder, ground, url) as patient:
                patients.append(patient)
                for point, part in points:
                    await patient.suffer(point, part, blow)
        finally:
            services.drop(url)

    async with asyncio.TaskGroup() as group:
        for lane in range(min(LANES, count)):
            group.create_task(hurt(plan[lane::LANES]))
    return patients


@pytest.mark.timeout(120 + 5 * KILLS)
async def test_a_server_that_is_killed_leaves_the_old_catalog_or_the_new_one_and_nobody_waiting(
    templates: Services, ground: Ground, work_dir: Path
) -> None:
    outcomes, phases = report(await hurt_side_by_side(templates, work_dir, ground, KILLS, kill_server))
    assert outcomes.total() == KILLS
    if 2 * len(POINTS) <= KILLS:
        assert set(outcomes) == {"old", "new"}
        assert len(phases) >= 3, "the points were not spread over the run"


async def test_sessions_that_are_cut_leave_the_old_catalog_or_the_new_one(
    templates: Services, ground: Ground, work_dir: Path
) -> None:
    outcomes, _ = report(await hurt_side_by_side(templates, work_dir, ground, len(POINTS) + 1, cut_sessions))
    assert set(outcomes) == {"old", "new"}


@dataclass
class Mortal:
    """A PostgreSQL of one test, below a process of its own: this one has gRPC, which forks do not survive."""

    folder: Path
    process: Process | None = None

    async def start(self) -> str:
        """Start it, again on what it held before, and return its address."""
        script = Path(services_script.__file__)
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, str(script), str(self.folder), stdin=PIPE, stdout=PIPE
        )
        assert self.process.stdout is not None
        url: str = json.loads(await self.process.stdout.readline())["database_url"]
        return url

    async def stop(self) -> None:
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.close()
        await self.process.wait()


async def restart(mortal: Mortal, _patient: Patient) -> None:
    await mortal.stop()
    await mortal.start()


async def kill_backend(_mortal: Mortal, patient: Patient) -> None:
    """PostgreSQL takes the memory that all its processes share for damaged: it ends them all and recovers."""
    pids: list[int] = []

    async def are_there() -> bool:  # after the blow before they may still be on their way
        pids[:] = await fetch(
            patient.url,
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'modelcatalog-write' ORDER BY state, pid",
        )
        return bool(pids)

    await until(are_there)
    with suppress(ProcessLookupError):
        os.kill(pids[0], signal.SIGKILL)


async def test_a_database_that_dies_or_restarts_leaves_the_old_catalog_or_the_new_one(
    templates: Services, start_app: StartApp, work_dir: Path
) -> None:
    print(f"KILL_SEED={SEED}")
    plan = draw(4, random.Random(SEED))
    patients: list[Patient] = []

    async def hurt(name: str, points: Sequence[tuple[str, float]], blow: Callable[..., Awaitable[None]]) -> None:
        mortal = Mortal(work_dir / name)
        url = await mortal.start()
        try:
            await app.migrate_database(make_settings(templates, url))
            ground = await prepare(start_app, url)
            async with hospital(templates, work_dir, ground, url) as patient:
                patients.append(patient)
                for point, part in points:
                    await patient.suffer(point, part, partial(blow, mortal))
        finally:
            await mortal.stop()

    async with asyncio.TaskGroup() as group:
        for number, blow in enumerate((restart, kill_backend)):
            group.create_task(hurt(f"mortal-{number}", plan[number::2], blow))
    report(patients)
