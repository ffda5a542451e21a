"""Every provider's offer of one model, cheapest first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext

from modelcatalog_server.catalog.arguments import to_page_size
from modelcatalog_server.catalog.fields import MODEL_FIELDS
from modelcatalog_server.catalog.paging import Page, PageTokens, Position
from modelcatalog_server.catalog.references import References
from modelcatalog_server.catalog.snapshots import ANY_REVISION, AtLeast, Read, Snapshots
from modelcatalog_server.domain.errors import ModelNotFoundError
from modelcatalog_server.domain.offers import OFFER_FIELDS, Offer
from modelcatalog_server.domain.ports.catalog import CatalogSnapshot
from modelcatalog_server.domain.query import Boundary, Comparison, Listed, Operator
from modelcatalog_server.domain.resolution import Resolution

#: Input tokens per output token, unless a request says otherwise.
DEFAULT_RATIO = 3.0
# Of a blended price. Prices have 9, and the default ratio divides by four.
_DECIMALS = Decimal("1e-12")


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferQuery:
    """Arguments of a listing of offers: one of the two ids."""

    canonical_id: str = ""
    model_id: str = ""
    ratio: float | None = None
    page_size: int = 0
    page_token: str = ""
    with_raw: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Offers:
    """One page of offers. ``canonical_id`` is ``None`` for a served model whose canonical one is not known.

    ``differing``: fields in which not all offers on all pages are equal. ``resolution``: how the model was found,
    ``None`` for an exact id and on later pages.
    """

    page: Page[Offer]
    ratio: Decimal
    canonical_id: str | None
    differing: Sequence[str]
    resolution: Resolution | None = None


@dataclass(frozen=True, slots=True)
class _Subject:
    """Whose offers are listed: all of a canonical model, or the one of a served model (``path`` is ``id``)."""

    path: str
    id: str
    resolution: Resolution | None = None

    @property
    def condition(self) -> Comparison:
        return Comparison(field=MODEL_FIELDS.fields[self.path], operator=Operator.EQUAL, value=self.id)


class OfferReader:
    """Answers listings of offers from the store."""

    def __init__(self, snapshots: Snapshots, references: References, page_tokens: PageTokens) -> None:
        self._snapshots = snapshots
        self._references = references
        self._page_tokens = page_tokens

    async def list_offers(self, query: OfferQuery, *, at_least: AtLeast = ANY_REVISION) -> Read[Offers]:
        """Return one page of offers; later pages stay in the revision, and with the model, of the first.

        Raises:
            AmbiguousModelError, ModelNotFoundError: with up to ten candidates.
            InvalidPageTokenError, PageTokenExpiredError: the token is not good.
        """
        size = to_page_size(query.page_size)
        ratio = to_ratio(query.ratio)
        scope = ["offers", query.canonical_id, query.model_id, str(ratio)]
        async with self._snapshots.open(self._page_tokens.at_least(query.page_token, at_least)) as snapshot:
            position = self._page_tokens.read_position(query.page_token, scope, snapshot.state)
            subject = await self._find_subject(snapshot, query, position)
            listed = await snapshot.list_offers(
                subject.condition,
                ratio=ratio,
                revision=position.revision,
                after=position.after,
                limit=size + 1,
                with_raw=query.with_raw,
            )
            summary = await snapshot.summarize_offers(subject.condition, revision=position.revision)
            page = self._page_tokens.cut_page(
                [_with_subject(each, subject) for each in listed], size, position.revision, summary.total, scope
            )
        offers = Offers(
            page=page,
            ratio=ratio,
            canonical_id=subject.id if subject.path == "canonical_id" else None,
            differing=summary.differing,
            resolution=subject.resolution,
        )
        return Read(state=snapshot.state, value=offers)

    async def _find_subject(self, snapshot: CatalogSnapshot, query: OfferQuery, position: Position) -> _Subject:
        if position.after.keys:
            _, path, id_ = position.after.keys
            return _Subject(str(path), str(id_))
        asked = query.canonical_id or query.model_id
        found, canonical_id = await snapshot.get_canonical_id(asked)
        if query.canonical_id:
            if canonical_id != asked:
                raise ModelNotFoundError(asked, await snapshot.find_near_canonical_ids(asked))
            return _Subject("canonical_id", asked)
        if not found:
            return await self._resolve_subject(snapshot, asked)
        return _Subject("canonical_id", canonical_id) if canonical_id else _Subject("id", asked)

    async def _resolve_subject(self, snapshot: CatalogSnapshot, reference: str) -> _Subject:
        """Return whose offers a reference asks for."""
        resolution = await self._references.require_canonical(snapshot, reference)
        if resolution.canonical_id:
            return _Subject("canonical_id", resolution.canonical_id, resolution)
        return _Subject("id", resolution.model_id or "", resolution)


def to_ratio(asked: float | None) -> Decimal:
    """Return input tokens per output token: the shortest decimal number that a float stands for."""
    if asked is None:
        asked = DEFAULT_RATIO
    return Decimal(repr(asked + 0.0))  # which makes -0.0 a zero


def blend(offer: Offer, ratio: Decimal) -> Decimal | None:
    """Return the price of 1,000,000 tokens, input and output as they are mixed: (ratio * input + output) / (ratio + 1).

    Rounded to 12 decimals, half to even, which is exact for the default ratio.
    """
    if offer.mix is None:
        return None
    with localcontext(prec=400):  # the digits of the smallest float
        return (offer.mix / (ratio + 1)).quantize(_DECIMALS)


def differences(offer: Offer, differing: Sequence[str]) -> Sequence[tuple[str, str | None]]:
    """Return an offer's values of some of ``OFFER_FIELDS``."""
    values = dict(zip(OFFER_FIELDS, offer.values, strict=True))
    return [(path, values[path]) for path in differing]


def _with_subject(listed: Listed[Offer], subject: _Subject) -> Listed[Offer]:
    """Have the token of the next page say whose offers they are: by then an id may mean another model."""
    keys = (*listed.boundary.keys, subject.path, subject.id)
    return Listed(item=listed.item, boundary=Boundary(id=listed.boundary.id, keys=keys))
