"""Values as a filter writes them, read as the type of the field that they are compared with."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from modelcatalog_server.catalog.naming import quote
from modelcatalog_server.domain.query import Field, FieldType, Operator, Pattern, Value

_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,4})?", re.ASCII)
_MAX_DIGITS = 60
# Ten to the power of this is more than anything that is counted or paid for.
_MAX_EXPONENT = 30
_INT64 = range(-(2**63), 2**63)
_DATE = re.compile(r"\d{4}(?:-\d{2}(?:-\d{2})?)?", re.ASCII)
_PART_OF_DATE = re.compile(r"[\d-]{0,10}", re.ASCII)
_TIME = re.compile(
    r"\d{4}-\d{2}-\d{2}(?:[Tt ]\d{2}:\d{2}:\d{2}(?:\.\d{1,6})?(?:[Zz]|[+-]\d{2}:\d{2}))?",
    re.ASCII,
)
# As in filter.lark.
_WORD = re.compile(r"[^\s()\"'\\<>=!,*]+")
_NO_WORDS = {"AND", "OR", "NOT"}
_TO_ESCAPE = re.compile(r"[\\\"*]")
_ESCAPE = re.compile(r"\\(.)|(\*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Literal:
    """A value as written: its text without quotes and escapes, and where in it unescaped asterisks are."""

    text: str
    asterisks: frozenset[int] = frozenset()
    quoted: bool = False

    @classmethod
    def of(cls, token: str) -> Literal:
        r"""Return the value of a word or a text in quotes.

        Raises:
            ValueError: a backslash stands before something else than ``\``, ``*`` or a quote.
        """
        quoted = token[0] in "\"'"
        text, asterisks, position = "", set(), 0
        body = token[1:-1] if quoted else token
        for match in _ESCAPE.finditer(body):
            text += body[position : match.start()]
            position = match.end()
            if match[2]:
                asterisks.add(len(text))
            elif match[1] not in "\\\"'*":
                raise ValueError(rf"a backslash stands before \, *, or a quote only, got {quote(match[0])}")
            text += match[1] or match[2]
        return cls(text + body[position:], frozenset(asterisks), quoted)


def read_value(field: Field, operator: Operator, literal: Literal) -> Value:
    """Return a value as the field's type.

    Raises:
        ValueError: it is none; the text says what was expected.
    """
    if not literal.quoted and literal.text.lower() == "null":
        raise ValueError(f"there is no null: `{field.path}:*` is what is known, `NOT {field.path}:*` what is not")
    match field.type:
        case FieldType.STRING | FieldType.DATE:
            return _read_text(field, operator, literal)
        case FieldType.LIST:
            return _read_element(field, literal)
        case FieldType.ENUM:
            return _read_enum(field, literal.text)
        case FieldType.BOOL:
            return _read_bool(field, literal.text)
        case FieldType.INTEGER:
            return _read_integer(field, literal.text)
        case FieldType.DECIMAL:
            return _read_number(field, "a number", literal.text)
        case FieldType.TIME:
            return _read_time(field, literal.text)


def write_text(text: str) -> str:
    """Return a text as a filter writes it: in quotes where it needs them."""
    if _WORD.fullmatch(text) and text not in _NO_WORDS and text.lower() != "null":
        return text
    return '"' + _TO_ESCAPE.sub(r"\\\g<0>", text) + '"'


def _read_text(field: Field, operator: Operator, literal: Literal) -> str | Pattern:
    if literal.asterisks and operator not in (Operator.EQUAL, Operator.NOT_EQUAL):
        raise ValueError(
            rf"wildcards go with = and !=, write \* in quotes for an asterisk; {operator} got {_show(literal)}"
        )
    is_date = field.type is FieldType.DATE
    if is_date and not (literal.asterisks or operator is Operator.HAS) and not _DATE.fullmatch(literal.text):
        raise _expected(field, "a date: YYYY-MM-DD, YYYY-MM or YYYY", literal.text)
    value = _to_pattern(literal)
    if is_date and not _PART_OF_DATE.fullmatch(value.text if isinstance(value, Pattern) else value):
        raise _expected(field, "part of a date", literal.text)
    return value


def _to_pattern(literal: Literal) -> str | Pattern:
    if not literal.asterisks:
        return literal.text
    last = len(literal.text) - 1
    if not literal.asterisks <= {0, last}:
        raise ValueError(rf"a wildcard stands at either end, write \* in quotes for an asterisk; got {_show(literal)}")
    start, end = 0 in literal.asterisks, last in literal.asterisks
    return Pattern(text=literal.text[start : last if end else None], open_start=start, open_end=end)


def _read_element(field: Field, literal: Literal) -> str:
    if literal.asterisks:
        raise ValueError(f"{field.path} is asked for one whole element, without wildcards; got {_show(literal)}")
    return literal.text


def _read_enum(field: Field, text: str) -> str:
    if text.isascii() and text.upper() in field.values:
        return text.upper()
    raise _expected(field, "one of " + ", ".join(field.values), text)


def _read_bool(field: Field, text: str) -> bool:
    match text.lower():
        case "true":
            return True
        case "false":
            return False
        case _:
            raise _expected(field, "true or false", text)


def _read_number(field: Field, kind: str, text: str) -> Decimal:
    if len(text) > _MAX_DIGITS or not _NUMBER.fullmatch(text):
        raise _expected(field, kind, text)
    number = Decimal(text)
    if number and abs(number.adjusted()) > _MAX_EXPONENT:
        raise _expected(field, f"{kind} between 1e-{_MAX_EXPONENT} and 1e{_MAX_EXPONENT}", text)
    return number


def _read_integer(field: Field, text: str) -> int:
    number = _read_number(field, "a whole number", text)
    if number != number.to_integral_value():
        raise _expected(field, "a whole number", text)
    if int(number) not in _INT64:
        raise _expected(field, "a whole number of 64 bits", text)
    return int(number)


def _read_time(field: Field, text: str) -> datetime:
    kind = "a time such as 2026-07-02T09:30:00Z, or a day, which is its beginning in UTC"
    if not _TIME.fullmatch(text):
        raise _expected(field, kind, text)
    try:
        time = datetime.fromisoformat(text.upper())
    except ValueError as error:
        raise _expected(field, kind, text) from error
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _show(literal: Literal) -> str:
    return quote(literal.text)


def _expected(field: Field, kind: str, text: str) -> ValueError:
    return ValueError(f"{field.path} is compared with {kind}; got {quote(text)}")
