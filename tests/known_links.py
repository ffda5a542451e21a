"""Links from served to canonical models that upstream's own sources record, and what the rules make of them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from modelcatalog_server.catalog.resolver.canonical import CanonicalIndex
from modelcatalog_server.catalog.resolver.linking import ModelFacts
from modelcatalog_server.catalog.resolver.reference import ReferenceIndex, Served
from modelcatalog_server.domain.models import CanonicalLink, Source
from modelcatalog_server.domain.refresh import KnownState, Payload
from modelcatalog_server.modelsdev.sift import compare_payload

ROOT = Path(__file__).parents[1]
LINKS = ROOT / "tests/data/canonical-links.tsv"
CATALOG = ROOT / "server/modelcatalog_server/modelsdev/snapshot/catalog-2026-07-02.json.gz"


NOTHING = KnownState(
    models={},
    removed_models={},
    providers={},
    removed_providers=frozenset(),
    canonical_models={},
    removed_canonical_models=frozenset(),
)


@cache
def catalog() -> Mapping[str, Any]:
    content: Mapping[str, Any] = json.loads(gzip.decompress(CATALOG.read_bytes()))
    return content


@cache
def known_links() -> Mapping[str, str]:
    """Served model id → canonical id."""
    lines = [line for line in LINKS.read_text().splitlines() if not line.startswith("#")]
    return dict(line.split("\t") for line in lines[1:])


@cache
def canonical_index() -> CanonicalIndex:
    return CanonicalIndex({id_: facts(model) for id_, model in catalog()["models"].items()})


def facts(model: Mapping[str, Any]) -> ModelFacts:
    return ModelFacts(release_date=model.get("release_date"))


@cache
def derived_links() -> Mapping[str, CanonicalLink]:
    """Served model id → the link that a first load writes, for all served models that it finds one for."""
    payload = Payload(source=Source(url="file:", snapshot="0" * 64), catalog=gzip.decompress(CATALOG.read_bytes()))
    loaded = compare_payload(payload, NOTHING, provider_id=None, full=False)
    return {record.id: record.canonical for record in loaded.models if record.canonical}


@cache
def reference_index() -> ReferenceIndex:
    links = derived_links()
    served = [
        Served(provider_id, served_id, link.canonical_id if link else None)
        for provider_id, provider in catalog()["providers"].items()
        for served_id in provider["models"]
        for link in [links.get(f"{provider_id}/{served_id}")]
    ]
    return ReferenceIndex(served, canonical_index())


def is_held_out(served_model_id: str) -> bool:
    """Whether a provider belongs to the third that the rules were not developed on. It is drawn by hash."""
    return sha256(served_model_id.partition("/")[0].encode()).digest()[0] % 3 == 0


@dataclass(frozen=True)
class Score:
    """``wrong`` are answers other than the known one, ``missed`` those without an answer."""

    known: int
    right: int
    wrong: tuple[str, ...]
    missed: tuple[str, ...]

    @property
    def precision(self) -> float:
        return self.right / max(1, self.right + len(self.wrong))

    @property
    def recall(self) -> float:
        return self.right / max(1, self.known)


def score(served_model_ids: Iterable[str]) -> Score:
    known, derived = known_links(), derived_links()
    ids = list(served_model_ids)
    answered = [id_ for id_ in ids if id_ in derived]
    wrong = tuple(id_ for id_ in answered if derived[id_].canonical_id != known[id_])
    return Score(
        known=len(ids),
        right=len(answered) - len(wrong),
        wrong=wrong,
        missed=tuple(id_ for id_ in ids if id_ not in derived),
    )
