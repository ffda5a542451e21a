# Generated from ../_async by tools/unasync_client.py: do not edit.
"""Keeping the catalog fresh: the service RefreshService."""

# The arguments are called as the fields of the requests are.
# ruff: noqa: A002, ASYNC109

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

from google.protobuf.duration_pb2 import Duration

from modelcatalog.v1.refresh_pb2 import Refresh, RefreshReport
from modelcatalog.v1.refresh_service_pb2 import (
    CancelRefreshRequest,
    CancelRefreshResponse,
    GetRefreshRequest,
    GetRefreshResponse,
    GetRefreshStatusRequest,
    GetRefreshStatusResponse,
    ListRefreshesRequest,
    ListRefreshesResponse,
    StartRefreshRequest,
    StartRefreshResponse,
    WatchRefreshStatusRequest,
    WatchRefreshStatusResponse,
)
from modelcatalog_client._blocking import Subscription
from modelcatalog_client._sync.calls import Calls
from modelcatalog_client._sync.pager import Pager
from modelcatalog_client._sync.watch import RefreshWatch
from modelcatalog_client._requests import RefreshType, refresh_type_value
from modelcatalog_client._timeouts import check_timeout
from modelcatalog_client._watching import Cursor, ReconnectPolicy, Recovery


class RefreshMethods(Calls):
    """Refreshes. Every method may also raise ``UnavailableError`` and ``DeadlineExceededError``."""

    _reconnect_policy = ReconnectPolicy()

    def start_refresh(
        self,
        *,
        type: RefreshType = "incremental",
        provider_id: str = "",
        request_id: str = "",
        force: bool = False,
        override_gate: str = "",
        validate_only: bool = False,
        timeout: float | None = None,
    ) -> StartRefreshResponse:
        """Starts a refresh in the background and returns at once, or joins the one under way. Role operator.

        Args:
            type: ``incremental`` writes what differs, ``full`` every row.
            provider_id: Only this provider. Empty: all.
            request_id: UUID; the same one again gives the same run. Empty: the client makes one up, so that
                a retry never starts a second run.
            force: Fetch even if upstream's ETag is the one the catalog has.
            override_gate: Name of the one gate whose refusal is accepted, in this run only; of several with commas
                between, where several refuse the payload.
            validate_only: Report the difference, change nothing.
            timeout: Seconds.

        Returns:
            The run, and whether it was ``already_running``.

        Raises:
            RequestIdReusedError: ``request_id`` was used with other arguments.
            ProviderNotFoundError: With near ids in ``candidates``.
            InvalidQueryError: An argument is out of its bounds.
            PermissionDeniedError: The caller is no operator.
        """
        request = StartRefreshRequest(
            type=refresh_type_value(type),
            provider_id=provider_id,
            request_id=request_id or str(uuid4()),
            force=force,
            override_gate=override_gate,
            validate_only=validate_only,
        )
        return self._call(self._connect().refreshes.StartRefresh, request, timeout)

    def get_refresh_status(self, *, timeout: float | None = None) -> GetRefreshStatusResponse:
        """How fresh the catalog is and what is going on.

        Args:
            timeout: Seconds.

        Returns:
            The run under way, the last ones, and the age of the catalog.
        """
        request = GetRefreshStatusRequest()
        return self._call(self._connect().refreshes.GetRefreshStatus, request, timeout)

    def get_refresh(self, refresh_id: str, *, timeout: float | None = None) -> GetRefreshResponse:
        """One run. ``refresh_error`` makes a typed error of its ``error``.

        Args:
            refresh_id: UUID.
            timeout: Seconds.

        Returns:
            The run, and the ``report`` of what it found.

        Raises:
            RefreshNotFoundError: No run has this id.
        """
        request = GetRefreshRequest(refresh_id=refresh_id)
        return self._call(self._connect().refreshes.GetRefresh, request, timeout)

    def get_refresh_report(self, refresh_id: str, *, timeout: float | None = None) -> RefreshReport | None:
        """What a run found: models, prices and records that were set aside. Calls GetRefresh.

        Args:
            refresh_id: UUID.
            timeout: Seconds.

        Returns:
            The report; also of a dry run, and of one that a gate refused. None: the run has not compared yet, found
            nothing to compare (``not_modified``, a failed fetch), or its report is older than the retention.

        Raises:
            RefreshNotFoundError: No run has this id.
        """
        response = self.get_refresh(refresh_id, timeout=timeout)
        return response.report if response.HasField("report") else None

    def list_refreshes(
        self,
        *,
        page_size: int = 0,
        page_token: str = "",
        filter: str = "",
        timeout: float | None = None,
    ) -> Pager[Refresh, ListRefreshesResponse]:
        """Runs, newest first.

        Args:
            page_size: Runs per request, at most 1000. 0: the server's default of 50.
            page_token: Where to begin: ``next_page_token`` of an earlier response.
            filter: Subset of AIP-160 over the fields of ``Refresh``.
            timeout: Seconds, for each page.

        Returns:
            A pager; nothing is requested before it is iterated over.

        Raises:
            InvalidFilterError: From the iteration, as all of these.
            InvalidPageTokenError: ``page_token`` belongs to other arguments.
        """
        request = ListRefreshesRequest(page_size=page_size, page_token=page_token, filter=filter)

        def fetch(request: ListRefreshesRequest) -> ListRefreshesResponse:
            return self._call(self._connect().refreshes.ListRefreshes, request, timeout)

        return Pager(fetch, request, lambda page: page.refreshes)

    def cancel_refresh(self, refresh_id: str, *, timeout: float | None = None) -> CancelRefreshResponse:
        """Stops a run before it commits. Role operator.

        Args:
            refresh_id: UUID.
            timeout: Seconds.

        Returns:
            The run: CANCELLING, or over already.

        Raises:
            RefreshNotFoundError: No run has this id.
            RefreshNotCancellableError: It is over, or past the point where it can be stopped.
            PermissionDeniedError: The caller is no operator.
        """
        request = CancelRefreshRequest(refresh_id=refresh_id)
        return self._call(self._connect().refreshes.CancelRefresh, request, timeout)

    def watch_refresh_status(
        self,
        refresh_id: str = "",
        *,
        resume_token: str = "",
        heartbeat_interval: float | None = None,
        heartbeats: bool = False,
        max_reconnect_seconds: float = 60.0,
        timeout: float | None = None,
    ) -> RefreshWatch:
        """Follows one run to its end, or all of them.

        A stream that is lost is subscribed to again with the last token: after UNAVAILABLE (a server that restarts
        or cannot be reached), SLOW_CONSUMER, and three heartbeats that did not come. No event comes twice, and no
        STATE or TERMINAL event is left out.

        Args:
            refresh_id: UUID. The watch ends after the TERMINAL event of this run. Empty: every run, without end.
            resume_token: Of the last event that you have handled. Empty: from now.
            heartbeat_interval: Seconds of silence after which the server sends a heartbeat, 5 to 60. None: 15.
            heartbeats: Yield heartbeats too.
            max_reconnect_seconds: How long to try to get back, from the loss on, before the error is raised.
                It holds for the first attempt, too. 0: raise at once.
            timeout: Seconds for the watch as a whole. None: no limit; the client's own timeout does not apply.

        Returns:
            An iterator of ``RefreshStatus``; nothing is requested before it is iterated over. The first event is
            the state now.

        Raises:
            RefreshNotFoundError: From the iteration, as all of these.
            InvalidResumeTokenError: The token belongs to another refresh.
            ResumeTokenExpiredError: The token is older than 24 hours.
            TooManyStreamsError: The caller has too many open watches.
            UnavailableError: ``max_reconnect_seconds`` were over.
        """
        check_timeout(timeout)
        interval = _duration(heartbeat_interval)

        def subscribe(token: str, seconds: float | None) -> Subscription[WatchRefreshStatusResponse]:
            request = WatchRefreshStatusRequest(refresh_id=refresh_id, resume_token=token, heartbeat_interval=interval)
            method = self._connect().refreshes.WatchRefreshStatus
            return Subscription(method, request, seconds, self._config.metadata())

        return RefreshWatch(
            subscribe,
            Cursor(refresh_id, resume_token, heartbeats=heartbeats),
            Recovery(self._reconnect_policy, max_reconnect_seconds),
            silence=self._reconnect_policy.silence(heartbeat_interval),
            timeout=timeout,
            target=self._config.target,
            is_over=lambda: self._closed,
        )


def _duration(seconds: float | None) -> Duration | None:
    if seconds is None:
        return None
    duration = Duration()
    duration.FromTimedelta(timedelta(seconds=seconds))
    return duration
