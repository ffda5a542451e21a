"""PostgreSQL reads an array that is written as a text as the driver's own: all the same texts in the same order."""

from __future__ import annotations

import pytest

from conftest import Services
from modelcatalog_server.storage.staging import text_array

TEXTS = [
    *(
        "",
        " ",
        "  a  ",
        "a",
        "NULL",
        "null",
        '"',
        '""',
        "\\",
        "\\\\",
        '\\"',
        "a\\",
        ",",
        "a,b",
        "{",
        "}",
        "{}",
        "{a,b}",
    ),
    *(
        "(",
        "'",
        "''",
        "%s",
        "%(x)s",
        "\n",
        "\t",
        "\r\n",
        "\x01",
        "\x7f",
        "é",
        "\u2028",
        "\u202e",
        "\U0001f600",
        "E'\\n'",
    ),
    *("lab/model-1:free", "x" * 10_000, '{"a":"b\\"c"}', "\\u0041", "\\N", "[1:2]={a,b}"),
]


@pytest.mark.parametrize("texts", [[], *([text] for text in TEXTS)], ids=lambda texts: ascii(texts)[:20])
def test_one_text_or_none(services: Services, texts: list[str]) -> None:
    assert read(services, texts) == texts


def test_all_of_them_in_their_order(services: Services) -> None:
    many = [*TEXTS, *reversed(TEXTS), *(first + second for first in TEXTS[:-6] for second in TEXTS[:-6])]
    assert read(services, many) == many
    assert read(services, dict.fromkeys(TEXTS)) == TEXTS


def test_the_word_null_is_not_null(services: Services) -> None:
    row = services.connection.execute(
        "SELECT array_position(%(texts)s::text[], NULL), cardinality(%(none)s::text[])",
        {"texts": text_array(["NULL", "null", ""]), "none": text_array([])},
    ).fetchone()
    assert row == (None, 0)


def test_a_literal_finds_what_a_list_finds(services: Services) -> None:
    for text in TEXTS:
        row = services.connection.execute(
            "SELECT %(text)s = ANY(%(array)s::text[]), %(list)s::text[] = %(array)s::text[]",
            {"text": text, "array": text_array([text, "other"]), "list": [text, "other"]},
        ).fetchone()
        assert row == (True, True), text


def read(services: Services, texts: list[str] | dict[str, None]) -> list[str]:
    row = services.connection.execute("SELECT %(texts)s::text[]", {"texts": text_array(texts)}).fetchone()
    assert row is not None
    result: list[str] = row[0]
    return result
