"""``RefreshService``: start runs, ask about them, follow them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from uuid import UUID

from google.protobuf.duration_pb2 import Duration

from modelcatalog.v1 import refresh_pb2
from modelcatalog.v1 import refresh_service_pb2 as pb
from modelcatalog.v1 import refresh_service_pb2_grpc as pb_grpc
from modelcatalog_server.catalog.arguments import to_page_size
from modelcatalog_server.catalog.fields import REFRESH_FIELDS
from modelcatalog_server.catalog.filtering import parse_filter
from modelcatalog_server.catalog.reader import CatalogReader
from modelcatalog_server.domain.errors import InvalidQueryError, SlowConsumerError
from modelcatalog_server.domain.refresh import Refresh, RefreshReport, RefreshRequest, Trigger
from modelcatalog_server.refresh.feed import RefreshFeed
from modelcatalog_server.refresh.gates import Gate, split_gates
from modelcatalog_server.refresh.service import RefreshService
from modelcatalog_server.rpc.admission import caller
from modelcatalog_server.rpc.context import Context
from modelcatalog_server.rpc.model_messages import to_timestamp
from modelcatalog_server.rpc.paging import not_ours, seal_position, unseal_position
from modelcatalog_server.rpc.reading import announce
from modelcatalog_server.rpc.refresh_messages import (
    to_duration,
    to_refresh,
    to_refresh_status,
    to_refresh_type,
    to_report,
)
from modelcatalog_server.tokens import TokenSealer

HEARTBEAT_S = 15.0
MIN_HEARTBEAT_S = 5.0
MAX_HEARTBEAT_S = 60.0
#: A reader whose buffers have been full for so long is taken for gone.
WRITE_TIMEOUT_S = 30.0


class RefreshServicer(pb_grpc.RefreshServiceServicer):
    """Keeping the catalog fresh."""

    def __init__(
        self,
        refreshes: RefreshService,
        feed: RefreshFeed,
        reader: CatalogReader,
        page_tokens: TokenSealer,
        now: Callable[[], datetime],
        get_report: Callable[[UUID], Awaitable[RefreshReport | None]],
    ) -> None:
        self._refreshes = refreshes
        self._feed = feed
        self._reader = reader
        self._page_tokens = page_tokens
        self._now = now
        self._get_report = get_report

    async def StartRefresh(self, request: pb.StartRefreshRequest, context: Context) -> pb.StartRefreshResponse:
        """Start a run in the background, or join the one under way."""
        gates = split_gates(request.override_gate)
        if not set(Gate).issuperset(gates):
            raise InvalidQueryError("override_gate", f"names none of the gates: {', '.join(Gate)}")
        if request.provider_id:
            await self._reader.get_provider(request.provider_id)
        refresh, already_running = await self._refreshes.start(
            RefreshRequest(
                type=to_refresh_type(request.type),
                trigger=Trigger.MANUAL,
                requested_by=caller(),
                provider_id=request.provider_id or None,
                request_id=UUID(request.request_id) if request.request_id else None,
                force=request.force,
                validate_only=request.validate_only,
                override_gate=",".join(gates) or None,
            )
        )
        return pb.StartRefreshResponse(
            refresh=self._to_refresh(refresh),
            already_running=already_running,
            catalog_revision=await self._announce_revision(context),
        )

    async def GetRefreshStatus(
        self, request: pb.GetRefreshStatusRequest, context: Context
    ) -> pb.GetRefreshStatusResponse:
        """How fresh the catalog is and what is going on."""
        overview = await self._refreshes.get_overview()
        self._reader.observe(overview.state)
        announce(context, overview.state)
        return pb.GetRefreshStatusResponse(
            running=self._to_refresh(overview.running) if overview.running else None,
            last_finished=self._to_refresh(overview.last_finished) if overview.last_finished else None,
            last_success=self._to_refresh(overview.last_success) if overview.last_success else None,
            age=to_duration(overview.age),
            stale=overview.stale,
            next_scheduled_time=to_timestamp(overview.next_time),
            catalog_revision=overview.state.revision,
        )

    async def GetRefresh(self, request: pb.GetRefreshRequest, context: Context) -> pb.GetRefreshResponse:
        """One run."""
        refresh = await self._refreshes.get(UUID(request.refresh_id))
        report = await self._get_report(refresh.id)
        return pb.GetRefreshResponse(
            refresh=self._to_refresh(refresh),
            report=to_report(report) if report else None,
            catalog_revision=await self._announce_revision(context),
        )

    async def ListRefreshes(self, request: pb.ListRefreshesRequest, context: Context) -> pb.ListRefreshesResponse:
        """Runs, newest first."""
        size = to_page_size(request.page_size)
        matching = parse_filter(request.filter, REFRESH_FIELDS)
        before = self._unseal(request.page_token, request.filter) if request.page_token else None
        refreshes = await self._refreshes.list_refreshes(matching, before=before, limit=size + 1)
        token = self._seal(refreshes[size - 1], request.filter) if len(refreshes) > size else ""
        return pb.ListRefreshesResponse(
            refreshes=[self._to_refresh(refresh) for refresh in refreshes[:size]],
            next_page_token=token,
            catalog_revision=await self._announce_revision(context),
        )

    async def CancelRefresh(self, request: pb.CancelRefreshRequest, context: Context) -> pb.CancelRefreshResponse:
        """Ask a run to stop before it commits."""
        refresh = await self._refreshes.cancel(UUID(request.refresh_id))
        return pb.CancelRefreshResponse(
            refresh=self._to_refresh(refresh), catalog_revision=await self._announce_revision(context)
        )

    async def WatchRefreshStatus(  # type: ignore[override] # a coroutine that writes, which the stubs do not know
        self, request: pb.WatchRefreshStatusRequest, context: Context
    ) -> None:
        """Follow one run or all of them. Writes by itself: generators are never closed by grpc.aio."""
        refresh_id = UUID(request.refresh_id) if request.refresh_id else None
        heartbeat_s = (
            _to_heartbeat(request.heartbeat_interval) if request.HasField("heartbeat_interval") else HEARTBEAT_S
        )
        async with await self._feed.watch(refresh_id, request.resume_token, heartbeat_s) as watch:
            while (notice := await watch.next()) is not None:
                status = to_refresh_status(notice, self._now())
                # What is replayed from the table may be ahead of what this process has heard of.
                revision = max(self._feed.revision, status.refresh.result_revision)
                await _write(context, pb.WatchRefreshStatusResponse(status=status, catalog_revision=revision))

    async def _announce_revision(self, context: Context) -> int:
        state = await self._reader.get_state()
        announce(context, state)
        return state.revision

    def _to_refresh(self, refresh: Refresh) -> refresh_pb2.Refresh:
        return to_refresh(refresh, self._now())

    def _seal(self, refresh: Refresh, filter_text: str) -> str:
        return seal_position(self._page_tokens, [refresh.started_at.isoformat(), str(refresh.id)], filter_text)

    def _unseal(self, token: str, filter_text: str) -> tuple[datetime, UUID]:
        started_at, refresh_id = unseal_position(self._page_tokens, token, filter_text, size=2)
        try:
            return datetime.fromisoformat(started_at), UUID(refresh_id)
        except (ValueError, TypeError, AttributeError) as error:
            raise not_ours() from error


async def _write(context: Context, message: pb.WatchRefreshStatusResponse) -> None:
    """Send a message, or give up on a reader that takes none: its place is free for another."""
    try:
        async with asyncio.timeout(WRITE_TIMEOUT_S):
            await context.write(message)
    except TimeoutError as error:
        raise SlowConsumerError(
            f"the reader took nothing for {WRITE_TIMEOUT_S:g} s: resume with the last token"
        ) from error


def _to_heartbeat(interval: Duration) -> float:
    return min(max(interval.seconds + interval.nanos / 1e9, MIN_HEARTBEAT_S), MAX_HEARTBEAT_S)
