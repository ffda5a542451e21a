"""``modelcatalog refresh``: start a run, follow it to its end, say what became of it.

Exit codes: 0 the run succeeded, if only partially; 1 it failed or was cancelled; 2 it could not be started or followed;
130 Ctrl-C, which ends the command and not the run. Progress goes to standard error, results to standard output.
"""

from __future__ import annotations

import json
import shlex
import time
from dataclasses import dataclass, field
from uuid import uuid4

import click
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from modelcatalog.v1.refresh_service_pb2 import GetRefreshResponse, StartRefreshResponse
from modelcatalog_client import (
    DEFAULT_TIMEOUTS,
    AlreadyExistsError,
    CatalogError,
    DeadlineExceededError,
    ModelCatalogClient,
    Refresh,
    UnavailableError,
)
from modelcatalog_server.commands.asking import INTERRUPTED, next_steps, no_server
from modelcatalog_server.commands.interrupting import interrupting
from modelcatalog_server.commands.refresh_progress import open_progress
from modelcatalog_server.commands.refresh_result import advise, describe_request, is_over, print_result
from modelcatalog_server.commands.server_options import ServerOptions
from modelcatalog_server.commands.terminal import sanitize, say

SUCCEEDED = 0
FAILED = 1
NOT_KNOWN = 2

_SUCCESSES = (Refresh.STATE_SUCCEEDED, Refresh.STATE_PARTIALLY_SUCCEEDED)


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshOptions:
    """What the command was asked for. ``timeout_s`` is for start and wait together, in seconds."""

    server: ServerOptions = field(default_factory=ServerOptions)
    full: bool = False
    provider_id: str = ""
    dry_run: bool = False
    force: bool = False
    override_gate: str = ""
    wait: bool = True
    as_json: bool = False
    timeout_s: float | None = None
    request_id: str = field(default_factory=lambda: str(uuid4()))

    @property
    def wanted(self) -> Refresh:
        """The run that was asked for, as far as one asks."""
        return Refresh(
            type=Refresh.TYPE_FULL if self.full else Refresh.TYPE_INCREMENTAL,
            provider_id=self.provider_id,
            validate_only=self.dry_run,
            force=self.force,
            override_gate=self.override_gate,
        )

    def command_for(self, refresh: Refresh, *more: str) -> str:
        """Return the command line that asks for such a run here."""
        flags = {
            "--full": refresh.type == Refresh.TYPE_FULL,
            "--dry-run": refresh.validate_only,
            "--force": refresh.force,
        }
        words = ["modelcatalog", "refresh", *(name for name, given in flags.items() if given)]
        words += self.server.flags
        words += ["--provider", refresh.provider_id] if refresh.provider_id else []
        return shlex.join([*words, *more])


def refresh(options: RefreshOptions) -> int:
    """Do what the command was asked for and return its exit code."""
    deadline = None if options.timeout_s is None else time.monotonic() + options.timeout_s
    with options.server.connect() as client:
        try:
            started = _start(client, options)
        except KeyboardInterrupt:
            say(f"interrupted before the server answered; {_maybe_begun(options)}")
            return INTERRUPTED
        except CatalogError as error:
            for line in (_describe_refusal(error, options), *next_steps(error)):
                say(line)
            return NOT_KNOWN
        _say_started(started, options)
        if not options.wait:
            _print(GetRefreshResponse(refresh=started.refresh), started, options)
            return SUCCEEDED
        return _follow(client, started, options, deadline)


def _start(client: ModelCatalogClient, options: RefreshOptions) -> StartRefreshResponse:
    longest = DEFAULT_TIMEOUTS["StartRefresh"]
    return client.start_refresh(
        type="full" if options.full else "incremental",
        provider_id=options.provider_id,
        request_id=options.request_id,
        force=options.force,
        override_gate=options.override_gate,
        validate_only=options.dry_run,
        timeout=longest if options.timeout_s is None else min(options.timeout_s, longest),
    )


def _follow(
    client: ModelCatalogClient, started: StartRefreshResponse, options: RefreshOptions, deadline: float | None
) -> int:
    """Follow the run to its end and say how it ended."""
    left_s = None if deadline is None else max(deadline - time.monotonic(), 0.001)
    try:
        last = _watch(client, started.refresh, left_s)
        ended = _read_back(client, last)
    except KeyboardInterrupt:
        say(f"interrupted; {_how_to_go_on(started, options)}")
        return INTERRUPTED
    except DeadlineExceededError:
        say(f"not over after {options.timeout_s:g} s; {_how_to_go_on(started, options)}")
        return NOT_KNOWN
    except CatalogError as error:
        say(f"lost sight of the run: {sanitize(str(error))}; {_how_to_go_on(started, options)}")
        return NOT_KNOWN
    if not is_over(ended.refresh):
        say(f"the server ended the watch before the run; {_how_to_go_on(started, options)}")
        return NOT_KNOWN
    _print(ended, started, options)
    if ended.refresh.state in _SUCCESSES:
        return SUCCEEDED
    for line in advise(ended.refresh, options.command_for):
        say(line)
    return FAILED


def _watch(client: ModelCatalogClient, refresh: Refresh, timeout_s: float | None) -> Refresh:
    """Show what happens until the run is over, and return it as last seen."""
    with (
        open_progress() as progress,
        client.watch_refresh_status(refresh.id, timeout=timeout_s) as watch,
        interrupting(watch.close),
    ):
        for status in watch:
            if status.HasField("refresh"):
                refresh = status.refresh
            progress.show(status)
    return refresh


def _read_back(client: ModelCatalogClient, last: Refresh) -> GetRefreshResponse:
    """Return the run with its report. How it ended is known already, so a server that is gone by now is no failure."""
    try:
        return client.get_refresh(last.id)
    except CatalogError as error:
        say(f"cannot read the report: {sanitize(str(error))}")
        return GetRefreshResponse(refresh=last)


def _print(ended: GetRefreshResponse, started: StartRefreshResponse, options: RefreshOptions) -> None:
    if options.as_json:
        document = {
            "refresh": _to_json(ended.refresh),
            "report": _to_json(ended.report) if ended.HasField("report") else None,
            "already_running": started.already_running,
        }
        click.echo(json.dumps(document, indent=2))
    elif options.wait:
        print_result(ended)
    else:
        click.echo(ended.refresh.id)


def _to_json(message: Message) -> object:
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def _say_started(started: StartRefreshResponse, options: RefreshOptions) -> None:
    refresh = started.refresh
    if not started.already_running:
        say(f"refresh {refresh.id}: {describe_request(refresh)}")
    else:
        say(f"refresh {refresh.id} was under way already and is joined: {describe_request(refresh)}")
        if describe_request(refresh) != describe_request(options.wanted):
            say(f"that is not what was asked for: {describe_request(options.wanted)}")
    if not options.wait:
        say(_how_to_go_on(started, options))


def _how_to_go_on(started: StartRefreshResponse, options: RefreshOptions) -> str:
    """Say that the run goes on, how to watch it and how to end it."""
    request = shlex.quote(json.dumps({"refresh_id": started.refresh.id}))
    cancel = f"grpcurl -plaintext -d {request} {options.server.target} modelcatalog.v1.RefreshService/CancelRefresh"
    return f"the run goes on\n  watch it:  {_command_again(options)}\n  cancel it: {cancel}"


def _command_again(options: RefreshOptions) -> str:
    """Return the command that gives the same run, started or joined, whether it is over or not."""
    gate = ["--override-gate", options.override_gate] if options.override_gate else []
    return options.command_for(options.wanted, *gate, "--request-id", options.request_id)


def _maybe_begun(options: RefreshOptions) -> str:
    return f"the run may have begun, then this gives it back, else a new one: {_command_again(options)}"


def _describe_refusal(error: CatalogError, options: RefreshOptions) -> str:
    """Say why there is no run."""
    if isinstance(error, UnavailableError) and not error.reason:
        return no_server(options.server)
    if isinstance(error, DeadlineExceededError):
        return f"the server at {options.server.target} did not answer in time; {_maybe_begun(options)}"
    if isinstance(error, AlreadyExistsError):
        return f"{sanitize(str(error))}; leave out --request-id for a new run"
    return sanitize(str(error))
