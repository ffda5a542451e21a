"""What a refresh has to write: added, changed, removed, revived, unchanged, set aside."""

from __future__ import annotations

from typing import Any

import pytest

from modelcatalog_server.domain.models import (
    CanonicalRecord,
    Capabilities,
    Limits,
    Modalities,
    ModelRecord,
    ProviderRecord,
)
from modelcatalog_server.domain.refresh import Difference, KnownState, Quarantined, RefreshCounts
from modelcatalog_server.domain.tasks import run_to_end
from modelcatalog_server.refresh.compare import DecodedCatalog, compare

BAD = Quarantined(pointer="/somewhere", reason="bad")


def model(id_: str, content_hash: str = "1") -> ModelRecord:
    provider_id, _, upstream_id = id_.partition("/")
    return ModelRecord(
        provider_id=provider_id,
        upstream_id=upstream_id,
        name=id_,
        type="chat",
        status="active",
        limits=Limits(),
        capabilities=Capabilities(),
        modalities=Modalities(),
        release_date="",
        last_updated="",
        raw="{}",
        content_hash=content_hash,
    )


def provider(id_: str, content_hash: str = "1") -> ProviderRecord:
    return ProviderRecord(id=id_, name=id_, raw="{}", content_hash=content_hash)


def canonical(id_: str, content_hash: str = "1") -> CanonicalRecord:
    return CanonicalRecord(id=id_, name=id_, raw="{}", content_hash=content_hash)


def decoded(**fields: Any) -> DecodedCatalog:
    return DecodedCatalog(**({"models": [], "providers": [], "canonical_models": []} | fields))


def known(**fields: Any) -> KnownState:
    nothing: dict[str, Any] = {
        "models": {},
        "removed_models": {},
        "providers": {},
        "removed_providers": frozenset(),
        "canonical_models": {},
        "removed_canonical_models": frozenset(),
    }
    return KnownState(**(nothing | fields))


def run(
    payload: DecodedCatalog, state: KnownState, provider_id: str | None = None, *, full: bool = False
) -> Difference:
    return run_to_end(compare(payload, state, provider_id=provider_id, full=full))


def ids(records: tuple[ModelRecord, ...] | tuple[ProviderRecord, ...] | tuple[CanonicalRecord, ...]) -> list[str]:
    return [record.id for record in records]


class TestModels:
    @pytest.mark.parametrize(
        ("state", "counts", "touched", "removed"),
        [
            ({}, RefreshCounts(seen=1, added=1), {"p/m"}, ()),
            ({"models": {"p/m": "1"}}, RefreshCounts(seen=1, unchanged=1), set(), ()),
            ({"models": {"p/m": "0"}}, RefreshCounts(seen=1, changed=1), {"p/m"}, ()),
            ({"removed_models": {"p/m": "0"}}, RefreshCounts(seen=1, revived=1), {"p/m"}, ()),
            ({"removed_models": {"p/m": "1"}}, RefreshCounts(seen=1, revived=1), {"p/m"}, ()),
            (
                {"models": {"p/m": "1", "p/y": "1", "p/x": "1"}, "removed_models": {"p/z": "1"}},
                RefreshCounts(seen=1, unchanged=1, removed=2),
                set(),
                ("p/x", "p/y"),
            ),
        ],
    )
    def test_by_what_became_of_them(
        self, state: dict[str, Any], counts: RefreshCounts, touched: set[str], removed: tuple[str, ...]
    ) -> None:
        difference = run(decoded(models=[model("p/m")], providers=[provider("p")]), known(**state))
        assert difference.counts == counts
        assert difference.touched_models == touched
        assert ids(difference.models) == ["p/m"], "one that says the same may be encoded otherwise"
        assert difference.removed_models == removed

    def test_a_full_run_writes_every_record_and_touches_what_differs(self) -> None:
        payload = decoded(
            models=[model("p/a"), model("p/b")], providers=[provider("p")], canonical_models=[canonical("l/a")]
        )
        state = known(models={"p/a": "1", "p/b": "0"}, providers={"p": "1"}, canonical_models={"l/a": "1"})
        difference = run(payload, state, full=True)
        assert (ids(difference.models), difference.touched_models) == (["p/a", "p/b"], frozenset({"p/b"}))
        assert (ids(difference.providers), difference.touched_providers) == (["p"], frozenset())
        assert (ids(difference.canonical_models), difference.touched_canonical_models) == (["l/a"], frozenset())
        assert difference.counts == RefreshCounts(seen=2, changed=1, unchanged=1)

    def test_a_full_run_over_the_same_is_empty(self) -> None:
        payload = decoded(models=[model("p/a")], providers=[provider("p")])
        assert run(payload, known(models={"p/a": "1"}, providers={"p": "1"}), full=True).is_empty


class TestSetAside:
    def test_a_known_model_keeps_its_last_good_version(self) -> None:
        payload = decoded(providers=[provider("p")], quarantined_models={"p/m": BAD, "p/new": BAD})
        difference = run(payload, known(models={"p/m": "1"}, removed_models={"p/old": "1"}, providers={"p": "1"}))
        assert difference.is_empty
        assert difference.counts == RefreshCounts(seen=2, quarantined=2)
        assert difference.quarantined == (BAD, BAD)

    def test_a_provider_keeps_its_models(self) -> None:
        payload = decoded(models=[model("q/m")], providers=[provider("q")], quarantined_providers={"p": BAD})
        state = known(
            models={"p/m": "1", "q/m": "1", "q/n": "1", "pp/m": "1"}, providers={"p": "1", "q": "1", "pp": "1"}
        )
        difference = run(payload, state)
        assert difference.removed_models == ("pp/m", "q/n")
        assert difference.removed_providers == ("pp",)
        assert difference.counts == RefreshCounts(seen=1, unchanged=1, removed=2)
        assert difference.quarantined == (BAD,)

    def test_a_canonical_model_stays(self) -> None:
        payload = decoded(quarantined_canonical_models={"l/a": BAD})
        difference = run(payload, known(canonical_models={"l/a": "1", "l/b": "1"}))
        assert difference.removed_canonical_models == ("l/b",)
        assert difference.quarantined == (BAD,)


class TestProvidersAndCanonicalModels:
    def test_by_what_became_of_them(self) -> None:
        payload = decoded(
            providers=[provider("new"), provider("same"), provider("other"), provider("back")],
            canonical_models=[canonical("l/new"), canonical("l/same"), canonical("l/other"), canonical("l/back")],
        )
        state = known(
            providers={"same": "1", "other": "0", "gone": "1"},
            removed_providers=frozenset({"back", "long gone"}),
            canonical_models={"l/same": "1", "l/other": "0", "l/gone": "1"},
            removed_canonical_models=frozenset({"l/back"}),
        )
        difference = run(payload, state)
        assert difference.touched_providers == {"new", "other", "back"}
        assert ids(difference.providers) == ["new", "other", "back"]
        assert difference.removed_providers == ("gone",)
        assert difference.touched_canonical_models == {"l/new", "l/other", "l/back"}
        assert ids(difference.canonical_models) == ["l/new", "l/other", "l/back"]
        assert difference.removed_canonical_models == ("l/gone",)
        assert difference.counts == RefreshCounts()

    def test_a_payload_without_canonical_models_removes_none(self) -> None:
        state = known(canonical_models={"l/a": "1"})
        assert run(decoded(canonical_models=None), state).is_empty
        assert run(decoded(canonical_models=None), state, full=True).canonical_models == ()


class TestOneProvider:
    PAYLOAD = decoded(
        models=[model("p/a"), model("q/a")],
        providers=[provider("p"), provider("q")],
        canonical_models=[canonical("l/a")],
        quarantined_models={"p/bad": BAD, "q/bad": Quarantined(pointer="/q", reason="not looked at")},
    )

    def test_leaves_the_others_alone(self) -> None:
        state = known(models={"p/gone": "1", "q/gone": "1"}, providers={"r": "1"}, canonical_models={"l/gone": "1"})
        difference = run(self.PAYLOAD, state, "p")
        assert difference.touched_models == {"p/a"}
        assert difference.removed_models == ("p/gone",)
        assert difference.touched_providers == {"p"}
        assert (difference.removed_providers, difference.removed_canonical_models) == ((), ())
        assert difference.canonical_models == ()
        assert difference.quarantined == (BAD,)
        assert difference.counts == RefreshCounts(seen=2, added=1, removed=1, quarantined=1)

    def test_that_is_gone_is_removed_with_its_models(self) -> None:
        difference = run(self.PAYLOAD, known(models={"r/a": "1"}, providers={"r": "1"}), "r")
        assert (difference.removed_models, difference.removed_providers) == (("r/a",), ("r",))

    def test_that_nobody_knows_is_no_difference(self) -> None:
        assert run(self.PAYLOAD, known(), "nobody").is_empty

    def test_that_could_not_be_read_stays(self) -> None:
        payload = decoded(quarantined_providers={"p": BAD})
        difference = run(payload, known(models={"p/a": "1"}, providers={"p": "1"}), "p")
        assert difference.is_empty
        assert difference.quarantined == (BAD,)
