"""The rules by which a spelling is taken for a model, surest first. docs/resolving.md has the same table.

A match may take several steps, each by its rule. Confidences multiply; the weakest step's rule names the match. They
are estimates; ``make report-resolver`` prints what known links say about each rule.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from types import MappingProxyType
from typing import Final

#: Rule name → confidence of one step by it. The order is that of the table in docs/resolving.md.
CONFIDENCES: Final = MappingProxyType(
    {
        "exact": 1.0,
        "upstream": 1.0,
        "provider_and_id": 1.0,
        "canonical_id": 1.0,
        "served_id": 0.99,
        "case": 0.99,
        "lab_prefix": 0.98,
        "maker_word": 0.97,
        "reseller_path": 0.97,
        "region": 0.97,
        "punctuation": 0.97,
        "word_order": 0.96,
        "packaging": 0.96,
        "active_parameters": 0.94,
        "instruct": 0.94,
        "mode": 0.93,
        "first_version": 0.93,
        "joined_version": 0.92,
        "version_zero": 0.92,
        "preview": 0.91,
        "dated_snapshot": 0.9,
        "undated": 0.88,
        "serving_word": 0.87,
        "latest": 0.86,
    }
)

#: Steps that change how a name is written, and nothing that it says.
FORM: Final = frozenset(
    {"exact", "served_id", "case", "lab_prefix", "maker_word", "reseller_path", "region", "punctuation", "word_order",
     "packaging"}
)  # fmt: skip

#: Steps that may lead from one snapshot of a model to another.
OF_TIME: Final = frozenset({"dated_snapshot", "undated", "latest"})

#: Those, and steps from one way to run a model to all of them.
LOOSE: Final = OF_TIME | {"serving_word", "mode"}


def weakest(steps: Iterable[str]) -> str:
    """Return the rule of the least sure step."""
    return min(steps, key=CONFIDENCES.__getitem__)


def combined(steps: Iterable[str]) -> float:
    """Return how sure all steps together are."""
    return round(math.prod(CONFIDENCES[step] for step in steps), 4)
