"""What a search asks of PostgreSQL, as its tsquery in text form, and what it answers.

Words hold letters and digits alone (``catalog.search_words``), and are quoted all the same: nothing in them is syntax.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields

from psycopg.rows import DictRow

from modelcatalog_server.domain.models import Model
from modelcatalog_server.domain.query import Boundary, Listed
from modelcatalog_server.domain.search import Findings, SearchHit, SearchTerm, SearchText

#: Of the words that are near one, those count that are so many times as near as the nearest.
_AS_NEAR = 0.8


def compile_text(text: SearchText) -> Mapping[str, str]:
    """Return the parameters of ``search_models`` that say what to look for; marks and weights: ``search_lexemes``."""
    whole_id, whole_name, whole_family = (_quote(mark + text.key) for mark in ("==", "=", "~"))
    return {
        "words": f"({_all(text.terms)}) | {whole_name} | {whole_id}",
        "whole_words": _all(text.terms, may_go_on=False),
        "whole_id": whole_id,
        "whole_name": whole_name,
        "whole_family": whole_family,
        "whole": f"{whole_id} | {whole_name} | {whole_family}",
        "in_id": _all(text.terms, "A"),
        "in_name": _all(text.terms, "AB"),
        "in_facts": _all(text.terms, "ABC"),
    }


def _all(terms: Iterable[SearchTerm], weights: str = "", *, may_go_on: bool = True) -> str:
    return " & ".join(_any(term, weights, may_go_on=may_go_on) for term in terms)


def _any(term: SearchTerm, weights: str, *, may_go_on: bool) -> str:
    flags = weights + "*" * (term.may_go_on and may_go_on)
    words = [_quote(term.word, flags), *(_quote(word, weights) for word in term.near)]
    return f"({' | '.join(words)})"


def _quote(word: str, flags: str = "") -> str:
    quoted = word.replace("\\", "\\\\").replace("'", "''")
    return f"'{quoted}'" + (f":{flags}" if flags else "")


def read_findings(rows: Sequence[DictRow]) -> Findings:
    """Return what rows of ``search_models`` say. Without a model there is one row, for the total."""
    listed = [_read_listed(row) for row in rows if row["model_id"] is not None]
    return Findings(items=listed, total=rows[0]["total"])


def read_near_words(rows: Iterable[DictRow]) -> Mapping[str, Sequence[str]]:
    """Return the near words of rows of ``find_near_words`` that are nearly as near as the nearest."""
    near: dict[str, dict[str, float]] = {}
    for row in rows:
        words = near.setdefault(row["word"], {})
        if row["likeness"] >= _AS_NEAR * max(words.values(), default=0):
            words.setdefault(row["near_word"], row["likeness"])
    return {word: tuple(words) for word, words in near.items()}


def _read_listed(row: DictRow) -> Listed[SearchHit]:
    model = Model(**{field.name: row[field.name] for field in fields(Model)})
    texts = {
        "id": row["model_id"],
        "name": row["model_name"],
        "family": row["model_family"],
        "provider_name": row["provider_name"],
        "tags": " ".join(row["tags"]),
        "canonical_id": row["canonical_id"],
        "description": row["description"],
    }
    known = {name: text for name, text in texts.items() if text}
    found = SearchHit(model=model, score=row["score"], texts=known)
    return Listed(item=found, boundary=Boundary(id=model.model_id, keys=(str(row["score"]),)))
