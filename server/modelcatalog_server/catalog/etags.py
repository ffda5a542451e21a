"""Etags: each changes exactly when what it stands for changes."""

from __future__ import annotations

from modelcatalog_server.catalog.digest import digest
from modelcatalog_server.catalog.paging import Page
from modelcatalog_server.domain.models import Model, Provider


def model_etag(model: Model) -> str:
    """Return what changes exactly when the model's message changes: record, revision, provider's name and scores."""
    scores = (model.popularity_score, model.benchmark_score)
    return digest([model.content_hash, str(model.revision), model.provider_name, *map(str, scores)])


def provider_etag(provider: Provider) -> str:
    """Return what changes exactly when the provider's message changes."""
    return digest([provider.record.id, provider.record.content_hash, str(provider.revision)])


def page_etag(page: Page[Model]) -> str:
    """Return what changes exactly when what the page shows changes."""
    return digest([str(page.total), str(bool(page.next_token)), *map(model_etag, page.items)])
