"""A payload decoded record by record, as a refresh that knows nothing of it does."""

from __future__ import annotations

from collections.abc import Set

from modelcatalog_server.domain.refresh import KnownState, Payload
from modelcatalog_server.domain.tasks import run_to_end
from modelcatalog_server.modelsdev.decode import RecordDecoder
from modelcatalog_server.modelsdev.sift import Sift
from modelcatalog_server.refresh.compare import DecodedCatalog


def decode(payload: Payload, known_canonical_ids: Set[str]) -> DecodedCatalog:
    """Return every record, for a catalog that holds nothing but other versions of these canonical models."""
    known = KnownState(
        models={},
        removed_models={},
        providers={},
        removed_providers=frozenset(),
        canonical_models=dict.fromkeys(known_canonical_ids, "the hash of another version"),
        removed_canonical_models=frozenset(),
    )
    sift = Sift(payload, known, provider_id=None, full=False)
    run_to_end(sift.steps())
    return run_to_end(sift.collect([RecordDecoder(full=False).answer(sift.take_tasks())]))
