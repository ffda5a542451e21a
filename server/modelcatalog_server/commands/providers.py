"""``modelcatalog providers`` and ``modelcatalog info``: what each asks for, and how the answer is shown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import click

from modelcatalog.v1.model_catalog_service_pb2 import GetCatalogInfoResponse
from modelcatalog_client import ModelCatalogClient, Provider
from modelcatalog_server.commands.cells import find_field, text_of
from modelcatalog_server.commands.json_output import print_document, to_document
from modelcatalog_server.commands.listing import ListingOptions, Shown, collect, print_items
from modelcatalog_server.commands.terminal import print_sheet

_PROVIDER = (
    Shown("provider", "id"),
    Shown("models", "model_count"),
    Shown("enabled", "enabled"),
    Shown("status", "status"),
    Shown("name", "name"),
    Shown("api", "api_base_url"),
    Shown("documentation", "documentation_url"),
)
_INFO = (
    "catalog_revision",
    "checked_time",
    "age",
    "stale",
    "changed_time",
    "upstream_url",
    "upstream_etag",
    "upstream_snapshot",
    "schema_version",
    "server_version",
)


def check_fields(fields: Iterable[str]) -> None:
    """Refuse what is no field of a provider: ListProviders has no read mask that would."""
    if unknown := [path for path in fields if find_field(Provider, path) is None]:
        known = ", ".join(field.name for field in Provider.DESCRIPTOR.fields)
        raise click.UsageError(f"a provider has no field {unknown[0]!r}; there are: {known}")


def list_providers(client: ModelCatalogClient, options: ListingOptions, *, order_by: str, show_removed: bool) -> None:
    """Print providers."""
    pager = client.list_providers(
        filter=options.filter, order_by=order_by, show_removed=show_removed, page_size=options.page_size
    )
    print_items(Provider, collect(pager, "providers", options), _PROVIDER, options)


def get_provider(client: ModelCatalogClient, provider_id: str, *, as_json: bool) -> None:
    """Print one provider."""
    response = client.get_provider(provider_id)
    if as_json:
        print_document(to_document(response))
    else:
        print_sheet(_sheet(response.provider))


def update_provider(client: ModelCatalogClient, provider_id: str, *, enabled: bool, as_json: bool) -> None:
    """Show or hide a provider's models, and print the provider as it is then."""
    response = client.update_provider(provider_id, enabled=enabled)
    if as_json:
        print_document(to_document(response))
    else:
        print_sheet([*_sheet(response.provider), ("catalog revision", str(response.catalog_revision))])


def _sheet(provider: Provider) -> list[tuple[str, str]]:
    return [(field.name.replace("_", " "), text_of(provider, field.name)) for field in Provider.DESCRIPTOR.fields]


def show_info(client: ModelCatalogClient, *, as_json: bool) -> None:
    """Print what the catalog holds and how fresh it is."""
    response = client.get_catalog_info()
    if as_json:
        print_document(to_document(response))
    else:
        print_sheet(list(info_rows(response)))


def info_rows(info: GetCatalogInfoResponse) -> Iterator[tuple[str, str]]:
    """Yield the rows of the sheet."""
    for field in info.counts.DESCRIPTOR.fields:
        yield field.name.replace("_", " "), f"{getattr(info.counts, field.name):,}"
    for name in _INFO:
        yield name.replace("_", " "), text_of(info, name)
    if off := [feature.name for feature in info.features if not feature.enabled]:
        yield "switched off", ", ".join(off)
