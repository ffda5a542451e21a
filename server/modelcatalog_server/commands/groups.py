"""``modelcatalog models``, ``providers`` and ``info`` as click knows them. What they do is imported when they do it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from modelcatalog_server.commands.completion import ModelId, ProviderId
from modelcatalog_server.commands.server_options import ServerOptions, server_options

if TYPE_CHECKING:
    from click.decorators import FC

    from modelcatalog_client import Workload
    from modelcatalog_server.commands.listing import ListingOptions

_EXIT_CODES = """Ends with 0; with 1 when what was asked for is not there or is ambiguous; with 2 when the arguments are
wrong or no server answers; with 130 on Ctrl-C."""

_json = click.option("--json", "as_json", is_flag=True, help="Print the answer as one JSON document.")
_json_lines = click.option("--json", "as_json", is_flag=True, help="Print one JSON document a line.")
_order_by = click.option("--order-by", default="", metavar="ORDER", help='Fields, e.g. "pricing.input, name desc".')
_show_removed = click.option("--show-removed", is_flag=True, help="What upstream no longer lists, too.")
_page = click.option("--page", type=click.IntRange(1), help="Only this page of --limit, from 1.")
_model_id = click.argument("model_id", type=ModelId())
_provider_id = click.argument("provider_id", type=ProviderId())


def _split(_context: click.Context, _option: click.Parameter, value: str) -> tuple[str, ...]:
    return tuple(filter(None, map(str.strip, value.split(","))))


_fields = click.option(
    "--fields",
    default="",
    callback=_split,
    metavar="PATHS",
    help='Only these fields, e.g. "id,pricing.input,limits".',
)


def _filter(example: str) -> Callable[[FC], FC]:
    return click.option("--filter", default="", metavar="FILTER", help=f'Conditions, e.g. "{example}".')


_MODEL_FILTER = "pricing.input <= 1 AND capabilities.vision = true"


def _listing(command: FC) -> FC:
    limit = click.option(
        "--limit", type=click.IntRange(0), default=50, show_default=True, help="No more than so many; 0 for all."
    )
    return limit(_fields(_json_lines(command)))


def _take_listing(values: dict[str, Any]) -> ListingOptions:
    """Take what every listing is asked for out of a command's arguments."""
    from modelcatalog_server.commands.listing import ListingOptions

    names = ("filter", "limit", "page", "fields", "as_json")
    options = ListingOptions(**{name: value for name in names if (value := values.pop(name, None)) is not None})
    if options.page and not options.limit:
        raise click.UsageError("--page takes a --limit, which is the size of a page")
    return options


# --- models ---------------------------------------------------------------------------------------------------


@click.group(epilog=_EXIT_CODES)
def models() -> None:
    """Find models, and say what they cost and can do."""


@models.command("list")
@click.option("--provider", "provider_id", default="", type=ProviderId(), help="Only models of this provider.")
@_filter(_MODEL_FILTER)
@_order_by
@_page
@_show_removed
@_listing
@server_options
def models_list(server: ServerOptions, **values: Any) -> None:
    """List models, by id or in the order asked for. Prices are US dollars per 1,000,000 tokens."""
    from modelcatalog_server.commands import models as run
    from modelcatalog_server.commands.asking import asking

    options = _take_listing(values)
    with asking(server) as client:
        run.list_models(client, options, **values)


@models.command("get")
@_model_id
@_fields
@click.option("--raw", "with_raw", is_flag=True, help="The upstream record, too.")
@_json
@server_options
def models_get(server: ServerOptions, model_id: str, **values: Any) -> None:
    """Show one model, by its id or by what people write for it."""
    from modelcatalog_server.commands import models as run
    from modelcatalog_server.commands.asking import asking

    if values["with_raw"] and values["fields"]:
        raise click.UsageError("--raw adds to everything; among --fields, say raw")
    with asking(server) as client:
        run.get_model(client, model_id, **values)


@models.command("search")
@click.argument("words", nargs=-1, required=True)
@_filter(_MODEL_FILTER)
@_page
@_listing
@server_options
def models_search(server: ServerOptions, words: tuple[str, ...], **values: Any) -> None:
    """Find models by words, prefixes or ids, best first."""
    from modelcatalog_server.commands import models as run
    from modelcatalog_server.commands.asking import asking

    options = _take_listing(values)
    with asking(server) as client:
        run.search_models(client, " ".join(words), options)


@models.command("compare")
@click.argument("model_ids", type=ModelId(), nargs=-1, required=True)
@click.option("--input-tokens", type=click.IntRange(0), help="Of a workload, to say what it costs with each.")
@click.option("--output-tokens", type=click.IntRange(0), help="Of the workload.")
@click.option("--cached-tokens", type=click.IntRange(0), help="Of the input, those read from the prompt cache.")
@click.option("--only-differences", is_flag=True, help="Leave out fields in which all are equal.")
@_json
@server_options
def models_compare(server: ServerOptions, model_ids: tuple[str, ...], **values: Any) -> None:
    """Show two to ten models side by side."""
    from modelcatalog_server.commands import models as run
    from modelcatalog_server.commands.asking import asking

    workload = _take_workload(values)
    with asking(server) as client:
        run.compare_models(client, model_ids, workload=workload, **values)


def _take_workload(values: dict[str, Any]) -> Workload | None:
    from modelcatalog_client import Workload

    tokens = {name: values.pop(name) for name in ("input_tokens", "output_tokens", "cached_tokens")}
    given = {name: count for name, count in tokens.items() if count is not None}
    return Workload(**given) if given else None


@models.command("offers")
@_model_id
@click.option("--canonical", "is_canonical", is_flag=True, help="The id is one of a canonical model, lab/slug.")
@click.option("--ratio", type=float, help="Input tokens per output token in the blended price. [default: 3]")
@_listing
@server_options
def models_offers(server: ServerOptions, model_id: str, **values: Any) -> None:
    """List every provider that serves a model, cheapest first."""
    from modelcatalog_server.commands import models as run
    from modelcatalog_server.commands.asking import asking

    options = _take_listing(values)
    with asking(server) as client:
        run.list_offers(client, model_id, options, **values)


@models.command("resolve")
@click.argument("reference")
@click.option(
    "--prefer",
    "preferred_provider_ids",
    type=ProviderId(),
    multiple=True,
    help="A provider that wins over others; the first one first.",
)
@_json
@server_options
def models_resolve(server: ServerOptions, reference: str, **values: Any) -> None:
    """Say which model a reference as people write it stands for, and by which rule."""
    from modelcatalog_server.commands import models as run
    from modelcatalog_server.commands.asking import asking

    with asking(server) as client:
        run.resolve_model(client, reference, **values)


@models.command("facets")
@click.argument("field", default="")
@_filter(_MODEL_FILTER)
@_json_lines
@server_options
def models_facets(server: ServerOptions, field: str, **values: Any) -> None:
    """List what a filter can ask for: all fields, or the values of one."""
    from modelcatalog_server.commands import models as run
    from modelcatalog_server.commands.asking import NO_ANSWER, asking

    with asking(server) as client:
        if not run.list_facets(client, field, **values):
            sys.exit(NO_ANSWER)


@models.command("benchmarks")
@_model_id
@_json
@server_options
def models_benchmarks(server: ServerOptions, model_id: str, **values: Any) -> None:
    """List published results of the model itself, whoever serves it."""
    from modelcatalog_server.commands import models as run
    from modelcatalog_server.commands.asking import asking

    with asking(server) as client:
        run.list_benchmarks(client, model_id, **values)


# --- providers, info ------------------------------------------------------------------------------------------


@click.group(epilog=_EXIT_CODES)
def providers() -> None:
    """List those who serve models, and show or hide theirs."""


@providers.command("list")
@_filter("model_count >= 100")
@_order_by
@_show_removed
@_listing
@server_options
def providers_list(server: ServerOptions, **values: Any) -> None:
    """List providers, by id or in the order asked for."""
    from modelcatalog_server.commands import providers as run
    from modelcatalog_server.commands.asking import asking

    options = _take_listing(values)
    run.check_fields(options.fields)
    with asking(server) as client:
        run.list_providers(client, options, **values)


@providers.command("get")
@_provider_id
@_json
@server_options
def providers_get(server: ServerOptions, provider_id: str, **values: Any) -> None:
    """Show one provider."""
    from modelcatalog_server.commands import providers as run
    from modelcatalog_server.commands.asking import asking

    with asking(server) as client:
        run.get_provider(client, provider_id, **values)


@providers.command("enable")
@_provider_id
@_json
@server_options
def providers_enable(server: ServerOptions, provider_id: str, **values: Any) -> None:
    """Show a provider's models again. Takes the role admin."""
    _update(server, provider_id, enabled=True, **values)


@providers.command("disable")
@_provider_id
@_json
@server_options
def providers_disable(server: ServerOptions, provider_id: str, **values: Any) -> None:
    """Hide a provider's models from every default read, at once and across refreshes. Takes the role admin."""
    _update(server, provider_id, enabled=False, **values)


def _update(server: ServerOptions, provider_id: str, *, enabled: bool, as_json: bool) -> None:
    from modelcatalog_server.commands import providers as run
    from modelcatalog_server.commands.asking import asking

    with asking(server) as client:
        run.update_provider(client, provider_id, enabled=enabled, as_json=as_json)


@click.command(epilog=_EXIT_CODES)
@_json
@server_options
def info(server: ServerOptions, **values: Any) -> None:
    """Say what a server's catalog holds and how fresh it is."""
    from modelcatalog_server.commands import providers as run
    from modelcatalog_server.commands.asking import asking

    with asking(server) as client:
        run.show_info(client, **values)
