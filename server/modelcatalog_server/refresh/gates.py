"""Gates between COMPARE and APPLY: whether a payload is fit to be written as a whole. Pure.

A record that cannot be read is set aside by itself, before. A gate is for what no record shows by itself: too few of
them, too many gone at once, prices in another unit. Where the limits come from: docs/decisions/0009-gates.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum

from modelcatalog_server.domain.errors import GateRefusedError
from modelcatalog_server.domain.ports.catalog import CatalogState
from modelcatalog_server.domain.refresh import Difference, KnownState, PriceChange

_DAY = timedelta(days=1)
_MAX_EXAMPLES = 5
_MAX_EXAMPLE_CHARS = 200
# Per token against per 1,000 or 1,000,000 tokens is a factor of 1,000 and more, and a price may move a little besides.
_SLIP_FACTOR = 500


class Gate(StrEnum):
    """The gates in the order in which they refuse. The names are the contract's ``override_gate``."""

    DUPLICATE_IDS = "duplicate_ids"
    MINIMUM_MODELS = "minimum_models"
    MINIMUM_PROVIDERS = "minimum_providers"
    QUARANTINE = "quarantine"
    REMOVED_MODELS = "removed_models"
    REMOVED_MODELS_OF_PROVIDER = "removed_models_of_provider"
    PRICE_UNIT = "price_unit"


@dataclass(frozen=True, slots=True, kw_only=True)
class GateLimits:
    """What is still taken for a good payload. Percentages are of 0 to 100."""

    #: The payload holds at least so many models, bad records included.
    min_models: int = 2000
    #: The payload holds at least so many providers.
    min_providers: int = 60
    #: Records that cannot be read, of all of their kind (models, providers).
    max_quarantined_percent: float = 5.0
    #: Fewer bad records of a kind are never refused: one of a limited run's twelve is no bad payload.
    min_quarantined: int = 10
    #: Listed models that may go right after a check against upstream, and how much more for every day since then.
    max_removed_percent: float = 3.0
    max_removed_percent_per_day: float = 0.5
    #: However long ago the last check was; beyond this somebody has to look.
    max_removed_percent_ever: float = 25.0
    #: The same for the models of one provider, which after some days may go altogether.
    max_provider_removed_percent: float = 50.0
    max_provider_removed_percent_per_day: float = 25.0
    #: Fewer removals, in all or of one provider, are never refused: small providers come and go.
    min_removed: int = 20
    #: Models with a price that moved by a factor of 500 or more; upstream mends one such mistake now and then.
    max_price_unit_slips: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What a gate says: one line for people, and its figures as text."""

    gate: Gate
    message: str
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Every refusal in the order of ``Gate``, and lines about what looks odd but is not refused."""

    refusals: tuple[Refusal, ...] = ()
    warnings: tuple[str, ...] = ()


def split_gates(text: str | None) -> tuple[str, ...]:
    """Return the names in an ``override_gate``, which has commas between them."""
    return tuple(name.strip() for name in text.split(",")) if text else ()


def to_error(refusals: Sequence[Refusal]) -> GateRefusedError:
    """Return the error that ends a run: what each gate says, and the figures of the first."""
    first = refusals[0]
    gates = ",".join(refusal.gate for refusal in refusals)
    message = "; also ".join(refusal.message for refusal in refusals)
    return GateRefusedError(first.gate, message, {**first.metadata, "gates": gates})


def judge(
    difference: Difference,
    *,
    known: KnownState,
    price_changes: Sequence[PriceChange],
    state: CatalogState,
    now: datetime,
    limits: GateLimits,
    provider_id: str | None,
) -> Verdict:
    """Return what speaks against writing a difference.

    Args:
        difference: What the run found.
        known: What it was compared with.
        price_changes: Base prices that differ, by model.
        state: Of the catalog. Without a ``checked_at`` removals are not judged: a bundled snapshot is of any age.
        now: Aware.
        limits: What is still good.
        provider_id: The one provider that the run is limited to; then the size of the whole is not judged.
    """
    slips = [change for change in price_changes if _is_slip(change)]
    slipped_models = {change.model_id: change for change in reversed(slips)}  # the first price of each
    found = [_judge_duplicates(difference)]
    if provider_id is None:
        found += [_judge_models(difference, limits), _judge_providers(difference, known, limits)]
    found += [_judge_quarantine(difference, known, limits)]
    if state.checked_at is not None:
        days = max((now - state.checked_at) / _DAY, 0.0)
        if provider_id is None:
            found += [_judge_removed(difference, known, days, limits)]
        found += [_judge_removed_of_provider(difference, known, days, limits)]
    found += [_judge_prices(slipped_models, limits)]
    refusals = tuple(refusal for refusal in found if refusal is not None)
    is_refused = any(refusal.gate is Gate.PRICE_UNIT for refusal in refusals)
    warnings = (_describe_slips(slipped_models),) if slipped_models and not is_refused else ()
    return Verdict(refusals=refusals, warnings=warnings)


def _judge_duplicates(difference: Difference) -> Refusal | None:
    ids = difference.duplicate_ids
    if not ids:
        return None
    return _refuse(
        Gate.DUPLICATE_IDS,
        f"the payload has {_count(len(ids), 'id')} more than once, e.g. {_printable(ids[0])}",
        ids,
        duplicates=len(ids),
        limit=0,
    )


def _judge_models(difference: Difference, limits: GateLimits) -> Refusal | None:
    seen = difference.counts.seen
    if seen >= limits.min_models:
        return None
    message = f"the payload has {_count(seen, 'model')}, at least {limits.min_models} are expected"
    return _refuse(Gate.MINIMUM_MODELS, message, seen=seen, limit=limits.min_models)


def _judge_providers(difference: Difference, known: KnownState, limits: GateLimits) -> Refusal | None:
    seen = _count_providers(difference, known)
    if seen >= limits.min_providers:
        return None
    message = f"the payload has {_count(seen, 'provider')}, at least {limits.min_providers} are expected"
    return _refuse(Gate.MINIMUM_PROVIDERS, message, seen=seen, limit=limits.min_providers)


def _count_providers(difference: Difference, known: KnownState) -> int:
    """Return how many providers the payload has: those that stay listed, and those that come or come back."""
    came = difference.touched_providers - known.providers.keys()
    return len(known.providers) - len(difference.removed_providers) + len(came)


def _judge_quarantine(difference: Difference, known: KnownState, limits: GateLimits) -> Refusal | None:
    """Models against models and providers against providers: one bad record of a provider with 600 models is one."""
    bad_models = difference.counts.quarantined
    # A provider's pointer is /providers/<id>, a model's goes deeper, and a slash in an id is escaped.
    bad_providers = [
        each.pointer
        for each in difference.quarantined
        if each.pointer.startswith("/providers/") and each.pointer.count("/") == 2
    ]
    providers = max(_count_providers(difference, known), len(bad_providers))
    for kind, bad, seen in (
        ("model", bad_models, difference.counts.seen),
        ("provider", len(bad_providers), providers),
    ):
        share = _percent(bad, seen)
        if bad >= limits.min_quarantined and share > limits.max_quarantined_percent:
            return _refuse(
                Gate.QUARANTINE,
                f"{bad} of {_count(seen, kind)} cannot be read ({share:.2f} %, at most"
                f" {limits.max_quarantined_percent:g} % may be set aside)",
                [each.pointer for each in difference.quarantined],
                kind=kind,
                quarantined=bad,
                seen=seen,
                percent=share,
                limit_percent=limits.max_quarantined_percent,
            )
    return None


def _judge_removed(difference: Difference, known: KnownState, days: float, limits: GateLimits) -> Refusal | None:
    """What is normal depends on the time that has gone by: a tenth in six weeks is, a tenth in an hour is not.

    Canonical models are judged by themselves: they come in a section, or a document, of their own, and their benchmarks
    and the links to them go with them.
    """
    grown = limits.max_removed_percent + limits.max_removed_percent_per_day * days
    allowed = min(grown, max(limits.max_removed_percent, limits.max_removed_percent_ever))
    for kind, removed, listed in (
        ("model", difference.removed_models, len(known.models)),
        ("canonical model", difference.removed_canonical_models, len(known.canonical_models)),
    ):
        share = _percent(len(removed), listed)
        if len(removed) >= limits.min_removed and share > allowed:
            return _refuse(
                Gate.REMOVED_MODELS,
                f"{len(removed)} of {listed} listed {kind}s would be removed ({share:.2f} %, at most {allowed:.2f} %"
                f" may go {days:.2f} days after the last check)",
                removed,
                kind=kind,
                removed=len(removed),
                known=listed,
                percent=share,
                limit_percent=allowed,
                days_since_check=days,
            )
    return None


def _judge_removed_of_provider(
    difference: Difference, known: KnownState, days: float, limits: GateLimits
) -> Refusal | None:
    """A provider's loss drowns in the whole: 132 models are 3 % of it. The refusal is about the greatest share."""
    removed = Counter(map(_provider_of, difference.removed_models))
    if not any(count >= limits.min_removed for count in removed.values()):
        return None
    listed = Counter(map(_provider_of, known.models))
    allowed = limits.max_provider_removed_percent + limits.max_provider_removed_percent_per_day * days
    shares = {id_: _percent(count, listed[id_]) for id_, count in removed.items() if count >= limits.min_removed}
    refused = sorted((id_ for id_, share in shares.items() if share > allowed), key=lambda id_: (-shares[id_], id_))
    if not refused:
        return None
    worst = refused[0]
    others = f"; {_count(len(refused) - 1, 'other provider')} too" if len(refused) > 1 else ""
    return _refuse(
        Gate.REMOVED_MODELS_OF_PROVIDER,
        f"{removed[worst]} of {listed[worst]} listed models of {worst} would be removed ({shares[worst]:.2f} %, at"
        f" most {allowed:.2f} % may go {days:.2f} days after the last check){others}",
        [id_ for id_ in difference.removed_models if _provider_of(id_) == worst],
        provider_id=worst,
        removed=removed[worst],
        known=listed[worst],
        percent=shares[worst],
        limit_percent=allowed,
        days_since_check=days,
        providers=len(refused),
    )


def _judge_prices(slipped_models: Mapping[str, PriceChange], limits: GateLimits) -> Refusal | None:
    if len(slipped_models) <= limits.max_price_unit_slips:
        return None
    return _refuse(
        Gate.PRICE_UNIT,
        f"{_describe_slips(slipped_models)}; at most {limits.max_price_unit_slips} may",
        list(slipped_models),
        models=len(slipped_models),
        limit=limits.max_price_unit_slips,
        factor=_SLIP_FACTOR,
    )


def _describe_slips(slipped_models: Mapping[str, PriceChange]) -> str:
    first = min(slipped_models.values(), key=lambda change: change.model_id)
    return (
        f"prices of {_count(len(slipped_models), 'model')} moved by a factor of {_SLIP_FACTOR} or more, e.g."
        f" {first.field} of {first.model_id} from {first.before:f} to {first.after:f}"
    )


def _is_slip(change: PriceChange) -> bool:
    """Whether a price moved so far that its unit must have; from or to nothing is another matter."""
    if not change.before or not change.after:
        return False
    low, high = sorted((abs(change.before), abs(change.after)))
    return high >= low * Decimal(_SLIP_FACTOR)


def _refuse(gate: Gate, message: str, examples: Sequence[str] = (), /, **figures: str | float) -> Refusal:
    metadata = {"gate": str(gate)} | {name: _format(figure) for name, figure in figures.items()}
    if examples:
        metadata["examples"] = ",".join(_printable(id_) for id_ in sorted(examples)[:_MAX_EXAMPLES])
    return Refusal(gate=gate, message=f"{gate}: {message}", metadata=metadata)


def _format(figure: str | float) -> str:
    return f"{figure:.2f}" if isinstance(figure, float) else str(figure)


def _printable(text: str) -> str:
    """Ids come from outside: bounded, and without what a database or a terminal does not take."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text[:_MAX_EXAMPLE_CHARS])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else 0.0


def _provider_of(model_id: str) -> str:
    return model_id.partition("/")[0]
