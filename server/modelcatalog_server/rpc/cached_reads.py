"""Reads that the response cache answers: from the bytes of the request to those of the response, without a message.

The methods are registered without codecs, so that grpc passes bytes. A hit is the few lines of ``answer``: no parsing,
no message, no task, no time-out, no I/O. Everything else goes the long way round.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from typing import Any, cast

import grpc
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions

from modelcatalog.v1 import model_catalog_service_pb2
from modelcatalog_server.catalog.snapshots import AtLeast
from modelcatalog_server.domain.identity import Principal
from modelcatalog_server.domain.ports.caching import EncodedResponse, RequestKey, ResponseCache
from modelcatalog_server.domain.ports.catalog import CatalogState
from modelcatalog_server.rpc.admission import AUTHORIZATION, Admitted, Gate
from modelcatalog_server.rpc.call_log import CallLog
from modelcatalog_server.rpc.call_measures import MeasuredMethod
from modelcatalog_server.rpc.compression import ACCEPT_ENCODING, compress, names_gzip
from modelcatalog_server.rpc.context import REQUEST_ID, Context, MethodHandler, new_request_id
from modelcatalog_server.rpc.reading import MIN_REVISION, SharedRead, announce, at_least, newest_asked, state_trailers
from modelcatalog_server.rpc.requests import parse_request

_SERVICE = model_catalog_service_pb2.DESCRIPTOR.services_by_name["ModelCatalog"]
# Says how old the catalog is, which changes by itself.
_UNCACHED = {"GetCatalogInfo"}

#: How long a response may be given out: the revision it belongs to, a day at most.
MAX_AGE_S = 24 * 3600.0
#: One that may hold a page token: the token is good for 24 hours from when it was sealed.
MAX_PAGE_AGE_S = 3600.0

Fetch = Callable[[bytes], Coroutine[Any, Any, EncodedResponse]]
Guard = Callable[[Callable[[Any, Context], Awaitable[Any]]], Callable[[Any, Context, Admitted], Awaitable[Any]]]


def _max_ages() -> dict[str, float]:
    """Return the methods that are cached, and how long."""
    return {
        f"/{_SERVICE.full_name}/{method.name}": (
            MAX_PAGE_AGE_S if "next_page_token" in method.output_type.fields_by_name else MAX_AGE_S
        )
        for method in _SERVICE.methods
        if method.GetOptions().idempotency_level == MethodOptions.NO_SIDE_EFFECTS and method.name not in _UNCACHED
    }


def contract_digest() -> str:
    """Return what changes when the messages of the cached methods do: another release may encode them differently."""
    digest = hashlib.sha256()
    for file in _files_of(model_catalog_service_pb2.DESCRIPTOR, set()):
        digest.update(file)
    return digest.hexdigest()[:16]


def _files_of(file: FileDescriptor, seen: set[str]) -> Iterator[bytes]:
    """Yield the definitions of a file and of all that it imports."""
    if file.name not in seen:
        seen.add(file.name)
        yield file.serialized_pb
        for imported in file.dependencies:
            yield from _files_of(imported, seen)


class CachedReads:
    """Puts the response cache around the handlers of reads.

    Args:
        cache: Where responses are kept.
        catch_up: Waits until the process is at a revision.
    """

    def __init__(self, cache: ResponseCache, catch_up: Callable[[AtLeast], Awaitable[None]]) -> None:
        self._cache = cache
        self._catch_up = catch_up
        self._max_ages = _max_ages()
        self._fetching: dict[str, Fetch] = {}
        self._trailers_of: tuple[CatalogState | None, tuple[tuple[str, str], ...]] = (None, ())

    def covers(self, method: str) -> bool:
        """Whether responses of this method are cached."""
        return method in self._max_ages

    def wrap(
        self, method: str, handler: MethodHandler, guard: Guard, gate: Gate, log: CallLog, measured: MeasuredMethod
    ) -> MethodHandler:
        """Return a handler of bytes.

        ``guard`` puts around the long way what is around every call, its log too, and takes over what ``gate`` said.
        Who is not admitted goes the long way, which refuses: what is at hand is not theirs to have.
        """
        cache, max_age_s = self._cache, self._max_ages[method]
        fetch = self._fetching[method] = _fetching(method, handler)

        async def read(request: bytes, context: Context) -> bytes:
            await self._catch_up(at_least(context))
            response = await cache.read((method, request), fetch, ttl_s=max_age_s)
            announce(context, response.state)
            return response.body

        go_the_long_way = guard(read)

        async def answer(request: bytes, context: Context) -> bytes:
            begun = time.perf_counter()
            authorization = None
            asked_revisions: tuple[str | bytes, ...] = ()
            with_gzip = False
            metadata: Any = context.invocation_metadata() or ()
            for key, value in reversed(metadata):  # the first authorization counts, as it does on the long way
                if key == MIN_REVISION:
                    asked_revisions = (*asked_revisions, value)
                elif key == ACCEPT_ENCODING:
                    with_gzip = with_gzip or names_gzip(value)
                elif key == AUTHORIZATION:
                    authorization = value
            admitted = gate.admit(context, authorization)
            if (
                not isinstance(admitted, Principal)
                or (held := cache.peek((method, request))) is None
                or (asked_revisions and not _has_seen(asked_revisions, held.state))
            ):
                body = cast("bytes", await go_the_long_way(request, context, admitted))
            else:
                body = held.body
                request_id = new_request_id()
                context.set_trailing_metadata(((REQUEST_ID, request_id), *self._trailers(held.state)))
                measured.note_hit(begun)
                log.note_success(method, request_id, begun, admitted.name, context, request, held.state.revision)
            if with_gzip:
                await compress(context, body)
            return body

        return grpc.unary_unary_rpc_method_handler(answer)

    async def rebuild(self, key: RequestKey) -> None:
        """Have a response at hand before somebody asks for it."""
        method, _ = key
        if method in self._fetching:
            await self._cache.rebuild(key, self._fetching[method], ttl_s=self._max_ages[method])

    def _trailers(self, state: CatalogState) -> tuple[tuple[str, str], ...]:
        known, trailers = self._trailers_of
        if state is not known:
            trailers = state_trailers(state)
            self._trailers_of = (state, trailers)
        return trailers


def _fetching(method: str, handler: MethodHandler) -> Fetch:
    """Return what makes the response of a request by the handler itself."""

    async def fetch(request: bytes) -> EncodedResponse:
        message = parse_request(method, handler.request_deserializer, request)
        shared = SharedRead()
        response = await handler.unary_unary(message, cast("Context", shared))
        assert shared.state is not None, "every read announces what it read"  # noqa: S101 - a broken invariant
        return EncodedResponse(body=handler.response_serializer(response), state=shared.state)

    return fetch


def _has_seen(asked: Sequence[str | bytes], state: CatalogState) -> bool:
    """Whether a state is of the revision that a caller must see. No, where it is none: the long way refuses that."""
    revision = newest_asked(asked)
    return revision is not None and revision <= state.revision
