"""A body is taken piece by piece, however it is cut on its way, and never much more of it than the bound."""

# ruff: noqa: S311 -- what is drawn here is no secret

from __future__ import annotations

import gzip
import random
import zlib
from collections.abc import Iterable
from itertools import pairwise

import pytest

from modelcatalog_server.domain.errors import UpstreamInvalidError
from modelcatalog_server.modelsdev.body import BoundedBody
from seeds import seed_of

PIECE_BYTES = 64 * 1024
MIB = 1024 * 1024
CHANCE = random.Random(seed_of("SEED"))
NOISE = CHANCE.randbytes(3 * MIB)  # does not get any smaller


def take(encoding: str, *chunks: bytes, max_bytes: int = 64 * MIB) -> bytes:
    """Return what comes of chunks."""
    body = BoundedBody("catalog.json", encoding, max_bytes)
    for chunk in chunks:
        for _ in body.feed(chunk):
            pass
    return body.finish()


def cut(packed: bytes, places: Iterable[int]) -> list[bytes]:
    """Return the parts of a body between these places."""
    ends = sorted(places)
    return [packed[start:end] for start, end in zip([0, *ends], [*ends, len(packed)], strict=True)]


def deflate(document: bytes, wbits: int) -> bytes:
    packer = zlib.compressobj(wbits=wbits)
    return packer.compress(document) + packer.flush()


@pytest.mark.parametrize("encoding", ["", "identity", " Identity "])
def test_what_is_not_compressed_is_taken_as_it_is(encoding: str) -> None:
    assert take(encoding, NOISE) == NOISE
    assert take(encoding, *cut(NOISE, [1, MIB, MIB, 2 * MIB])) == NOISE
    assert take(encoding, gzip.compress(b"{}")) == gzip.compress(b"{}")


@pytest.mark.parametrize(
    "document", [b"{}", NOISE, b" " * 5 * MIB, b" " * PIECE_BYTES, b"x" * (PIECE_BYTES + 1)], ids=len
)
@pytest.mark.parametrize(
    ("encoding", "wbits"), [("gzip", 31), ("X-GZip", 31), ("deflate", zlib.MAX_WBITS), ("deflate", -zlib.MAX_WBITS)]
)
def test_what_comes_in_one_large_chunk_is_taken_whole(document: bytes, encoding: str, wbits: int) -> None:
    assert take(encoding, deflate(document, wbits)) == document


def test_gzip_of_several_members_may_be_cut_anywhere() -> None:
    packed = b"".join(gzip.compress(part) for part in (b'{"a":', b"", b"1" * 300, b"}"))
    document = b'{"a":' + b"1" * 300 + b"}"
    for place in range(len(packed) + 1):
        assert take("gzip", *cut(packed, [place])) == document, place
    assert take("gzip", *cut(packed, range(len(packed)))) == document


def test_large_members_may_be_cut_anywhere() -> None:
    parts = [NOISE[:200_000], b" " * MIB, NOISE[:PIECE_BYTES], b"x" * (2 * PIECE_BYTES), NOISE[:1]]
    packed = b"".join(map(gzip.compress, parts))
    for _ in range(20):
        places = CHANCE.choices(range(len(packed)), k=CHANCE.randrange(8))
        assert take("gzip", *cut(packed, places)) == b"".join(parts), places


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_compression_that_ends_early_is_told_wherever_it_ends(encoding: str) -> None:
    packed = gzip.compress(b'{"a":1}') if encoding == "gzip" else zlib.compress(b'{"a":1}')
    for end in range(1, len(packed)):
        with pytest.raises(UpstreamInvalidError, match="its compression ends early"):
            take(encoding, packed[:end])


def test_what_comes_after_a_member_is_another_one_or_an_error() -> None:
    with pytest.raises(UpstreamInvalidError, match="its compression is corrupt after 2 bytes"):
        take("gzip", gzip.compress(b"{}") + b"junk")
    with pytest.raises(UpstreamInvalidError, match="its compression is corrupt after 2 bytes"):
        take("gzip", gzip.compress(b"{}"), b"junk")


@pytest.mark.parametrize("encoding", ["", "gzip"])
def test_nothing_is_no_document(encoding: str) -> None:
    for chunks in ((), (b"",), (b"", b"")):
        with pytest.raises(UpstreamInvalidError, match=r"catalog\.json is empty"):
            take(encoding, *chunks)
    with pytest.raises(UpstreamInvalidError, match=r"catalog\.json is empty"):
        take("gzip", gzip.compress(b""))


def test_an_encoding_that_was_not_asked_for_is_refused() -> None:
    with pytest.raises(UpstreamInvalidError, match="an encoding that was not asked for"):
        BoundedBody("catalog.json", "br", MIB)


@pytest.mark.parametrize("members", [1, 200], ids=["one member", "many members"])
@pytest.mark.parametrize("more_bytes", [0, 1, PIECE_BYTES, MIB, MIB + 1])
def test_a_bomb_is_refused_with_no_more_than_a_piece_beyond_the_bound(more_bytes: int, members: int) -> None:
    packed = gzip.compress(b" " * (20 * MIB // members)) * members
    bound = len(packed) + more_bytes  # what is received is within it
    body = BoundedBody("catalog.json", "gzip", bound)
    with pytest.raises(UpstreamInvalidError, match=rf"more than {bound:,} bytes uncompressed"):
        list(body.feed(packed))
    assert body._size <= bound + PIECE_BYTES
    assert len(body._document.getvalue()) <= bound


def test_the_bound_itself_is_not_too_much() -> None:
    assert take("gzip", gzip.compress(b" " * MIB), max_bytes=MIB) == b" " * MIB
    assert take("", b" " * MIB, max_bytes=MIB) == b" " * MIB
    with pytest.raises(UpstreamInvalidError, match="more than 1,048,576 bytes uncompressed"):
        take("gzip", gzip.compress(b" " * (MIB + 1)), max_bytes=MIB)
    with pytest.raises(UpstreamInvalidError, match=r"more than 1,048,576 bytes$"):
        take("", b" " * MIB, b" ", max_bytes=MIB)


def test_received_is_bounded_too() -> None:
    body = BoundedBody("catalog.json", "gzip", MIB)
    with pytest.raises(UpstreamInvalidError, match=r"more than 1,048,576 bytes$"):
        list(body.feed(NOISE))
    assert not body._size


@pytest.mark.parametrize("document", [NOISE, b" " * 3 * MIB], ids=["noise", "spaces"])
def test_no_step_takes_more_than_a_piece(document: bytes) -> None:
    body = BoundedBody("catalog.json", "gzip", 64 * MIB)
    sizes = [0]
    sizes.extend(body._size for _ in body.feed(gzip.compress(document)))
    assert sizes[-1] == len(document)
    assert max(after - before for before, after in pairwise(sizes)) <= PIECE_BYTES
