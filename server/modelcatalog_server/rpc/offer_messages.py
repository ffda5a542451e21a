"""Offers and facets as the contract's messages. Unset stays unset."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from modelcatalog.v1 import model_catalog_service_pb2 as pb
from modelcatalog_server.catalog.facets import Facet
from modelcatalog_server.catalog.offers import blend, differences
from modelcatalog_server.domain.money import format_decimal
from modelcatalog_server.domain.offers import Offer
from modelcatalog_server.rpc.model_messages import ModelShape


def to_offer(offer: Offer, ratio: Decimal, differing: Sequence[str], shape: ModelShape) -> pb.ModelOffer:
    """Return one provider's offer."""
    blended = blend(offer, ratio)
    message = pb.ModelOffer(
        model=shape.to_model(offer.model),
        blended_price=None if blended is None else format_decimal(blended),
        price_unknown=blended is None,
    )
    for path, value in differences(offer, differing):
        message.differences.add(field=path, value=value)
    return message


def to_facet(facet: Facet) -> pb.Facet:
    """Return what models have in a field."""
    return pb.Facet(
        field=facet.path,
        type=facet.type,
        operators=facet.operators,
        values=[pb.FacetValue(value=value, count=count) for value, count in facet.values],
        min=facet.smallest,
        max=facet.largest,
        unset_count=facet.unset,
    )
