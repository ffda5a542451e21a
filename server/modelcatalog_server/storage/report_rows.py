"""The report of a refresh as the JSON of ``refresh_reports`` and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from modelcatalog_server.domain.refresh import PriceChange, Quarantined, RefreshReport


def write_report(report: RefreshReport) -> str:
    """Return the JSON for ``save_report``. Prices are text, so that none is rounded on its way."""
    return json.dumps(
        {
            "added_model_ids": list(report.added_model_ids),
            "changed_model_ids": list(report.changed_model_ids),
            "removed_model_ids": list(report.removed_model_ids),
            "revived_model_ids": list(report.revived_model_ids),
            "price_changes": [_write_price_change(change) for change in report.price_changes],
            "quarantined": [{"pointer": each.pointer, "reason": each.reason} for each in report.quarantined],
            "truncated": report.truncated,
        }
    )


def read_report(row: Mapping[str, Any]) -> RefreshReport:
    """Return the report of a row of ``get_report``."""
    report = row["report"]
    return RefreshReport(
        added_model_ids=tuple(report["added_model_ids"]),
        changed_model_ids=tuple(report["changed_model_ids"]),
        removed_model_ids=tuple(report["removed_model_ids"]),
        revived_model_ids=tuple(report["revived_model_ids"]),
        price_changes=tuple(map(_read_price_change, report["price_changes"])),
        quarantined=tuple(
            Quarantined(pointer=each["pointer"], reason=each["reason"]) for each in report["quarantined"]
        ),
        truncated=report["truncated"],
    )


def _write_price_change(change: PriceChange) -> dict[str, str | None]:
    return {
        "model_id": change.model_id,
        "field": change.field,
        "before": _to_text(change.before),
        "after": _to_text(change.after),
    }


def _read_price_change(change: Mapping[str, Any]) -> PriceChange:
    return PriceChange(
        model_id=change["model_id"],
        field=change["field"],
        before=_to_decimal(change["before"]),
        after=_to_decimal(change["after"]),
    )


def _to_text(price: Decimal | None) -> str | None:
    return None if price is None else f"{price:f}"


def _to_decimal(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)
