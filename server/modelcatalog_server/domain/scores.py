"""How scores are derived, for those who compute them and those who name the rule. docs/derived.md has the formulas."""

from __future__ import annotations

#: Providers that list the model, disabled ones too.
POPULARITY_RULE = "provider_count"

#: Mean over benchmarks, of each the mean of the normalised scores.
BENCHMARK_RULE = "mean_normalized_score"

#: Models that a series needs for a place and a normalised score to say more than the scores themselves.
MIN_RANKED_MODELS = 3

#: Models that a series needs to count for ``benchmark_score``: in a table of a lab's own three one always has 100.
MIN_SCORED_MODELS = 10

#: Benchmarks that a model needs for a ``benchmark_score``.
MIN_SCORED_BENCHMARKS = 3
