"""The gates: each on either side of its bound, when a gate does not judge, and what a refusal says."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from modelcatalog_server.domain.errors import GateRefusedError, RefreshError, StartupError
from modelcatalog_server.domain.models import Prices
from modelcatalog_server.domain.ports.catalog import CatalogState
from modelcatalog_server.domain.refresh import Difference, KnownState, Quarantined, RefreshCounts
from modelcatalog_server.domain.tasks import run_to_end
from modelcatalog_server.refresh.gates import Gate, GateLimits, Verdict, judge, split_gates, to_error
from modelcatalog_server.refresh.prices import find_price_changes
from modelcatalog_server.settings import Settings, load_settings
from unit.differences import difference, ids, known, priced, providers, usd

NOW = datetime(2026, 7, 2, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)

#: Nothing is too much. Tests set the one limit that they are about.
OPEN = GateLimits(
    min_models=0,
    min_providers=0,
    max_quarantined_percent=100,
    min_quarantined=0,
    max_removed_percent=100,
    max_provider_removed_percent=100,
    min_removed=0,
    max_price_unit_slips=10**6,
)


def run(
    found: Difference,
    state: KnownState | None = None,
    *,
    limits: GateLimits = OPEN,
    since_check: timedelta | None = HOUR,
    prices: dict[str, Prices] | None = None,
    provider_id: str | None = None,
) -> Verdict:
    return judge(
        found,
        known=state or known(),
        price_changes=run_to_end(find_price_changes(found, prices or {})),
        state=CatalogState(
            revision=1,
            changed_at=NOW,
            checked_at=None if since_check is None else NOW - since_check,
            source_url=None,
            source_etag=None,
            source_snapshot=None,
            upstream_not_before=None,
            upstream_not_before_url=None,
        ),
        now=NOW,
        limits=limits,
        provider_id=provider_id,
    )


def gates(verdict: Verdict) -> list[str]:
    return [str(refusal.gate) for refusal in verdict.refusals]


def metadata(verdict: Verdict) -> dict[str, str]:
    (refusal,) = verdict.refusals
    return dict(refusal.metadata)


class TestDuplicateIds:
    def test_one_is_too_many(self) -> None:
        assert gates(run(difference())) == []
        verdict = run(difference(duplicate_ids=("p/b", "p/a")))
        assert metadata(verdict) == {
            "gate": "duplicate_ids",
            "duplicates": "2",
            "limit": "0",
            "examples": "p/a,p/b",
        }

    def test_what_is_in_an_id_does_no_harm(self) -> None:
        (refusal,) = run(difference(duplicate_ids=("p/\x00\x1b[2J" + "x" * 1000,))).refusals
        text = refusal.message + refusal.metadata["examples"]
        assert text.isprintable()
        assert len(text) < 1000


class TestMinimum:
    @pytest.mark.parametrize(("seen", "refused"), [(10, False), (9, True), (0, True)])
    def test_models(self, seen: int, refused: bool) -> None:
        verdict = run(difference(seen=seen), limits=replace(OPEN, min_models=10))
        assert gates(verdict) == ["minimum_models"] * refused
        if refused:
            assert metadata(verdict) == {"gate": "minimum_models", "seen": str(seen), "limit": "10"}

    @pytest.mark.parametrize(("minimum", "refused"), [(5, False), (6, True)])
    def test_providers_are_those_that_stay_and_those_that_come(self, minimum: int, refused: bool) -> None:
        found = difference(removed_providers=("p0",), touched_providers=frozenset({"p1", "new", "back"}))
        state = known(providers=providers(4), removed_providers=frozenset({"back"}))
        verdict = run(found, state, limits=replace(OPEN, min_providers=minimum))
        assert gates(verdict) == ["minimum_providers"] * refused
        if refused:
            assert metadata(verdict) == {"gate": "minimum_providers", "seen": "5", "limit": "6"}

    def test_a_first_load_is_judged_too(self) -> None:
        assert gates(run(difference(seen=9), since_check=None, limits=GateLimits())) == [
            "minimum_models",
            "minimum_providers",
        ]

    def test_the_whole_of_a_limited_run_is_not_judged(self) -> None:
        assert gates(run(difference(seen=9), limits=GateLimits(), provider_id="p")) == []


class TestQuarantine:
    LIMITS = replace(OPEN, max_quarantined_percent=5.0, min_quarantined=10)

    @pytest.mark.parametrize(
        ("bad", "seen", "refused"),
        [(9, 9, False), (10, 200, False), (10, 199, True), (264, 5280, False), (265, 5280, True)],
    )
    def test_models(self, bad: int, seen: int, refused: bool) -> None:
        verdict = run(difference(seen=seen, quarantined=bad), limits=self.LIMITS)
        assert gates(verdict) == ["quarantine"] * refused

    @pytest.mark.parametrize(("bad", "refused"), [(9, False), (10, True)])
    def test_providers(self, bad: int, refused: bool) -> None:
        """What they serve is neither seen nor removed, so that nothing else would tell of them."""
        found = Difference(
            counts=RefreshCounts(seen=1000),
            quarantined=tuple(Quarantined(pointer=f"/providers/a~1{n}", reason="bad") for n in range(bad)),
        )
        verdict = run(found, known(providers=providers(147)), limits=self.LIMITS)
        assert gates(verdict) == ["quarantine"] * refused

    def test_providers_never_seen_before_count_against_themselves(self) -> None:
        bad = tuple(Quarantined(pointer=f"/providers/{n}", reason="bad") for n in range(10))
        found = Difference(counts=RefreshCounts(seen=1000), quarantined=bad)
        assert metadata(run(found, limits=self.LIMITS))["seen"] == "10"

    def test_models_and_canonical_models_are_no_providers(self) -> None:
        bad = tuple(
            Quarantined(pointer=pointer, reason="bad")
            for n in range(50)
            for pointer in (f"/providers/p/models/{n}", f"/models/{n}")
        )
        found = Difference(counts=RefreshCounts(seen=1000, quarantined=50), quarantined=bad)
        assert gates(run(found, known(providers=providers(10)), limits=self.LIMITS)) == []

    def test_one_bad_record_of_a_small_provider_is_no_refusal(self) -> None:
        assert gates(run(difference(seen=1, quarantined=1), limits=GateLimits(), provider_id="p")) == []

    def test_what_it_says(self) -> None:
        bad = tuple(Quarantined(pointer=f"/providers/p/models/{n}", reason="bad") for n in range(40))
        verdict = run(Difference(counts=RefreshCounts(seen=100, quarantined=40), quarantined=bad), limits=self.LIMITS)
        assert metadata(verdict) == {
            "gate": "quarantine",
            "kind": "model",
            "quarantined": "40",
            "seen": "100",
            "percent": "40.00",
            "limit_percent": "5.00",
            "examples": ",".join(f"/providers/p/models/{n}" for n in (0, 1, 10, 11, 12)),
        }
        assert verdict.refusals[0].message == (
            "quarantine: 40 of 100 models cannot be read (40.00 %, at most 5 % may be set aside)"
        )


class TestRemovedModels:
    LIMITS = replace(
        OPEN, max_removed_percent=3, max_removed_percent_per_day=0.5, max_removed_percent_ever=25, min_removed=20
    )

    @pytest.mark.parametrize(
        ("removed", "days", "refused"),
        [
            (30, 0, False),
            (31, 0, True),
            (100, 1 / 24, True),
            (60, 6, False),
            (61, 6, True),
            (100, 42, False),
            (250, 44, False),
            (251, 44, True),
            (251, 365, True),
        ],
    )
    def test_what_is_normal_grows_with_the_days_up_to_a_bound(self, removed: int, days: float, refused: bool) -> None:
        all_ids = ids("p", 1000)
        found = difference(removed_models=all_ids[:removed])
        verdict = run(found, known(*all_ids), limits=self.LIMITS, since_check=timedelta(days=days))
        assert gates(verdict) == ["removed_models"] * refused

    @pytest.mark.parametrize(("removed", "refused"), [(19, False), (20, True)])
    def test_a_few_are_never_too_many(self, removed: int, refused: bool) -> None:
        all_ids = ids("p", 40)
        found = difference(removed_models=all_ids[:removed])
        assert gates(run(found, known(*all_ids), limits=self.LIMITS)) == ["removed_models"] * refused

    def test_a_limit_above_the_bound_is_the_bound(self) -> None:
        all_ids = ids("p", 100)
        limits = replace(self.LIMITS, max_removed_percent=100)
        assert gates(run(difference(removed_models=all_ids), known(*all_ids), limits=limits)) == []

    @pytest.mark.parametrize(("removed", "days", "refused"), [(19, 0, False), (20, 0, True), (30, 24, False)])
    def test_canonical_models_are_judged_by_themselves(self, removed: int, days: float, refused: bool) -> None:
        """Links and benchmarks go with them, and no served model that is gone would tell of it."""
        all_ids = ids("lab", 200)
        state = known(*ids("p", 5000), canonical_models=dict.fromkeys(all_ids, "1"))
        found = difference(removed_canonical_models=all_ids[:removed])
        verdict = run(found, state, limits=self.LIMITS, since_check=timedelta(days=days))
        assert gates(verdict) == ["removed_models"] * refused
        if refused:
            assert metadata(verdict)["kind"] == "canonical model"
            assert verdict.refusals[0].message.startswith("removed_models: 20 of 200 listed canonical models would")

    def test_against_a_bundled_snapshot_nothing_is_judged(self) -> None:
        all_ids = ids("p", 1000)
        found = difference(removed_models=all_ids, seen=5000)
        state = known(*all_ids, providers=providers(100))
        assert gates(run(found, state, limits=GateLimits(), since_check=None)) == []
        assert gates(run(found, state, limits=GateLimits())) == ["removed_models", "removed_models_of_provider"]

    def test_a_clock_that_was_set_back_is_no_time(self) -> None:
        all_ids = ids("p", 1000)
        found = difference(removed_models=all_ids[:31])
        verdict = run(found, known(*all_ids), limits=self.LIMITS, since_check=-timedelta(days=9))
        assert metadata(verdict)["limit_percent"] == "3.00"

    def test_a_limited_run_is_judged_by_its_provider_alone(self) -> None:
        all_ids = ids("p", 100)
        state = known(*all_ids)
        half, more = difference(removed_models=all_ids[:50]), difference(removed_models=all_ids[:60])
        assert gates(run(half, state, limits=GateLimits(), provider_id="p")) == []
        assert gates(run(more, state, limits=GateLimits(), provider_id="p")) == ["removed_models_of_provider"]

    def test_what_it_says(self) -> None:
        all_ids = ids("p", 1000)
        verdict = run(
            difference(removed_models=all_ids[:100]), known(*all_ids), limits=self.LIMITS, since_check=HOUR * 6
        )
        assert metadata(verdict) == {
            "gate": "removed_models",
            "kind": "model",
            "removed": "100",
            "known": "1000",
            "percent": "10.00",
            "limit_percent": "3.12",
            "days_since_check": "0.25",
            "examples": "p/m0000,p/m0001,p/m0002,p/m0003,p/m0004",
        }
        assert verdict.refusals[0].message == (
            "removed_models: 100 of 1000 listed models would be removed"
            " (10.00 %, at most 3.12 % may go 0.25 days after the last check)"
        )


class TestRemovedModelsOfProvider:
    LIMITS = replace(OPEN, max_provider_removed_percent=50, max_provider_removed_percent_per_day=25, min_removed=20)

    @pytest.mark.parametrize(
        ("listed", "removed", "days", "refused"),
        [
            (40, 20, 0, False),
            (40, 21, 0, True),
            (19, 19, 0, False),
            (20, 20, 0, True),
            (100, 75, 1, False),
            (100, 76, 1, True),
            (100, 100, 2, False),
            (132, 132, 1 / 24, True),
        ],
    )
    def test_a_share_and_a_number(self, listed: int, removed: int, days: float, refused: bool) -> None:
        """The others hide it from a gate that looks at all models."""
        gone = ids("small", listed)[:removed]
        state = known(*ids("small", listed), *ids("big", 5000))
        verdict = run(difference(removed_models=gone), state, limits=self.LIMITS, since_check=timedelta(days=days))
        assert gates(verdict) == ["removed_models_of_provider"] * refused

    def test_it_names_the_worst_and_counts_the_others(self) -> None:
        state = known(*ids("a", 40), *ids("b", 40), *ids("c", 40))
        gone = (*ids("a", 30), *ids("b", 36), *ids("c", 1))
        verdict = run(difference(removed_models=gone), state, limits=self.LIMITS)
        assert metadata(verdict) == {
            "gate": "removed_models_of_provider",
            "provider_id": "b",
            "removed": "36",
            "known": "40",
            "percent": "90.00",
            "limit_percent": "51.04",
            "days_since_check": "0.04",
            "providers": "2",
            "examples": "b/m0000,b/m0001,b/m0002,b/m0003,b/m0004",
        }
        assert verdict.refusals[0].message == (
            "removed_models_of_provider: 36 of 40 listed models of b would be removed"
            " (90.00 %, at most 51.04 % may go 0.04 days after the last check); 1 other provider too"
        )

    def test_against_a_bundled_snapshot_nothing_is_judged(self) -> None:
        all_ids = ids("p", 100)
        found = difference(removed_models=all_ids)
        assert gates(run(found, known(*all_ids), limits=self.LIMITS, since_check=None)) == []


class TestPriceUnit:
    LIMITS = replace(OPEN, max_price_unit_slips=2)

    @staticmethod
    def slips(count: int) -> tuple[Difference, dict[str, Prices]]:
        all_ids = ids("p", count)
        found = difference(models=tuple(priced(id_, input="1250", output="5000") for id_ in all_ids))
        return found, {id_: usd(input="1.25", output="5") for id_ in all_ids}

    @pytest.mark.parametrize(
        ("before", "after", "slipped"),
        [
            ("1.25", "1250", True),
            ("1250", "1.25", True),
            ("1.25", "0.00000125", True),
            ("0.00000125", "1.25", True),
            ("0.003", "1.5", True),
            ("0.003", "1.49999", False),
            ("1.5", "0.003", True),
            ("1.49999", "0.003", False),
            ("0.2", "0.0036", False),  # mimo-v2.5-pro, the widest that upstream changed on purpose
            ("0", "1000", False),
            ("1000", "0", False),
        ],
    )
    @pytest.mark.parametrize("name", Prices.__slots__)
    def test_every_price_in_both_directions(self, name: str, before: str, after: str, slipped: bool) -> None:
        found = difference(models=(priced("p/m", **{name: after}),))
        verdict = run(found, limits=replace(OPEN, max_price_unit_slips=0), prices={"p/m": usd(**{name: before})})
        assert gates(verdict) == ["price_unit"] * slipped

    def test_an_unknown_price_is_no_slip(self) -> None:
        limits = replace(OPEN, max_price_unit_slips=0)
        found = difference(models=(priced("p/a", input="1000"), priced("p/b")))
        assert run(found, limits=limits, prices={"p/a": Prices(), "p/b": usd(input="1000")}) == Verdict()

    def test_a_few_are_a_warning_and_more_are_refused(self) -> None:
        two, prices = self.slips(2)
        assert run(two, limits=self.LIMITS, prices=prices) == Verdict(
            warnings=("prices of 2 models moved by a factor of 500 or more, e.g. input of p/m0000 from 1.25 to 1250",)
        )
        three, prices = self.slips(3)
        verdict = run(three, limits=self.LIMITS, prices=prices)
        assert verdict.warnings == ()
        assert metadata(verdict) == {
            "gate": "price_unit",
            "models": "3",
            "limit": "2",
            "factor": "500",
            "examples": "p/m0000,p/m0001,p/m0002",
        }

    def test_models_without_a_price_before_are_not_judged(self) -> None:
        found, _ = self.slips(3)
        assert run(found, limits=self.LIMITS) == Verdict()

    def test_a_number_is_written_without_an_exponent(self) -> None:
        found = difference(models=(priced("p/m", input="0.00000002"),))
        (warning,) = run(found, prices={"p/m": usd(input="2E+1")}).warnings
        assert warning.endswith("from 20 to 0.00000002")


def test_all_refuse_in_the_order_of_the_contract() -> None:
    all_ids = ids("p", 100)
    slipped, prices = TestPriceUnit.slips(6)
    found = replace(
        slipped,
        counts=RefreshCounts(seen=100, quarantined=50),
        removed_models=all_ids,
        duplicate_ids=("p/x",),
    )
    verdict = run(found, known(*all_ids, providers=providers(1)), limits=GateLimits(), prices=prices)
    assert gates(verdict) == list(Gate)
    assert all("\n" not in refusal.message for refusal in verdict.refusals)
    assert all(refusal.metadata["gate"] == refusal.gate for refusal in verdict.refusals)


def test_the_settings_say_the_limits() -> None:
    assert load_settings().gate_limits == GateLimits()
    changed = load_settings(
        gate_min_models=1,
        gate_min_providers=2,
        gate_max_quarantined_percent=3,
        gate_max_removed_percent=4,
        gate_max_removed_percent_per_day=5,
        gate_max_provider_removed_percent=6,
        gate_max_price_unit_slips=0,
    )
    assert changed.gate_limits == GateLimits(
        min_models=1,
        min_providers=2,
        max_quarantined_percent=3,
        max_removed_percent=4,
        max_removed_percent_per_day=5,
        max_provider_removed_percent=6,
        max_price_unit_slips=0,
    )


@pytest.mark.parametrize("name", [name for name in Settings.model_fields if name.startswith("gate_")])
def test_a_limit_below_zero_or_above_the_whole_is_refused(name: str) -> None:
    for value in (-1, 100.5):
        with pytest.raises(StartupError, match=f"MODELCATALOG_{name.upper()}: "):
            load_settings(**{name: value})


def test_a_refusal_is_an_error_of_the_refresh() -> None:
    (refusal,) = run(difference(duplicate_ids=("p/a",))).refusals
    error = to_error([refusal])
    assert isinstance(error, GateRefusedError)
    assert isinstance(error, RefreshError)
    assert (error.gate, str(error), error.message) == ("duplicate_ids", refusal.message, refusal.message)
    assert error.metadata == {**refusal.metadata, "gates": "duplicate_ids"}


def test_several_refusals_are_one_error_that_names_them_all() -> None:
    refusals = run(difference(duplicate_ids=("p/a",), seen=1, unchanged=1), limits=GateLimits()).refusals
    error = to_error(refusals)
    assert [refusal.gate for refusal in refusals] == ["duplicate_ids", "minimum_models", "minimum_providers"]
    assert error.metadata["gates"] == "duplicate_ids,minimum_models,minimum_providers"
    assert error.metadata["gate"] == error.gate == "duplicate_ids"
    assert error.metadata["duplicates"] == "1"
    assert all(refusal.message in str(error) for refusal in refusals)


@pytest.mark.parametrize(
    ("text", "names"),
    [(None, ()), ("", ()), ("quarantine", ("quarantine",)), ("a, b,c", ("a", "b", "c")), ("a,", ("a", ""))],
)
def test_gates_are_named_with_commas_between(text: str | None, names: tuple[str, ...]) -> None:
    assert split_gates(text) == names


def test_nothing_found_is_nothing_said() -> None:
    all_ids = ids("p", 3000)
    assert (
        run(difference(seen=3000, unchanged=3000), known(*all_ids, providers=providers(100)), limits=GateLimits())
        == Verdict()
    )
