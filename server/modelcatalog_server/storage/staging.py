"""Records as rows of the staging tables, in the column order of the ``copy_*`` statements in ``sql/apply.sql``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, LiteralString

from modelcatalog_server.domain.models import (
    BenchmarkRecord,
    CanonicalRecord,
    ModelRecord,
    Prices,
    ProviderRecord,
    RecordKind,
)
from modelcatalog_server.storage.pools import Connection

Row = tuple[Any, ...]

# Rows between two turns of the event loop: about two milliseconds of work, so that reads do not feel a refresh.
_SLICE = 50


async def copy_rows(
    connection: Connection, statement: LiteralString, rows: Iterable[Row], progress: Callable[[int], None] | None = None
) -> None:
    """COPY rows into a staging table, letting others run between slices. ``progress`` gets the rows done so far."""
    async with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for done, row in enumerate(rows, start=1):
            await copy.write_row(row)
            if done % _SLICE == 0:
                if progress is not None:
                    progress(done)
                await asyncio.sleep(0)


def provider_row(record: ProviderRecord) -> Row:
    """Return a row of ``staged_providers``."""
    return (
        record.id,
        record.name,
        record.documentation_url,
        record.api_base_url,
        record.npm_package,
        list(record.env_vars),
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
        list(record.modalities.input),
        list(record.modalities.output),
        None,
        None,
        None,
        list(record.tags),
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
