"""A catalog that is cut into pieces is what it is when it is read whole, whatever its bytes are."""

# ruff: noqa: S311 -- what is drawn here is no secret

from __future__ import annotations

import gzip
import json
import os
import random
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from msgspec import DecodeError, Raw

from conftest import SNAPSHOT
from modelcatalog_server.domain.errors import UpstreamInvalidError
from modelcatalog_server.domain.models import Source
from modelcatalog_server.domain.refresh import Difference, KnownState, Payload
from modelcatalog_server.domain.tasks import run_to_end
from modelcatalog_server.modelsdev import sift
from modelcatalog_server.modelsdev.decode import Task
from modelcatalog_server.modelsdev.sift import Sift, compare_payload
from seeds import seed_of

COUNT = int(os.environ.get("FUZZ_DOCUMENTS", "1500"))
SEED = seed_of("SEED")

Outcome = tuple[list[Task] | str, Difference | str]

#: What looks like the end of something, and is none, or is one at another depth.
TEXTS = [
    *('}}}},"', '}},"', '}},"providers":{"', '}},"models":{"', '}}},"models":{"a":{}}}', '\\"}}}},\\"', '"', "\\"),
    *("}}", '{"models":{"', "\\\\", "é", "\U0001f600", "\u2028", "/", "", " ", "\0"),
]
KEYS = ["models", "providers", *(f"k{number}" for number in range(100))]
#: What a document is damaged with.
DAMAGE = [
    *(b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b" ", b"\n", b"0", b"null", b"\xff", b"\xc3", b"\xed\xa0\x80"),
    *(b"\\ud800", b"\\u0041", b'}},"', b'}}}},"', b'}},"providers":{"', b'},"models":{"', b'"a":{}', b',"a":{}', b""),
]


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut at every seam, so that small documents have many."""
    monkeypatch.setattr(sift, "_PIECE_BYTES", 1)


def refuse(body: bytes) -> Iterator[None]:
    raise DecodeError


def find(body: bytes) -> Outcome:
    """Return what is found in a document: what there is to decode, and what comes of it."""
    payload = Payload(source=Source(url="https://models.dev/catalog.json", snapshot="0" * 64), catalog=body)
    known = KnownState(
        models={},
        removed_models={},
        providers={},
        removed_providers=frozenset(),
        canonical_models={},
        removed_canonical_models=frozenset(),
    )
    walk = Sift(payload, known, provider_id=None, full=False)
    tasks: list[Task] | str
    difference: Difference | str
    try:
        run_to_end(walk.steps())
        tasks = walk.take_tasks()
    except UpstreamInvalidError as error:
        tasks = str(error)
    try:
        difference = compare_payload(payload, known, provider_id=None, full=False)
    except UpstreamInvalidError as error:
        difference = str(error)
    return tasks, difference


def find_whole(body: bytes) -> Outcome:
    """Return what is found in a document that is not cut."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sift, "_split_sections", refuse)
        return find(body)


def compact(content: Any) -> bytes:
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()


def split(body: bytes) -> dict[str, dict[str, bytes]]:
    """Return the texts of the members of both sections, as they are cut."""
    return texts_of(run_to_end(sift._split_sections(body)))


def read(body: bytes) -> dict[str, dict[str, bytes]]:
    """Return the texts of the members of both sections, read in one go."""
    return texts_of(msgspec.json.decode(body, type=dict[str, dict[str, Raw]]))


def texts_of(sections: dict[str, dict[str, Raw]]) -> dict[str, dict[str, bytes]]:
    return {name: {key: bytes(raw) for key, raw in members.items()} for name, members in sections.items()}


def can_be_cut(body: bytes) -> bool:
    """Whether a document is taken apart piece by piece, without a look at the whole."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sift, "_split_object", refuse_whole)
        try:
            find(body)
        except LookupError:
            return False
    return True


def refuse_whole(*_arguments: Any) -> Iterator[None]:
    raise LookupError


class Documents:
    """Documents as upstream writes them, with all that may look like a seam, and others."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)

    def draw(self) -> bytes:
        sections = [
            ("models", self._members(self._canonical_model)),
            ("providers", self._members(self._provider)),
        ]
        self.chance.shuffle(sections)
        if self._seldom():
            sections.insert(self.chance.randrange(3), ("more", self._value(3)))
        if self._seldom():
            sections.append((self.chance.choice(["models", "providers"]), self._members(self._provider)))
        body = self._write(sections)
        for _ in range(self.chance.choice([0, 0, 0, 1, 1, 2])):
            body = self._damage(body)
        return body

    def _write(self, pairs: list[tuple[str, Any]]) -> bytes:
        """Write an object whose keys may be there more than once."""

        def write(value: Any) -> str:
            if isinstance(value, list) and value and isinstance(value[0], tuple):
                return "{" + ",".join(f"{write(key)}:{write(each)}" for key, each in value) + "}"
            return json.dumps(value, separators=(",", ":"), ensure_ascii=self.chance.random() < 0.1)

        return write([(key, value or {}) for key, value in pairs]).encode()

    def _members(self, member: Any) -> list[tuple[str, Any]]:
        count = 0 if self._seldom() else self.chance.choice([1, 2, 3, 6])
        return [(self._key(), member()) for _ in range(count)]

    def _provider(self) -> Any:
        fields: list[tuple[str, Any]] = [
            ("id", "p"),
            ("name", self._text()),
            ("models", self._members(self._served_model) or {}),
        ]
        if self._seldom():
            fields.insert(self.chance.randrange(3), (self._key(), self._value(2)))
        if self._seldom():
            del fields[-1]
        return self._value(2) if self._seldom() else fields

    def _served_model(self) -> Any:
        return [
            ("id", self._key()),
            ("name", self._text()),
            ("limit", {"context": 1, "output": 1}),
            ("x", self._value(2)),
            ("cost", {"input": 1, "output": 2}),
        ]

    def _canonical_model(self) -> Any:
        return [("id", self._key()), ("name", self._text()), ("limit", self._value(2) if self._seldom() else {"a": 1})]

    def _value(self, depth: int) -> Any:
        if depth == 0 or self.chance.random() < 0.3:
            return self.chance.choice([self._text(), 1, -1.5e3, None, True, {}, []])
        if self.chance.random() < 0.3:
            return [self._value(depth - 1) for _ in range(2)]
        return {self._key(): self._value(depth - 1) for _ in range(2)}

    def _key(self) -> str:
        return self._text() if self._seldom() else self.chance.choice(KEYS)

    def _text(self) -> str:
        return self.chance.choice(TEXTS) + self.chance.choice(["", "x", *TEXTS])

    def _seldom(self) -> bool:
        return self.chance.random() < 0.1

    def _damage(self, body: bytes) -> bytes:
        at = self.chance.randrange(len(body) + 1)
        match self.chance.randrange(5):
            case 0:
                return body[:at]
            case 1:
                return body[:at] + self.chance.choice(DAMAGE) + body[at:]
            case 2:
                return body[:at] + self.chance.choice(DAMAGE) + body[at + 1 :]
            case 3:
                other = self.chance.randrange(len(body) + 1)
                return body[:at] + body[other : other + self.chance.randrange(40)] + body[at:]
            case _:
                return body + self.chance.choice(DAMAGE)


def test_finds_in_any_document_what_is_there_without_cutting() -> None:
    documents, cut = Documents(SEED), 0
    for number in range(COUNT):
        body = documents.draw()
        assert find(body) == find_whole(body), f"SEED={SEED}, document {number}: {body!r}"
        if can_be_cut(body):
            cut += 1
            readable = run_to_end(sift._make_readable(body))
            assert split(readable) == read(readable)
    assert COUNT // 10 < cut < COUNT * 9 // 10, "both ways are gone often"


def provider(id_: str, *models: str, **fields: Any) -> Any:
    served = {
        key: {"id": key, "name": key, "limit": {"context": 1, "output": 1}, "cost": {"input": 1, "output": 2}}
        for key in models
    }
    return {"id": id_, "name": id_, **fields, "models": served}


def canonical_model(id_: str) -> Any:
    return {"id": id_, "name": id_, "limit": {"context": 1}}


PROVIDERS = {id_: provider(id_, "one", "two") for id_ in ("a", "b", "c")}
MODELS = {id_: canonical_model(id_) for id_ in ("lab/one", "lab/two", "lab/three")}


def catalogs(providers: Any, models: Any) -> list[bytes]:
    """Return both documents that hold these, one for each order of the sections."""
    return [
        compact({"models": models, "providers": providers}),
        compact({"providers": providers, "models": models}),
    ]


BOTH_ORDERS = pytest.mark.parametrize("order", [0, 1], ids=["models first", "providers first"])


def hostile(text: str) -> tuple[Any, Any]:
    """Return sections that say this everywhere, in keys, in texts and nested."""
    nested = {text: {text: {text: {text: text}}}, "models": {text: {"cost": {"x": {}}}}, "providers": {text: {}}}
    providers = {
        **PROVIDERS,
        text or "d": {"x": nested, **provider("d", "one", text or "t")},
        "e": provider("e", doc=text),
        "f": provider("f", "one", x=[[nested], text]),
    }
    return providers, {**MODELS, text or "g": {**canonical_model("g"), "x": nested}, "h/h": {"name": text}}


@BOTH_ORDERS
@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_texts_that_look_like_a_seam_are_none(text: str, order: int) -> None:
    body = catalogs(*hostile(text))[order]
    assert find(body) == find_whole(body)
    assert not isinstance(find(body)[1], str)


@BOTH_ORDERS
@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_texts_that_look_like_a_seam_keep_no_document_from_being_cut(text: str, order: int) -> None:
    providers = {id_: provider(id_, "one", doc=text, env=[text, {"x": text}]) for id_ in ("a", "b", "c")}
    models = {id_: {**canonical_model(id_), "x": {"y": {text: text}}} for id_ in MODELS}
    body = catalogs(providers, models)[order]
    assert can_be_cut(body)
    assert split(body) == read(body)
    assert find(body) == find_whole(body)


@BOTH_ORDERS
def test_a_document_cut_short_or_damaged_anywhere_is_told_from_a_whole_one(order: int) -> None:
    body = catalogs({"a": provider("a", "x"), "b": provider("b", "y")}, {"l/x": canonical_model("l/x"), "l/y": {}})[
        order
    ]
    assert can_be_cut(body)
    for at in range(len(body)):
        for damaged in (
            body[:at],
            *(body[:at] + byte + body[at + 1 :] for byte in (b"}", b'"', b",", b" ", b"\xff", b"")),
        ):
            assert find(damaged) == find_whole(damaged), damaged


@pytest.mark.parametrize(
    ("body", "is_cut"),
    [
        (catalogs(PROVIDERS, MODELS)[0], True),
        (catalogs(PROVIDERS, MODELS)[1], True),
        (catalogs({"a": provider("a")}, MODELS)[0], True),
        (catalogs({"a": provider("a"), **PROVIDERS, "z": provider("z")}, MODELS)[1], True),
        (b" \n" + catalogs(PROVIDERS, MODELS)[0] + b"\n", True),
        (catalogs(PROVIDERS, MODELS)[0] + b"}", False),
        (catalogs(PROVIDERS, MODELS)[1] + b"{}", False),
        (catalogs(PROVIDERS, MODELS)[0].replace(b'},"providers"', b'}, "providers"'), False),
        (catalogs(PROVIDERS, MODELS)[0].replace(b'"lab/two":', b'"lab/two" :'), False),
        (catalogs(PROVIDERS, MODELS)[1].replace(b',"b":', b', "b":'), False),
        (catalogs(PROVIDERS, {})[0], False),
        (catalogs(PROVIDERS, {})[1], False),
        (catalogs({}, MODELS)[0], False),
        (catalogs({}, MODELS)[1], False),
        (compact({"models": MODELS, "providers": PROVIDERS, "more": {"a": {"b": {}}}}), False),
        (compact({"more": {"a": {"b": {}}}, "models": MODELS, "providers": PROVIDERS}), False),
        (compact({"models": MODELS, "more": {"a": {"b": {}}}, "providers": PROVIDERS}), False),
        (compact({"providers": PROVIDERS, "more": {"a": {"b": {}}}, "models": MODELS}), False),
        (compact({"providers": PROVIDERS}), False),
        (compact({"models": MODELS}), False),
        (compact({"providers": PROVIDERS, "models": None}), False),
        (compact([PROVIDERS, MODELS]), False),
        (b'{"models":{"}},"providers":{"}}', False),
        (b'{"models":{"a":{}},"providers":{"}}', False),
        (b'{"models":{"a":{}},"providers":{"a":{}},}}', False),
        (b'{"providers":{}},"models":{"a":{}}}', False),
        (b"", False),
        (b"{}", False),
    ],
    ids=lambda value: value[:40].decode() if isinstance(value, bytes) else None,
)
def test_what_is_not_written_as_upstream_writes_it_is_read_whole(body: bytes, is_cut: bool) -> None:
    assert find(body) == find_whole(body)
    assert can_be_cut(body) is is_cut


def written(*sections: tuple[str, str]) -> bytes:
    return ("{" + ",".join(f'"{name}":{{{members}}}' for name, members in sections) + "}").encode()


class TestDuplicates:
    A, B = (f'"{id_}":{compact(provider(id_, "one")).decode()}' for id_ in "ab")
    X, Y = (f'"{id_}":{compact(canonical_model(id_)).decode()}' for id_ in ("l/x", "l/y"))

    @pytest.mark.parametrize("piece_bytes", [1, 10**6], ids=["across pieces", "within a piece"])
    @pytest.mark.parametrize(
        ("sections", "expected"),
        [
            ([("models", f"{X},{Y},{X}"), ("providers", f"{A},{B}")], ("/models/l~1x",)),
            ([("models", f"{X},{Y}"), ("providers", f"{A},{A},{B}")], ("/providers/a",)),
            ([("providers", f"{A},{B},{A}"), ("models", f"{X},{X},{Y}")], ("/providers/a", "/models/l~1x")),
            ([("models", X), ("models", Y), ("providers", A)], ("/models",)),
            ([("models", X), ("providers", A), ("providers", B)], ("/providers",)),
            ([("providers", A), ("models", X), ("models", Y)], ("/models",)),
            ([("providers", A), ("models", X), ("providers", B)], ("/providers",)),
            ([("models", X), ("providers", A), ("models", Y)], ("/models",)),
            ([("models", X), ("providers", f"{A}," + A.replace('"a"', '"\\u0061"', 1))], ("/providers/a",)),
            ([("models", X), ("providers", A.replace('"one":', '"one":1,"one":', 1))], ("/providers/a/models/one",)),
        ],
    )
    def test_are_found_and_the_last_one_counts(
        self,
        monkeypatch: pytest.MonkeyPatch,
        piece_bytes: int,
        sections: list[tuple[str, str]],
        expected: tuple[str, ...],
    ) -> None:
        monkeypatch.setattr(sift, "_PIECE_BYTES", piece_bytes)
        body = written(*sections)
        found = find(body)
        assert found == find_whole(body)
        assert not isinstance(found[1], str)
        assert found[1].duplicate_ids == expected


class TestDamage:
    @pytest.mark.parametrize(
        "junk", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\\ud800", b"\\udc00\\ud800", b"\\x", b"\n"], ids=ascii
    )
    @pytest.mark.parametrize("place", [b'"b":{"id"', b'"name":"b"', b'"lab/two":{', b'"context":1'], ids=ascii)
    @BOTH_ORDERS
    def test_is_what_it_is_in_a_whole_document(self, place: bytes, junk: bytes, order: int) -> None:
        body = catalogs(PROVIDERS, MODELS)[order]
        damaged = body.replace(place, place[:2] + junk + place[2:])
        assert damaged != body
        assert find(damaged) == find_whole(damaged)


class TestSteps:
    """The steps of a large document are short: none is a scan of the whole."""

    @pytest.fixture(autouse=True)
    def pieces_of_their_own_size(self, small_pieces: None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.undo()

    @BOTH_ORDERS
    def test_the_recorded_catalog_is_cut_into_many_pieces(self, order: int) -> None:
        document = json.loads(gzip.decompress(SNAPSHOT.read_bytes()))
        body = catalogs(document["providers"], document["models"])[order]
        steps = 0
        walk = sift._split_sections(body)
        while True:
            try:
                next(walk)
                steps += 1
            except StopIteration as end:
                sections = end.value
                break
        assert steps > 10
        assert {name: list(members) for name, members in sections.items()} == {
            name: list(document[name]) for name in ("models", "providers")
        }
        assert max(map(len, map(bytes, sections["models"].values()))) < sift._PIECE_BYTES
        assert can_be_cut(body)

    def test_the_recorded_catalog_is_written_so_that_it_can_be_cut(self) -> None:
        assert can_be_cut(gzip.decompress(SNAPSHOT.read_bytes()))

    def test_what_has_no_seams_is_given_up_on(self) -> None:
        """A hostile document costs a bounded number of tries."""
        member = '"x":{"y":{"z":"' + '}}}},\\"' * 1000 + '"}}'
        body = written(("models", '"l/x":{}'), ("providers", f'"a":{{{member}}}'))
        text = body.replace(b'\\"', b'"')  # every seam is a wrong one
        tries: list[None] = []
        with pytest.raises(DecodeError):
            tries.extend(sift._split_members(text, 0, len(text), b'}}}},"'))
        assert len(tries) < 10
