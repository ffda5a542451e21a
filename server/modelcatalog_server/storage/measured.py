"""A connection that measures and traces its statements, by name."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from psycopg import AsyncCursor
from psycopg.pq import PipelineStatus
from psycopg.rows import DictRow

from modelcatalog_server.domain.measures import QueryMeasures
from modelcatalog_server.domain.spans import Kind, span
from modelcatalog_server.domain.tasks import rest
from modelcatalog_server.storage.bounded import BoundedConnection
from modelcatalog_server.storage.queries import name_of


class MeasuredConnection(BoundedConnection):
    """Measures what runs by ``execute``, from when it is asked to when it has been answered; failures too.

    Attributes:
        queries: Where durations go; ``None``: nowhere.
        gives_way: Whether it leaves the event loop to callers for a moment behind each statement.
    """

    queries: QueryMeasures | None = None
    gives_way = False

    async def execute(self, query: Any, params: Any = None, **options: Any) -> AsyncCursor[DictRow]:
        """Run a statement. One in a pipeline is not measured: it is answered when that ends."""
        if self.pgconn.pipeline_status != PipelineStatus.OFF:
            return await super().execute(query, params, **options)
        with self.measuring(query):
            cursor = await super().execute(query, params, **options)
        if self.gives_way:
            await rest()
        return cursor

    @contextmanager
    def measuring(self, query: Any) -> Iterator[None]:
        """Measure and trace a statement by the time that the block takes."""
        name, begun = name_of(query), time.perf_counter()
        try:
            with span(name, Kind.CLIENT, {"db.system.name": "postgresql", "db.query.summary": name}):
                yield
        finally:
            if self.queries is not None:
                self.queries.note(name, time.perf_counter() - begun)
