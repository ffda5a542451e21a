"""Queries and texts as words, in the way that the documents of the search are made (migration ``create_search``).

"GPT-4o" is gpt, 4 and o: letters and digits are words of their own, and what stands between them does not count. Case
does not either, that of ASCII letters.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Mapping

from modelcatalog_server.domain.errors import InvalidQueryError
from modelcatalog_server.domain.search import SearchTerm, SearchText

#: How many different words a query has at most; the ids of upstream have up to 17.
MAX_TERMS = 24
#: So many characters of a text are searched.
MAX_TEXT = 600

_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_LETTERS = "a-z\u00c0-\u1fff\u3040-\ud7ff\uf900-\ufdff"
_WORD = re.compile(f"[{_LETTERS}]+|[0-9]+")
_MISSPELT = re.compile("[a-z]{3,64}")

#: They say nothing beside other words.
_STOP_WORDS = frozenset(
    {"a", "an", "and", "any", "are", "as", "at", "be", "by", "can", "does", "for", "from", "has", "have", "in", "is"}
    | {"it", "model", "models", "of", "on", "or", "that", "the", "to", "which", "with"}
)


def read_words(text: str) -> list[str]:
    """Return the words of a text in their order."""
    return _WORD.findall(text[:MAX_TEXT].translate(_LOWER))


def read_query(query: str) -> SearchText:
    """Return what a query asks for.

    Raises:
        InvalidQueryError: it has no words or too many.
    """
    words = list(dict.fromkeys(_asked_words(query)))
    if not words:
        raise InvalidQueryError("query", "has no letter and no digit")
    if len(words) > MAX_TERMS:
        raise InvalidQueryError("query", f"has {len(words)} different words, at most {MAX_TERMS} are allowed")
    return SearchText(terms=tuple(map(_to_term, words)), words=tuple(read_words(query)))


def may_be_misspelt(term: SearchTerm) -> bool:
    """Whether words that are spelt nearly so can be asked for: of letters, and enough of them."""
    return bool(_MISSPELT.fullmatch(term.word))


def find_fields(text: SearchText, texts: Mapping[str, str]) -> list[str]:
    """Return the fields whose text has a word of the query, or is the query in one piece."""
    key = text.key
    words = {word for term in text.terms for word in (term.word, *term.near)}
    beginnings = tuple(term.word for term in text.terms if term.may_go_on)

    def fits(content: str) -> bool:
        found = any(word in words or word.startswith(beginnings) for word in read_words(content))
        return found or _is_whole(key, content)

    return [field for field, content in texts.items() if fits(content)]


def _asked_words(query: str) -> Iterator[str]:
    """Yield the words of a query without stop words, or with them if there are no others."""
    chunks = [read_words(chunk) for chunk in query.split()]
    telling = [chunk for chunk in chunks if not (len(chunk) == 1 and chunk[0] in _STOP_WORDS)]
    for chunk in telling if any(telling) else chunks:
        yield from chunk


def _to_term(word: str) -> SearchTerm:
    # A number is that number, and too much begins with one letter.
    return SearchTerm(word=word, may_go_on=len(word) > 1 and not word[0].isdigit())


def _is_whole(key: str, content: str) -> bool:
    """Whether it is what was written, however punctuated; of an id also what is behind its first or last slash."""
    parts = {content, content.partition("/")[2], content.rpartition("/")[2]}
    return any("".join(read_words(part)) == key for part in parts)
