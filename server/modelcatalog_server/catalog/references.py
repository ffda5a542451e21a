"""Which model a request means: by exact id, else by the resolver's rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from modelcatalog_server.catalog.indexing import ReferenceIndexes
from modelcatalog_server.catalog.resolver import rules
from modelcatalog_server.catalog.resolver.reference import resolve
from modelcatalog_server.domain.errors import AmbiguousModelError, ModelNotFoundError
from modelcatalog_server.domain.models import Model
from modelcatalog_server.domain.ports.catalog import CatalogSnapshot
from modelcatalog_server.domain.resolution import Outcome, Resolution


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundModel:
    """A model, and how it was found: ``resolution`` is ``None`` for an exact id."""

    model: Model
    resolution: Resolution | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedModel:
    """The model that a reference means, and others that it could have been, nearest first."""

    model: Model
    resolution: Resolution
    candidates: Sequence[Model] = ()


class References:
    """Finds the models that callers mean, in the catalog of one snapshot.

    ``exact_only``: those that they name by id, all others are not found.
    """

    def __init__(self, indexes: ReferenceIndexes, *, exact_only: bool = False) -> None:
        self._indexes = indexes
        self._exact_only = exact_only

    async def get_model_id(self, snapshot: CatalogSnapshot, model_id: str) -> tuple[str, Resolution | None]:
        """Return the id of the model that is meant, and how it was resolved, ``None`` for an exact id.

        Raises:
            AmbiguousModelError, ModelNotFoundError: with up to ten candidates.
        """
        found = await self.get_model(snapshot, model_id)
        return found.model.model_id, found.resolution

    async def get_model(self, snapshot: CatalogSnapshot, model_id: str, *, with_raw: bool = False) -> FoundModel:
        """Return the model that is meant. An exact id wins, also that of a removed model.

        Raises:
            AmbiguousModelError, ModelNotFoundError: with up to ten candidates.
        """
        models = await snapshot.get_models([model_id], with_raw=with_raw)
        if model_id in models:
            return FoundModel(model=models[model_id])
        resolution = await self.require(snapshot, model_id)
        (model,) = (await snapshot.get_models([resolution.model_id or ""], with_raw=with_raw)).values()
        return FoundModel(model=model, resolution=resolution)

    async def resolve_model(
        self, snapshot: CatalogSnapshot, reference: str, preferred_provider_ids: Sequence[str] = ()
    ) -> ResolvedModel:
        """Return the model that is meant, with other models that it could have been.

        Raises:
            AmbiguousModelError, ModelNotFoundError: with up to ten candidates.
        """
        models = await snapshot.get_models([reference], with_raw=False)
        if model := models.get(reference):
            exact = Resolution(
                outcome=Outcome.RESOLVED,
                model_id=reference,
                canonical_id=(await snapshot.get_canonical_id(reference))[1],
                rule="exact",
                confidence=rules.CONFIDENCES["exact"],
            )
            return ResolvedModel(model=model, resolution=exact)
        resolution = await self.require(snapshot, reference, preferred_provider_ids)
        found = resolution.model_id or ""
        others = (await self._indexes.get(snapshot)).alternatives(found)
        models = await snapshot.get_models([found, *others], with_raw=False)
        return ResolvedModel(model=models[found], resolution=resolution, candidates=[models[id_] for id_ in others])

    async def require(
        self, snapshot: CatalogSnapshot, reference: str, preferred_provider_ids: Sequence[str] = ()
    ) -> Resolution:
        """Return which one model a reference means that is no exact id.

        Raises:
            AmbiguousModelError, ModelNotFoundError: with up to ten candidates.
        """
        resolution = await self.resolve(snapshot, reference, preferred_provider_ids)
        if resolution.outcome is Outcome.AMBIGUOUS:
            raise AmbiguousModelError(reference, resolution.candidates)
        if resolution.outcome is Outcome.NOT_FOUND:
            raise ModelNotFoundError(reference, resolution.candidates)
        return resolution

    async def require_canonical(self, snapshot: CatalogSnapshot, reference: str) -> Resolution:
        """Return the same where it is the canonical model that matters: several that serve it are no ambiguity.

        Raises:
            AmbiguousModelError, ModelNotFoundError: with up to ten candidates.
        """
        resolution = await self.resolve(snapshot, reference)
        return resolution if resolution.canonical_id else await self.require(snapshot, reference)

    async def resolve(
        self, snapshot: CatalogSnapshot, reference: str, preferred_provider_ids: Sequence[str] = ()
    ) -> Resolution:
        """Return what a reference means, whatever the outcome. The index of the snapshot's revision is built first."""
        if self._exact_only:
            near = tuple(await snapshot.find_near_model_ids(reference))
            return Resolution(outcome=Outcome.NOT_FOUND, candidates=near)
        resolution = resolve(reference, await self._indexes.get(snapshot), preferred_provider_ids)
        if resolution.outcome is Outcome.NOT_FOUND and not resolution.candidates:
            # Not one word that any model has: perhaps all of them are mistyped.
            return replace(resolution, candidates=tuple(await snapshot.find_near_model_ids(reference)))
        return resolution
