"""Base prices before and after: what the gates judge and the report lists. Pure."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import fields
from operator import attrgetter

from modelcatalog_server.domain.models import ModelRecord, Prices
from modelcatalog_server.domain.refresh import Difference, KnownState, PriceChange

_FIELDS = tuple(each.name for each in fields(Prices))
_UNKNOWN = Prices()
_get_prices = attrgetter(*_FIELDS)


def changed_model_ids(difference: Difference, known: KnownState) -> list[str]:
    """Return the listed models whose record differs, in order of id: those whose prices before are worth reading."""
    return sorted(id_ for id_ in difference.touched_models if id_ in known.models)


def find_price_changes(
    difference: Difference, prices_before: Mapping[str, Prices]
) -> Generator[None, None, list[PriceChange]]:
    """Return, in steps, the base prices that differ, by model id and then in the order of the fields of ``Prices``.

    Only models with a price list in ``prices_before`` are looked at.
    """
    models = {record.id: record for record in difference.models}
    found: list[PriceChange] = []
    for id_ in sorted(models.keys() & prices_before.keys()):
        found.extend(_changes(id_, prices_before[id_], models[id_]))
        yield
    return found


def _changes(model_id: str, before: Prices, record: ModelRecord) -> Iterator[PriceChange]:
    after = record.pricing.prices if record.pricing else _UNKNOWN
    olds, news = _get_prices(before), _get_prices(after)
    if olds == news:
        return
    for name, old, new in zip(_FIELDS, olds, news, strict=True):
        if old != new:
            yield PriceChange(model_id=model_id, field=name, before=old, after=new)
