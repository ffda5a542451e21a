"""Messages as JSON for scripts: named as in the protos, real zeros and falses there, what is unknown left out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import click
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

# Controls of ASCII but DEL are escaped in any JSON; those beyond are, too, what moves and turns text: U+009B, U+202E.
_BEYOND_ASCII = re.compile(r"[^\x00-\x7e]")


def to_document(message: Message) -> dict[str, Any]:
    """Return the message as proto JSON. An empty text is left out: in this contract it stands for unknown."""
    document = MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    return dict(_without_empty_texts(document))


def _without_empty_texts(document: dict[str, Any]) -> Iterable[tuple[str, Any]]:
    for name, value in document.items():
        if isinstance(value, dict):
            # What upstream wrote is passed on as it is.
            yield name, value if name == "raw" else dict(_without_empty_texts(value))
        elif isinstance(value, list):
            yield name, [dict(_without_empty_texts(each)) if isinstance(each, dict) else each for each in value]
        elif value != "":
            yield name, value


def select(document: dict[str, Any], paths: Sequence[str]) -> dict[str, Any]:
    """Return what the paths of a read mask name; everything for none."""
    if not paths:
        return document
    selected: dict[str, Any] = {}
    for name, value in document.items():
        below = [path.partition(".")[2] for path in paths if path.partition(".")[0] == name]
        if below:
            deeper = isinstance(value, dict) and all(below)
            selected[name] = select(value, below) if deeper else value
    return selected


def print_document(document: object) -> None:
    """Print one JSON document."""
    click.echo(write_json(document, indent=2))


def print_lines(documents: Iterable[object]) -> None:
    """Print JSON documents, one a line."""
    for document in documents:
        click.echo(write_json(document))


def write_json(document: object, *, indent: int | None = None) -> str:
    """Return JSON that does nothing to a terminal: what cannot be printed is escaped, other scripts are readable."""
    text = json.dumps(document, indent=indent, ensure_ascii=False)
    return _BEYOND_ASCII.sub(lambda match: match[0] if match[0].isprintable() else json.dumps(match[0])[1:-1], text)
