"""How a command that reads asks, and what it says and returns when there is no answer.

Exit codes: 0 the answer; 1 what was asked for is not there, or is ambiguous; 2 bad arguments, no server, no answer in
time or no permission; 130 Ctrl-C.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from modelcatalog_client import (
    AmbiguousModelError,
    CatalogError,
    DeadlineExceededError,
    FailedPreconditionError,
    InvalidFieldMaskError,
    InvalidFilterError,
    InvalidOrderByError,
    ModelCatalogClient,
    ModelNotFoundError,
    NotFoundError,
    PermissionDeniedError,
    ProviderNotFoundError,
    UnauthenticatedError,
    UnavailableError,
)
from modelcatalog_server.commands.server_options import ServerOptions
from modelcatalog_server.commands.terminal import sanitize, say

NOT_THERE = 1
NO_ANSWER = 2
INTERRUPTED = 130

_FIELDS = "`modelcatalog models facets` lists the fields of a model, docs/filtering.md all"

_NEXT_STEPS: dict[type[CatalogError], str] = {
    AmbiguousModelError: "take one of them, or `modelcatalog models resolve` with --prefer PROVIDER",
    ModelNotFoundError: "`modelcatalog models search` finds models by words",
    ProviderNotFoundError: "`modelcatalog providers list` has them all",
    InvalidFilterError: _FIELDS,
    InvalidOrderByError: _FIELDS,
    InvalidFieldMaskError: "--fields takes what a model has in --json, nested fields with dots: id,pricing.input",
    UnauthenticatedError: "set MODELCATALOG_TOKEN, or pass --token",
    PermissionDeniedError: "it takes a token with another role, in MODELCATALOG_TOKEN or --token",
}


@contextmanager
def asking(server: ServerOptions) -> Iterator[ModelCatalogClient]:
    """Yield a client; an error in the block ends the command, having said what to do next."""
    with server.connect() as client:
        try:
            yield client
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)
        except CatalogError as error:
            for line in describe_failure(error, server):
                say(line)
            sys.exit(NOT_THERE if isinstance(error, (NotFoundError, FailedPreconditionError)) else NO_ANSWER)


def describe_failure(error: CatalogError, server: ServerOptions) -> Iterator[str]:
    """Yield why there is no answer, and what to do next."""
    if isinstance(error, UnavailableError) and not error.reason:
        yield no_server(server)
        return
    if isinstance(error, DeadlineExceededError):
        yield f"the server at {server.target} did not answer in time"
        return
    yield sanitize(str(error))
    yield from next_steps(error)


def next_steps(error: CatalogError) -> Iterator[str]:
    """Yield what the caller of a command can do about an error."""
    for kind, step in _NEXT_STEPS.items():
        if isinstance(error, kind):
            yield step


def no_server(server: ServerOptions) -> str:
    """Say that nobody answers, and what to look after."""
    return (
        f"no server answers at {server.target}: is it running (`modelcatalog serve`)? --address or MODELCATALOG_ADDRESS"
        " say where it is, and --tls has to be given where it encrypts"
    )
