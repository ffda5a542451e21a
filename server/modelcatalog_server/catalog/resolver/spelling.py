"""Reads an id into what names the model and what only dresses it up.

A model is named by its words, version numbers and sizes: :attr:`Spelling.words`, :attr:`~Spelling.numbers`,
:attr:`~Spelling.sizes`. Two spellings whose three differ never mean the same model. The rest (date, active parameters,
``instruct``, ``preview``, ``latest``) may be left out by one of two spellings, and who serves it, where and how does
not name the model at all.

Every pattern is a run of plain character classes, so reading is linear in the length of the id.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

#: How a model is packed or run: weights of fewer bits, their file format, a confidential or rented machine, a tariff.
PACKAGING: Final = frozenset(
    {"fp8", "fp4", "nvfp4", "mxfp4", "bf16", "fp16", "int4", "int8", "awq", "gptq", "gguf", "mlx", "w4a16", "w8a8",
     "4bit", "6bit", "8bit", "dynamic", "hf", "tee", "maas", "original", "flex", "free"}
)  # fmt: skip

#: Words between a model's name and its finish that say nothing: a beta of Grok 4.20 became Grok 4.20.
_RELEASE_STAGES: Final = frozenset({"beta"})

_INSTRUCT: Final = frozenset({"instruct", "it"})

_SEPARATORS = re.compile(r"[\s/:@_()+~,-]+")
_RUNS = re.compile(r"[0-9]+|[^\W0-9_]+")
_VERSION_P = re.compile(r"(?<=[0-9])p(?=[0-9])")  # glm-5p2: some platforms allow no dots
_SIZE = re.compile(r"([a-z]{0,3})([0-9]+(?:\.[0-9]+)?|[0-9]+x[0-9]+)([bmt])")
_EXPERTS = re.compile(r"[0-9]+e")
_BEDROCK_VERSION = re.compile(r"-v?[1-9]:0$")  # not -v0:2 and -v2:1, which are the models' own versions
_COLON_SIZE = re.compile(r":[0-9]+(?:\.[0-9]+)?[bmt](?![a-z0-9])")  # gpt-oss:120b
_DOTTED_PREFIX = re.compile(r"([a-z]+)\.(?=[a-z])")  # us.anthropic.claude…
_DATE = re.compile(
    r"(?<![a-z0-9.])(?:"
    r"(?P<year>20[1-4][0-9])[-.]?(?P<month>0[1-9]|1[0-2])(?:[-.]?(?P<day>[0-2][0-9]|3[01]))?"
    r"|(?P<month2>0[1-9]|1[0-2])-(?P<year2>20[1-4][0-9])"
    r"|(?P<yy>2[3-9])(?P<mm>0[1-9]|1[0-2])(?P<dd>[0-2][0-9]|3[01])?"
    r"|(?P<month_day>(?:0[1-9]|1[0-2])(?:[0-2][0-9]|3[01])|0[1-9]-(?:[0-2][0-9]|3[01]))"
    r"|(?P<revision>00[0-9])"
    r")(?![a-z0-9.])"
)

_MAX_COMPARED_CHARS = 100

# Where a platform's servers stand; only in front of a dotted lab: us.anthropic.claude-opus-4-6-v1.
_REGIONS: Final = frozenset({"us", "eu", "ap", "apac", "au", "jp", "ca", "global"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Spelling:
    """An id, read. Two spellings are of one model only if words, numbers and sizes agree.

    ``words`` are in order and lower case, without those that have a field of their own. A single letter behind a digit
    is marked (``+o`` of ``4o``), so that it is not the one before a digit (``o`` of ``o4``). ``numbers`` are those of
    the version, in order: 4.6, 4-6 and 4p6 are all ("4", "6"). ``joined`` are the positions of two-digit ones, each of
    which may be two. ``dates`` are normalised (``20251101``, ``202512``, ``0905``, ``001``). ``prefixes`` and ``path``
    are what came before the name, with dots and with slashes.
    """

    text: str
    name: str
    words: tuple[str, ...]
    numbers: tuple[str, ...]
    sizes: tuple[str, ...]
    joined: tuple[int, ...] = ()
    active: tuple[str, ...] = ()
    dates: tuple[str, ...] = ()
    instruct: bool = False
    preview: bool = False
    latest: bool = False
    packaged: bool = False
    first_version: bool = False
    regional: bool = False
    mode: str = ""
    prefixes: tuple[str, ...] = ()
    path: tuple[str, ...] = ()

    @property
    def tokens(self) -> frozenset[str]:
        """What is compared to find near models."""
        return frozenset(self.words) | set(self.numbers) | set(self.sizes) | set(self.dates)


def read_spelling(text: str) -> Spelling:
    """Read an id or a reference. Any text has a spelling; one without letters and digits has an empty one."""
    *path, last = text.lower().split("/")
    last = last.strip()
    if last.startswith("hf:"):
        last = last[len("hf:") :]
    reader = _Reader()
    name = reader.take_version_and_mode(last)
    name = reader.take_prefixes(name)
    name = _DATE.sub(reader.take_date, name)
    reader.take_chunks([chunk for chunk in _SEPARATORS.split(name) if chunk])
    return reader.spelling(text, last, tuple(path))


def find_date(id_: str) -> str | None:
    """Return the last date in an id's name, as it is written there, or None. Behind a colon are budgets (``:1024``)."""
    name = id_.lower().rpartition("/")[2].partition(":")[0]
    dates = [match[0] for match in _DATE.finditer(name) if not match["revision"]]
    return dates[-1] if dates else None


@lru_cache(maxsize=16_384)
def read_id(id_: str) -> Spelling:
    """Return the spelling of an id that the catalog has: it comes again with every revision, from every provider."""
    return read_spelling(id_)


def likeness(some: str, other: str) -> float:
    """Return how alike two names are written, from 0 to 1: by what they share of their trigrams, paths left out."""
    ours, theirs = _trigrams(some), _trigrams(other)
    return len(ours & theirs) / max(1, len(ours | theirs))


def _trigrams(text: str) -> set[str]:
    name = text.rpartition("/")[2][:_MAX_COMPARED_CHARS].lower()
    padded = f"  {' '.join(_RUNS.findall(name))} "
    return {padded[start : start + 3] for start in range(len(padded) - 2)}


class _Reader:
    """Sorts the parts of one id as they come."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.numbers: list[str] = []
        self.sizes: list[str] = []
        self.joined: list[int] = []
        self.active: list[str] = []
        self.dates: list[str] = []
        self.prefixes: tuple[str, ...] = ()
        self.flags: dict[str, bool] = {}
        self.mode = ""

    def take_version_and_mode(self, name: str) -> str:
        """Take off a platform's ``-v1:0``, and what follows a colon unless that is a size, as in ``gpt-oss:120b``."""
        unversioned = _BEDROCK_VERSION.sub("", name)
        if unversioned != name:
            self.flags["regional"] = True
            return unversioned
        if ":" in name and not _COLON_SIZE.search(name):
            name, _, self.mode = name.partition(":")
            if self.mode == "free":
                self.mode, self.flags["packaged"] = "", True
        return name

    def take_prefixes(self, name: str) -> str:
        prefixes: list[str] = []
        while len(prefixes) < 2 and (match := _DOTTED_PREFIX.match(name)):
            prefixes.append(match[1])
            name = name[match.end() :]
        if prefixes:
            self.flags["regional"] = True
        self.prefixes = tuple(prefix for prefix in prefixes if prefix not in _REGIONS)
        return name

    def take_date(self, match: re.Match[str]) -> str:
        part = match.groupdict(default="")
        year = part["year"] or part["year2"] or (part["yy"] and "20" + part["yy"])
        month, day = part["month"] or part["month2"] or part["mm"], part["day"] or part["dd"]
        self.dates.append(year + month + day or part["month_day"].replace("-", "") or part["revision"])
        return "-"

    def take_chunks(self, chunks: Sequence[str]) -> None:
        for position, chunk in enumerate(chunks):
            if not self._take_known(chunk, is_last=position == len(chunks) - 1):
                self._take_runs(_VERSION_P.sub(".", chunk))

    def _take_known(self, chunk: str, *, is_last: bool) -> bool:
        if chunk in PACKAGING:
            self.flags["packaged"] = True
        elif chunk in _INSTRUCT:
            self.flags["instruct"] = True
        elif chunk in ("preview", "latest"):
            self.flags[chunk] = True
        elif chunk == "default" or chunk in _RELEASE_STAGES:
            self.flags["packaged"] = True
        elif chunk == "v1" and is_last and self.numbers:
            self.flags["first_version"] = True
        elif _EXPERTS.fullmatch(chunk):
            self.active.append(chunk)
        elif match := _SIZE.fullmatch(chunk):
            self._take_size(match[1], match[2] + match[3])
        else:
            return False
        return True

    def _take_size(self, letters: str, size: str) -> None:
        if letters == "a":
            self.active.append("a" + size)
        elif letters == "e":
            self.sizes.append("e" + size)
        else:
            if letters:
                self.words.append(letters)
            self.sizes.append(size)

    def _take_runs(self, chunk: str) -> None:
        """Take ``k2.5`` as the word k and the numbers 2 and 5, ``4o`` as 4 and +o, ``v3`` as 3."""
        runs = _RUNS.findall(chunk)
        for position, run in enumerate(runs):
            after_number = position > 0 and runs[position - 1].isascii() and runs[position - 1].isdecimal()
            if run.isascii() and run.isdecimal():
                # m25 may be M2.5; what has a dot already, as 4.20, is meant as it is.
                if len(run) == 2 and run[0] != "0" and not after_number:
                    self.joined.append(len(self.numbers))
                self.numbers.append(run.lstrip("0") or "0")
            elif len(run) == 1 and after_number:
                self.words.append("+" + run)
            elif run != "v" or position == len(runs) - 1:
                self.words.append(run)

    def spelling(self, text: str, name: str, path: tuple[str, ...]) -> Spelling:
        return Spelling(
            text=text,
            name=name,
            words=tuple(self.words),
            numbers=tuple(self.numbers),
            sizes=tuple(sorted(self.sizes)),
            joined=tuple(self.joined),
            active=tuple(sorted(self.active)),
            dates=tuple(self.dates),
            mode=self.mode,
            prefixes=self.prefixes,
            path=path,
            **self.flags,
        )
