"""How long a refresh takes, from body received to committed. `make bench-load` prints the table that the docs quote."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from datetime import timedelta
from pathlib import Path

from modelcatalog_server import app
from modelcatalog_server.domain.refresh import EventKind, Phase, Refresh, RefreshRequest, RefreshType
from modelcatalog_server.logs import set_up_logs
from modelcatalog_server.settings import load_settings

ROOT = Path(__file__).parents[1]
SNAPSHOT = ROOT / "server/modelcatalog_server/modelsdev/snapshot/catalog-2026-07-02.json.gz"
DATED = [ROOT / f"tests/data/api-{date}.json.gz" for date in ("2026-05-07", "2026-06-25", "2026-07-01", "2026-07-02")]


async def run(running: app.App, request: RefreshRequest) -> tuple[Refresh, timedelta]:
    """Run a refresh and return it with the time from the body's arrival (its VALIDATE event) to its commit."""
    refresh, _ = await running.refreshes.start(request)
    received = None
    async with await running.feed.watch(refresh.id, "", 15) as watch:
        while (notice := await watch.next()) is not None:
            refresh = notice.refresh or refresh
            if notice.kind is EventKind.STATE and notice.phase is Phase.VALIDATE:
                received = notice.happened_at
    assert received is not None
    assert refresh.completed_at is not None
    return refresh, refresh.completed_at - received


def report(what: str, refresh: Refresh, took: timedelta) -> None:
    counts = refresh.counts
    changes = f"{counts.added:>6} {counts.changed:>7} {counts.removed:>7} {counts.unchanged:>9}"
    print(f"{what:<34} {took.total_seconds() * 1000:>8.0f} ms {changes}   {refresh.state}")


async def main(folder: Path, upstream: Path) -> None:
    print(f"{'refresh':<34} {'time':>11} {'added':>6} {'changed':>7} {'removed':>7} {'unchanged':>9}")
    settings = load_settings(data_dir=folder / "data", upstream_url=upstream.as_uri(), listen="127.0.0.1:0")
    async with app.start(settings) as running:
        shutil.copy(SNAPSHOT, upstream / "catalog.json.gz")
        report("first load, full payload", *await run(running, RefreshRequest()))
        for type_ in RefreshType:
            report(f"same body again, {type_}", *await run(running, RefreshRequest(type=type_, force=True)))
    settings = load_settings(data_dir=folder / "dated", upstream_url=upstream.as_uri(), listen="127.0.0.1:0")
    (upstream / "catalog.json.gz").unlink()
    async with app.start(settings) as running:
        for document in DATED:
            shutil.copy(document, upstream / "api.json.gz")
            report(document.name, *await run(running, RefreshRequest()))


if __name__ == "__main__":
    set_up_logs("error", "console")
    scratch = Path(tempfile.mkdtemp(prefix="modelcatalog-bench-"))
    scratch.chmod(0o755)  # the servers run as an unprivileged user when we are root
    (scratch / "upstream").mkdir()
    try:
        asyncio.run(main(scratch, scratch / "upstream"))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
