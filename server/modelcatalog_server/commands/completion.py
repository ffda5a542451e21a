"""Ids that a shell completes, asked of the server. Whatever goes wrong completes nothing."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from modelcatalog_server.commands.server_options import read_server_options

if TYPE_CHECKING:
    from modelcatalog_client import ModelCatalogClient

_TIMEOUT_S = 2.0
_MOST = 200
#: What needs no quotes in a filter. No id that is worth completing has anything else.
_PLAIN = re.compile(r"[\w./@:+-]*", re.ASCII)


class _Id(click.ParamType[str], ABC):
    """Text that completes to what the server has."""

    def shell_complete(self, ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the ids that begin like this."""
        from modelcatalog_client import CatalogError

        if not _PLAIN.fullmatch(incomplete):
            return []
        with suppress(CatalogError, click.ClickException), read_server_options(dict(ctx.params)).connect() as client:
            return list(self.find(client, f"id = {incomplete}*" if incomplete else ""))
        return []

    @abstractmethod
    def find(self, client: ModelCatalogClient, wanted: str) -> Iterator[CompletionItem]:
        """Yield what fits a filter."""


class ProviderId(_Id):
    """A provider's id."""

    name = "provider"

    def find(self, client: ModelCatalogClient, wanted: str) -> Iterator[CompletionItem]:
        """Yield ids, with the providers' names for shells that show them."""
        for page in client.list_providers(filter=wanted, page_size=_MOST, timeout=_TIMEOUT_S).pages():
            yield from (CompletionItem(each.id, help=each.name) for each in page.providers)
            return


class ModelId(_Id):
    """A model's id."""

    name = "model"

    def find(self, client: ModelCatalogClient, wanted: str) -> Iterator[CompletionItem]:
        """Yield ids, not more than a person looks through."""
        pager = client.list_models(filter=wanted, page_size=_MOST, page=1, read_mask=["id"], timeout=_TIMEOUT_S)
        yield from (CompletionItem(each.id) for each in pager)
