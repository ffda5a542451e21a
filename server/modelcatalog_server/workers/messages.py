"""What the processes say to each other: one line of JSON each way, over the worker's standard input and output."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a worker says, once: that it serves, with its ready line, or why it does not start."""

    ready: str = ""
    failure: str = ""


def encode_report(report: Report) -> str:
    """Return the line."""
    return json.dumps(asdict(report))


def decode_report(line: bytes) -> Report | None:
    """Return what a worker said, ``None`` when it ended first."""
    return Report(**json.loads(line)) if line.endswith(b"\n") else None


def encode_settings(values: dict[str, Any]) -> bytes:
    """Return the line that tells a worker its settings. Not on its command line: there are secrets in it."""
    return json.dumps(values).encode() + b"\n"


def metrics_address(base: str, number: int) -> str:
    """Return where a worker shows its metrics to its supervisor. ``base`` is what all workers are told."""
    return base if base == "off" else f"{base}-{number}"
