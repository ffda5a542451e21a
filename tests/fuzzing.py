"""Requests that nobody would send who means well: structured ones, broken bytes, and garbage below gRPC."""

# ruff: noqa: RUF001 -- letters that look like others are what it is about

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

from contract.client_peer import RPCS

IDS = ["openai/gpt-5", "gpt-5", "anthropic/claude-opus-4-6", "openrouter/openai/gpt-5", "openai", "zeldoc", "openai/"]
UUIDS = ["123e4567-e89b-12d3-a456-426614174000", "00000000-0000-0000-0000-000000000000", "{123e4567}", "123e4567" * 4]
HOSTILE = [
    *(
        "'",
        "';--",
        "' OR 1=1 --",
        "'; DROP TABLE models_metadata; --",
        "$$",
        "%s",
        "%(id)s",
        "{0}",
        "\\",
        "\\x00",
        "%00",
    ),
    *(
        "\0",
        "a\0b",
        "\x1b[31m",
        "\r\n",
        "\u202egpt",
        "\u200b",
        "\ufeff",
        "\u0000\u0001",
        "\U0010ffff",
        "\ud7ff",
        "\ufffe",
    ),
    *("оpenai/gpt-5", "openai／gpt-5", "ｏｐｅｎａｉ/gpt-5", "openai/gpt‐5", "é", "e\u0301", "ﬁ", "İ", "ß", "𝕘𝕡𝕥-5"),
    *("<script>alert(1)</script>", "../../../etc/passwd", "${jndi:ldap://x/a}", "file:///etc/passwd", "null", "NaN"),
    *(" ", "/", "//", "a/", "/a", "-", "*", ".", "..", "x" * 512, "x" * 513, "ü" * 256, "🦆" * 128, "a/" * 256),
    *("x" * 2048, "x" * 2049, "e\u0301" * 600, "\u0301" * 200),
]
FILTERS = [
    *('provider_id = "openai"', "pricing.input <= 1.25", "NOT tags:deprecated", "capabilities.vision = true", "name:*"),
    *(
        "(" * 8 + "id:a" + ")" * 8,
        "(" * 500,
        ")" * 9,
        "-" * 2048,
        " OR ".join(["id:a"] * 32),
        " AND ".join(["id:a"] * 33),
    ),
    *("name = 'a' OR 1=1", 'id = "\'; DROP TABLE x; --"', 'name = "\0"', 'name = "%"', "id = ", "= 5", "raw.cost = 1"),
    *(
        "pricing.input < 1e999",
        "limits.context_window = 99999999999999999999",
        "revision = -1",
        "release_date > 2026-99",
    ),
    *(
        "first_seen_time > 0001-01-01T00:00:00Z",
        "last_changed_time < 9999-12-31T23:59:59-23:59",
        "start_time > 2026-01-01",
    ),
    *(
        "NOT " * 400 + "id:a",
        "id:" + "*" * 500,
        "state = RUNNING",
        "code = OK",
        "principal:*",
        "model_count > 3",
        "type = chat",
    ),
]
ORDERS = [
    "pricing.input desc",
    "name,id desc",
    "tags",
    "id;DROP TABLE x",
    "," * 50,
    "id " * 600,
    "pricing.output desc, name",
]
MASKS = ["id", "pricing.input", "raw", "raw.x", "*", "", "id.id", ".", "a" * 201, "pricing..input", "\0", "limits", "'"]
TOKENS = ["", "x", "e30", "e30.x.y", ".e30.x.y", "a.b.c", "=" * 40, "\0", "é"]
BY_NAME: dict[str, Sequence[str]] = {
    "filter": FILTERS,
    "order_by": ORDERS,
    "page_token": TOKENS,
    "resume_token": TOKENS,
}
BY_NAME |= dict.fromkeys(("refresh_id", "request_id"), UUIDS)
BY_NAME |= {
    "override_gate": ["removed_models", "removed_models,", ",", "nothing"],
    "query": ["gpt", "claude opus", "%", "_"],
}

INTEGERS = [0, 1, -1, 2, 50, 1000, 1001, 1_000_000, 1_000_001, 2**31 - 1, -(2**31)]
LARGE = [*INTEGERS, 10**12, 10**12 + 1, 2**63 - 1, -(2**63)]
DOUBLES = [0.0, -0.0, 3.0, 1e6, 1e7, -1.0, 5e-324, 1.7e308, float("inf"), float("-inf"), float("nan")]


def requests(tokens: Sequence[str]) -> st.SearchStrategy[tuple[str, Message]]:
    """Return a strategy for a call: the name of an RPC and its request. ``tokens``: good ones, to be found anywhere."""
    return st.sampled_from(sorted(RPCS)).flatmap(
        lambda name: st.tuples(st.just(name), messages(RPCS[name].input_type, tokens))
    )


def messages(kind: Descriptor, tokens: Sequence[str]) -> st.SearchStrategy[Message]:
    """Return a strategy for messages of a kind, each field there or not."""
    fields = {field.name: values(field, tokens) for field in kind.fields}
    return st.fixed_dictionaries({}, optional=fields).map(lambda given: GetMessageClass(kind)(**given))


def values(field: FieldDescriptor, tokens: Sequence[str]) -> st.SearchStrategy[Any]:
    """Return a strategy for what a field is given."""
    one = _values(field, tokens)
    if not field.is_repeated:
        return one
    return st.one_of(st.lists(one, max_size=12), one.map(lambda each: [each] * 101))


def _values(field: FieldDescriptor, tokens: Sequence[str]) -> st.SearchStrategy[Any]:
    if field.message_type is FieldMask.DESCRIPTOR:
        paths = st.one_of(st.lists(st.sampled_from(MASKS), max_size=5), st.just(["id"] * 3000))
        return paths.map(lambda each: FieldMask(paths=each))
    if field.message_type is Duration.DESCRIPTOR:
        return st.builds(Duration, seconds=st.sampled_from(LARGE), nanos=st.sampled_from(INTEGERS))
    if field.message_type is not None:
        return messages(field.message_type, tokens)
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            likely = [*BY_NAME.get(field.name, IDS), *(tokens if "token" in field.name else ())]
            return st.one_of(st.sampled_from(likely), st.sampled_from(HOSTILE), st.text(max_size=60))
        case FieldDescriptor.CPPTYPE_BOOL:
            return st.booleans()
        case FieldDescriptor.CPPTYPE_DOUBLE:
            return st.one_of(st.sampled_from(DOUBLES), st.floats())
        case FieldDescriptor.CPPTYPE_INT64:
            return st.sampled_from(LARGE)
        case _:
            return st.sampled_from(INTEGERS)


#: What turns the bytes of a request into others. Wrong lengths, cut ends, groups in groups, fields of other types.
Mutation = Callable[[random.Random, bytes], bytes]


def _flip(rng: random.Random, body: bytes) -> bytes:
    if not body:
        return rng.randbytes(1)
    at = rng.randrange(len(body))
    return body[:at] + bytes([body[at] ^ 1 << rng.randrange(8)]) + body[at + 1 :]


def _cut(rng: random.Random, body: bytes) -> bytes:
    return body[: rng.randrange(len(body) + 1)]


def _insert(rng: random.Random, body: bytes) -> bytes:
    at = rng.randrange(len(body) + 1)
    return body[:at] + rng.randbytes(rng.randrange(1, 9)) + body[at:]


def _repeat(rng: random.Random, body: bytes) -> bytes:
    return (body * rng.randrange(2, 40))[:200_000]


def _nest(rng: random.Random, body: bytes) -> bytes:
    return bytes([rng.choice((0x0B, 0x12, 0x1B))]) * rng.randrange(1, 300) + body


def _append_field(rng: random.Random, body: bytes) -> bytes:
    """Add a field of some number and some type, with a length that may be a lie."""
    tag = rng.randrange(1, 15) << 3 | rng.randrange(8)
    length = rng.choice((0, 1, 5, 127, 255, 2**31 - 1, 2**32 - 1, 2**63))
    return body + bytes([tag]) + _varint(length) + rng.randbytes(rng.randrange(6))


def _garbage(rng: random.Random, body: bytes) -> bytes:
    return rng.randbytes(rng.choice((0, 1, 2, 8, 64, 512, 8192)))


def _swap_texts(rng: random.Random, body: bytes) -> bytes:
    """Put bytes that are no UTF-8 where a text is."""
    return body.replace(
        b"openai", rng.choice((b"\xff\xfe\xfd\xfc\xfb\xfa", b"\xed\xa0\x80\xed\xb0\x80", b"\xc0\xaf...."))
    )


MUTATIONS: Sequence[Mutation] = (_flip, _cut, _insert, _repeat, _nest, _append_field, _garbage, _swap_texts)


def mutate(rng: random.Random, body: bytes) -> bytes:
    """Return the bytes of a request after one to three mutations."""
    for _ in range(rng.randrange(1, 4)):
        body = rng.choice(MUTATIONS)(rng, body)
    return body


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


# --- below gRPC ----------------------------------------------------------------------------------------------------

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, END_HEADERS = 0x1, 0x4
#: Of settings.
ACK = 0x1


def frame(kind: int, flags: int, stream: int, payload: bytes, *, length: int | None = None) -> bytes:
    """Return a frame of HTTP/2. ``length``: what it says its length is."""
    size = len(payload) if length is None else length
    return size.to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def headers(*fields: tuple[bytes, bytes]) -> bytes:
    """Return a header block: each field literally, and not indexed (RFC 7541, 6.2.2)."""
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in fields)


def call_headers(path: bytes, *more: tuple[bytes, bytes]) -> bytes:
    """Return what begins a call."""
    return headers(
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path),
        (b":authority", b"localhost"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        *more,
    )


def _text(value: bytes) -> bytes:
    if len(value) < 127:
        return bytes([len(value)]) + value
    return b"\x7f" + _varint(len(value) - 127) + value


def grpc_message(body: bytes, *, compressed: int = 0, length: int | None = None) -> bytes:
    """Return a message as gRPC puts it in DATA."""
    size = len(body) if length is None else length
    return bytes([compressed]) + size.to_bytes(4, "big") + body


def garbage_connections(rng: random.Random) -> list[tuple[str, bytes]]:
    """Return what to write to a new connection, by what it is."""
    get = b"/modelcatalog.v1.ModelCatalog/GetModel"
    hello = PREFACE + frame(SETTINGS, 0, 0, b"")
    call = hello + frame(HEADERS, END_HEADERS, 1, call_headers(get))
    return [
        ("nothing but noise", rng.randbytes(4096)),
        ("HTTP/1.1", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 20),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.randbytes(506)),
        ("a preface that is cut", PREFACE[:10]),
        ("noise behind the preface", PREFACE + rng.randbytes(8192)),
        ("noise as frames", hello + b"".join(_noisy_frame(rng) for _ in range(200))),
        ("a frame that is larger than it may be", hello + frame(DATA, 0, 1, b"x" * 100, length=0xFFFFFF)),
        ("settings of a wrong size", hello + frame(SETTINGS, 0, 0, b"12345")),
        ("settings with no window", PREFACE + frame(SETTINGS, 0, 0, b"\0\4\xff\xff\xff\xff")),
        ("many settings", hello + frame(SETTINGS, 0, 0, b"\0\3\0\0\0\1") * 5000),
        ("many pings", hello + frame(PING, 0, 0, b"12345678") * 5000),
        ("a window that overflows", hello + frame(WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff") * 3),
        ("a window of nothing", call + frame(WINDOW_UPDATE, 0, 1, b"\0\0\0\0")),
        ("headers that are none", hello + frame(HEADERS, END_HEADERS, 1, rng.randbytes(200))),
        ("headers on stream 0", hello + frame(HEADERS, END_HEADERS, 0, call_headers(get))),
        ("headers on an even stream", hello + frame(HEADERS, END_HEADERS, 2, call_headers(get))),
        (
            "headers that go on for ever",
            hello + frame(HEADERS, 0, 1, b"\0\1a\1b") + frame(CONTINUATION, 0, 1, b"\0\1a\1b") * 5000,
        ),
        ("a header of a megabyte", hello + _large_headers(get)),
        ("headers without a path", hello + frame(HEADERS, END_HEADERS | END_STREAM, 1, headers((b":method", b"POST")))),
        (
            "another content type",
            hello
            + frame(
                HEADERS,
                END_HEADERS | END_STREAM,
                1,
                headers((b":method", b"GET"), (b":scheme", b"http"), (b":path", get), (b"content-type", b"text/html")),
            ),
        ),
        ("a path of noise", hello + frame(HEADERS, END_HEADERS | END_STREAM, 1, call_headers(b"/\xff\0\n'\"" * 40))),
        (
            "metadata of noise",
            hello
            + frame(
                HEADERS,
                END_HEADERS,
                1,
                call_headers(
                    get,
                    (b"x-catalog-min-revision", b"\xff\0\x80"),
                    (b"x-request-id", b"\r\n\r\nx: y"),
                    (b"\xff", b"\0"),
                ),
            )
            + frame(DATA, END_STREAM, 1, grpc_message(b"\n\x05gpt-5")),
        ),
        (
            "binary metadata that is no base64",
            hello
            + frame(HEADERS, END_HEADERS, 1, call_headers(get, (b"x-bin", b"!!!!"), (b"grpc-tags-bin", b"\xff" * 50)))
            + frame(DATA, END_STREAM, 1, grpc_message(b"")),
        ),
        (
            "a timeout that is none",
            hello
            + frame(HEADERS, END_HEADERS, 1, call_headers(get, (b"grpc-timeout", b"99999999999999H")))
            + frame(DATA, END_STREAM, 1, grpc_message(b"\n\x05gpt-5")),
        ),
        (
            "a compression that is none",
            hello
            + frame(HEADERS, END_HEADERS, 1, call_headers(get, (b"grpc-encoding", b"bomb")))
            + frame(DATA, END_STREAM, 1, grpc_message(b"x", compressed=1)),
        ),
        (
            "gzip that is none",
            hello
            + frame(HEADERS, END_HEADERS, 1, call_headers(get, (b"grpc-encoding", b"gzip")))
            + frame(DATA, END_STREAM, 1, grpc_message(rng.randbytes(60), compressed=1)),
        ),
        ("a message that says it has 4 GiB", call + frame(DATA, END_STREAM, 1, grpc_message(b"x", length=2**32 - 1))),
        ("a message that is cut", call + frame(DATA, END_STREAM, 1, grpc_message(b"x", length=50))),
        ("two messages", call + frame(DATA, END_STREAM, 1, grpc_message(b"\n\x05gpt-5") * 2)),
        ("no message", call + frame(DATA, END_STREAM, 1, b"")),
        ("a message with flags of its own", call + frame(DATA, END_STREAM, 1, grpc_message(b"x", compressed=0xFF))),
        (
            "calls that are taken back",
            hello
            + b"".join(
                frame(HEADERS, END_HEADERS, 2 * i + 1, call_headers(get))
                + frame(RST_STREAM, 0, 2 * i + 1, b"\0\0\0\x08")
                for i in range(2000)
            ),
        ),
        (
            "calls that stay open",
            hello + b"".join(frame(HEADERS, END_HEADERS, 2 * i + 1, call_headers(get)) for i in range(500)),
        ),
    ]


def _large_headers(path: bytes) -> bytes:
    block = call_headers(path, *((b"x-%d" % i, b"y" * 16_000) for i in range(64)))
    pieces = [block[at : at + 16_000] for at in range(0, len(block), 16_000)]
    kinds = [HEADERS, *[CONTINUATION] * (len(pieces) - 1)]
    flags = [*[0] * (len(pieces) - 1), END_HEADERS]
    return b"".join(frame(kind, flag, 1, piece) for kind, flag, piece in zip(kinds, flags, pieces, strict=True))


def _noisy_frame(rng: random.Random) -> bytes:
    return frame(rng.randrange(12), rng.randrange(256), rng.randrange(5), rng.randbytes(rng.randrange(40)))
