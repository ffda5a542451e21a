"""Named statements: what the files hold is what the code asks for, and each says what it is."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from itertools import chain, product
from pathlib import Path

import pytest

from modelcatalog_server import storage
from modelcatalog_server.storage import queries

STORAGE = Path(storage.__path__[0])
AGGREGATES = sorted(file.stem for file in (STORAGE / "sql").glob("*.sql"))
STATEMENTS = [(aggregate, name) for aggregate in AGGREGATES for name in queries.load(aggregate)]


class _Uses(ast.NodeVisitor):
    """Finds ``_X = queries.load("aggregate")`` and every ``_X["name"]``, ``_X[name]`` and ``_X[f"prefix_{name}"]``.

    The names that a variable takes are looked up among the constants of its module, which is as far as the code goes.
    """

    def __init__(self, source: str) -> None:
        tree = ast.parse(source)
        self.aggregates: dict[str, str] = {}
        self.names: defaultdict[str, set[str]] = defaultdict(set)
        self._constants = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
        self.visit(tree)

    def visit_Assign(self, node: ast.Assign) -> None:
        match node:
            case ast.Assign(
                targets=[ast.Name(id=variable)],
                value=ast.Call(func=ast.Attribute(attr="load"), args=[ast.Constant(value=str(aggregate))]),
            ):
                self.aggregates[variable] = aggregate
        self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        match node:
            case ast.Subscript(value=ast.Name(id=variable), slice=index) if variable in self.aggregates:
                self.names[self.aggregates[variable]] |= self._possible_names(index, self.aggregates[variable])
        self.generic_visit(node)

    def _possible_names(self, index: ast.expr, aggregate: str) -> set[str]:
        if isinstance(index, ast.Constant):
            return {str(index.value)}
        known = queries.load(aggregate).keys()
        texts = [text for text in self._constants if isinstance(text, str)]
        if isinstance(index, ast.JoinedStr):
            parts = [[part.value] if isinstance(part, ast.Constant) else texts for part in index.values]
            return known & {"".join(map(str, each)) for each in product(*parts)}
        return known & set(texts)


def bound_names() -> dict[str, set[str]]:
    names: defaultdict[str, set[str]] = defaultdict(set)
    for file in STORAGE.glob("*.py"):
        for aggregate, used in _Uses(file.read_text()).names.items():
            names[aggregate] |= used
    return names


@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_the_code_asks_for_every_statement_and_for_no_other(aggregate: str) -> None:
    assert bound_names()[aggregate] == set(queries.load(aggregate))


@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_the_whole_file_is_statements(aggregate: str) -> None:
    text = (STORAGE / "sql" / f"{aggregate}.sql").read_text()
    before_first = text.partition("-- name:")[0]
    assert all(line.startswith("--") or not line for line in before_first.splitlines())
    assert text.count("-- name:") == len(queries.load(aggregate)), "a name is repeated or misspelt"


def test_no_two_files_have_a_statement_of_the_same_name() -> None:
    names = list(chain.from_iterable(queries.load(aggregate) for aggregate in AGGREGATES))
    assert len(names) == len(set(names))


@pytest.mark.parametrize(("aggregate", "name"), STATEMENTS)
def test_a_statement_says_what_it_is_and_is_one(aggregate: str, name: str) -> None:
    lines = queries.load(aggregate)[name].splitlines()
    comment = [line for line in lines if line.startswith("--")]
    assert comment, "no description"
    assert lines[: len(comment)] == comment
    assert re.match(r"-- [A-Z]", comment[0])
    body = "\n".join(line for line in lines if not line.lstrip().startswith("--"))
    assert body.count(";") == 1
    assert body.endswith(";")


@pytest.mark.parametrize(("aggregate", "name"), STATEMENTS)
def test_a_statement_writes_its_columns_out(aggregate: str, name: str) -> None:
    body = queries.load(aggregate)[name]
    assert not re.search(r"SELECT\s+([a-z]+\.)?\*", body, re.IGNORECASE)


def test_a_name_is_a_verb_and_an_object() -> None:
    verbs = {name.partition("_")[0] for _, name in STATEMENTS if "_" in name}
    reading = {"count", "find", "get", "list", "measure", "read", "search", "summarize"}
    keeping = {
        "append",
        "bump",
        "close",
        "copy",
        "create",
        "delete",
        "merge",
        "forget",
        "prune",
        "rank",
        "remove",
        "renew",
        "save",
        "score",
        "set",
        "update",
    }
    running = {"beat", "cancel", "end", "give", "remember", "take", "terminate"}
    serving = {"analyze", "disown", "lock", "tell", "try"}
    assert verbs - reading == keeping | running | serving
