"""Use cases of keeping the catalog fresh: run a refresh, compare, report, watch."""
