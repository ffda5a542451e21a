"""``modelcatalog refresh`` as a user runs it: on a real server, and on one that ends its runs as a test scripts it."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import select
import shlex
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from aiohttp import web
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2

from acceptance.serving import COMMAND, END_TIMEOUT_S, Serve, Server, command, environment
from conftest import SNAPSHOT, Services, read_json
from contract.client_peer import Peer, answer, fail, hang, serving
from modelcatalog.v1.refresh_pb2 import PriceChange, QuarantinedRecord, RefreshAttempt, RefreshReport
from modelcatalog.v1.refresh_service_pb2 import GetRefreshResponse, StartRefreshResponse
from modelcatalog_client import Refresh, RefreshCounts, RefreshStatus
from modelcatalog_client.errors import CLASS_BY_REASON
from small_catalog import SmallCatalog, clone_small
from upstream_server import UpstreamServer

pytest_plugins = "acceptance.fixtures"

Result = subprocess.CompletedProcess[str]


def refresh(address: str, *arguments: str, **variables: str) -> Result:
    return command("refresh", "--address", address, *arguments, **variables)


async def ask(peer: Peer, *arguments: str) -> Result:
    """Run the command against a server of this event loop."""
    return await asyncio.to_thread(refresh, peer.target, *arguments)


def begin(*arguments: str, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(**variables)
    )


# --- a real server --------------------------------------------------------------------------------------------


@dataclass
class Upstream:
    """The small catalog in a folder, that a test changes as upstream would."""

    folder: Path
    document: Any

    def publish(self) -> None:
        (self.folder / "catalog.json").write_text(json.dumps(self.document))

    def model(self, model_id: str) -> Any:
        provider_id, _, upstream_id = model_id.partition("/")
        return self.document["providers"][provider_id]["models"][upstream_id]


#: No run but those of the tests.
UNSCHEDULED = ("--refresh-full-cron", "off", "--refresh-incremental-cron", "off")
#: Of a catalog of 87 models some are a large part.
_FEW = {"min-models": 1, "min-providers": 1, "max-removed-percent": 100, "max-quarantined-percent": 100}
SMALL = (*UNSCHEDULED, *(word for name, value in _FEW.items() for word in (f"--gate-{name}", str(value))))


@pytest.fixture(scope="module")
def folder(work_dir: Path) -> Path:
    folder = work_dir / f"upstream-{uuid4().hex}"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def steady_database(templates: Services) -> Iterator[str]:
    yield from clone_small(templates)


@pytest.fixture
def small_database(templates: Services) -> Iterator[str]:
    yield from clone_small(templates)


@pytest.fixture
def upstream(folder: Path) -> Upstream:
    """Upstream as the server's catalog was made from it, published."""
    upstream = Upstream(folder, SmallCatalog().document)
    upstream.publish()
    return upstream


@pytest.fixture(scope="module")
def server(templates: Services, steady_database: str, serve_for_module: Serve, folder: Path) -> Iterator[Server]:
    """A server with a catalog that no test changes."""
    own = {"MODELCATALOG_DATABASE_URL": steady_database, "MODELCATALOG_REDIS_URL": templates.redis_url}
    server = serve_for_module("--listen", "127.0.0.1:0", "--upstream-url", folder.as_uri(), *SMALL, **own)
    yield server
    assert server.stop() == 0


async def test_a_run_is_followed_to_its_end_and_its_difference_shown(
    templates: Services, serve: Serve, small_database: str
) -> None:
    catalog = SmallCatalog()
    catalog.model("openai/gpt-5")["cost"]["input"] = 2.5
    catalog.add("openai/gpt-next", **catalog.model("openai/gpt-5") | {"id": "gpt-next"})
    catalog.model("anthropic/claude-3-haiku-20240307")["name"] = 7
    is_watched = asyncio.Event()

    async def answer_late(_request: web.Request) -> web.StreamResponse:
        await is_watched.wait()  # or the run may be further when it begins to be watched
        return web.Response(body=catalog.body, content_type="application/json")

    async with UpstreamServer() as upstream:
        upstream.misbehave("/catalog.json", answer_late)
        own = {"MODELCATALOG_DATABASE_URL": small_database, "MODELCATALOG_REDIS_URL": templates.redis_url}
        flags = ("--listen", "127.0.0.1:0", "--upstream-url", upstream.url, *SMALL)
        server = await asyncio.to_thread(serve, *flags, **own)
        result = await asyncio.to_thread(refresh, "127.0.0.1:1", MODELCATALOG_LISTEN=server.address)
        assert result.returncode == 2, "the flag wins over the environment"

        process = begin("refresh", MODELCATALOG_LISTEN=server.address)
        assert process.stderr is not None
        told: list[str] = []
        while not any("FETCH" in line for line in told):
            told.append(await asyncio.to_thread(process.stderr.readline))
            assert told[-1], told
        is_watched.set()
        stdout, rest_of_stderr = await asyncio.to_thread(process.communicate, timeout=END_TIMEOUT_S)
        stderr = "".join(told) + rest_of_stderr
        assert process.returncode == 0, stderr
        check_difference(stdout, stderr)

        result = await asyncio.to_thread(refresh, server.address, "--json")
        assert json.loads(result.stdout)["refresh"]["state"] in {"STATE_SUCCEEDED", "STATE_PARTIALLY_SUCCEEDED"}


def check_difference(stdout: str, stderr: str) -> None:
    outcome, counts, *rest = stdout.splitlines()
    assert ": PARTIALLY_SUCCEEDED, revision 1 → 2, " in outcome
    assert counts == "88 models: 1 added, 1 changed, 0 removed, 0 revived, 85 unchanged, 1 quarantined"
    rows = [line.split() for line in rest]
    assert ["openai/gpt-next"] in rows
    assert ["openai/gpt-5", "input", "1.25", "2.5", "+100.0", "%"] in rows
    assert "/providers/anthropic/models/claude-3-haiku-20240307" in stdout
    for phase in ("FETCH", "VALIDATE", "COMPARE", "APPLY"):
        assert f"modelcatalog: {phase}" in stderr
    assert "\x1b" not in stdout + stderr


def test_json_is_all_there_is_on_stdout(server: Server, upstream: Upstream) -> None:
    result = refresh(server.address, "--full", "--provider", "openai", "--dry-run", "--json")
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert document.keys() == {"refresh", "report", "already_running"}
    assert document["already_running"] is False
    run_ = document["refresh"]
    assert run_["type"] == "TYPE_FULL"
    assert run_["provider_id"] == "openai"
    assert run_["validate_only"] is True
    assert run_["state"] == "STATE_SUCCEEDED"
    assert run_["counts"]["added"] == 0, "a zero is there too"
    assert result.stderr.startswith(f"modelcatalog: refresh {run_['id']}: full, provider openai alone, dry run\n")


def test_a_dry_run_says_that_nothing_was_written(server: Server, upstream: Upstream) -> None:
    del upstream.document["providers"]["openai"]["models"]["gpt-5"]
    upstream.publish()
    result = refresh(server.address, "--dry-run")
    assert result.returncode == 0, result.stderr
    outcome, counts, *_ = result.stdout.splitlines()
    assert "SUCCEEDED, dry run: nothing written, " in outcome
    assert " 1 removed, " in counts
    assert server.client().get_model("openai/gpt-5").model.id


def test_a_run_that_is_not_waited_for_can_be_watched_later(server: Server, upstream: Upstream) -> None:
    request_id = str(uuid4())
    started = refresh(server.address, "--dry-run", "--no-wait", "--request-id", request_id)
    assert started.returncode == 0, started.stderr
    refresh_id = started.stdout.strip()
    watch = next(line.partition("watch it:")[2] for line in started.stderr.splitlines() if "watch it:" in line)
    words = shlex.split(watch)
    assert words[:2] == ["modelcatalog", "refresh"]
    assert words[-2:] == ["--request-id", request_id]
    watched = command(*words[1:], "--json")
    assert watched.returncode == 0, watched.stderr
    assert json.loads(watched.stdout)["refresh"]["id"] == refresh_id

    other = refresh(server.address, "--full", "--request-id", request_id)
    assert other.returncode == 2
    assert "REQUEST_ID_REUSED" in other.stderr
    assert "leave out --request-id" in other.stderr


def test_a_failed_run_says_why_and_what_to_do_next(server: Server, upstream: Upstream) -> None:
    (upstream.folder / "catalog.json").write_text("<html>Please log in</html>")
    result = refresh(server.address, "--dry-run")
    assert result.returncode == 1
    assert ": FAILED, " in result.stdout
    assert "[UPSTREAM_INVALID]" in result.stderr
    assert f"then: modelcatalog refresh --dry-run --address {server.address}\n" in result.stderr


def test_what_a_gate_refused_is_accepted_by_the_command_that_is_shown(server: Server, upstream: Upstream) -> None:
    upstream.document["providers"]["openai"]["models"] = {}
    upstream.publish()
    result = refresh(server.address, "--dry-run")
    assert result.returncode == 1, result.stdout
    assert "[GATE_REFUSED]" in result.stderr
    assert "gate removed_models_of_provider: " in result.stderr
    advice = result.stderr.splitlines()[-1].partition("If upstream is right: ")[2]
    accepted = command(*shlex.split(advice)[1:])
    assert accepted.returncode == 0, accepted.stderr
    assert "dry run: nothing written" in accepted.stdout
    assert "removed (" in accepted.stdout


def test_on_a_terminal_there_is_a_bar(server: Server, folder: Path) -> None:
    Upstream(folder, read_json(SNAPSHOT)).publish()  # a small one is read before there is anything to show
    with on_terminal("refresh", "--address", server.address, "--dry-run") as (process, terminal):
        shown = read_terminal(terminal)
        stdout, _ = process.communicate(timeout=END_TIMEOUT_S)
        assert process.returncode == 0, shown
    assert "VALIDATE" in shown or "COMPARE" in shown, "which it may have come to before it is watched"
    assert "\x1b[" in shown
    assert "\x1b" not in stdout
    assert "SUCCEEDED" in stdout


def test_a_provider_that_is_not_there_is_a_bad_argument(server: Server) -> None:
    result = refresh(server.address, "--provider", "opnai")
    assert (result.returncode, result.stdout) == (2, "")
    assert "PROVIDER_NOT_FOUND" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [["--address", "nonsense"], ["--timeout", "0"], ["--timeout", "nan"], ["--request-id", "7"], ["--nonsense"]],
    ids=" ".join,
)
def test_bad_arguments(arguments: list[str]) -> None:
    result = command("refresh", *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("Usage: ")


def test_nobody_there_is_one_line_about_what_to_do() -> None:
    result = refresh("127.0.0.1:1")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        "modelcatalog: no server answers at 127.0.0.1:1: is it running (`modelcatalog serve`)?"
        " --address or MODELCATALOG_ADDRESS say where it is, and --tls has to be given where it encrypts\n"
    )


# --- a server that ends its runs as a test scripts it ---------------------------------------------------------


ID = "0f3c6e1e-5a0b-4c7e-9a3f-0c1d2e3f4a5b"


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    async with serving(Peer()) as serving_peer:
        yield serving_peer


def failed(reason: str, message: str, **metadata: str) -> status_pb2.Status:
    info = AnyMessage()
    info.Pack(error_details_pb2.ErrorInfo(reason=reason, domain="modelcatalog", metadata=metadata))
    return status_pb2.Status(code=CLASS_BY_REASON[reason].code.value[0], message=message, details=[info])


def event(kind: str, sequence: int, run: Refresh, phase: str = "UNSPECIFIED", **more: Any) -> RefreshStatus:
    return RefreshStatus(
        kind=RefreshStatus.Kind.Value(f"KIND_{kind}"),
        phase=RefreshStatus.Phase.Value(f"PHASE_{phase}"),
        refresh_id=run.id,
        sequence=sequence,
        refresh=run,
        **more,
    )


def script(peer: Peer, ended: Refresh, report: RefreshReport | None = None, *, joined: bool = False) -> None:
    """Have a run start, be watched and end like this."""
    ended.id = ID
    begun = Refresh(id=ID, state=Refresh.STATE_PENDING, type=ended.type or Refresh.TYPE_INCREMENTAL)
    begun.provider_id, begun.validate_only = ended.provider_id, ended.validate_only
    begun.force, begun.override_gate = ended.force, ended.override_gate
    peer.script["StartRefresh"].append(answer(StartRefreshResponse(refresh=begun, already_running=joined)))
    peer.streams.append([event("SNAPSHOT", 1, begun), event("TERMINAL", 2, ended)])
    peer.script["GetRefresh"].append(answer(GetRefreshResponse(refresh=ended, report=report)))


async def test_the_difference_is_shown_as_tables_and_cut(peer: Peer) -> None:
    ended = Refresh(
        state=Refresh.STATE_PARTIALLY_SUCCEEDED,
        counts=RefreshCounts(seen=5000, added=1500, removed=1, revived=1, changed=4, quarantined=1, unchanged=3494),
        base_revision=7,
        result_revision=8,
        warnings=["quarantined /providers/x: bad \x1b[31m", "something else"],
        attempts=[RefreshAttempt(number=1), RefreshAttempt(number=2)],
    )
    ended.duration.FromMilliseconds(61_500)
    report = RefreshReport(
        added_model_ids=[f"lab/new-{number:04}" for number in range(1000)],
        removed_model_ids=["lab/old"],
        revived_model_ids=["lab/back"],
        price_changes=[
            PriceChange(model_id="lab/a", field="input", before="1.25", after="2.5"),
            PriceChange(model_id="lab/b", field="output", before="10", after="0"),
            PriceChange(model_id="lab/c", field="input", after="3"),
            PriceChange(model_id="lab/d", field="input", before="0"),
        ],
        quarantined_records=[QuarantinedRecord(pointer="/providers/x", reason="bad \x1b[31m")],
        truncated=True,
    )
    script(peer, ended, report)
    result = await ask(peer)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[0] == (
        f"refresh {ID}: PARTIALLY_SUCCEEDED, revision 7 → 8, 1 min 1 s, 2 attempts"
    )
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["added", "(1,500)"] in rows
    assert ["lab/new-0019"] in rows
    assert ["lab/new-0020"] not in rows
    assert ["…", "and", "1,480", "more"] in rows
    assert ["lab/old"] in rows
    assert ["lab/back"] in rows
    assert ["lab/a", "input", "1.25", "2.5", "+100.0", "%"] in rows
    assert ["lab/b", "output", "10", "0", "-100.0", "%"] in rows
    assert ["lab/c", "input", "unknown", "3"] in rows
    assert ["lab/d", "input", "0", "unknown"] in rows
    assert ["/providers/x", "bad", "\\x1b[31m"] in rows
    assert ["something", "else"] in rows
    assert result.stdout.count("/providers/x") == 1, "the table says it already"

    script(peer, ended, report)
    document = json.loads((await ask(peer, "--json")).stdout)
    assert len(document["report"]["added_model_ids"]) == 1000
    assert "before" not in document["report"]["price_changes"][2], "unknown is not zero"


async def test_a_run_without_a_report_says_so(peer: Peer) -> None:
    script(peer, Refresh(state=Refresh.STATE_SUCCEEDED, counts=RefreshCounts(seen=3, added=1, unchanged=2)))
    result = await ask(peer)
    assert result.returncode == 0
    assert "the server has no report of this run" in result.stdout


async def test_a_refused_payload_can_be_accepted_with_the_command_that_is_shown(peer: Peer) -> None:
    figures = {"gate": "removed_models", "removed": "2100", "limit_percent": "3", "examples": "a/b,a/c"}
    refused = Refresh(
        state=Refresh.STATE_FAILED,
        type=Refresh.TYPE_FULL,
        provider_id="openai",
        error=failed("GATE_REFUSED", "removed_models: 2100 of 5276 models are gone", **figures),
    )
    script(peer, refused)
    result = await ask(peer, "--full", "--provider", "openai")
    assert result.returncode == 1
    assert "removed_models: 2100 of 5276 models are gone [GATE_REFUSED]" in result.stderr
    assert "gate removed_models: limit_percent 3, removed 2100" in result.stderr
    assert "for example: a/b, a/c" in result.stderr
    advice = f"modelcatalog refresh --full --address {peer.target} --provider openai --override-gate removed_models"
    assert result.stderr.endswith(f"If upstream is right: {advice}\n")

    script(peer, Refresh(state=Refresh.STATE_SUCCEEDED, type=Refresh.TYPE_FULL, provider_id="openai"))
    assert (await asyncio.to_thread(command, *shlex.split(advice)[1:])).returncode == 0
    request = [call.request for call in peer.calls if call.rpc == "StartRefresh"][-1]
    assert request.override_gate == "removed_models"
    assert request.provider_id == "openai"


async def test_what_several_gates_refuse_is_accepted_by_naming_them_all(peer: Peer) -> None:
    """Those that this run accepted already are named again."""
    refused = Refresh(
        state=Refresh.STATE_FAILED,
        override_gate="price_unit",
        error=failed("GATE_REFUSED", "no", gate="removed_models", gates="removed_models,removed_models_of_provider"),
    )
    script(peer, refused)
    result = await ask(peer, "--override-gate", "price_unit")
    assert result.returncode == 1
    gates = "price_unit,removed_models,removed_models_of_provider"
    assert result.stderr.endswith(f"modelcatalog refresh --address {peer.target} --override-gate {gates}\n")


@pytest.mark.parametrize(
    ("state", "reason", "advice"),
    [
        ("FAILED", "UPSTREAM_UNAVAILABLE", "can reach MODELCATALOG_UPSTREAM_URL, then: modelcatalog refresh --force"),
        ("FAILED", "OWNER_LOST", "another one can run it at once: modelcatalog refresh --force"),
        ("FAILED", "INTERNAL", f"the server's log says more about refresh {ID}"),
        ("CANCELLED", "REFRESH_CANCELLED", "to start it again: modelcatalog refresh --force"),
    ],
)
async def test_what_ends_badly_is_exit_code_1(peer: Peer, state: str, reason: str, advice: str) -> None:
    ended = Refresh(state=Refresh.State.Value(f"STATE_{state}"), force=True, error=failed(reason, "it went wrong"))
    script(peer, ended)
    result = await ask(peer, "--force")
    assert result.returncode == 1
    assert f": {state}, " in result.stdout
    assert f"it went wrong [{reason}]" in result.stderr
    assert advice in result.stderr


async def test_a_run_that_is_joined_is_said_plainly(peer: Peer) -> None:
    script(peer, Refresh(state=Refresh.STATE_SUCCEEDED), joined=True)
    result = await ask(peer)
    assert f"refresh {ID} was under way already and is joined: incremental, all providers" in result.stderr
    assert "not what was asked for" not in result.stderr

    script(peer, Refresh(state=Refresh.STATE_SUCCEEDED), joined=True)
    result = await ask(peer, "--full", "--provider", "openai", "--dry-run", "--json")
    assert "that is not what was asked for: full, provider openai alone, dry run" in result.stderr
    assert json.loads(result.stdout)["already_running"] is True


async def test_failed_attempts_are_told_while_it_runs(peer: Peer) -> None:
    first = RefreshAttempt(number=1, error=failed("UPSTREAM_UNAVAILABLE", "upstream answered 503"))
    first.retry_delay.FromSeconds(4)
    running = Refresh(id=ID, state=Refresh.STATE_RUNNING, attempts=[first])
    ended = Refresh(state=Refresh.STATE_SUCCEEDED, attempts=[first, RefreshAttempt(number=2)])
    script(peer, ended)
    peer.streams[-1][1:1] = [event("STATE", number, running, "FETCH") for number in (2, 3)]
    peer.streams[-1][-1] = event("TERMINAL", 4, ended)
    result = await ask(peer)
    assert result.stderr.count("attempt 1 failed: upstream answered 503; the next in 4.0 s") == 1


async def test_on_a_terminal_the_bar_shows_bytes_and_models(peer: Peer) -> None:
    running = Refresh(id=ID, state=Refresh.STATE_RUNNING)
    ended = Refresh(state=Refresh.STATE_SUCCEEDED)
    script(peer, ended)
    peer.streams[-1][1:] = [
        event("PROGRESS", 2, running, "FETCH", done=1_200_000, total=3_400_000),
        event("PROGRESS", 3, running, "APPLY", done=120, total=340),
        event("TERMINAL", 4, ended, "PUBLISH"),
    ]
    with on_terminal("refresh", "--address", peer.target) as (process, terminal):
        shown = await asyncio.to_thread(read_terminal, terminal)
        stdout, _ = await asyncio.to_thread(process.communicate, timeout=END_TIMEOUT_S)
        assert process.returncode == 0, shown
    assert "1.2 MB of 3.4 MB" in shown
    assert "120 of 340 models" in shown
    assert stdout.startswith(f"refresh {ID}: SUCCEEDED")


async def test_ctrl_c_ends_the_command_and_not_the_run(peer: Peer) -> None:
    started = StartRefreshResponse(refresh=Refresh(id=ID, state=Refresh.STATE_PENDING, type=Refresh.TYPE_FULL))
    peer.script["StartRefresh"].append(answer(started))
    peer.streams.append([event("SNAPSHOT", 1, started.refresh), hang])
    process = begin("refresh", "--address", peer.target, "--full")
    await peer.until(lambda: peer.open_streams == 1)
    assert process.stderr is not None
    assert (await asyncio.to_thread(process.stderr.readline)).startswith(f"modelcatalog: refresh {ID}")
    assert "waiting" in await asyncio.to_thread(process.stderr.readline)  # from here on it watches
    process.send_signal(signal.SIGINT)
    stdout, stderr = await asyncio.to_thread(process.communicate, timeout=END_TIMEOUT_S)
    assert (process.returncode, stdout) == (130, "")
    (request_id,) = {call.request.request_id for call in peer.calls if call.rpc == "StartRefresh"}
    assert "interrupted; the run goes on" in stderr
    assert f"modelcatalog refresh --full --address {peer.target} --request-id {request_id}\n" in stderr
    assert "modelcatalog.v1.RefreshService/CancelRefresh" in stderr
    assert "Traceback" not in stderr
    assert "CancelRefresh" not in {call.rpc for call in peer.calls}


async def test_a_wait_that_takes_too_long_says_that_the_run_goes_on(peer: Peer) -> None:
    started = StartRefreshResponse(refresh=Refresh(id=ID, state=Refresh.STATE_PENDING), already_running=True)
    peer.script["StartRefresh"].append(answer(started))
    result = await ask(peer, "--timeout", "2")
    assert (result.returncode, result.stdout) == (2, "")
    assert "not over after 2 s; the run goes on" in result.stderr
    assert "RefreshService/CancelRefresh" in result.stderr


async def test_a_server_that_cannot_answer_now_is_exit_code_2_with_its_reason(peer: Peer) -> None:
    peer.script["StartRefresh"].extend([fail("DATABASE_UNAVAILABLE")] * 4)
    result = await ask(peer)
    assert (result.returncode, result.stdout) == (2, "")
    assert "DATABASE_UNAVAILABLE" in result.stderr
    assert len({call.request.request_id for call in peer.calls}) == 1, "a retry must not start a second run"


async def test_a_report_that_cannot_be_read_hides_no_outcome(peer: Peer) -> None:
    script(peer, Refresh(state=Refresh.STATE_SUCCEEDED))
    peer.script["GetRefresh"] = type(peer.script["GetRefresh"])([fail("INTERNAL")])
    result = await ask(peer)
    assert result.returncode == 0
    assert "cannot read the report" in result.stderr
    assert "SUCCEEDED" in result.stdout


# --- terminals ------------------------------------------------------------------------------------------------


@contextmanager
def on_terminal(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Start the command with a terminal for standard error; yield it and the terminal's other side."""
    terminal, side = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        stdout=subprocess.PIPE,
        stderr=side,
        text=True,
        env=environment(TERM="xterm", COLUMNS="120"),
    )
    os.close(side)
    try:
        yield process, terminal
    finally:
        process.kill()
        process.wait()
        os.close(terminal)


def read_terminal(terminal: int) -> str:
    """Return all that is written to it, until nobody has it open any more."""
    shown = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if not select.select([terminal], [], [], 1)[0]:
            continue
        try:
            chunk = os.read(terminal, 65536)
        except OSError:  # how Linux says that the other side is closed
            break
        if not chunk:
            break
        shown += chunk
    return shown.decode()
