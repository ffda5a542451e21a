"""Which benchmark a result is of, whatever its spelling, and with which results it may be compared."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from importlib import resources
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownBenchmark:
    """What the reviewed file has of one benchmark. ``version`` is set where the name itself says which one it is."""

    name: str
    type: str | None = None
    version: str | None = None
    higher_is_better: frozenset[str] = frozenset()
    lower_is_better: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class BenchmarkNames:
    """The reviewed file: benchmarks by every spelling, with the version that makes it this one or None for any."""

    by_spelling: dict[tuple[str, str | None], KnownBenchmark]
    higher_is_better: frozenset[str]
    lower_is_better: frozenset[str]

    def find(self, name: str, version: str | None) -> KnownBenchmark:
        """Return what is known of a benchmark; of one that is not in the file, its name alone."""
        known = self.by_spelling.get((name, version)) or self.by_spelling.get((name, None))
        return known or KnownBenchmark(name=name)

    def is_higher_better(self, benchmark: KnownBenchmark, metric: str | None) -> bool | None:
        """Return the direction of a metric, None where it is not known."""
        if metric in self.higher_is_better | benchmark.higher_is_better:
            return True
        if metric in self.lower_is_better | benchmark.lower_is_better:
            return False
        return None


def read_names(document: dict[str, Any]) -> BenchmarkNames:
    """Return the content of a file as ``benchmarks.toml`` is one."""
    by_spelling: dict[tuple[str, str | None], KnownBenchmark] = {}
    for entry in document["benchmark"]:
        known = KnownBenchmark(
            name=entry["name"],
            type=entry.get("type"),
            version=entry.get("version"),
            higher_is_better=frozenset(entry.get("higher_is_better", ())),
            lower_is_better=frozenset(entry.get("lower_is_better", ())),
        )
        for spelling in (known.name, *entry.get("spellings", ())):
            by_spelling[spelling, None] = known
        if "unversioned" in entry:
            by_spelling[entry["unversioned"], known.version] = known
    metrics = document["metrics"]
    return BenchmarkNames(
        by_spelling=by_spelling,
        higher_is_better=frozenset(metrics["higher_is_better"]),
        lower_is_better=frozenset(metrics["lower_is_better"]),
    )


def series_of(benchmark: KnownBenchmark, version: str | None, *parts: str | None) -> str:
    """Return what results that may be compared have in common, as text: the name, the version, and all other parts."""
    return json.dumps([benchmark.name, benchmark.version or version, *parts], ensure_ascii=False)


NAMES = read_names(tomllib.loads((resources.files(__package__) / "benchmarks.toml").read_text(encoding="utf-8")))
