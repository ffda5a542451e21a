"""Records as rows of the staging tables, in the column order of the ``copy_*`` statements in ``sql/apply.sql``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import lru_cache, partial
from typing import Any, LiteralString, Self

from psycopg import AsyncCopy

from modelcatalog_server.domain.models import (
    BenchmarkRecord,
    CanonicalRecord,
    ModelRecord,
    Prices,
    ProviderRecord,
    RecordKind,
)
from modelcatalog_server.domain.tasks import Slices
from modelcatalog_server.storage.pools import Connection

Row = tuple[Any, ...]

# PostgreSQL takes rows at once, and has little to do at their end: who waits longer for that has been forgotten by the
# network. PostgreSQL itself waits for rows without a limit.
_PATIENCE_S = 15.0


class RowCopy:
    """A COPY into a staging table, which is complete when the block ends well. An async context manager.

    It is measured and traced in parts, at its ends and for what is written at once: in between somebody makes rows,
    which takes longer than PostgreSQL does.
    """

    def __init__(self, connection: Connection, statement: LiteralString) -> None:
        self._measuring = partial(connection.measuring, statement)
        self._connection = connection
        self._statement = statement
        self._open = AsyncExitStack()
        self._copy: AsyncCopy | None = None

    async def __aenter__(self) -> Self:
        with self._measuring():
            async with AsyncExitStack() as opening:
                opening.callback(setattr, self._connection, "patience_s", self._connection.patience_s)
                self._connection.patience_s = min(self._connection.patience_s, _PATIENCE_S)
                cursor = await opening.enter_async_context(self._connection.cursor())
                self._copy = await opening.enter_async_context(cursor.copy(self._statement))
                self._open = opening.pop_all()
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        with self._measuring():
            await self._open.__aexit__(*exc_info)

    async def write(self, rows: Iterable[Row]) -> None:
        """Write rows, letting others run between slices."""
        assert self._copy is not None, "the block has begun"  # noqa: S101 - a broken invariant, not a check
        slices = Slices()
        with self._measuring():
            for row in rows:
                await self._copy.write_row(row)
                await slices.end_if_due()


def provider_row(record: ProviderRecord) -> Row:
    """Return a row of ``staged_providers``."""
    return (
        record.id,
        record.name,
        record.documentation_url,
        record.api_base_url,
        record.npm_package,
        _array(record.env_vars),
        record.id,
        record.raw,
        record.content_hash,
    )


def model_row(record: ModelRecord, message: bytes) -> Row:
    """Return a row of ``staged_models``."""
    canonical = record.canonical
    return (
        record.id,
        record.provider_id,
        record.upstream_id,
        canonical.canonical_id if canonical else None,
        canonical.rule if canonical else None,
        canonical.confidence if canonical else None,
        record.name,
        record.description,
        record.family,
        record.version,
        record.type,
        record.status,
        record.limits.context_window,
        record.limits.max_input_tokens,
        record.limits.max_output_tokens,
        *_price_columns(record),
        *_capability_columns(record),
        _array(record.modalities.input),
        _array(record.modalities.output),
        None,
        None,
        None,
        _array(record.tags),
        record.release_date,
        record.last_updated,
        record.knowledge_cutoff,
        message,
        record.raw,
        record.content_hash,
    )


def canonical_row(record: CanonicalRecord) -> Row:
    """Return a row of ``staged_canonical_models``."""
    return (record.id, record.name, record.family, record.license, record.raw, record.content_hash)


def benchmark_rows(records: Sequence[CanonicalRecord]) -> Iterable[Row]:
    """Yield the rows of ``staged_benchmarks`` for these canonical models."""
    return (_benchmark_row(record.id, benchmark) for record in records for benchmark in record.benchmarks)


def source_hash_rows(hashes: Mapping[RecordKind, Mapping[str, bytes | None]]) -> Iterable[Row]:
    """Yield the rows of ``staged_source_hashes``."""
    return ((kind, id_, hash_) for kind, by_id in hashes.items() for id_, hash_ in by_id.items())


def _benchmark_row(canonical_id: str, benchmark: BenchmarkRecord) -> Row:
    return (
        canonical_id,
        benchmark.name,
        benchmark.score,
        benchmark.score_text,
        benchmark.metric,
        benchmark.harness,
        benchmark.variant,
        benchmark.dataset,
        benchmark.version,
        benchmark.source,
        benchmark.date,
        benchmark.raw,
        benchmark.canonical_name,
        benchmark.type,
        benchmark.series,
        benchmark.higher_is_better,
    )


@lru_cache(maxsize=4096)  # a whole catalog has some hundred of them
def _array(texts: tuple[str, ...]) -> str:
    return text_array(texts)


def text_array(texts: Iterable[str]) -> str:
    """Return texts as PostgreSQL reads an array: the driver takes longer for them than for the rest of a row."""
    escaped = (text.replace("\\", "\\\\").replace('"', '\\"') for text in texts)
    return "{" + ",".join(f'"{text}"' for text in escaped) + "}"


def _price_columns(record: ModelRecord) -> Row:
    prices = record.pricing.prices if record.pricing else Prices()
    return (
        "USD" if record.pricing else None,
        prices.input,
        prices.output,
        prices.reasoning,
        prices.cache_read,
        prices.cache_write,
        prices.input_audio,
        prices.output_audio,
    )


def _capability_columns(record: ModelRecord) -> Row:
    can = record.capabilities
    return (
        can.vision,
        can.function_calling,
        can.streaming,
        can.json_mode,
        can.structured_output,
        can.image_generation,
        can.audio,
        can.audio_input,
        can.audio_output,
        can.video_input,
        can.pdf_input,
        can.code_generation,
        can.reasoning,
        can.tool_use,
        can.attachments,
        can.temperature,
        can.open_weights,
    )
