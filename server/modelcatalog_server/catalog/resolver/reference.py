"""Resolves what callers have in hand to one served model, or says honestly that it cannot."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from types import MappingProxyType
from typing import Final, NamedTuple

from modelcatalog_server.catalog.resolver import rules
from modelcatalog_server.catalog.resolver.canonical import CanonicalIndex, choose_match
from modelcatalog_server.catalog.resolver.matching import Known, Match, SpellingTable
from modelcatalog_server.catalog.resolver.spelling import Spelling, likeness, read_id, read_spelling
from modelcatalog_server.domain.errors import InvalidModelIdError
from modelcatalog_server.domain.models import model_id
from modelcatalog_server.domain.resolution import Outcome, Resolution

#: Longer references are refused; the longest model id is a fifth of it.
MAX_REFERENCE_BYTES: Final = 512

#: How many candidates an answer has at most.
MAX_CANDIDATES: Final = 10

# Hints cost the same however large the catalog is: so many words of a reference, of each so many ids, and of these so
# many compared letter by letter.
_MAX_TOKENS = 8
_MAX_LOOKED_AT = 1000
_MAX_COMPARED = 100

#: Labs whose own provider has another name.
OWN_PROVIDERS: Final = MappingProxyType({"meta": "llama"})


@dataclass(frozen=True, slots=True)
class Served:
    """A served model, as far as resolving looks at it. ``canonical_id`` is the link that is stored."""

    provider_id: str
    upstream_id: str
    canonical_id: str | None = None

    @property
    def id(self) -> str:
        """The catalog-wide id."""
        return model_id(self.provider_id, self.upstream_id)


class ReferenceIndex:
    """Everything that a reference can mean, to be built once per revision of the catalog.

    Memory and time go with the number of distinct served ids, not with how many providers serve them.
    """

    def __init__(self, served: Iterable[Served], canonical: CanonicalIndex) -> None:
        self.canonical = canonical
        self._models: dict[str, dict[str, Served]] = defaultdict(dict)
        self._served: dict[str, list[Served]] = defaultdict(list)
        self._offers: dict[str, list[Served]] = defaultdict(list)
        self._cases: dict[str, list[str]] = defaultdict(list)
        self._table = SpellingTable(canonical.labs)
        self._ids_by_token: dict[str, list[str]] = defaultdict(list)
        self._labs_by_family = _labs_by_family(canonical)
        for model in served:
            self.add(model)

    def add(self, model: Served) -> None:
        """Add a served model."""
        if model.upstream_id not in self._served:
            self._add_id(model.upstream_id)
        self._models[model.provider_id][model.upstream_id] = model
        self._served[model.upstream_id].append(model)
        if model.canonical_id:
            self._offers[model.canonical_id].append(model)

    def add_provider(self, provider_id: str) -> None:
        """Add a provider, who may serve nothing: what names it means nothing else."""
        self._models[provider_id]

    def _add_id(self, upstream_id: str) -> None:
        self._cases[upstream_id.lower()].append(upstream_id)
        spelling = read_id(upstream_id)
        self._table.add(Known(upstream_id, spelling))
        for token in spelling.tokens:
            self._ids_by_token[token].append(upstream_id)

    def exact(self, reference: str) -> Served | None:
        """Return the served model with exactly this id."""
        provider_id, _, upstream_id = reference.partition("/")
        return self._models.get(provider_id, {}).get(upstream_id)

    def has_provider(self, provider_id: str) -> bool:
        """Whether there is a provider of this id."""
        return provider_id in self._models

    def spelled(self, upstream_id: str) -> list[Served]:
        """Return what is served under an id, by whomever; failing that, under the id in another case."""
        if upstream_id in self._served:
            return self._served[upstream_id]
        ids = self._cases.get(upstream_id.lower(), ())
        return [model for id_ in ids for model in self._served[id_]]

    def offers(self, canonical_id: str) -> list[Served]:
        """Return all served models of a canonical one."""
        return self._offers.get(canonical_id, [])

    def find(self, spelling: Spelling) -> list[Match]:
        """Return the upstream ids that a spelling may mean, surest first."""
        return self._table.find(spelling)

    def under(self, upstream_ids: Iterable[str]) -> list[Served]:
        """Return all models served under any of these ids."""
        return [model for id_ in upstream_ids for model in self._served[id_]]

    def own_provider(self, models: Sequence[Served], canonical_id: str | None, spelling: Spelling) -> str | None:
        """Return the provider that is the lab itself.

        Without a canonical model it is known by the family: what is called grok and served by xAI, which makes models
        called so, is xAI's.
        """
        if canonical_id:
            return self._own_provider_of(canonical_id)
        labs = {lab for word in spelling.words for lab in self._labs_by_family.get(word, ())}
        own = {model.provider_id for model in models} & {OWN_PROVIDERS.get(lab, lab) for lab in labs}
        return own.pop() if len(own) == 1 else None

    def near(self, spelling: Spelling, provider_id: str | None = None) -> list[str]:
        """Return the ids of models that are spelt most alike, each model itself once: hints, never answers.

        ``provider_id``: who is to be shown as serving them, if it does; else the lab itself, if it does.
        """
        hints: dict[str, str] = {}
        for upstream_id in sorted(self._sharing(spelling), key=lambda id_: (-likeness(spelling.name, id_), id_)):
            canonical_id = self._served[upstream_id][0].canonical_id
            itself = canonical_id or upstream_id.lower()
            if itself not in hints:
                hints[itself] = self._shown(upstream_id, canonical_id, provider_id).id
            if len(hints) == MAX_CANDIDATES:
                break
        return list(hints.values())

    def alternatives(self, model_id: str) -> list[str]:
        """Return up to ten other ids of the same model: the lab's own, those of the same spelling, the others."""
        model = self.exact(model_id)
        if model is None:
            return []
        others = self.offers(model.canonical_id) if model.canonical_id else self._served[model.upstream_id]
        lab = self._own_provider_of(model.canonical_id)
        ranked = nsmallest(
            MAX_CANDIDATES + 1,
            others[:_MAX_LOOKED_AT],
            key=lambda other: (other.provider_id != lab, other.upstream_id != model.upstream_id, other.id),
        )
        return [other.id for other in ranked if other != model][:MAX_CANDIDATES]

    def _sharing(self, spelling: Spelling) -> list[str]:
        """Return upstream ids that share most words and numbers with a spelling. Of each, so many are looked at."""
        known = sorted((token for token in spelling.tokens if token in self._ids_by_token), key=self._rarity)
        shared = Counter(id_ for token in known[:_MAX_TOKENS] for id_ in self._ids_by_token[token][:_MAX_LOOKED_AT])
        size = len(spelling.tokens)
        return nsmallest(
            _MAX_COMPARED, shared, key=lambda id_: (-shared[id_] / (size + id_.count("-") + 1), -shared[id_], id_)
        )

    def _rarity(self, token: str) -> tuple[int, str]:
        return len(self._ids_by_token[token]), token

    def _shown(self, upstream_id: str, canonical_id: str | None, provider_id: str | None) -> Served:
        offers = self.offers(canonical_id) if canonical_id else self._served[upstream_id]
        lab = self._own_provider_of(canonical_id)
        return min(
            offers[:_MAX_LOOKED_AT],
            key=lambda model: (
                model.provider_id != provider_id,
                model.provider_id != lab,
                model.upstream_id != upstream_id,
                model.id,
            ),
        )

    @staticmethod
    def _own_provider_of(canonical_id: str | None) -> str | None:
        lab = canonical_id.partition("/")[0] if canonical_id else None
        return OWN_PROVIDERS.get(lab, lab) if lab else None


def resolve(reference: str, index: ReferenceIndex, preferred_provider_ids: Sequence[str] = ()) -> Resolution:
    """Return which served model a reference means.

    An exact id wins. Else a model of a preferred provider (in their order), of the lab's own provider, or the only one;
    more than one such is AMBIGUOUS. A reference that starts with a provider means a model of that provider, or none,
    unless that provider's name is a part of others' ids.

    Raises:
        InvalidModelIdError: The reference is empty, or longer than 512 bytes.
    """
    reference = _checked(reference)
    if model := index.exact(reference):
        return _resolved(model, "exact", rules.CONFIDENCES["exact"])
    first, _, rest = reference.partition("/")
    if rest and index.has_provider(first.lower()):
        answer = _of_provider(first.lower(), rest, index)
        if answer and (answer.rule in rules.FORM - {"packaging"} or not index.spelled(reference)):
            return answer
        # What is here the name of a provider is a path there: openrouter serves poolside/laguna-m.1:free.
        return _across(reference, index, preferred_provider_ids, first.lower())
    return _across(reference, index, preferred_provider_ids)


def _checked(reference: str) -> str:
    reference = reference.strip()
    if not reference:
        raise InvalidModelIdError("reference", "must not be empty")
    if len(reference.encode(errors="replace")) > MAX_REFERENCE_BYTES:
        raise InvalidModelIdError("reference", f"must not be longer than {MAX_REFERENCE_BYTES} bytes")
    return reference


def _of_provider(provider_id: str, rest: str, index: ReferenceIndex) -> Resolution | None:
    """Resolve the rest of a reference that names a provider among what that provider serves."""

    def found(models: Iterable[Served], rule: str, confidence: float) -> list[_Found]:
        return [_Found(model, rule, confidence) for model in models if model.provider_id == provider_id]

    spelling = read_spelling(rest)
    answers = found(index.spelled(rest), "case", rules.CONFIDENCES["case"])
    if not answers:
        for match in index.find(spelling):
            answers += found(index.under([match.id]), match.rule, match.confidence)
    if not answers and (link := _link(rest, spelling, index)):
        answers = found(index.offers(link.id), link.rule, link.confidence)
    if not answers:
        return None
    confidence = max(answer.confidence for answer in answers)
    best = [answer for answer in answers if answer.confidence == confidence]
    if len(best) == 1:
        return _resolved(*best[0])
    return _ambiguous([answer.model for answer in best], None, best[0].rule, confidence)


def _across(reference: str, index: ReferenceIndex, preferred: Sequence[str], provider: str | None = None) -> Resolution:
    """Resolve a reference among all providers.

    ``provider``: what the reference starts with, if that is one which does not serve it. It may still be the lab that
    made the model, or a part of other providers' ids.
    """
    spelling = read_spelling(reference)
    spelled = index.spelled(reference)
    link = _link(reference, spelling, index)
    if provider and not spelled and (link is None or link.id.partition("/")[0] != provider):
        return _not_found(spelling, index, provider_id=provider)
    return _Search(reference, spelling, index, preferred, link).run(spelled)


def _link(reference: str, spelling: Spelling, index: ReferenceIndex) -> Match | None:
    """Return the canonical model that a reference means."""
    if reference in index.canonical:
        return Match(id=reference, steps=("canonical_id",), confidence=rules.CONFIDENCES["canonical_id"], substance=1.0)
    return choose_match(index.canonical.find(spelling), spelling)


class _Found(NamedTuple):
    """A model that a reference may mean, and by which rule."""

    model: Served
    rule: str
    confidence: float


class _Search:
    """One search for the served model that a reference means, among all providers."""

    def __init__(
        self, reference: str, spelling: Spelling, index: ReferenceIndex, preferred: Sequence[str], link: Match | None
    ) -> None:
        self._reference = reference
        self._spelling = spelling
        self._index = index
        self._preferred = preferred
        self._link = link

    def run(self, spelled: Sequence[Served]) -> Resolution:
        """Resolve; ``spelled`` are those whose upstream id is the reference, but perhaps for its case."""
        rule = "case"
        if any(model.upstream_id == self._reference for model in spelled):
            rule = "served_id"
        if not spelled and (spelled := self._spelled_after_prefix()):
            rule = "reseller_path"
        if spelled:
            return self._among_spelled(spelled, rule)
        matches = self._index.find(self._spelling)
        if self._link is None or self._is_better_served(self._link, matches):
            return self._among_matches(matches)
        return self._among_offers(self._link) or _not_found(self._spelling, self._index, self._link.id)

    def _spelled_after_prefix(self) -> list[Served]:
        """Return what is served under the reference less what a tool put before it, as in ``bedrock/us.anthropic…``."""
        rest = self._reference
        while "/" in rest:
            rest = rest.partition("/")[2]
            if spelled := self._index.spelled(rest):
                return spelled
        return []

    def _is_better_served(self, link: Match, matches: Sequence[Match]) -> bool:
        """Whether served ids say more of the reference than the canonical model: deepseek-r1-0528 itself is served."""
        if self._spelling.latest or rules.OF_TIME.isdisjoint(link.steps):
            return False
        return any(match.substance > link.substance for match in matches)

    def _among_spelled(self, spelled: Sequence[Served], rule: str) -> Resolution:
        """Resolve among those of the very spelling, and where they are too many among all offers of the same model."""
        if preferred := self._among_preferred(spelled, rule):
            return preferred
        answer = self._pick(spelled, rule, rules.CONFIDENCES[rule], self._common(spelled))
        if self._link is None or not self._may_be_widened(self._link, answer):
            return answer
        offered = self._among_offers(self._link)
        return offered if offered and offered.outcome is Outcome.RESOLVED else answer

    def _may_be_widened(self, link: Match, answer: Resolution) -> bool:
        """Whether what is meant may be served under another spelling than the reference's own.

        Of a name without a date only if those who serve it under that name mean the same snapshot, by what else is
        known of them.
        """
        if answer.outcome is not Outcome.AMBIGUOUS:
            return self._is_of_nobody(link)
        return rules.OF_TIME.isdisjoint(link.steps) or (
            answer.canonical_id == link.id and "dated_snapshot" not in link.steps
        )

    def _among_preferred(self, spelled: Sequence[Served], rule: str) -> Resolution | None:
        """Resolve among what preferred providers serve, in whatever spelling, provider by provider."""
        offers = self._index.offers(self._link.id) if self._link and rules.LOOSE.isdisjoint(self._link.steps) else []
        for provider_id in self._preferred:
            if mine := [model for model in spelled if model.provider_id == provider_id]:
                return self._pick(mine, rule, rules.CONFIDENCES[rule], self._common(mine))
            if self._link and (mine := [model for model in offers if model.provider_id == provider_id]):
                return self._pick(mine, self._link.rule, self._link.confidence, self._link.id)
        return None

    def _is_of_nobody(self, link: Match) -> bool:
        """Whether the reference is but a name of the model, which one reseller happens to write so.

        Then it is the lab's own model that is meant, as with every other way to write it.
        """
        return not self._names_platform(link) and rules.LOOSE.isdisjoint(link.steps)

    def _names_platform(self, link: Match) -> bool:
        """Whether the reference says who runs the model or how: ``databricks-…``, ``us.anthropic.…``, ``…:free``."""
        spelling = self._spelling
        if "maker_word" in link.steps and link.id.partition("/")[0] not in spelling.words:
            return True
        return spelling.regional or spelling.packaged or bool(spelling.mode) or len(spelling.path) > 1

    def _among_offers(self, link: Match) -> Resolution | None:
        offers = self._index.offers(link.id)
        return self._pick(offers, link.rule, link.confidence, link.id) if offers else None

    def _among_matches(self, matches: Sequence[Match]) -> Resolution:
        """Resolve among served ids that mean the same to each other: those that differ least from the reference."""
        if not matches:
            return _not_found(self._spelling, self._index)
        substance = max(match.substance for match in matches)
        best = [match for match in matches if match.substance == substance]
        models = self._index.under(match.id for match in best)
        return self._pick(models, best[0].rule, best[0].confidence, self._common(models))

    @staticmethod
    def _common(models: Sequence[Served]) -> str | None:
        ids = {model.canonical_id for model in models}
        return ids.pop() if len(ids) == 1 else None

    def _pick(self, models: Sequence[Served], rule: str, confidence: float, canonical_id: str | None) -> Resolution:
        """Return the preferred provider's model, else the lab's own, else the only one."""
        own = self._index.own_provider(models, canonical_id, self._spelling)
        for provider_id in [*self._preferred, *([own] if own else [])]:
            mine = [model for model in models if model.provider_id == provider_id]
            if closest := self._closest(mine, canonical_id):
                return _resolved(closest, *self._rule_of(closest, rule, confidence))
            if mine:
                return _ambiguous(mine, canonical_id, rule, confidence)
        if len(models) == 1:
            return _resolved(models[0], *self._rule_of(models[0], rule, confidence))
        return _ambiguous(models, canonical_id, rule, confidence)

    def _rule_of(self, model: Served, rule: str, confidence: float) -> tuple[str, float]:
        is_spelled = model.upstream_id == self._reference and rule != "canonical_id"
        return ("served_id", rules.CONFIDENCES["served_id"]) if is_spelled else (rule, confidence)

    def _closest(self, models: Sequence[Served], canonical_id: str | None) -> Served | None:
        """Return the one of a provider's models whose id is most like the reference, if it is one."""
        if not models:
            return None
        near = {match.id: match.confidence for match in self._index.find(self._spelling)}
        slug = canonical_id.partition("/")[2] if canonical_id else ""
        ranks = [(near.get(model.upstream_id, 0.0), model.upstream_id == slug) for model in models]
        best = [model for model, rank in zip(models, ranks, strict=True) if rank == max(ranks)]
        return best[0] if len(best) == 1 else None


def _labs_by_family(canonical: CanonicalIndex) -> dict[str, set[str]]:
    """Return by the first word of canonical models' names the labs that make models called so."""
    labs = defaultdict(set)
    for id_ in canonical.ids:
        if words := read_id(id_).words:
            labs[words[0]].add(id_.partition("/")[0])
    return labs


def _resolved(model: Served, rule: str, confidence: float) -> Resolution:
    return Resolution(
        outcome=Outcome.RESOLVED, model_id=model.id, canonical_id=model.canonical_id, rule=rule, confidence=confidence
    )


def _ambiguous(models: Sequence[Served], canonical_id: str | None, rule: str, confidence: float) -> Resolution:
    return Resolution(
        outcome=Outcome.AMBIGUOUS,
        canonical_id=canonical_id,
        rule=rule,
        confidence=confidence,
        candidates=tuple(sorted(model.id for model in models)[:MAX_CANDIDATES]),
    )


def _not_found(
    spelling: Spelling, index: ReferenceIndex, canonical_id: str | None = None, provider_id: str | None = None
) -> Resolution:
    near = tuple(index.near(spelling, provider_id))
    return Resolution(outcome=Outcome.NOT_FOUND, canonical_id=canonical_id, candidates=near)
