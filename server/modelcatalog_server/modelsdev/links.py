"""What served models may be linked to, kept from one run to the next.

Reading and matching thousands of ids takes a fifth of a second. It follows from the ids alone, and from the canonical
models that there are, which seldom change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Mapping
from typing import NamedTuple

from modelcatalog_server.catalog.resolver.canonical import CanonicalIndex, link_candidates
from modelcatalog_server.catalog.resolver.linking import LinkCandidate, ModelFacts
from modelcatalog_server.catalog.resolver.spelling import read_id
from modelcatalog_server.domain.models import model_id

_DIGEST_BYTES = 16
_MAX_KEPT = 200_000  # ids; upstream has 5,276


class Links(NamedTuple):
    """What one served model may be linked to, and a digest of it."""

    candidates: tuple[LinkCandidate, ...]
    digest: bytes


class LinkTable:
    """What served models may be linked to, as long as there are these canonical models, released on these dates."""

    def __init__(self, release_dates: Mapping[str, str | None]) -> None:
        self.release_dates = dict(release_dates)
        self._index = CanonicalIndex(
            {id_: ModelFacts(release_date=release_date) for id_, release_date in release_dates.items()}
        )
        self._links: dict[str, Links] = {}
        self._digests: dict[tuple[LinkCandidate, ...], Links] = {}

    def __len__(self) -> int:
        return len(self._links)

    def get(self, provider_id: str, upstream_id: str) -> Links:
        """Return what a served model may be linked to."""
        id_ = model_id(provider_id, upstream_id)
        links = self._links.get(id_)
        if links is None:
            links = self._links[id_] = self._digested(link_candidates(provider_id, upstream_id, self._index))
        return links

    def _digested(self, candidates: tuple[LinkCandidate, ...]) -> Links:
        if candidates not in self._digests:
            digest = hashlib.blake2b(repr(candidates).encode(), digest_size=_DIGEST_BYTES).digest()
            self._digests[candidates] = Links(candidates, digest)
        return self._digests[candidates]


class LinkTables:
    """Keeps the table of the last run."""

    def __init__(self) -> None:
        self._last: LinkTable | None = None

    def steps(self, release_dates: Mapping[str, str | None]) -> Generator[None, None, LinkTable]:
        """Return the table of these canonical models, made in steps if it is another one than the last."""
        last = self._last
        if last is None or last.release_dates != release_dates or len(last) > _MAX_KEPT:
            for id_ in release_dates:
                read_id(id_)
                yield
            last = self._last = LinkTable(release_dates)
        return last
