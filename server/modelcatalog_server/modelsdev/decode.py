"""A payload to records: a walk through the document in which one bad record costs no other."""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from dataclasses import dataclass, field

import msgspec
from msgspec import Raw

from modelcatalog_server.domain.errors import UpstreamInvalidError
from modelcatalog_server.domain.models import CanonicalRecord, ModelRecord, ProviderRecord, model_id
from modelcatalog_server.domain.refresh import Difference, KnownState, Payload, Quarantined
from modelcatalog_server.modelsdev import derive, wire
from modelcatalog_server.refresh.compare import DecodedCatalog, compare

_MAX_KEY_CHARS = 100
_ESCAPE = re.compile(rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|.)", re.DOTALL)
_HALF_PAIR = re.compile(rb"\\u[dD][89a-fA-F]")


def compare_payload(payload: Payload, known: KnownState, *, provider_id: str | None, full: bool) -> Difference:
    """Decode a payload and return what differs from the catalog.

    Raises:
        UpstreamInvalidError: The payload as a whole is no catalog.
    """
    # What a link may point to is what the catalog will hold after this run, and a run for one provider writes no
    # canonical models.
    known_ids = known.canonical_models.keys()
    decoded = decode(payload, known_ids, keep_canonical_models=provider_id is not None)
    return compare(decoded, known, provider_id=provider_id, full=full)


def decode(payload: Payload, known_canonical_ids: Set[str], *, keep_canonical_models: bool = False) -> DecodedCatalog:
    """Decode every record by itself.

    Args:
        payload: The document or documents.
        known_canonical_ids: The canonical models that the catalog holds.
        keep_canonical_models: Whether it will go on to hold just these, whatever the payload says.

    Raises:
        UpstreamInvalidError: The payload as a whole is no catalog: no JSON, of another shape, or empty.
    """
    providers, canonicals = _documents(payload)
    walk = _Walk()
    for id_, raw in canonicals.items():
        walk.read_canonical_model(id_, raw)
    if keep_canonical_models or not canonicals:
        canonical_ids = known_canonical_ids
    else:
        canonical_ids = walk.canonical_models.keys() | (known_canonical_ids & walk.bad_canonical_models.keys())
    for id_, raw in providers.items():
        walk.read_provider(id_, raw, canonical_ids)
    walk.check_any_model(len(providers))
    return DecodedCatalog(
        models=walk.models,
        providers=walk.providers,
        # No canonical model at all is what a mirror without them says, not that they are gone.
        canonical_models=list(walk.canonical_models.values()) if canonicals else None,
        quarantined_models=walk.bad_models,
        quarantined_providers=walk.bad_providers,
        quarantined_canonical_models=walk.bad_canonical_models,
    )


@dataclass(slots=True)
class _Walk:
    """The records so far, good and bad. Pointers are those of ``catalog.json``, whatever document it was."""

    models: list[ModelRecord] = field(default_factory=list)
    providers: list[ProviderRecord] = field(default_factory=list)
    canonical_models: dict[str, CanonicalRecord] = field(default_factory=dict)
    bad_models: dict[str, Quarantined] = field(default_factory=dict)
    bad_providers: dict[str, Quarantined] = field(default_factory=dict)
    bad_canonical_models: dict[str, Quarantined] = field(default_factory=dict)

    def read_canonical_model(self, id_: str, raw: Raw) -> None:
        try:
            self.canonical_models[id_] = _canonical_model(id_, raw)
        except wire.InvalidRecordError as error:
            self.bad_canonical_models[id_] = _quarantined(error, "models", id_)

    def read_provider(self, id_: str, raw: Raw, canonical_ids: Set[str]) -> None:
        try:
            provider, models = _provider(id_, raw)
        except wire.InvalidRecordError as error:
            self.bad_providers[id_] = _quarantined(error, "providers", id_)
            return
        self.providers.append(provider)
        for key, model in models.items():
            try:
                self.models.append(_model(id_, key, model, canonical_ids))
            except wire.InvalidRecordError as error:
                self.bad_models[model_id(id_, key)] = _quarantined(error, "providers", id_, "models", key)

    def check_any_model(self, providers: int) -> None:
        if self.models or self.bad_models:
            return
        first = next(iter(self.bad_providers.values()), None)
        why = f"; the first problem is at {first.pointer}: {first.reason}" if first else ""
        raise UpstreamInvalidError(f"the payload has {providers} providers and not one model{why}")


def _documents(payload: Payload) -> tuple[dict[str, Raw], dict[str, Raw]]:
    """Return the records of the providers and of the canonical models, undecoded."""
    if payload.catalog is not None:
        document = _members(_readable(payload.catalog), "catalog.json")
        if not document.keys() & {"providers", "models"}:
            raise UpstreamInvalidError('catalog.json has neither "providers" nor "models"')
        providers = _members(document.get("providers", b"{}"), '"providers" of catalog.json')
        canonicals = _members(document.get("models", b"{}"), '"models" of catalog.json')
    else:
        providers = _members(_readable(payload.api or b""), "api.json")
        canonicals = _members(_readable(b"{}" if payload.models is None else payload.models), "models.json")
    if not providers:
        raise UpstreamInvalidError("the payload has no providers")
    return providers, canonicals


def _members(raw: Raw | bytes, name: str) -> dict[str, Raw]:
    size = len(memoryview(raw))
    try:
        return wire.read_object(raw)
    except wire.InvalidRecordError as error:
        raise UpstreamInvalidError(f"{name} ({size:,} bytes) is no JSON object: {error}") from error


def _readable(body: bytes) -> bytes:
    r"""Return the document so that the decoder takes it whole.

    Half a surrogate pair (``\ud800``) is an error of the record that holds it, but the decoder refuses the document.
    U+0000 in its place is what the record is set aside for.
    """
    if not _HALF_PAIR.search(body):
        return body
    return _ESCAPE.sub(lambda match: rb"\u0000" if _is_half_pair(match[0]) else match[0], body)


def _is_half_pair(escape: bytes) -> bool:
    return len(escape) == len(rb"\ud800") and _HALF_PAIR.match(escape) is not None


def _provider(id_: str, raw: Raw) -> tuple[ProviderRecord, Mapping[str, Raw]]:
    wire.check_id(id_, max_bytes=wire.MAX_PROVIDER_ID_BYTES)
    if "/" in id_:
        raise wire.InvalidRecordError("id: holds a slash, which ends a provider's id in the id of a model")
    members = wire.read_object(raw)
    if "models" not in members:
        raise wire.InvalidRecordError("object missing required field models")
    models = wire.read_object(members.pop("models"), "models")
    text = _text(msgspec.json.encode(members))
    return derive.provider_record(wire.read_shape(text.values, wire.Provider, id_), text), models


def _model(provider_id: str, key: str, raw: Raw, canonical_ids: Set[str]) -> ModelRecord:
    wire.check_id(key)
    text = _text(raw)
    model = wire.read_shape(text.values, wire.ServedModel, key)
    return derive.model_record(model, text, provider_id, canonical_ids)


def _canonical_model(id_: str, raw: Raw) -> CanonicalRecord:
    wire.check_id(id_)
    text = _text(raw)
    model = wire.read_shape(text.values, wire.CanonicalModel, id_)
    benchmarks = msgspec.json.decode(wire.read_object(raw)["benchmarks"], type=list[Raw]) if model.benchmarks else []
    return derive.canonical_record(model, text, [bytes(benchmark) for benchmark in benchmarks])


def _text(raw: Raw | bytes) -> derive.Text:
    values = wire.read_values(raw)
    return derive.Text(raw=bytes(raw).decode(), values=values)


def _quarantined(error: wire.InvalidRecordError, *path: str) -> Quarantined:
    """Return the mark of a bad record. Its keys come from outside: bounded, and printable."""
    steps = (key.replace("~", "~0").replace("/", "~1") for key in path)
    pointer = "".join(f"/{wire.printable(step, _MAX_KEY_CHARS)}" for step in steps)
    return Quarantined(pointer=pointer, reason=str(error))
