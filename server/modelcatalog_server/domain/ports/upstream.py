"""Where the catalog comes from, and what of it is new."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from modelcatalog_server.domain.models import ModelRecord
from modelcatalog_server.domain.refresh import Difference, KnownState, Payload

#: Called with units done and, where known, units in all.
Progress = Callable[[int, int | None], None]


class Upstream(Protocol):
    """Where the catalog comes from."""

    async def fetch(self, *, etag: str | None, progress: Progress) -> Payload | None:
        """Return the document, or ``None`` when it still has this ETag. Progress is in bytes as received.

        Raises:
            UpstreamUnavailableError: no answer, or an answer that another attempt may better.
            UpstreamInvalidError: an answer that is no catalog: a redirect, HTML, too large, broken compression.
        """
        ...

    async def get_source_url(self) -> str:
        """Return the address that its payloads have as their source, if it has the document that is asked for first."""
        ...

    async def is_source(self, url: str) -> bool:
        """Whether a payload with this source address came from here: its ETag means nothing to another upstream."""
        ...

    async def load_bundled(self) -> Payload:
        """Return the snapshot that ships with the package."""
        ...


#: Encodes a record as the contract's ``Model`` without what is known only on reading.
MessageEncoder = Callable[[ModelRecord], bytes]

#: Takes models that are to be written, each with its encoded message.
ModelSink = Callable[[Sequence[tuple[ModelRecord, bytes]]], Awaitable[None]]


class PayloadComparison(Protocol):
    """Decodes what is new in a payload, record by record, and finds what differs. An async context manager.

    Reads do not feel it. Whatever does the work is started when it is needed, and ends with the context.
    """

    async def __aenter__(self) -> PayloadComparison: ...

    async def __aexit__(self, *exc_info: object) -> None: ...

    async def compare(
        self, payload: Payload, known: KnownState, *, provider_id: str | None, full: bool, take: ModelSink
    ) -> Difference:
        """Return what has to be written. With ``provider_id`` only that provider and its models are looked at.

        ``take`` gets the models of the difference while others are still decoded, some at a time.

        Raises:
            UpstreamInvalidError: the payload as a whole is no catalog.
        """
        ...
