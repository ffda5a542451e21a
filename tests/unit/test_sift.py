"""Which records of a payload are decoded again: all that might become something else, and no other."""

from __future__ import annotations

import json
import random
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest

from modelcatalog_server.domain.models import CanonicalRecord, RecordKind, Source
from modelcatalog_server.domain.refresh import Difference, KnownState, Payload
from modelcatalog_server.modelsdev import sift
from modelcatalog_server.modelsdev.links import LinkTable, LinkTables
from modelcatalog_server.modelsdev.sift import MAX_DUPLICATES, Sift, SourceHasher, compare_payload

JSON = dict[str, Any]
SOURCE = Source(url="https://models.dev/catalog.json?type=all", snapshot="0" * 64)
NOTHING = KnownState(
    models={},
    removed_models={},
    providers={},
    removed_providers=frozenset(),
    canonical_models={},
    removed_canonical_models=frozenset(),
)


def model(id_: str, **fields: Any) -> JSON:
    return {
        "id": id_,
        "name": id_.upper(),
        "release_date": "2026-01",
        "last_updated": "2026-01-02",
        "modalities": {"input": ["text"], "output": ["text"]},
        "limit": {"context": 1000, "output": 100},
    } | fields


def provider(id_: str, *models: str) -> JSON:
    return {"id": id_, "name": id_.upper(), "models": {key: model(key) for key in models}}


def document() -> JSON:
    return {
        "providers": {"lab": provider("lab", "one", "two"), "shop": provider("shop", "lab/one", "lab/two", "three")},
        "models": {"lab/one": {"id": "lab/one", "name": "One"}},
    }


def payload(content: Any, **how: Any) -> Payload:
    body = content if isinstance(content, bytes) else json.dumps(content, **({"separators": (",", ":")} | how)).encode()
    return Payload(source=SOURCE, catalog=body)


def day_of(record: CanonicalRecord) -> str | None:
    """Return the text of a day of release, as the catalog gives it."""
    day = json.loads(record.raw).get("release_date")
    return day if isinstance(day, str) else None


def after(known: KnownState, difference: Difference) -> KnownState:
    """Return what the catalog holds once a difference has been applied to it."""

    def apply(listed: Any, records: Any, removed: Any) -> dict[str, str]:
        now = dict(listed) | {record.id: record.content_hash for record in records}
        return {id_: hash_ for id_, hash_ in now.items() if id_ not in removed}

    models = apply(known.models, difference.models, difference.removed_models)
    hashes = {}
    for kind in RecordKind:
        now = {**known.source_hashes.get(kind, {}), **difference.source_hashes[kind]}
        hashes[kind] = {id_: hash_ for id_, hash_ in now.items() if hash_ is not None}
    return KnownState(
        models=models,
        removed_models={
            id_: "" for id_ in known.removed_models.keys() | difference.removed_models if id_ not in models
        },
        providers=apply(known.providers, difference.providers, difference.removed_providers),
        removed_providers=known.removed_providers | set(difference.removed_providers),
        canonical_models=apply(
            known.canonical_models, difference.canonical_models, difference.removed_canonical_models
        ),
        removed_canonical_models=known.removed_canonical_models | set(difference.removed_canonical_models),
        release_dates=dict(known.release_dates) | {record.id: day_of(record) for record in difference.canonical_models},
        source_hashes=hashes,
    )


def compare(content: Any, known: KnownState = NOTHING, *, full: bool = False, **how: Any) -> Difference:
    return compare_payload(payload(content, **how), known, provider_id=None, full=full)


def find_tasks(content: Any, known: KnownState, *, full: bool = False, hasher: SourceHasher | None = None) -> list[str]:
    """Return the ids of what has to be decoded."""
    hasher = hasher or SourceHasher(sift.identify_decoder())
    walk = Sift(payload(content), known, provider_id=None, full=full, hasher=hasher)
    for _ in walk.steps():
        pass
    return [f"{task.provider_id}:{task.id}" for task in walk.take_tasks()]


LOADED = after(NOTHING, compare(document()))


class TestHash:
    HASHER = SourceHasher(b"decoder")

    def test_covers_each_ingredient(self) -> None:
        text = b'{"id":"one"}'
        other = SourceHasher(b"another decoder")
        hashes = {
            self.HASHER.hash_provider(text),
            self.HASHER.hash_canonical_model(text),
            self.HASHER.hash_model(text, links=b"none"),
            self.HASHER.hash_model(text, links=b"some"),
            self.HASHER.hash_provider(text + b" "),
            self.HASHER.hash_model(text + b" ", links=b"none"),
            other.hash_provider(text),
            other.hash_canonical_model(text),
            other.hash_model(text, links=b"none"),
        }
        assert len(hashes) == 9
        assert {len(hash_) for hash_ in hashes} == {16}

    def test_is_the_same_for_the_same(self) -> None:
        again = SourceHasher(b"decoder")
        assert self.HASHER.hash_provider(b"{}") == again.hash_provider(b"{}")

    def test_names_the_code_that_decodes(self) -> None:
        assert sift.identify_decoder() == sift.identify_decoder()

    def test_names_nothing_where_the_code_cannot_be_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sift, "_DECODER_SOURCES", (("modelcatalog_server.modelsdev", ("gone.py",)),))
        assert sift.identify_decoder() != sift.identify_decoder()


class TestTasks:
    def test_none_for_what_was_decoded_before(self) -> None:
        assert find_tasks(document(), LOADED) == []

    def test_all_where_nothing_is_known(self) -> None:
        expected = ["lab:lab", "lab:one", "lab:two", "shop:shop", "shop:lab/one", "shop:lab/two", "shop:three"]
        assert find_tasks(document(), NOTHING) == [":lab/one", *expected]
        assert find_tasks(document(), LOADED, full=True) == [":lab/one", *expected]
        assert find_tasks(document(), LOADED, hasher=SourceHasher(b"another decoder")) == [":lab/one", *expected]

    def test_what_changed(self) -> None:
        now = document()
        now["providers"]["shop"]["models"]["three"]["name"] = "new"
        now["providers"]["lab"]["doc"] = "https://lab/doc"
        now["models"]["lab/one"]["family"] = "f"
        assert find_tasks(now, LOADED) == [":lab/one", "lab:lab", "shop:three"]

    def test_what_a_canonical_model_is_linked_to_when_it_comes_or_goes(self) -> None:
        more, fewer = document(), document()
        more["models"]["lab/two"] = {"id": "lab/two", "name": "Two"}
        fewer["models"] = {"x/y": {"id": "x/y", "name": "Y"}}
        assert find_tasks(more, LOADED) == [":lab/two", "lab:two", "shop:lab/two"]
        assert find_tasks(fewer, LOADED) == [":x/y", "lab:one", "shop:lab/one"]

    def test_what_a_spelling_is_linked_to_when_it_comes_or_goes(self) -> None:
        now = document()
        now["providers"]["shop"]["models"] = {key: model(key) for key in ("LAB/One", "lab.one-fp8", "one-more")}
        known = after(LOADED, compare(now, LOADED))
        now["models"]["lab/one-more"] = {"id": "lab/one-more", "name": "More"}
        assert find_tasks(now, known) == [":lab/one-more", "shop:one-more"]
        known = after(known, compare(now, known))
        del now["models"]["lab/one"]
        assert find_tasks(now, known) == ["lab:one", "shop:LAB/One", "shop:lab.one-fp8"]

    def test_what_the_day_of_release_of_a_canonical_model_may_contradict(self) -> None:
        now = document()
        now["models"]["lab/two-2026-01-02"] = {"id": "lab/two-2026-01-02", "name": "Two", "release_date": "2026-01-02"}
        now["providers"]["shop"]["models"]["two"] = model("two", release_date="2026-01-03")
        known = after(LOADED, loaded := compare(now, LOADED))
        links = {record.id: record.canonical.canonical_id for record in loaded.models if record.canonical}
        assert links["shop/two"] == "lab/two-2026-01-02"
        now["models"]["lab/two-2026-01-02"]["release_date"] = "2025-01-02"
        assert find_tasks(now, known) == [":lab/two-2026-01-02", "lab:two", "shop:lab/two", "shop:two"]
        changed = compare(now, known)
        assert changed.touched_models == {"shop/two"}
        assert [record.canonical for record in changed.models if record.id == "shop/two"] == [None]

    def test_what_the_catalog_does_not_list(self) -> None:
        removed = replace(LOADED, models={}, removed_models=dict(LOADED.models))
        assert find_tasks(document(), removed) == ["lab:one", "lab:two", "shop:lab/one", "shop:lab/two", "shop:three"]

    def test_spaces_between_records_do_not_count(self) -> None:
        text = json.dumps(document(), separators=(",", ":"))
        assert find_tasks(text.replace('"models":', ' "models" : ').encode() + b"\n", LOADED) == []


class TestLinkTables:
    def table(self, tables: LinkTables, release_dates: dict[str, str | None]) -> LinkTable:
        steps = tables.steps(release_dates)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                table: LinkTable = end.value
                return table

    def test_are_kept_while_ids_and_dates_are_the_same(self) -> None:
        tables = LinkTables()
        first = self.table(tables, {"lab/one": "2026-01-02", "lab/two": None})
        assert self.table(tables, {"lab/two": None, "lab/one": "2026-01-02"}) is first
        assert self.table(tables, {"lab/one": "2026-01-02"}) is not first
        assert self.table(tables, {"lab/one": "2026-01-03", "lab/two": None}) is not first

    def test_a_digest_is_that_of_the_candidates(self) -> None:
        table = self.table(LinkTables(), {"lab/one": None, "lab/two": None})
        one = [table.get(*id_) for id_ in (("a", "one"), ("b", "one"))]
        assert one[0] == one[1]
        others = [table.get(*id_) for id_ in (("lab", "one"), ("a", "two"), ("a", "x"), ("a", "One"))]
        assert len({links.digest for links in (one[0], *others)}) == 5
        assert [[candidate.canonical_id for candidate in links.candidates] for links in others] == [
            ["lab/one"], ["lab/two"], [], ["lab/one"]
        ]  # fmt: skip


class TestStoredHashes:
    def test_every_record_has_one(self) -> None:
        assert {kind: set(ids) for kind, ids in LOADED.source_hashes.items()} == {
            RecordKind.PROVIDER: {"lab", "shop"},
            RecordKind.MODEL: set(LOADED.models),
            RecordKind.CANONICAL_MODEL: {"lab/one"},
        }

    def test_the_same_again_has_nothing_to_store(self) -> None:
        assert not any(compare(document(), LOADED).source_hashes.values())

    def test_a_full_run_stores_all_anew(self) -> None:
        difference = compare(document(), LOADED, full=True)
        assert difference.source_hashes == LOADED.source_hashes
        assert difference.is_empty

    def test_another_text_of_the_same_record_is_no_change(self) -> None:
        difference = compare(document(), LOADED, sort_keys=True)
        assert difference.is_empty
        assert (difference.counts.seen, difference.counts.unchanged) == (5, 5)
        assert difference.source_hashes[RecordKind.MODEL].keys() == LOADED.models.keys()
        again = compare(document(), after(LOADED, difference), sort_keys=True)
        assert not any(again.source_hashes.values())

    def test_of_what_is_gone_or_set_aside_are_forgotten(self) -> None:
        now = document()
        del now["providers"]["shop"]
        now["providers"]["lab"]["models"]["one"].pop("name")
        difference = compare(now, LOADED)
        assert difference.source_hashes == {
            RecordKind.PROVIDER: {"shop": None},
            RecordKind.MODEL: dict.fromkeys(["lab/one", "shop/lab/one", "shop/lab/two", "shop/three"]),
            RecordKind.CANONICAL_MODEL: {},
        }
        assert not any(compare(now, after(LOADED, difference)).source_hashes.values())

    def test_the_models_of_a_provider_that_is_set_aside_keep_theirs(self) -> None:
        now = document()
        now["providers"]["lab"].pop("name")
        now["providers"]["lab"]["models"]["one"]["name"] = "new"
        difference = compare(now, LOADED)
        assert difference.source_hashes[RecordKind.MODEL] == {}
        assert difference.source_hashes[RecordKind.PROVIDER] == {"lab": None}
        assert (difference.counts.seen, difference.counts.unchanged, difference.is_empty) == (3, 3, True)

    def test_a_model_waits_for_a_new_canonical_one_that_is_bad(self) -> None:
        now = document()
        now["models"]["lab/two"] = {"id": "lab/two"}
        known = after(LOADED, compare(now, LOADED))
        assert {"lab/two", "shop/lab/two"}.isdisjoint(known.source_hashes[RecordKind.MODEL])
        assert find_tasks(now, known) == [":lab/two", "lab:two", "shop:lab/two"]
        assert not any(compare(now, known).source_hashes.values())
        now["models"]["lab/two"]["name"] = "Two"
        mended = compare(now, known)
        assert mended.touched_models == {"lab/two", "shop/lab/two"}
        assert find_tasks(now, after(known, mended)) == []


class Days:
    """A payload that changes at random, and breaks, and is mended."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)  # noqa: S311  # nothing secret about it
        self.document = document()
        self.whole = document()

    def pass_by(self) -> None:
        for _ in range(self.chance.randint(0, 3)):
            self.chance.choice((self._change_model, self._change_provider, self._change_canonical_models))()

    def _change_model(self) -> None:
        id_ = self.chance.choice(["lab", "shop"])
        models = self.document["providers"].setdefault(id_, provider(id_))["models"]
        key = self.chance.choice(["one", "two", "lab/one", "lab/two", "three"])
        new = model(key, name=self.chance.choice("ab"), release_date=self.chance.choice(["2026-01-05", "2026-01"]))
        self._put(models, key, self.chance.choice([new, new, {"id": key}, None]))

    def _change_provider(self) -> None:
        id_ = self.chance.choice(["lab", "shop"])
        old = self.document["providers"].get(id_, provider(id_, "one", "lab/one"))
        good = {"id": id_, "name": self.chance.choice("ab"), "models": old["models"]}
        self._put(self.document["providers"], id_, self.chance.choice([good, good, {**good, "name": 1}, None]))
        self.document["providers"]["last"] = provider("last", "lab/one")

    def _change_canonical_models(self) -> None:
        id_ = self.chance.choice(["lab/one", "lab/two", "lab/Two", "lab/one-2026-01-02", "lab/three-fp8"])
        day = self.chance.choice(["2026-01-02", "2024-01-02", "soon", 5, None])
        good = {"id": id_, "name": self.chance.choice("ab"), "release_date": day}
        self._put(self.document["models"], id_, self.chance.choice([good, good, {"id": id_}, None]))

    def _put(self, where: JSON, key: str, value: Any) -> None:
        if value is None:
            where.pop(key, None)
        else:
            where[key] = deepcopy(value)


def without_hashes(difference: Difference) -> Difference:
    """Leave out what depends on how much was decoded: hashes, and models that the catalog lists as they are."""
    touched = tuple(record for record in difference.models if record.id in difference.touched_models)
    return replace(difference, models=touched, source_hashes={})


@pytest.mark.parametrize("seed", range(8))
def test_finds_on_every_day_what_decoding_everything_finds(seed: int) -> None:
    days, known = Days(seed), LOADED
    for day in range(150):
        days.pass_by()
        limit = days.chance.choice([None, None, None, "lab"])
        body = payload(days.document)
        difference = compare_payload(body, known, provider_id=limit, full=False)
        whole = compare_payload(body, replace(known, source_hashes={}), provider_id=limit, full=False)
        assert without_hashes(difference) == without_hashes(whole), day
        known = after(known, difference)


class TestDuplicates:
    ONE = json.dumps(model("one"))
    BODY = '{"providers": {"lab": {"id": "lab", "name": "Lab", "models": {"one": ' + ONE + '}}}, "models": {}}'

    @pytest.mark.parametrize(
        ("body", "expected"),
        [
            (BODY, ()),
            (BODY.replace('"models": {}}', '"models": {}, "models": {}}'), ("/models",)),
            (BODY.replace('"providers": {', '"providers": {"lab": 1, '), ("/providers/lab",)),
            (BODY.replace('{"one": ', '{"one": 1, "one": 2, "one": '), ("/providers/lab/models/one",)),
            (BODY.replace('"name": "Lab"', '"name": "L", "name": "Lab"'), ("/providers/lab/name",)),
            (BODY.replace('"models": {}}', '"models": {"a/b": {}, "a/b": {}}}'), ("/models/a~1b",)),
            (BODY.replace('{"one": ', r'{"on\u0065": 1, "one": '), ("/providers/lab/models/one",)),
            (BODY.replace('"name": "Lab"', r'"name": "Lab", "\u00e9\"\/x": {"y": "a\\"}'), ()),
            (BODY.replace('{"one": ', '{"\u202e": 1, "\u202e": 2, "one": '), ("/providers/lab/models/\ufffd",)),
        ],
    )
    @pytest.mark.parametrize("how", ["compact", "spaced", "on many lines"])
    def test_are_found_however_it_is_written(self, body: str, expected: tuple[str, ...], how: str) -> None:
        if how == "compact":
            body = body.replace(": ", ":").replace(", ", ",")
        elif how == "on many lines":
            body = body.replace(", ", ",\n\t ").replace("}", " \r\n}") + "\n"
        assert compare(body.encode()).duplicate_ids == expected

    def test_are_found_in_a_pair_of_documents(self) -> None:
        pair = Payload(
            source=SOURCE,
            api=b'{"lab":1,"lab":%s}' % json.dumps(provider("lab", "one")).encode(),
            models=b'{"a/b":{},"a/b":{}}',
        )
        difference = compare_payload(pair, NOTHING, provider_id=None, full=False)
        assert difference.duplicate_ids == ("/providers/lab", "/models/a~1b")

    @pytest.mark.parametrize(("provider_id", "found"), [("lab", True), ("other", False)])
    def test_of_one_provider_are_no_matter_of_a_run_for_another(self, provider_id: str, found: bool) -> None:
        other = f'"providers": {{"other": {json.dumps(provider("other", "two"))}, '
        body = self.BODY.replace('"providers": {', other).replace(
            '{"one": ' + self.ONE, '{"one": 1, "one": ' + self.ONE
        )
        limited = Payload(source=SOURCE, catalog=body.encode())
        difference = compare_payload(limited, NOTHING, provider_id=provider_id, full=False)
        assert bool(difference.duplicate_ids) is found

    def test_of_nested_keys_are_none_of_ours(self) -> None:
        nested = self.BODY.replace('"limit": {', '"limit": {"context": 1, "context": 2, ')
        assert compare(nested.encode()).duplicate_ids == ()

    def test_are_cut_at_a_bound(self) -> None:
        many = ",".join(f'"m{number}":1,"m{number}":2' for number in range(300))
        difference = compare(f'{{"providers":{{"lab":{{"id":"lab","name":"Lab","models":{{{many}}}}}}}}}'.encode())
        assert len(difference.duplicate_ids) == MAX_DUPLICATES
        assert difference.duplicate_ids[0] == "/providers/lab/models/m0"
