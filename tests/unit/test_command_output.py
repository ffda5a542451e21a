from __future__ import annotations

import json
from typing import Any

import pytest

from modelcatalog.v1.model_catalog_service_pb2 import Feature, GetCatalogInfoResponse
from modelcatalog_client import Limits, Model, ModelNotFoundError, Pricing, Provider, UnavailableError
from modelcatalog_client.errors import (
    CatalogError,
    DeadlineExceededError,
    InvalidFilterError,
    RoleRequiredError,
)
from modelcatalog_server.commands.asking import describe_failure
from modelcatalog_server.commands.json_output import print_lines, select, to_document
from modelcatalog_server.commands.providers import info_rows
from modelcatalog_server.commands.server_options import ServerOptions
from modelcatalog_server.commands.terminal import Column, print_table, render_sheet, render_table

COLUMNS = [Column("model"), Column("price", is_number=True), Column("description")]
ROWS = [["lab/a-long-id-that-is-never-cut", "$1.25", "word " * 30], ["lab/b", "unknown", ""]]


def test_elsewhere_than_on_a_terminal_a_table_is_plain_and_a_row_one_line() -> None:
    header, first, second = render_table(COLUMNS, ROWS).splitlines()
    assert header == "model                              price  description"
    assert first == f"lab/a-long-id-that-is-never-cut    $1.25  {'word ' * 30}".rstrip()
    assert second == "lab/b                            unknown"


def test_on_a_terminal_the_header_stands_out_and_unknown_stands_back() -> None:
    header, first, second = render_table(COLUMNS[:2], [row[:2] for row in ROWS], 80).splitlines()
    assert header.startswith("\x1b[1mmodel\x1b[0m  ")
    assert "\x1b" not in first
    assert second.endswith("\x1b[2munknown\x1b[0m")


def test_what_does_not_fit_a_terminal_is_folded_but_never_the_id() -> None:
    lines = render_table(COLUMNS, ROWS, 60).splitlines()
    assert len(lines) > 4
    assert lines[1].startswith("lab/a-long-id-that-is-never-cut  ")
    assert sum(line.count("word") for line in lines) == 30
    very_narrow = render_table(COLUMNS, ROWS, 10)
    assert "lab/a-long-id-that-is-never-cut" in very_narrow


def test_columns_that_do_not_fit_are_left_out_and_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "40")
    print_table(COLUMNS, ROWS, may_drop=True)
    out, error = capsys.readouterr()
    assert "lab/a-long-id-that-is-never-cut    $1.25\n" in out
    assert "word" not in out
    assert "too narrow for: description" in error
    monkeypatch.setenv("COLUMNS", "5")
    print_table(COLUMNS, ROWS, may_drop=True)
    assert "lab/a-long-id-that-is-never-cut\n" in capsys.readouterr().out


def test_wide_characters_take_two_columns() -> None:
    _, first, second = render_table([Column("name"), Column("id")], [["模型", "a"], ["four", "b"]]).splitlines()
    assert first == "模型  a"
    assert second == "four  b"


def test_foreign_text_does_nothing_to_a_terminal() -> None:
    text = render_table([Column("name")], [["\x1b[2Jgone\t"]], 80)
    assert "\\x1b[2Jgone\\x09" in text
    assert "\\x1b" in render_sheet([("name", "\x1b")], None)


def test_an_empty_table_is_its_header() -> None:
    assert render_table(COLUMNS, []) == "model  price  description\n"


def test_a_sheet_is_one_pair_a_line() -> None:
    assert (
        render_sheet([("id", "lab/a"), ("release date", "unknown")]) == "id            lab/a\nrelease date  unknown\n"
    )


# --- JSON -----------------------------------------------------------------------------------------------------


def test_json_leaves_out_what_is_unknown_and_has_real_zeros() -> None:
    model = Model(id="lab/a", limits=Limits(), pricing=Pricing(input="0"), status=Model.STATUS_ACTIVE)
    document = to_document(model)
    assert document["pricing"]["input"] == "0"
    assert "output" not in document["pricing"]
    assert document["limits"] == {}
    assert document["tags"] == []
    assert document["status"] == "STATUS_ACTIVE"
    assert "canonical_id" not in document
    provider = to_document(Provider(id="lab"))
    assert (provider["enabled"], provider["model_count"]) == (False, 0)


def test_json_has_the_upstream_record_as_it_is() -> None:
    model = Model()
    model.raw.update({"name": "", "cost": {"input": 0}})
    assert to_document(model)["raw"] == {"name": "", "cost": {"input": 0}}


@pytest.mark.parametrize(
    ("paths", "left"),
    [
        ([], {"id": "a", "pricing": {"input": "1", "output": "2"}, "tags": ["x"]}),
        (["id"], {"id": "a"}),
        (["pricing.input", "tags"], {"pricing": {"input": "1"}, "tags": ["x"]}),
        (["pricing", "pricing.input"], {"pricing": {"input": "1", "output": "2"}}),
        (["pricing.cache_read", "name"], {"pricing": {}}),
    ],
)
def test_json_has_the_fields_that_were_asked_for(paths: list[str], left: dict[str, Any]) -> None:
    document = {"id": "a", "pricing": {"input": "1", "output": "2"}, "tags": ["x"]}
    assert select(document, paths) == left


def test_json_lines_are_one_a_line_in_utf8(capsys: pytest.CaptureFixture[str]) -> None:
    print_lines([{"name": "模型\n"}, {"name": "b"}])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == '{"name": "模型\\n"}'
    assert [json.loads(line)["name"] for line in lines] == ["模型\n", "b"]


# --- errors ---------------------------------------------------------------------------------------------------

SERVER = ServerOptions(address="catalog.internal:1", token="secret")  # noqa: S106 -- none


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (UnavailableError("refused"), "no server answers at catalog.internal:1: is it running"),
        (DeadlineExceededError("late"), "the server at catalog.internal:1 did not answer in time"),
        (ModelNotFoundError("no model x", metadata={"candidates": "lab/y"}), "near: lab/y"),
        (ModelNotFoundError("no model x"), "`modelcatalog models search`"),
        (InvalidFilterError("column 3"), "`modelcatalog models facets`"),
        (RoleRequiredError("reader"), "MODELCATALOG_TOKEN"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, CatalogError) else "",
)
def test_a_failure_says_what_to_do_next(error: CatalogError, said: str) -> None:
    assert said in "\n".join(describe_failure(error, SERVER))


# --- which server ---------------------------------------------------------------------------------------------


def test_a_server_that_listens_everywhere_is_asked_on_the_loopback() -> None:
    assert ServerOptions(address="0.0.0.0:7").target == "127.0.0.1:7"
    assert ServerOptions(address="[::]:7").target == "[::1]:7"
    assert ServerOptions(address="dns:///catalog:7").target == "dns:///catalog:7"


def test_a_command_line_that_is_shown_has_no_token() -> None:
    server = ServerOptions(address="h:1", token="secret", tls_ca="ca.pem", use_tls=True)  # noqa: S106 -- none
    assert server.flags == ["--address", "h:1", "--tls-ca", "ca.pem"]
    assert ServerOptions(use_tls=True).flags == ["--tls"]
    assert ServerOptions().flags == []
    assert "secret" not in repr(server)


def test_info_names_what_is_switched_off_and_only_that() -> None:
    info = GetCatalogInfoResponse(features=[Feature(name="search", enabled=True), Feature(name="compare")])
    assert dict(info_rows(info))["switched off"] == "compare"
    info.features[1].enabled = True
    assert "switched off" not in dict(info_rows(info))
