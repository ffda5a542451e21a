"""What has to be written: a decoded catalog against what the catalog holds. Pure; neither side is touched."""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from modelcatalog_server.domain.models import CanonicalRecord, ModelRecord, ProviderRecord
from modelcatalog_server.domain.refresh import Difference, KnownState, Quarantined, RefreshCounts

_RECORDS_A_STEP = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedCatalog:
    """A payload, record by record. ``quarantined_*`` are the records that could not be read, by id.

    ``unchanged_*`` are ids of records that say what the catalog says, so that nobody needs to see them.
    ``canonical_models`` is ``None`` when the payload says nothing about them, which is not "there are none".
    """

    models: Sequence[ModelRecord]
    providers: Sequence[ProviderRecord]
    canonical_models: Sequence[CanonicalRecord] | None
    unchanged_models: Set[str] = frozenset()
    unchanged_providers: Set[str] = frozenset()
    unchanged_canonical_models: Set[str] = frozenset()
    quarantined_models: Mapping[str, Quarantined] = field(default_factory=dict)
    quarantined_providers: Mapping[str, Quarantined] = field(default_factory=dict)
    quarantined_canonical_models: Mapping[str, Quarantined] = field(default_factory=dict)


def compare(
    decoded: DecodedCatalog, known: KnownState, *, provider_id: str | None, full: bool
) -> Generator[None, None, Difference]:
    """Return, in steps, what has to be written so that the catalog says what the payload says.

    A record that could not be read keeps its last good version; so do all models of a provider that could not be read.
    With ``provider_id`` only that provider and its models are looked at. Only records that differ are touched, but each
    decoded model is to be written, for it may be encoded otherwise, and with ``full`` every other record too.
    """
    if provider_id is not None:
        decoded, known = _limit(decoded, known, provider_id)
    models = yield from _sort_out(
        decoded.models,
        known.models,
        known.removed_models,
        unchanged=decoded.unchanged_models,
        kept=decoded.quarantined_models,
        kept_providers=decoded.quarantined_providers,
        full=True,
    )
    providers = yield from _sort_out(
        decoded.providers,
        known.providers,
        known.removed_providers,
        unchanged=decoded.unchanged_providers,
        kept=decoded.quarantined_providers,
        full=full,
    )
    canonical_models = yield from _sort_out(
        decoded.canonical_models or (),
        known.canonical_models,
        known.removed_canonical_models,
        unchanged=decoded.unchanged_canonical_models,
        kept=known.canonical_models if decoded.canonical_models is None else decoded.quarantined_canonical_models,
        full=full,
    )
    return Difference(
        counts=RefreshCounts(
            seen=len(decoded.models) + len(decoded.unchanged_models) + len(decoded.quarantined_models),
            added=len(models.added),
            changed=len(models.changed),
            removed=len(models.removed),
            revived=len(models.revived),
            unchanged=len(decoded.models) + len(decoded.unchanged_models) - len(models.touched),
            quarantined=len(decoded.quarantined_models),
        ),
        models=models.written,
        touched_models=models.touched,
        removed_models=models.removed,
        providers=providers.written,
        touched_providers=providers.touched,
        removed_providers=providers.removed,
        canonical_models=canonical_models.written,
        touched_canonical_models=canonical_models.touched,
        removed_canonical_models=canonical_models.removed,
        quarantined=(
            *decoded.quarantined_providers.values(),
            *decoded.quarantined_models.values(),
            *decoded.quarantined_canonical_models.values(),
        ),
    )


class _Record(Protocol):
    @property
    def id(self) -> str: ...

    @property
    def content_hash(self) -> str: ...


_R = TypeVar("_R", bound=_Record)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sorted(Generic[_R]):
    """The records of one kind by what became of them."""

    added: frozenset[str]
    changed: frozenset[str]
    revived: frozenset[str]
    removed: tuple[str, ...]
    written: tuple[_R, ...]

    @property
    def touched(self) -> frozenset[str]:
        return self.added | self.changed | self.revived


def _sort_out(
    records: Sequence[_R],
    known: Mapping[str, str],
    known_removed: Collection[str],
    *,
    unchanged: Set[str],
    kept: Mapping[str, object],
    kept_providers: Collection[str] = (),
    full: bool,
) -> Generator[None, None, _Sorted[_R]]:
    """Tell records apart by the catalog's content hashes. Neither ``unchanged`` nor ``kept`` ids count as removed."""
    added, changed, revived = set(), set(), set()
    found: set[str] = set()
    for number, record in enumerate(records):
        found.add(record.id)
        if record.id in known:
            if known[record.id] != record.content_hash:
                changed.add(record.id)
        elif record.id in known_removed:
            revived.add(record.id)
        else:
            added.add(record.id)
        if number % _RECORDS_A_STEP == 0:
            yield
    touched = added | changed | revived
    gone = []
    for number, id_ in enumerate(known):
        if not (id_ in unchanged or id_ in found or id_ in kept or _provider_of(id_) in kept_providers):
            gone.append(id_)
        if number % _RECORDS_A_STEP == 0:
            yield
    return _Sorted(
        added=frozenset(added),
        changed=frozenset(changed),
        revived=frozenset(revived),
        removed=tuple(sorted(gone)),
        written=tuple(record for record in records if full or record.id in touched),
    )


def _limit(decoded: DecodedCatalog, known: KnownState, provider_id: str) -> tuple[DecodedCatalog, KnownState]:
    """Leave only one provider on both sides; canonical models belong to none."""
    return (
        DecodedCatalog(
            models=[model for model in decoded.models if model.provider_id == provider_id],
            providers=[provider for provider in decoded.providers if provider.id == provider_id],
            canonical_models=None,
            unchanged_models={id_ for id_ in decoded.unchanged_models if _provider_of(id_) == provider_id},
            unchanged_providers=decoded.unchanged_providers & {provider_id},
            quarantined_models=_of_provider(decoded.quarantined_models, provider_id),
            quarantined_providers=_only(decoded.quarantined_providers, provider_id),
        ),
        KnownState(
            models=_of_provider(known.models, provider_id),
            removed_models=_of_provider(known.removed_models, provider_id),
            providers=_only(known.providers, provider_id),
            removed_providers=known.removed_providers & {provider_id},
            canonical_models=known.canonical_models,
            removed_canonical_models=known.removed_canonical_models,
        ),
    )


_V = TypeVar("_V")


def _of_provider(by_model_id: Mapping[str, _V], provider_id: str) -> dict[str, _V]:
    return {id_: value for id_, value in by_model_id.items() if _provider_of(id_) == provider_id}


def _only(by_id: Mapping[str, _V], id_: str) -> dict[str, _V]:
    return {id_: by_id[id_]} if id_ in by_id else {}


def _provider_of(model_id: str) -> str:
    return model_id.partition("/")[0]
