"""A catalog of 87 models out of the recorded one, that a test changes as upstream would, and a service that follows it.

async with follow(start_app, small_database) as stage:
    stage.catalog.model("openai/gpt-5")["name"] = "GPT-5 (new)"
    refresh = await stage.refresh()
"""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import psycopg

from conftest import Services, StartApp, make_settings, refresh_to_end
from modelcatalog_client import AsyncModelCatalogClient, DeadlineExceededError
from modelcatalog_server import app
from modelcatalog_server.domain.refresh import Refresh, Trigger
from upstream_server import UpstreamServer, recorded

#: Every table that a refresh writes the catalog to.
CATALOG_TABLES = (
    "models_metadata",
    "llm_providers",
    "canonical_models",
    "model_benchmarks",
    "model_versions",
    "provider_versions",
    "canonical_model_versions",
    "catalog_revisions",
)

_TEMPLATE = "mc_small"
_made_for: set[str] = set()


@cache
def _recorded() -> str:
    """Return it as text: to read that takes a fraction of what a deep copy does."""
    whole = json.loads(recorded("catalog-2026-07-02"))
    providers = {id_: whole["providers"][id_] for id_ in ("anthropic", "openai", "openrouter", "zeldoc")}
    kept = dict(list(providers["openrouter"]["models"].items())[:11])
    providers["openrouter"] = {**providers["openrouter"], "models": kept}
    labs = ("anthropic/", "openai/")
    models = {id_: model for id_, model in whole["models"].items() if id_.startswith(labs)}
    return json.dumps({"models": models, "providers": providers})


@cache
def _gpt_5() -> str:
    return json.dumps(json.loads(_recorded())["providers"]["openai"]["models"]["gpt-5"])


class SmallCatalog:
    """The payload: 4 providers (anthropic, openai, openrouter and zeldoc with one model), two labs' own models."""

    def __init__(self) -> None:
        self.document: dict[str, Any] = json.loads(_recorded())

    @property
    def providers(self) -> dict[str, Any]:
        providers: dict[str, Any] = self.document["providers"]
        return providers

    @property
    def canonical_models(self) -> dict[str, Any]:
        models: dict[str, Any] = self.document["models"]
        return models

    def model(self, model_id: str) -> dict[str, Any]:
        provider_id, _, upstream_id = model_id.partition("/")
        model: dict[str, Any] = self.providers[provider_id]["models"][upstream_id]
        return model

    def add(self, model_id: str, **fields: Any) -> dict[str, Any]:
        """List a model that is like GPT-5 but for these fields."""
        provider_id, _, upstream_id = model_id.partition("/")
        model: dict[str, Any] = json.loads(_gpt_5()) | {"id": upstream_id} | fields
        self.providers[provider_id]["models"][upstream_id] = model
        return model

    def remove(self, model_id: str) -> dict[str, Any]:
        provider_id, _, upstream_id = model_id.partition("/")
        model: dict[str, Any] = self.providers[provider_id]["models"].pop(upstream_id)
        return model

    @property
    def model_ids(self) -> list[str]:
        """Ids of what is listed, in the catalog's order."""
        return sorted(f"{id_}/{model}" for id_, provider in self.providers.items() for model in provider["models"])

    @property
    def body(self) -> bytes:
        return json.dumps(self.document).encode()


@dataclass
class Stage:
    """A service that follows an upstream of its own."""

    running: app.App
    upstream: UpstreamServer
    catalog: SmallCatalog
    database_url: str
    settings: dict[str, Any] = field(default_factory=dict)

    def publish(self) -> str:
        """Have upstream serve the catalog as it is now. Returns its ETag."""
        return self.upstream.serve("/catalog.json", self.catalog.body)

    async def refresh(self, **request: Any) -> Refresh:
        """Publish the catalog, start a run and follow it to its end."""
        self.publish()
        return await refresh_to_end(self.running, **request)

    async def fetch(self, statement: str, *parameters: Any) -> list[Any]:
        return await fetch(self.database_url, statement, *parameters)


@asynccontextmanager
async def follow(start_app: StartApp, database_url: str, **settings: Any) -> AsyncIterator[Stage]:
    """Start the service on a database, with an upstream that serves the small catalog."""
    async with UpstreamServer() as upstream, start_app(database_url, upstream_url=upstream.url, **settings) as running:
        stage = Stage(running, upstream, SmallCatalog(), database_url, settings)
        stage.publish()
        yield stage


def clone_small(templates: Services) -> Iterator[str]:
    """Yield a database with the small catalog, revision 1, and drop it again."""
    if templates.database_url not in _made_for:
        templates.execute(f"CREATE DATABASE {_TEMPLATE} TEMPLATE mc_empty STRATEGY file_copy")
        asyncio.run(load_small(templates, templates.url_of(_TEMPLATE)))
        _made_for.add(templates.database_url)
    url = templates.clone(_TEMPLATE)
    yield url
    templates.drop(url)


async def load_small(templates: Services, url: str) -> None:
    """Load the small catalog into a database that has the schema."""

    def start(database_url: str, **settings: Any) -> AbstractAsyncContextManager[app.App]:
        return app.start(make_settings(templates, database_url, **settings))

    async with follow(start, url) as stage:
        assert (await stage.refresh(trigger=Trigger.STARTUP)).result_revision == 1


async def fetch(database_url: str, statement: str, *parameters: Any) -> list[Any]:
    """Return the rows of a statement; a row of one column is that column."""
    async with await _connect(database_url) as connection:
        cursor = await connection.execute(statement.encode(), parameters or None)
        rows = await cursor.fetchall() if cursor.description else []
        return [row[0] if len(row) == 1 else row for row in rows]


@asynccontextmanager
async def locked(database_url: str, what: str) -> AsyncIterator[None]:
    """Hold a lock that statements wait for."""
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        await connection.execute(f"LOCK TABLE {what} MODE".encode())
        yield
        await connection.rollback()


async def _connect(database_url: str) -> psycopg.AsyncConnection[Any]:
    """Connect, when the server has recovered if it does that just now."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await psycopg.AsyncConnection.connect(database_url, autocommit=True)
            except psycopg.OperationalError as error:
                if "recovery mode" not in str(error) and "starting up" not in str(error):
                    raise
            await asyncio.sleep(0.05)


async def marks_of_rows(database_url: str, tables: Sequence[str] = CATALOG_TABLES) -> Mapping[str, tuple[int, str]]:
    """Return for each table what changes as soon as any row is written, even with the same values."""
    marks = {}
    for table in tables:
        (marks[table],) = await fetch(
            database_url,
            "SELECT count(*), coalesce(md5(string_agg(concat_ws('|', ctid, xmin, t), ',' ORDER BY ctid)), '')"
            f" FROM {table} AS t",
        )
    return marks


def runs_owned_here() -> list[str]:
    """Return the tasks of this process that own a run, or are about to start the one that follows it."""
    names = [task.get_name() for task in asyncio.all_tasks()]
    return [name for name in names if re.fullmatch(r"refresh-[0-9a-f-]{36}", name)]


async def wait_in_vain(client: AsyncModelCatalogClient, revision: int) -> None:
    """Read at a revision that does not come, until that is what the read says.

    It does so half a second before the time of the call is over: a machine that stands still so long is asked again.
    """
    async with asyncio.timeout(20):
        while True:
            with suppress(DeadlineExceededError):
                await client.get_model("openai/gpt-5", min_revision=revision, timeout=1)
                return


async def until(condition: Callable[[], Any], *, seconds: float = 20) -> None:
    """Wait until a condition holds that nothing tells of; it may have to be awaited itself."""
    pause_s = 0.01
    async with asyncio.timeout(seconds):
        while True:
            met = condition()
            if inspect.isawaitable(met):
                met = await met
            if met:
                return
            await asyncio.sleep(pause_s)
            pause_s = min(1.2 * pause_s, 0.05)  # what is waited for longer has use for the processor
