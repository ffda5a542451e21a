"""Finding the fields that an expression names, and near ones of those that there are not."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from modelcatalog_server.domain.query import Field, FieldCatalogue

_SHOWN = 60


def find_field(catalogue: FieldCatalogue, path: str) -> Field:
    """Return the field of a path.

    Raises:
        LookupError: there is none; the text says so and names near ones.
    """
    if field := catalogue.fields.get(path):
        return field
    near = _find_near(catalogue.fields, path[:_SHOWN])
    hint = f": did you mean {', '.join(near)}?" if near else ""
    raise LookupError(f"{quote(path)} is no field of {catalogue.message} that can be asked for{hint}")


def quote(text: str) -> str:
    """Return a piece of a caller's text for a message: printable and short."""
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")


def _find_near(paths: Iterable[str], path: str) -> list[str]:
    """Return up to three paths: those below the one given or with its last name, else those spelt nearly so."""
    known = list(paths)
    last = path.rpartition(".")[2]
    related = [each for each in known if each.startswith(f"{path}.") or each.rpartition(".")[2] == last]
    if related:
        return related[:3]
    spelt = get_close_matches(path.lower(), known, n=3, cutoff=0.7)
    by_last = {each.rpartition(".")[2]: each for each in reversed(known)}
    spelt += [by_last[name] for name in get_close_matches(last.lower(), by_last, n=3, cutoff=0.8)]
    return list(dict.fromkeys(spelt))[:3]
