"""What the audit log holds: one entry for each call that may change something."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One call, as it ended.

    ``method`` is its full name, ``target`` what it was about (an id, or empty), ``code`` the name of its status code.
    ``details`` are JSON values of bounded size, without secrets.
    """

    principal: str
    method: str
    target: str
    code: str
    details: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """An entry as the log has it. ``id`` rises with time."""

    id: int
    happened_at: datetime
    entry: AuditEntry
