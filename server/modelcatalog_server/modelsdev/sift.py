"""A payload to what has to be decoded of it: its documents split into the texts of their records, each text hashed.

A record whose text has the hash that is stored for it, and that the catalog still lists, says what it said: it is
seen, but not decoded. Most refreshes consist of such records alone.

All of this happens on the event loop, so everything that is long is a generator of steps of some microseconds. Only the
scans of the whole of a document that is not written as upstream writes it are single calls, of some 3 ms a megabyte.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import replace
from importlib import resources

import msgspec
from msgspec import DecodeError, Raw
from msgspec.json import Decoder

from modelcatalog_server.catalog.resolver.linking import LinkCandidate
from modelcatalog_server.domain.errors import UpstreamInvalidError
from modelcatalog_server.domain.models import CanonicalRecord, ModelRecord, ProviderRecord, RecordKind, model_id
from modelcatalog_server.domain.refresh import Difference, KnownState, Payload, Quarantined
from modelcatalog_server.domain.tasks import run_to_end
from modelcatalog_server.modelsdev import wire
from modelcatalog_server.modelsdev.decode import Answer, RecordDecoder, Task
from modelcatalog_server.modelsdev.links import LinkTable, LinkTables
from modelcatalog_server.refresh.compare import DecodedCatalog, compare

MAX_DUPLICATES = 100

_MAX_KEY_CHARS = 100
_HASH_BYTES = 16
_SEARCH_BYTES = 256 * 1024
_MODELS_A_STEP = 16
_TOKENS_A_STEP = 200
_ESCAPE = re.compile(rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|.)", re.DOTALL)
_HALF_PAIR = re.compile(rb"\\u[dD][89a-fA-F]")
_HALF_PAIR_BYTES = len(rb"\ud8")
#: A string (and whether it is a key), or a bracket.
_TOKEN = re.compile(rb'("[^"\\]*(?:\\.[^"\\]*)*")(\s*:)?|[\[{]|([\]}])', re.DOTALL)

_SOURCES = (
    "benchmark_names.py",
    "benchmarks.toml",
    "decode.py",
    "derive.py",
    "links.py",
    "model_types.py",
    "sift.py",
    "tags.py",
    "wire.py",
)

#: What makes a text what it becomes: a change of one of these, and every text is decoded again.
_DECODER_SOURCES = (
    ("modelcatalog_server.modelsdev", _SOURCES),
    (
        "modelcatalog_server.catalog.resolver",
        ("canonical.py", "linking.py", "matching.py", "rules.py", "spelling.py"),
    ),
    ("modelcatalog_server.domain", ("models.py", "money.py")),
    # A record that stays what it was may be encoded otherwise.
    ("modelcatalog_server.rpc", ("model_messages.py",)),
    ("modelcatalog.v1", ("model_pb2.py",)),
)

_PROVIDER, _MODEL, _CANONICAL_MODEL = RecordKind
_NO_JSON = (DecodeError, UnicodeDecodeError, RecursionError)

#: Where a member of a section may end and the next one begin: a provider ends with the end of a price list of a model.
_SEAMS = {"providers": b'}}}},"', "models": b'}},"'}
_PIECE_BYTES = 48 * 1024
_SEAMS_TRIED = 8
_members: Decoder[dict[str, Raw]] = Decoder(dict[str, Raw])


def compare_payload(payload: Payload, known: KnownState, *, provider_id: str | None, full: bool) -> Difference:
    """Return what differs from the catalog, all in one go.

    Raises:
        UpstreamInvalidError: The payload as a whole is no catalog.
    """
    sift = Sift(payload, known, provider_id=provider_id, full=full)
    run_to_end(sift.steps())
    return run_to_end(sift.conclude([RecordDecoder(full=full).answer(sift.take_tasks())]))


class SourceHasher:
    """Hashes the texts of records, each with all that makes it what it becomes.

    Args:
        decoder: What identifies the code that decodes and encodes.
    """

    def __init__(self, decoder: bytes) -> None:
        def base(*ingredients: object) -> hashlib.blake2b:
            return hashlib.blake2b(decoder + repr(ingredients).encode(), digest_size=_HASH_BYTES)

        self._provider = base("provider")
        self._canonical_model = base("canonical model")
        self._model = base("model")

    def hash_provider(self, text: bytes) -> bytes:
        """Return the hash of a provider's text, its models left out."""
        return _finish(self._provider, text)

    def hash_canonical_model(self, text: Raw | bytes) -> bytes:
        """Return the hash of a canonical model's text."""
        return _finish(self._canonical_model, text)

    def hash_model(self, text: Raw | bytes, *, links: bytes) -> bytes:
        """Return the hash of a served model's text; ``links``, the digest of what it may be linked to, goes with it."""
        return _finish(self._model, links, text)


def _finish(base: hashlib.blake2b, *parts: Raw | bytes) -> bytes:
    own = base.copy()
    for part in parts:
        own.update(part)
    return own.digest()


def identify_decoder() -> bytes:
    """Return a digest of the code that decodes and encodes; random where that cannot be read: no stored hash fits."""
    digest = hashlib.blake2b(msgspec.__version__.encode(), digest_size=32)
    try:
        for package, names in _DECODER_SOURCES:
            for name in names:
                digest.update((resources.files(package) / name).read_bytes())
    except OSError:
        return os.urandom(digest.digest_size)
    return digest.digest()


_hasher = SourceHasher(identify_decoder())


class Sift:
    """One payload against what is known. Run ``steps`` to its end, have the tasks decoded, then conclude.

    The tasks found so far can be taken at any time between two steps. With ``provider_id`` only that provider's records
    are looked at; with ``full`` stored hashes are not.
    """

    def __init__(
        self,
        payload: Payload,
        known: KnownState,
        *,
        provider_id: str | None,
        full: bool,
        tables: LinkTables | None = None,
        hasher: SourceHasher = _hasher,
    ) -> None:
        self.waiting_bytes = 0  # of the tasks that can be taken
        self._payload = payload
        self._known = known
        self._provider_id = provider_id
        self._full = full
        self._hasher = hasher
        self._stored = {kind: known.source_hashes.get(kind, {}) for kind in RecordKind}
        trusted = {} if full else self._stored
        self._trusted_providers = trusted.get(_PROVIDER, {})
        self._trusted_models = trusted.get(_MODEL, {})
        self._trusted_canonical_models = trusted.get(_CANONICAL_MODEL, {})
        self._tasks: list[Task] = []
        self._hashes: dict[RecordKind, dict[str, bytes]] = {kind: {} for kind in RecordKind}
        self._providers: dict[str, Raw] = {}
        self._canonical_models: dict[str, Raw] = {}
        self._seen: dict[str, list[str]] = {}  # ids of models by provider
        self._model_counts: dict[str, int] = {}
        self._bad_providers: dict[str, str] = {}
        self._tables = tables or LinkTables()
        self._links = LinkTable({})
        self._new_canonical_ids: Set[str] = frozenset()
        self._links_to_new: dict[str, set[str]] = {}
        self._duplicates: list[str] = []

    def steps(self) -> Generator[None, None, None]:
        """Find the records and what has to be decoded.

        Raises:
            UpstreamInvalidError: The payload as a whole is no catalog: no JSON, of another shape, or empty.
        """
        yield from self._split()
        yield from self._find_link_targets()
        if self._provider_id is None:
            for id_, raw in self._canonical_models.items():
                self._sift_canonical_model(id_, raw)
                yield
        for id_, raw in self._providers.items():
            yield from self._sift_provider(id_, raw)

    def take_tasks(self) -> list[Task]:
        """Return the tasks that were found since the last call, in the order that the decoder wants."""
        tasks, self._tasks = self._tasks, []
        self.waiting_bytes = 0
        return tasks

    def conclude(self, answers: Sequence[Answer]) -> Generator[None, None, Difference]:
        """Return, in steps, what has to be written, once all tasks have been answered.

        Raises:
            UpstreamInvalidError: There is not one model.
        """
        decoded = yield from self.collect(answers)
        difference = yield from compare(decoded, self._known, provider_id=self._provider_id, full=self._full)
        source_hashes = yield from self._changed_hashes(decoded, difference)
        return replace(difference, source_hashes=source_hashes, duplicate_ids=tuple(self._duplicates))

    def collect(self, answers: Sequence[Answer]) -> Generator[None, None, DecodedCatalog]:
        """Return, in steps, the payload record by record. Raises as ``conclude`` does."""
        bad = [record for answer in answers for record in answer.bad]
        reasons = self._bad_providers | {record.id: record.reason for record in bad if record.kind is _PROVIDER}
        bad_providers = {id_: _quarantine(reason, "providers", id_) for id_, reason in reasons.items()}
        self._check_any_model(bad_providers)
        bad_models = {
            model_id(record.provider_id, record.id): _quarantine(
                record.reason, "providers", record.provider_id, "models", record.id
            )
            for record in bad
            if record.kind is _MODEL
        }
        bad_canonical_models = {
            record.id: _quarantine(record.reason, "models", record.id)
            for record in bad
            if record.kind is _CANONICAL_MODEL
        }
        models = [record for answer in answers for record in answer.models]
        providers = [record for answer in answers for record in answer.providers]
        canonical_models = [record for answer in answers for record in answer.canonical_models]
        yield
        unchanged_models: set[str] = set()
        decoded_models = {record.id for record in models}
        for id_, ids in self._seen.items():
            if id_ not in bad_providers:
                unchanged_models.update(each for each in ids if not (each in decoded_models or each in bad_models))
            yield
        return DecodedCatalog(
            models=models,
            providers=providers,
            # No canonical model at all is what a mirror without them says, not that they are gone.
            canonical_models=canonical_models if self._canonical_models else None,
            unchanged_models=unchanged_models,
            unchanged_providers=self._seen.keys() - {record.id for record in providers} - bad_providers.keys(),
            unchanged_canonical_models=self._canonical_models.keys()
            - {record.id for record in canonical_models}
            - bad_canonical_models.keys(),
            quarantined_models=bad_models,
            quarantined_providers=bad_providers,
            quarantined_canonical_models=bad_canonical_models,
        )

    # --- documents to records

    def _split(self) -> Iterator[None]:
        payload = self._payload
        if payload.catalog is not None:
            yield from self._split_catalog((yield from _make_readable(payload.catalog)))
        else:
            api = yield from _make_readable(payload.api or b"")
            self._providers = yield from self._split_object(api, "api.json", "providers")
            models = yield from _make_readable(b"{}" if payload.models is None else payload.models)
            self._canonical_models = yield from self._split_object(models, "models.json", "models")
        if not self._providers:
            raise UpstreamInvalidError("the payload has no providers")

    def _split_catalog(self, body: bytes) -> Iterator[None]:
        with suppress(*_NO_JSON):  # of another shape, perhaps: the way below says what is wrong, or that nothing is
            sections = yield from _split_sections(body)
            if len(body) == _size_of_keys(sections) + sum(map(_compact_size, sections.values())):
                self._providers, self._canonical_models = sections["providers"], sections["models"]
                return
        document = yield from self._split_object(body, "catalog.json")
        if not document.keys() & {"providers", "models"}:
            raise UpstreamInvalidError('catalog.json has neither "providers" nor "models"')
        for name in ("providers", "models"):
            members = yield from self._split_object(document.get(name, b"{}"), f'"{name}" of catalog.json', name)
            if name == "providers":
                self._providers = members
            else:
                self._canonical_models = members

    def _split_object(self, raw: Raw | bytes, name: str, *path: str) -> Generator[None, None, dict[str, Raw]]:
        try:
            members = wire.read_object(raw)
        except wire.InvalidRecordError as error:
            raise UpstreamInvalidError(f"{name} ({_size(raw):,} bytes) is no JSON object: {error}") from error
        yield
        yield from self._note_duplicates(raw, members, *path)
        return members

    def _find_link_targets(self) -> Iterator[None]:
        """Tell which canonical models the catalog will hold, unless one that is new turns out to be bad.

        What a link may point to is what the catalog will hold after this run. A run for one provider writes no
        canonical models, nor does one whose payload has none.
        """
        if self._provider_id is not None or not self._canonical_models:
            release_dates = {id_: self._known.release_dates.get(id_) for id_ in self._known.canonical_models}
        else:
            release_dates = {}
            for id_, raw in self._canonical_models.items():
                release_dates[id_] = wire.read_release_date(raw)
                yield
            self._new_canonical_ids = self._canonical_models.keys() - self._known.canonical_models.keys()
        self._links = yield from self._tables.steps(release_dates)

    # --- records to tasks

    def _sift_canonical_model(self, id_: str, raw: Raw) -> None:
        hash_ = self._hasher.hash_canonical_model(raw)
        listed = self._known.canonical_models
        if not (id_ in listed and self._trusted_canonical_models.get(id_) == hash_):
            self._add_task(Task(_CANONICAL_MODEL, "", id_, bytes(raw), listed.get(id_, "")), id_, hash_)

    def _sift_provider(self, id_: str, raw: Raw) -> Iterator[None]:
        try:
            members, models = _split_provider(id_, raw)
        except wire.InvalidRecordError as error:
            self._bad_providers[id_] = str(error)
            return
        self._model_counts[id_] = len(models)
        if self._provider_id not in (None, id_):
            return
        yield from self._note_duplicates(raw, members, "providers", id_)
        yield from self._note_duplicates(members.pop("models"), models, "providers", id_, "models")
        text = msgspec.json.encode(members)
        hash_ = self._hasher.hash_provider(text)
        listed = self._known.providers
        if not (id_ in listed and self._trusted_providers.get(id_) == hash_):
            self._add_task(Task(_PROVIDER, id_, id_, text, listed.get(id_, "")), id_, hash_)
        seen = self._seen[id_] = []
        for number, (key, model) in enumerate(models.items()):
            if number % _MODELS_A_STEP == 0:
                yield
            seen.append(self._sift_model(id_, key, model))

    def _sift_model(self, provider_id: str, key: str, raw: Raw) -> str:
        id_ = model_id(provider_id, key)
        candidates, digest = self._links.get(provider_id, key)
        hash_ = self._hasher.hash_model(raw, links=digest)
        is_linked_to_new = bool(self._new_canonical_ids) and self._note_new_links(id_, candidates)
        listed = self._known.models
        if not (id_ in listed and self._trusted_models.get(id_) == hash_) or is_linked_to_new:
            task = Task(_MODEL, provider_id, key, bytes(raw), candidates=candidates)
            self._add_task(task, id_, hash_)
        return id_

    def _note_new_links(self, id_: str, candidates: Iterable[LinkCandidate]) -> bool:
        """Note what a model may be linked to that the catalog does not hold yet; return whether there is any."""
        new = {candidate.canonical_id for candidate in candidates} & self._new_canonical_ids
        if new:
            self._links_to_new[id_] = new
        return bool(new)

    def _add_task(self, task: Task, id_: str, hash_: bytes) -> None:
        self._tasks.append(task)
        self.waiting_bytes += len(task.text)
        self._hashes[task.kind][id_] = hash_

    # --- what comes of it

    def _check_any_model(self, bad_providers: Mapping[str, Quarantined]) -> None:
        if any(count for id_, count in self._model_counts.items() if id_ not in bad_providers):
            return
        first = next(iter(bad_providers.values()), None)
        why = f"; the first problem is at {first.pointer}: {first.reason}" if first else ""
        raise UpstreamInvalidError(f"the payload has {len(self._providers)} providers and not one model{why}")

    def _changed_hashes(
        self, decoded: DecodedCatalog, difference: Difference
    ) -> Generator[None, None, dict[RecordKind, dict[str, bytes | None]]]:
        """Return, in steps, the hashes to store, and ``None`` for those to forget.

        A model that would be linked to a canonical one that is new and bad has none, so that it is decoded again until
        that one is mended: its text will be the same then, but not what becomes of it.
        """
        bad_ids = decoded.quarantined_canonical_models.keys()
        unsettled = {id_ for id_, new in self._links_to_new.items() if new & bad_ids}
        good: dict[RecordKind, tuple[Set[str], Set[str]]] = {
            _PROVIDER: (_ids(decoded.providers), decoded.unchanged_providers),
            _MODEL: (_ids(decoded.models) - unsettled, decoded.unchanged_models - unsettled),
            _CANONICAL_MODEL: (_ids(decoded.canonical_models or ()), decoded.unchanged_canonical_models),
        }
        forgotten = {
            _PROVIDER: decoded.quarantined_providers.keys() | difference.removed_providers,
            _MODEL: decoded.quarantined_models.keys() | unsettled | set(difference.removed_models),
            _CANONICAL_MODEL: bad_ids | set(difference.removed_canonical_models),
        }
        changed: dict[RecordKind, dict[str, bytes | None]] = {}
        for kind, stored in self._stored.items():
            yield
            written, unchanged = good[kind]
            changed[kind] = {
                id_: hash_
                for id_, hash_ in self._hashes[kind].items()
                if (id_ in written or id_ in unchanged) and (self._full or stored.get(id_) != hash_)
            }
            changed[kind] |= dict.fromkeys(stored.keys() & forgotten[kind])
        return changed

    def _note_duplicates(self, raw: Raw | bytes, members: Mapping[str, Raw], *path: str) -> Iterator[None]:
        """Find keys that an object has more than once, of which the decoder kept the last.

        Without any, without spaces and without escapes in its keys an object is as long as its members make it. Where
        that does not add up its spaces are taken out, and where it then does not, its keys are counted.
        """
        if _size(raw) == _compact_size(members) or len(self._duplicates) >= MAX_DUPLICATES:
            return
        text = msgspec.json.format(bytes(raw), indent=-1)
        yield
        if len(text) == _compact_size(wire.read_object(text)):
            return
        for key in (yield from _find_repeated_keys(text)):
            if len(self._duplicates) < MAX_DUPLICATES:
                self._duplicates.append(_point(*path, key))


def _split_sections(body: bytes) -> Generator[None, None, dict[str, dict[str, Raw]]]:
    """Return, in steps, the members of both sections of a document without spaces, as upstream writes it.

    To scan all of it is a call of a millisecond a megabyte, so it is cut where a member seems to end. Between braces a
    piece is an object only if it consists of whole members: at a wrong place something is left open.

    Raises:
        DecodeError: It is not written like that, or no JSON.
    """
    first, second, find = ("models", "providers", body.find)
    if not body.startswith(b'{"models":{"'):
        first, second, find = ("providers", "models", body.rfind)  # each provider has models, too
    opening, between, closing = f'{{"{first}":{{'.encode(), f'}},"{second}":{{'.encode(), b"}}"
    seam = find(b"}" + between + b'"') + 1
    if not (seam and body.startswith(opening) and body.endswith(closing)):
        raise DecodeError("not two sections without spaces")
    return {
        first: (yield from _split_members(body, len(opening), seam, _SEAMS[first])),
        second: (yield from _split_members(body, seam + len(between), len(body) - len(closing), _SEAMS[second])),
    }


def _split_members(body: bytes, start: int, end: int, seam: bytes) -> Generator[None, None, dict[str, Raw]]:
    """Return, in steps, the members that are there between two places. Raises ``DecodeError`` if anything else is."""
    members: dict[str, Raw] = {}
    stop, tried = start, 0
    while start < end:
        at = body.find(seam, max(stop, start + _PIECE_BYTES), end)
        stop, tried = (end if at == -1 else at + seam.index(b",")), tried + 1
        try:
            members |= _members.decode(b"{" + body[start:stop] + b"}")
            start, tried = stop + 1, 0
        except DecodeError:
            if stop == end or tried == _SEAMS_TRIED:
                raise
        yield
    return members


def _split_provider(id_: str, raw: Raw) -> tuple[dict[str, Raw], dict[str, Raw]]:
    """Return the members of a provider, and its models."""
    wire.check_id(id_, max_bytes=wire.MAX_PROVIDER_ID_BYTES)
    if "/" in id_:
        raise wire.InvalidRecordError("id: holds a slash, which ends a provider's id in the id of a model")
    members = wire.read_object(raw)
    if "models" not in members:
        raise wire.InvalidRecordError("object missing required field models")
    return members, wire.read_object(members["models"], "models")


def _make_readable(body: bytes) -> Generator[None, None, bytes]:
    r"""Return the document so that the decoder takes it whole.

    Half a surrogate pair (``\ud800``) is an error of the record that holds it, but the decoder refuses the document.
    U+0000 in its place is what the record is set aside for.
    """
    for start in range(0, len(body), _SEARCH_BYTES):
        if _HALF_PAIR.search(body, start, start + _SEARCH_BYTES + _HALF_PAIR_BYTES):
            return _ESCAPE.sub(lambda match: rb"\u0000" if _is_half_pair(match[0]) else match[0], body)
        yield
    return body.strip()  # no copy where there is nothing to strip


def _is_half_pair(escape: bytes) -> bool:
    return len(escape) == len(rb"\ud800") and _HALF_PAIR.match(escape) is not None


def _find_repeated_keys(text: bytes) -> Generator[None, None, list[str]]:
    """Return the keys that are more than once in an object, nested ones not counted."""
    counts: dict[str, int] = {}
    depth = 0
    for number, token in enumerate(_TOKEN.finditer(text)):
        string, is_key, closing = token.groups()
        if string is None:
            depth += -1 if closing else 1
        elif is_key and depth == 1:
            key = msgspec.json.decode(string, type=str)
            counts[key] = counts.get(key, 0) + 1
        if number % _TOKENS_A_STEP == 0:
            yield
    return [key for key, count in counts.items() if count > 1]


def _size(raw: Raw | bytes) -> int:
    return len(memoryview(raw))


def _size_of_keys(members: Mapping[str, object]) -> int:
    """Return the bytes of an object beside its values: braces, and per member two quotes, a colon and a comma."""
    return 2 + len("".join(members).encode()) + 4 * len(members) - bool(members)


def _compact_size(members: Mapping[str, Raw]) -> int:
    return _size_of_keys(members) + sum(map(_size, members.values()))


def _ids(records: Iterable[ProviderRecord | ModelRecord | CanonicalRecord]) -> set[str]:
    return {record.id for record in records}


def _quarantine(reason: str, *path: str) -> Quarantined:
    return Quarantined(pointer=_point(*path), reason=reason)


def _point(*path: str) -> str:
    """Return a JSON pointer into ``catalog.json``, whatever document it was. Its keys come from outside: bounded."""
    steps = (key.replace("~", "~0").replace("/", "~1") for key in path)
    return "".join(f"/{wire.printable(step, _MAX_KEY_CHARS)}" for step in steps)
