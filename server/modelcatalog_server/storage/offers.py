"""Offers of one model: part of port ``CatalogSnapshot`` over PostgreSQL."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from psycopg.rows import DictRow

from modelcatalog_server.domain.models import Model
from modelcatalog_server.domain.offers import OFFER_FIELDS, Offer, OfferSummary
from modelcatalog_server.domain.query import Boundary, Expression, Listed
from modelcatalog_server.storage import queries
from modelcatalog_server.storage.composition import compose_offers
from modelcatalog_server.storage.pools import Statements

_OFFERS = queries.load("offers")


async def list_offers(
    connection: Statements,
    of: Expression,
    *,
    ratio: Decimal,
    past_revision: int | None,
    after: Boundary,
    limit: int,
    with_raw: bool,
) -> list[Listed[Offer]]:
    """Return one page of the offers of a model, cheapest first, now or as they were at a past revision."""
    composition = compose_offers(of)
    statement = _OFFERS["list_offers" if past_revision is None else "list_offers_at_revision"]
    parameters: dict[str, Any] = {
        **composition.parameters,
        "ratio": ratio,
        "revision": past_revision,
        "after_id": after.id,
        "after_mix": after.keys[0] if after.keys else None,
        "limit": limit,
        "with_raw": with_raw,
    }
    rows = await (await connection.execute(composition.fill(statement), parameters)).fetchall()
    return [_read_offer(row) for row in rows]


async def summarize_offers(connection: Statements, of: Expression, *, past_revision: int | None) -> OfferSummary:
    """Return what all offers of a model are together."""
    composition = compose_offers(of)
    statement = _OFFERS["summarize_offers" if past_revision is None else "summarize_offers_at_revision"]
    parameters = {**composition.parameters, "revision": past_revision}
    (row,) = await (await connection.execute(composition.fill(statement), parameters)).fetchall()
    differing = [path for path, differs in zip(OFFER_FIELDS, row["differs"], strict=True) if differs]
    return OfferSummary(total=row["total"], differing=sorted(differing))


def _read_offer(row: DictRow) -> Listed[Offer]:
    mix, values = row.pop("mix"), row.pop("values")
    offer = Offer(model=Model(**row), mix=mix, values=values)
    keys = (None if mix is None else format(mix, "f"),)
    return Listed(item=offer, boundary=Boundary(id=offer.model.model_id, keys=keys))
