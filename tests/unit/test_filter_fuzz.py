"""Whatever is sent as a filter or an order: it is understood, or refused in words. ``make fuzz-filter`` sends more."""

# ruff: noqa: S311 -- what is drawn here is no secret

from __future__ import annotations

import os
import random
import time
from contextlib import suppress

from modelcatalog_server.catalog.fields import MODEL_FIELDS
from modelcatalog_server.catalog.filtering import parse_filter
from modelcatalog_server.catalog.ordering import parse_order_by
from modelcatalog_server.domain.errors import InvalidExpressionError, InvalidFilterError, InvalidOrderByError
from modelcatalog_server.domain.query import Comparison, Selection
from modelcatalog_server.storage.composition import MODEL_COLUMNS, compose
from seeds import seed_of

#: Longest filter that the contract takes.
MAX_BYTES = 2048
COUNT = int(os.environ.get("FUZZ_FILTERS", "8000"))
SEED = seed_of("SEED")

PIECES = [
    *("AND", "OR", "NOT", "-", "(", ")", "=", "!=", "<", "<=", ">", ">=", ":", "*", ",", " ", " ", " "),
    *('"', "'", "\\", '\\"', "\n", "\t", "\0", "\ud800", "\U0001f600", "\u00a0", "é", ".", "..", "%", "{}", "%s"),
    *("name", "tags", "type", "status", "pricing.input", "capabilities.vision", "limits.context_window", "revision"),
    *("release_date", "first_seen_time", "pricing", "raw", "desc", "asc", "null", "true", "FALSE", "chat", "gpt*"),
    *("0", "-1", "1e5", "1e99999", "9" * 40, "2026-07-02", "2026-07-02T00:00:00Z", "9999-12-31T23:59:59-23:59"),
]
CONDITIONS = ["name:gpt", "pricing.input <= 1.25", "NOT tags:free", "(type = chat OR status = beta)", "-revision>1"]


def invent(rng: random.Random) -> str:
    """Return one of several kinds of nonsense, from noise to what is nearly right."""
    match rng.randrange(4):
        case 0:
            return "".join(
                chr(rng.choice([rng.randrange(128), rng.randrange(0x110000)])) for _ in range(rng.randrange(40))
            )
        case 1:
            return "".join(rng.choice(PIECES) for _ in range(rng.randrange(30)))
        case 2:
            return " ".join(rng.choice(PIECES) for _ in range(rng.randrange(12)))
        case _:
            text = list(" AND ".join(rng.choice(CONDITIONS) for _ in range(rng.randint(1, 6))))
            for _ in range(rng.randrange(4)):
                text[rng.randrange(len(text))] = rng.choice([*PIECES, ""])
            return "".join(text)


def check(error: InvalidExpressionError, text: str) -> None:
    assert error.column is not None, text
    assert 1 <= error.column <= len(text) + 1, text
    assert error.message.isprintable(), text
    assert len(error.message) < 500, text


def test_any_text_is_understood_or_refused_in_words() -> None:
    rng = random.Random(SEED)
    understood = 0
    for _ in range(COUNT):
        text = invent(rng)
        try:
            expression = parse_filter(text, MODEL_FIELDS)
        except InvalidFilterError as error:
            check(error, text)
        else:
            understood += expression is not None
            compose(Selection(filter=expression), MODEL_COLUMNS)
    assert understood > COUNT / 50, "some of it is right"


def test_any_text_is_an_order_or_refused_in_words() -> None:
    rng = random.Random(SEED)
    for _ in range(COUNT // 4):
        text = invent(rng)
        try:
            parse_order_by(text, MODEL_FIELDS)
        except InvalidOrderByError as error:
            check(error, text)


def test_the_costliest_filters_are_read_in_no_time() -> None:
    """What is nested, long or refused late; a bound that only something worse than linear would miss."""
    worst = [
        "(" * 8 + "name = x" + ")" * 8,
        " ".join(["id:a"] * 32),
        "-" * MAX_BYTES,
        '"' * MAX_BYTES,
        '\\"' * (MAX_BYTES // 2),
        "name = " + "a" * (MAX_BYTES - 7),
        'name = "' + "\\\\" * ((MAX_BYTES - 9) // 2) + '"',
        "a." * (MAX_BYTES // 2),
        "x" * MAX_BYTES,
        "name = '" + "(" * (MAX_BYTES - 9) + "'",
        "é" * (MAX_BYTES // 2),
    ]
    for text in worst:
        began = time.process_time()
        with suppress(InvalidFilterError):
            parse_filter(text, MODEL_FIELDS)
        assert time.process_time() - began < 1, text


def test_what_is_understood_holds_what_was_written() -> None:
    for text in ("a b", "it's", 'say "x"', "back\\slash", "50%_*", "模型", "tab\tin", "new\nline"):
        escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("*", "\\*")
        read = parse_filter(f'name != "{escaped}"', MODEL_FIELDS)
        assert isinstance(read, Comparison)
        assert read.value == text
