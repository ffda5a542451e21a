"""What a run found, for people: in order, bounded, with prices before and after."""

from __future__ import annotations

from decimal import Decimal

from modelcatalog_server.domain.models import Prices
from modelcatalog_server.domain.refresh import (
    Difference,
    KnownState,
    PriceChange,
    Quarantined,
    RefreshCounts,
    RefreshReport,
)
from modelcatalog_server.domain.tasks import run_to_end
from modelcatalog_server.refresh.prices import changed_model_ids, find_price_changes
from modelcatalog_server.refresh.report import MAX_ENTRIES, make_report
from unit.differences import difference, ids, known, priced, usd


def report(found: Difference, state: KnownState, prices: dict[str, Prices] | None = None) -> RefreshReport:
    return make_report(found, state, run_to_end(find_price_changes(found, prices or {})))


def test_models_by_what_became_of_them_in_order() -> None:
    found = difference(
        touched_models=frozenset({"p/new2", "p/new1", "p/c2", "p/c1", "p/back2", "p/back1"}),
        removed_models=("p/gone2", "p/gone1"),
    )
    state = known("p/c1", "p/c2", "p/same", "p/gone1", "p/gone2", removed_models={"p/back1": "1", "p/back2": "1"})
    assert report(found, state) == RefreshReport(
        added_model_ids=("p/new1", "p/new2"),
        changed_model_ids=("p/c1", "p/c2"),
        removed_model_ids=("p/gone1", "p/gone2"),
        revived_model_ids=("p/back1", "p/back2"),
    )


def test_nothing_found_is_an_empty_report() -> None:
    assert report(difference(), known("p/a")) == RefreshReport()


def test_records_that_were_set_aside_stay_in_the_order_of_the_payload() -> None:
    bad = tuple(Quarantined(pointer=pointer, reason="bad") for pointer in ("/providers/z", "/models/a", "/providers/b"))
    assert report(difference(quarantined=bad), known()).quarantined == bad


def test_prices_by_model_and_then_field() -> None:
    found = difference(
        models=(
            priced("p/b", input="2", output="5", cache_read="0.25"),
            priced("p/a", output="1", output_audio="0"),
            priced("p/unpriced"),
        )
    )
    before = {
        "p/a": usd(input="0", output="1.00"),
        "p/b": usd(input="1.25", output="10"),
        "p/unpriced": usd(reasoning="3"),
    }
    assert tuple(run_to_end(find_price_changes(found, before))) == (
        PriceChange(model_id="p/a", field="input", before=Decimal(0), after=None),
        PriceChange(model_id="p/a", field="output_audio", before=None, after=Decimal(0)),
        PriceChange(model_id="p/b", field="input", before=Decimal("1.25"), after=Decimal(2)),
        PriceChange(model_id="p/b", field="output", before=Decimal(10), after=Decimal(5)),
        PriceChange(model_id="p/b", field="cache_read", before=None, after=Decimal("0.25")),
        PriceChange(model_id="p/unpriced", field="reasoning", before=Decimal(3), after=None),
    )
    assert report(found, known(), before).price_changes == tuple(run_to_end(find_price_changes(found, before)))


def test_a_model_without_prices_before_has_no_price_change() -> None:
    """A new one has none, and in a full run unchanged records are written too."""
    assert not run_to_end(find_price_changes(difference(models=(priced("p/new", input="1"),)), {}))


def test_prices_are_asked_for_models_that_changed() -> None:
    found = difference(touched_models=frozenset({"p/new", "p/b", "p/a", "p/back"}))
    assert changed_model_ids(found, known("p/b", "p/a", removed_models={"p/back": "1"})) == ["p/a", "p/b"]


def test_each_list_is_cut_by_itself() -> None:
    new, gone, back, changed = (ids(name, MAX_ENTRIES + 1) for name in ("new", "gone", "back", "changed"))
    bad = tuple(Quarantined(pointer=f"/{number}", reason="bad") for number in range(MAX_ENTRIES + 1))
    found = Difference(
        counts=RefreshCounts(),
        models=tuple(priced(id_, input="2") for id_ in changed),
        touched_models=frozenset({*new, *back, *changed}),
        removed_models=gone,
        quarantined=bad,
    )
    state = known(*changed, *gone, removed_models=dict.fromkeys(back, "1"))
    cut = report(found, state, {id_: usd(input="1") for id_ in changed})
    assert cut.truncated
    assert cut.added_model_ids == new[:MAX_ENTRIES]
    assert cut.removed_model_ids == gone[:MAX_ENTRIES]
    assert cut.revived_model_ids == back[:MAX_ENTRIES]
    assert cut.changed_model_ids == changed[:MAX_ENTRIES]
    assert tuple(change.model_id for change in cut.price_changes) == changed[:MAX_ENTRIES]
    assert cut.quarantined == bad[:MAX_ENTRIES]


def test_a_full_list_is_not_cut() -> None:
    new = ids("new", MAX_ENTRIES)
    whole = report(difference(touched_models=frozenset(new)), known())
    assert (whole.added_model_ids, whole.truncated) == (new, False)
    one_more = report(difference(touched_models=frozenset(ids("new", MAX_ENTRIES + 1))), known())
    assert (one_more.added_model_ids, one_more.truncated) == (new, True)
