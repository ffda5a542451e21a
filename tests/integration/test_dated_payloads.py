"""The four dated payloads one after the other: each step finds exactly what an independent comparison finds."""

from __future__ import annotations

from typing import Any

import psycopg

from conftest import DATA, StartApp, folder_url, read_json, refresh_to_end

DATES = ("2026-05-07", "2026-06-25", "2026-07-01", "2026-07-02")


def served_models(api: dict[str, Any]) -> dict[str, Any]:
    return {
        f"{provider_id}/{served_id}": record
        for provider_id, provider in api.items()
        for served_id, record in provider["models"].items()
    }


def changes_of(database_url: str, revision: int) -> dict[str, set[str]]:
    """Return the ids of a revision's versions by what became of them."""
    found: dict[str, set[str]] = {"ADDED": set(), "CHANGED": set(), "REMOVED": set(), "REVIVED": set()}
    with psycopg.connect(database_url) as connection:
        for change, model_id in connection.execute(
            "SELECT change, model_id FROM model_versions WHERE revision = %s", (revision,)
        ):
            found[change].add(model_id)
    return found


async def test_each_step_finds_what_an_independent_comparison_finds(start_app: StartApp, empty_database: str) -> None:
    ever: set[str] = set()
    before: dict[str, Any] = {}
    for revision, date in enumerate(DATES, start=1):
        document = DATA / f"api-{date}.json.gz"
        now = served_models(read_json(document))
        expected = {
            "ADDED": now.keys() - ever,
            "REVIVED": (now.keys() - before.keys()) & ever,
            "REMOVED": before.keys() - now.keys(),
            "CHANGED": {model_id for model_id in now.keys() & before.keys() if now[model_id] != before[model_id]},
        }

        async with start_app(empty_database, upstream_url=folder_url(document)) as running:
            refresh = await refresh_to_end(running)

        assert refresh.result_revision == revision
        assert changes_of(empty_database, revision) == expected
        counts = refresh.counts
        assert {
            "ADDED": counts.added,
            "REVIVED": counts.revived,
            "REMOVED": counts.removed,
            "CHANGED": counts.changed,
        } == {change: len(ids) for change, ids in expected.items()}
        assert counts.seen == len(now)
        assert counts.unchanged == len(now) - counts.added - counts.revived - counts.changed
        before, ever = now, ever | now.keys()
