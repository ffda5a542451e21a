"""What the catalog takes on disk, and by how much its history grows: `make bench-capacity`, for docs/capacity.md.

Sizes are PostgreSQL's own after a first load, of today's catalog and of ten times as much, and after the four recorded
payloads one after the other, which are 56 days of upstream's life.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import psycopg

from load import DATED, run
from machine import describe_machine
from modelcatalog_server import app
from modelcatalog_server.backends import start_backends
from modelcatalog_server.domain.refresh import RefreshRequest
from modelcatalog_server.logs import set_up_logs
from modelcatalog_server.settings import load_settings
from refresh import write_payloads

MB = 1024 * 1024
SIZES = """
    SELECT relname, pg_table_size(oid), pg_indexes_size(oid), reltuples::bigint
    FROM pg_class
    WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
    ORDER BY pg_total_relation_size(oid) DESC
"""


async def measure(folder: Path, title: str, payloads: Sequence[tuple[str, Path]]) -> None:
    """Load one payload after the other, and print the sizes after each."""
    upstream = folder / "upstream"
    upstream.mkdir(parents=True)
    settings = load_settings(
        data_dir=folder / "data",
        upstream_url=upstream.as_uri(),
        listen="127.0.0.1:0",
        metrics_listen="off",
        refresh_full_cron="off",
        refresh_incremental_cron="off",
        gate_max_removed_percent=100,
        gate_max_provider_removed_percent=100,
        gate_max_price_unit_slips=10**6,
    )
    async with start_backends(settings) as backends, app.start_on(backends, settings) as running:
        for name, payload in payloads:
            shutil.copy(payload, upstream / name)
            refresh, _ = await run(running, RefreshRequest(force=True))
            counts = refresh.counts
            print(
                f"\n{title}, {payload.name}: added {counts.added}, changed {counts.changed}, removed {counts.removed}"
            )
            print_sizes(backends.database_url)


def print_sizes(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("VACUUM (ANALYZE)")
        rows = connection.execute(SIZES).fetchall()
    print(f"{'table':<28} {'rows':>9} {'table':>9} {'indexes':>9}")
    for table, size, indexes, count in rows:
        if size + indexes > MB / 2:
            print(f"{table:<28} {count:>9,} {size / MB:>6.1f} MB {indexes / MB:>6.1f} MB")
    total = sum(size + indexes for _, size, indexes, _ in rows)
    history = sum(size + indexes for table, size, indexes, _ in rows if table.endswith("_versions"))
    print(f"{'all tables':<28} {total / MB:>26.1f} MB, of which history {history / MB:.1f} MB")


async def main(folder: Path) -> None:
    print(describe_machine())
    for times in (1, 10):
        payloads = folder / f"payloads-{times}"
        payloads.mkdir()
        write_payloads(payloads, times)
        await measure(folder / f"of-{times}", f"{times} times the catalog", [("catalog.json.gz", payloads / "base.gz")])
    await measure(folder / "dated", "56 days", [("api.json.gz", document) for document in DATED])


if __name__ == "__main__":
    set_up_logs("error", "console")
    scratch = Path(tempfile.mkdtemp(prefix="modelcatalog-bench-"))
    scratch.chmod(0o755)  # the servers run as an unprivileged user when we are root
    try:
        asyncio.run(main(scratch))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
