"""The records of Models.dev as they come over the wire, and the reading of one of them.

Only what the service gives a meaning to has a field here; everything else (``interleaved``, the ``provider`` override,
keys that upstream adds one day) is kept in the record's ``raw`` text. Values of upstream's enumerations are plain text,
so that a new one breaks nothing. ``None`` is absent or ``null``: what tells the two apart is the content hash.

Upstream's bounds are wider than any sane value and narrower than what the database and the wire format take: a record
beyond them is set aside, so that it cannot fail a whole refresh.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, TypeVar

from msgspec import DecodeError, Meta, Raw, Struct, ValidationError, convert
from msgspec.json import Decoder

MAX_RECORD_BYTES = 256 * 1024

#: ``raw`` is sent as google.protobuf.Struct, where a level costs three of the 100 that parsers accept. Today's deepest
#: record has 6.
MAX_DEPTH = 24

_MAX_ID_BYTES = 256
MAX_PROVIDER_ID_BYTES = 128  # what reads take; with a served id it makes less than the 512 of a model id
_MAX_REASON_CHARS = 200
_MAX_NUMBER_MAGNITUDE = 308  # from here on a double, which is what Struct has for numbers, is infinite or zero

#: Not Decimal alone: for that msgspec takes text too, and a price that is text is an error upstream.
Number = Decimal | int
Tokens = Annotated[int, Meta(ge=0, le=10**12)]
#: Bounds of a budget: upstream has a minimum of -1.
Budget = Annotated[int, Meta(ge=-(10**12), le=10**12)]
Name = Annotated[str, Meta(max_length=512, pattern=r"\S")]
Word = Annotated[str, Meta(max_length=128)]
Address = Annotated[str, Meta(max_length=2048)]
Texts = tuple[Word, ...]


class Provider(Struct):
    """A provider without its models."""

    id: str
    name: Name
    npm: Address | None = None
    env: tuple[Address, ...] | None = None
    doc: Address | None = None
    api: Address | None = None


class PriceList(Struct):
    """US dollars per 1,000,000 tokens."""

    input: Number | None = None
    output: Number | None = None
    reasoning: Number | None = None
    cache_read: Number | None = None
    cache_write: Number | None = None
    input_audio: Number | None = None
    output_audio: Number | None = None


class TierBound(Struct):
    """From where on a tier applies. Every known ``type`` is ``context``, which has a size in tokens."""

    type: Word
    size: Tokens | None = None


class PriceTier(PriceList, kw_only=True):
    """Prices beyond a bound."""

    tier: TierBound


class Cost(PriceList):
    """Prices, and others for long contexts. ``context_over_200k`` is what upstream had before ``tiers``."""

    tiers: tuple[PriceTier, ...] | None = None
    context_over_200k: PriceList | None = None


class Mode(Struct):
    """A way to be served that has a price list of its own."""

    cost: Cost | None = None


class Experimental(Struct):
    """Where upstream keeps the modes."""

    modes: dict[Word, Mode] | None = None


class Limit(Struct):
    """Tokens. 0 is unknown or not applicable. One model says 99,999,999, which is junk but what upstream says."""

    context: Tokens | None = None
    input: Tokens | None = None
    output: Tokens | None = None


class Modalities(Struct):
    """text, audio, image, video, pdf, in any order."""

    input: Texts
    output: Texts


class ReasoningOption(Struct):
    """``toggle``, ``effort`` with values (``null`` is one of them), ``budget_tokens`` with bounds."""

    type: Word
    values: tuple[Word | None, ...] | None = None
    min: Budget | None = None
    max: Budget | None = None


class ServedModel(Struct):
    """A model as one provider serves it. Dates are any text: upstream has ``2025-25-11``."""

    id: str
    name: Name
    limit: Limit
    modalities: Modalities
    release_date: Word
    last_updated: Word
    attachment: bool | None = None
    reasoning: bool | None = None
    tool_call: bool | None = None
    open_weights: bool | None = None
    structured_output: bool | None = None
    temperature: bool | None = None
    family: Word | None = None
    type: Word | None = None
    status: Word | None = None
    canonical_model_id: str | None = None
    description: str | None = None
    knowledge: Word | None = None
    reasoning_options: tuple[ReasoningOption, ...] | None = None
    cost: Cost | None = None
    experimental: Experimental | None = None


class Benchmark(Struct):
    """A published result."""

    name: Name
    score: Any  # a number or text, which no annotation can say: msgspec counts a decimal as text
    metric: Address | None = None
    harness: Address | None = None
    variant: Address | None = None
    dataset: Address | None = None
    version: Address | None = None
    source: Address | None = None
    date: Word | None = None


class CanonicalModel(Struct):
    """A model itself, whoever serves it."""

    id: str
    name: Name
    family: Word | None = None
    license: Address | None = None
    benchmarks: tuple[Benchmark, ...] | None = None


class Dated(Struct):
    """Whatever has a day of release. Of any type, so that a bad one is for whoever decodes the whole record."""

    release_date: Any = None


class InvalidRecordError(ValueError):
    """A record cannot be used. ``str(error)`` says why, in a bounded number of printable characters."""

    def __init__(self, reason: str) -> None:
        super().__init__(printable(reason, _MAX_REASON_CHARS))


# What is left of a text to look for numbers in: digits as 0, the marks of an exponent, and nothing else. To look for a
# fixed text takes a tenth of what a pattern takes.
_SHAPES = bytes(48 if 48 <= byte < 58 else 101 if byte in b"eE" else 45 if byte in b"+-" else 32 for byte in range(256))
_MANY_DIGITS = b"0" * 300

Shape = TypeVar("Shape", bound=Struct)

_values: Decoder[Any] = Decoder(float_hook=Decimal)
_objects: Decoder[dict[str, Raw]] = Decoder(dict[str, Raw])
_dated = Decoder(Dated)


def read_object(raw: Raw | bytes, name: str = "") -> dict[str, Raw]:
    """Return the members of a JSON object, undecoded. ``name`` is the field it is in, if it is in one.

    Raises:
        InvalidRecordError: It is no object.
    """
    try:
        return _objects.decode(raw)
    except (DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRecordError(f"{name}: {_explain(error)}" if name else _explain(error)) from error


def read_release_date(raw: Raw | bytes) -> str | None:
    """Return the text of a record's day of release, ``None`` where it has none or is no record."""
    try:
        text = _dated.decode(raw).release_date
    except (DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return text if isinstance(text, str) else None


def read_values(raw: bytes) -> Any:
    """Return a record as plain values, numbers with a point or exponent as Decimal.

    Raises:
        InvalidRecordError: It is too large, too deep or holds what cannot be stored.
    """
    if len(raw) > MAX_RECORD_BYTES:
        raise InvalidRecordError(f"the record has {len(raw):,} bytes, more than {MAX_RECORD_BYTES:,}")
    try:
        values = _values.decode(raw)
    except ArithmeticError as error:  # Decimal's, for an exponent that it has no room for
        raise InvalidRecordError("a number is out of range") from error
    except (DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRecordError(_explain(error)) from error
    if not _is_plain(raw):
        _check_values(values, 1)
    return values


def read_shape(values: Any, shape: type[Shape], id_: str) -> Shape:
    """Return plain values as the typed record with the id ``id_``.

    Raises:
        InvalidRecordError: A field is missing, of another type or out of its bounds, or the record has another id.
    """
    try:
        record = convert(values, shape, builtin_types=(Decimal,))
    except ValidationError as error:
        raise InvalidRecordError(_explain(error)) from error
    if record.id != id_:  # type: ignore[attr-defined]  # every record that has a place in a map has an id
        raise InvalidRecordError(f"id: {record.id!r} is not the record's key")  # type: ignore[attr-defined]  # as above
    return record


def check_id(id_: str, name: str = "id", *, max_bytes: int = _MAX_ID_BYTES) -> None:
    """Refuse an id that no database key and no URL should hold. ``name`` is the field it is in.

    Raises:
        InvalidRecordError: It is empty, too long or has control characters.
    """
    if not id_:
        raise InvalidRecordError(f"{name}: is empty")
    size = len(id_.encode())
    if size > max_bytes:
        raise InvalidRecordError(f"{name}: has {size:,} bytes, more than {max_bytes}")
    if not id_.isprintable():  # also line separators and bidirectional overrides
        raise InvalidRecordError(f"{name}: holds a control character")


def printable(text: str, max_chars: int) -> str:
    """Return text from outside as something that can be stored, logged and read on one line."""
    kept = text if len(text) <= max_chars else text[: max_chars - 1] + "…"
    return "".join(character if character.isprintable() else "\ufffd" for character in kept)


def _is_plain(raw: bytes) -> bool:
    """Whether a JSON text cannot hold anything that ``_check_values`` refuses; true of nearly every record.

    It has no U+0000 (which JSON can only escape), no more brackets than there may be levels, and no number with an
    exponent or with hundreds of digits. Walking through the values instead took a third of the time of decoding.
    """
    shapes = raw.translate(_SHAPES)
    return (
        rb"\u0000" not in raw
        and raw.count(b"{") + raw.count(b"[") <= MAX_DEPTH
        and _MANY_DIGITS not in shapes
        and b"0e0" not in shapes
        and b"0e-0" not in shapes
    )


def _check_values(value: Any, depth: int) -> None:
    """Refuse what JSON allows and PostgreSQL or protobuf does not, anywhere in a record."""
    kind = type(value)
    if kind is str:
        if "\0" in value:
            raise InvalidRecordError("a text holds U+0000 or half a surrogate pair, which cannot be stored")
    elif kind is dict:
        _check_depth(depth)
        for key, member in value.items():
            if "\0" in key:
                raise InvalidRecordError("a key holds U+0000 or half a surrogate pair, which cannot be stored")
            _check_values(member, depth + 1)
    elif kind is list:
        _check_depth(depth)
        for member in value:
            _check_values(member, depth + 1)
    elif kind is Decimal or kind is int:
        _check_number(Decimal(value))


def _check_depth(depth: int) -> None:
    if depth > MAX_DEPTH:
        raise InvalidRecordError(f"nested deeper than {MAX_DEPTH} levels")


def _check_number(number: Decimal) -> None:
    if number and abs(number.adjusted()) >= _MAX_NUMBER_MAGNITUDE:
        raise InvalidRecordError(f"a number is out of range: {number:.3g}")


def _explain(error: Exception) -> str:
    """Turn "Expected `int | null`, got `str` - at `$.limit.context`" into "limit.context: expected int, got str"."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return "is not UTF-8"
    what, _, where = str(error).replace("`", "").partition(" - at $")
    what = what.replace(" | null", "")
    where = where.lstrip(".")
    what = what if what.startswith("JSON") else what[:1].lower() + what[1:]
    return f"{where}: {what}" if where else what
