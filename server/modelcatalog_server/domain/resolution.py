"""What becomes of a reference to a model that is no exact id."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Outcome(enum.StrEnum):
    """How a resolution ended."""

    RESOLVED = "RESOLVED"
    AMBIGUOUS = "AMBIGUOUS"
    NOT_FOUND = "NOT_FOUND"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """Which model a reference means.

    ``model_id``, a served model, is set exactly when the outcome is RESOLVED. ``canonical_id`` may be known when
    several providers serve the model and none is to be preferred. ``rule`` and ``confidence`` (0 to 1) are of the
    weakest step on the way; without a match ``rule`` is empty. ``candidates`` are up to ten served models: those that
    fit equally well, or, of NOT_FOUND, near ones that the reference does *not* mean by any rule.
    """

    outcome: Outcome
    model_id: str | None = None
    canonical_id: str | None = None
    rule: str = ""
    confidence: float = 0.0
    candidates: tuple[str, ...] = ()
