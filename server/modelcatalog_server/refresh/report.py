"""What a run found, for people: ids by what became of them, prices before and after, what was set aside. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from modelcatalog_server.domain.refresh import Difference, KnownState, PriceChange, RefreshReport
from modelcatalog_server.refresh.prices import changed_model_ids

#: Entries of one list. A first load adds thousands of models, and nobody reads them here; the counts are not cut.
MAX_ENTRIES = 1000

_T = TypeVar("_T")


def make_report(difference: Difference, known: KnownState, price_changes: Sequence[PriceChange]) -> RefreshReport:
    """Return what was found, each list cut at ``MAX_ENTRIES``.

    Models are in order of id, quarantined records in the difference's order.
    """
    new = difference.touched_models - known.models.keys()
    whole = RefreshReport(
        added_model_ids=tuple(sorted(new - known.removed_models.keys())),
        changed_model_ids=tuple(changed_model_ids(difference, known)),
        removed_model_ids=tuple(sorted(difference.removed_models)),
        revived_model_ids=tuple(sorted(new & known.removed_models.keys())),
        price_changes=tuple(price_changes),
        quarantined=difference.quarantined,
    )
    cut = replace(
        whole,
        added_model_ids=_cut(whole.added_model_ids),
        changed_model_ids=_cut(whole.changed_model_ids),
        removed_model_ids=_cut(whole.removed_model_ids),
        revived_model_ids=_cut(whole.revived_model_ids),
        price_changes=_cut(whole.price_changes),
        quarantined=_cut(whole.quarantined),
    )
    return replace(cut, truncated=cut != whole)


def _cut(entries: Sequence[_T]) -> tuple[_T, ...]:
    return tuple(entries[:MAX_ENTRIES])
