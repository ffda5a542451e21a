"""The language of ``filter``: from text to a typed expression over the fields of a message. See docs/filtering.md."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import resources
from itertools import count
from typing import cast

from lark import Lark, Token, Tree, UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from modelcatalog_server.catalog.literals import Literal, read_value
from modelcatalog_server.catalog.naming import find_field, quote
from modelcatalog_server.domain.errors import InvalidFilterError
from modelcatalog_server.domain.query import (
    And,
    Comparison,
    Expression,
    Field,
    FieldCatalogue,
    FieldType,
    Not,
    Operator,
    Or,
    Presence,
    Value,
)

#: Bounds of a filter: parentheses in each other, conditions. That of its bytes is in the contract.
MAX_DEPTH = 8
MAX_TERMS = 32

_PARSER = Lark((resources.files(__package__) / "filter.lark").read_text(), parser="lalr", lexer="contextual")
_KEYWORDS = ("AND", "OR", "NOT")
# Whole texts in quotes, to pass over the parentheses in them, and all other parentheses.
_QUOTED_OR_PARENTHESIS = re.compile(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'|[()]', re.DOTALL)
# PostgreSQL has no place for the one, UTF-8 none for the others.
_UNSENDABLE = re.compile("[\0\ud800-\udfff]")


def parse_filter(text: str, catalogue: FieldCatalogue) -> Expression | None:
    """Return what a filter asks for, ``None`` for a blank one, which is everything.

    Raises:
        InvalidFilterError: with the column of the mistake and what was expected there.
    """
    _check_bounds(text)
    if not text.strip(" \t\r\n"):
        return None
    try:
        tree = _PARSER.parse(text)
    except UnexpectedInput as error:
        raise _to_syntax_error(text, error) from error
    return _Builder(catalogue).build(tree)


class _Builder:
    """Makes the expression of a parse tree; the tree is only as deep as ``MAX_DEPTH`` lets it be."""

    def __init__(self, catalogue: FieldCatalogue) -> None:
        self._catalogue = catalogue
        self._terms = count(1)

    def build(self, tree: Tree[Token]) -> Expression:
        """Return the expression of a rule of the grammar."""
        below = [child for child in tree.children if isinstance(child, Tree)]
        match str(tree.data):
            case "restriction":
                return self._build_restriction(*cast("list[Token]", tree.children))
            case "negation":
                return Not(term=self.build(below[0]))
            case "factor":
                return _join(Or, map(self.build, below))
            case _:
                return _join(And, map(self.build, below))

    def _build_restriction(self, name: Token, sign: Token, value: Token) -> Expression:
        if next(self._terms) > MAX_TERMS:
            raise _error_at(name, f"more than {MAX_TERMS} conditions")
        try:
            field = find_field(self._catalogue, str(name))
        except LookupError as error:
            raise _error_at(name, str(error.args[0])) from error
        operator = Operator(sign)
        if operator is Operator.HAS and value == "*":
            return Presence(field=field)
        if operator not in field.operators:
            raise _error_at(sign, _describe_operators(field))
        return Comparison(field=field, operator=operator, value=_read_value(field, operator, value))


def _read_value(field: Field, operator: Operator, token: Token) -> Value:
    if token in _KEYWORDS:
        raise _error_at(token, f"expected a value, got {token}: put it in quotes if it is one")
    try:
        return read_value(field, operator, Literal.of(token))
    except ValueError as error:
        raise _error_at(token, str(error)) from error


def _join(kind: type[And] | type[Or], terms: Iterable[Expression]) -> Expression:
    """Return the one term, or all of them joined; terms that are joined in the same way already become one list."""
    flat = [inner for term in terms for inner in (term.terms if isinstance(term, kind) else (term,))]
    return flat[0] if len(flat) == 1 else kind(terms=tuple(flat))


def _check_bounds(text: str) -> None:
    if unsendable := _UNSENDABLE.search(text):
        raise _error(unsendable.start() + 1, "holds a character that no value has")
    depth = 0
    for match in _QUOTED_OR_PARENTHESIS.finditer(text):
        depth += {"(": 1, ")": -1}.get(match[0], 0)
        if depth > MAX_DEPTH:
            raise _error(match.start() + 1, f"more than {MAX_DEPTH} parentheses in each other")


def _to_syntax_error(text: str, error: UnexpectedInput) -> InvalidFilterError:
    position = error.pos_in_stream or 0
    at_end = isinstance(error, UnexpectedToken) and error.token.type == "$END"
    if at_end:
        position = len(text.rstrip(" \t\r\n"))
    expected = _describe_expected(text, position, error)
    return _error(position + 1, f"expected {expected}, got {_describe_found(text, position)}{_hint(text, position)}")


def _describe_expected(text: str, position: int, error: UnexpectedInput) -> str:
    terminals = _expected_terminals(error)
    if "OPERATOR" in terminals:
        return "an operator (= != < <= > >= :)"
    if "WORD" in terminals:
        return "a value"
    if "FIELD" in terminals and "_AND" not in terminals:
        return "a field, NOT or an opening parenthesis" if "_NOT" in terminals else "a field or an opening parenthesis"
    closing = "a closing parenthesis" if _count_open(text[:position]) > 0 else "the end"
    return f"AND, OR, another condition or {closing}"


def _expected_terminals(error: UnexpectedInput) -> set[str]:
    match error:
        case UnexpectedToken():
            return set(error.expected)
        case UnexpectedCharacters():
            return set(error.allowed or ())
        case _:
            return set()


def _count_open(text: str) -> int:
    """Return how many parentheses are open at the end of a text."""
    found = [match[0] for match in _QUOTED_OR_PARENTHESIS.finditer(text)]
    return found.count("(") - found.count(")")


def _describe_found(text: str, position: int) -> str:
    if position >= len(text.rstrip(" \t\r\n")):
        return "the end"
    if text[position] in "\"'":
        return "a quote that is not closed" if not _QUOTED_OR_PARENTHESIS.match(text, position) else "a text in quotes"
    word = re.match(r"[\w.]+|.", text[position:], re.DOTALL)
    return quote(word[0] if word else "")


def _hint(text: str, position: int) -> str:
    """Return what may have been meant by a word that is followed by no operator."""
    before = re.search(r"([\w.]+)\s*$", text[:position])
    if before and before[1] in ("and", "or", "not"):
        return f": {before[1].upper()} is written in capitals"
    return ""


def _describe_operators(field: Field) -> str:
    operators = " ".join(field.operators)
    if field.type is FieldType.LIST:
        return f"{field.path} is a list: expected : and one of its elements, or :*"
    return f"{field.path} takes {operators} and :*"


def _error_at(token: Token, message: str) -> InvalidFilterError:
    return _error((token.start_pos or 0) + 1, message)


def _error(column: int, message: str) -> InvalidFilterError:
    return InvalidFilterError("filter", message, column=column)
