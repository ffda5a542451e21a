"""What a service can do without, and so can be brought in, or taken away, step by step."""

from __future__ import annotations

from enum import StrEnum


class Feature(StrEnum):
    """An optional capability, by the name that settings and answers have for it."""

    SEARCH = "search"
    RESOLVE = "resolve"
    OFFERS = "offers"
    COMPARE = "compare"
    FACETS = "facets"
    BENCHMARKS = "benchmarks"
    WATCH = "watch"
    REFRESH = "refresh"
    ADMIN = "admin"
    # These have settings of their own.
    SCHEDULE = "schedule"
    CACHE = "cache"
    REFLECTION = "reflection"


#: Those that ``MODELCATALOG_DISABLED_FEATURES`` takes.
SWITCHABLE = tuple(each for each in Feature if each not in {Feature.SCHEDULE, Feature.CACHE, Feature.REFLECTION})
