"""Databases and releases of before: what an upgrade finds, and what runs beside it while it is under way."""

from __future__ import annotations

import gzip
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from acceptance.serving import COMMAND, Serve, Server, run, until
from conftest import DATA, OPEN_GATES, Services
from modelcatalog.v1.catalog_admin_service_pb2 import UpdateProviderRequest
from modelcatalog.v1.catalog_admin_service_pb2_grpc import CatalogAdminStub
from modelcatalog.v1.model_catalog_service_pb2 import (
    GetModelRequest,
    GetModelResponse,
    ListModelsRequest,
    SearchModelsRequest,
)
from modelcatalog.v1.model_pb2 import Model
from modelcatalog.v1.refresh_pb2 import Refresh
from modelcatalog.v1.refresh_service_pb2 import StartRefreshRequest, WatchRefreshStatusRequest
from modelcatalog_server.embedded import client_programs
from modelcatalog_server.storage.migrations import load_migrations
from small_catalog import SmallCatalog

pytest_plugins = "acceptance.fixtures"

#: The folders server, client and generated of the release before the newest migration, but for the snapshot.
PREVIOUS_RELEASE = DATA / "previous-release.tar.xz"
#: A database that a release of schema 2 wrote, as pg_dump wrote it down: a load, a price and a limit that changed, a
#: model that went, a provider that was hidden.
OF_SCHEMA_2 = DATA / "schema-0002.sql.gz"


@pytest.fixture
def database(services: Services) -> Iterator[str]:
    """A database with nothing in it."""
    url = services.clone("template1")
    yield url
    services.drop(url)


@pytest.fixture
def upstream(tmp_path: Path) -> Path:
    folder = tmp_path / "upstream"
    folder.mkdir()
    return folder


@pytest.fixture
def told(database: str, services: Services, upstream: Path) -> dict[str, str]:
    """What every server here is told."""
    settings = {
        "DATABASE_URL": database,
        "REDIS_URL": services.redis_url,
        "UPSTREAM_URL": upstream.as_uri(),
        "LISTEN": "127.0.0.1:0",
        "REFRESH_FULL_CRON": "off",
        "REFRESH_INCREMENTAL_CRON": "off",
        **{name.upper(): str(value) for name, value in OPEN_GATES.items()},
    }
    return {f"MODELCATALOG_{name}": value for name, value in settings.items()}


def publish(catalog: SmallCatalog, upstream: Path) -> None:
    (upstream / "catalog.json").write_bytes(catalog.body)


def migrate(database: str, **variables: str) -> list[str]:
    result = run([*COMMAND, "migrate", "--database-url", database], **variables)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def refresh(server: Server, kind: Refresh.Type.ValueType) -> Refresh:
    """Have a server refresh, and wait for the end."""
    started = server.refreshes.StartRefresh(StartRefreshRequest(type=kind, force=True), timeout=30)
    watch = server.refreshes.WatchRefreshStatus(WatchRefreshStatusRequest(refresh_id=started.refresh.id), timeout=30)
    *_, last = (each.status.refresh for each in watch)
    return last


def models_of(server: Server) -> dict[str, Model]:
    answer = server.catalog.ListModels(ListModelsRequest(page_size=1000), timeout=10)
    assert not answer.next_page_token
    return {model.id: model for model in answer.models}


def get_model(server: Server, model_id: str, **metadata: str) -> GetModelResponse:
    told = tuple((name.replace("_", "-"), value) for name, value in metadata.items())
    return server.catalog.GetModel(GetModelRequest(model_id=model_id), timeout=10, metadata=told)


def first_found(server: Server, query: str) -> str:
    return server.catalog.SearchModels(SearchModelsRequest(query=query), timeout=10).results[0].model.id


def test_a_database_of_schema_2_keeps_its_rows_and_history(
    database: str, told: dict[str, str], upstream: Path, serve: Serve
) -> None:
    psql = [str(client_programs() / "psql"), "--quiet", "--set=ON_ERROR_STOP=1", database]
    subprocess.run(psql, input=gzip.decompress(OF_SCHEMA_2.read_bytes()), check=True, stdout=subprocess.DEVNULL)
    assert migrate(database) == [f"applied {each.version:04} {each.name}" for each in load_migrations()[2:]]

    catalog = SmallCatalog()
    catalog.model("openai/gpt-5")["cost"]["input"] = 2.5
    catalog.remove("openai/gpt-4")
    catalog.model("anthropic/claude-opus-4-1")["limit"]["context"] = 123456
    publish(catalog, upstream)
    server = serve(**told)
    assert server.ready["revision"] == "4"
    as_it_was = models_of(server)
    assert as_it_was["openai/gpt-5"].pricing.input == "2.5"
    assert "openai/gpt-4" not in as_it_was
    assert not [id_ for id_ in as_it_was if id_.startswith("zeldoc/")], "it is hidden"
    # What it did not have then, documents to search and scores, the next refresh derives.
    assert refresh(server, Refresh.TYPE_FULL).state == Refresh.STATE_SUCCEEDED
    assert first_found(server, "gpt-5") == "openai/gpt-5"
    assert get_model(server, "openai/gpt-5").model.performance.HasField("popularity_score")
    after = models_of(server)
    assert after.keys() == as_it_was.keys()
    assert {id_: model.revision for id_, model in after.items()} == {id_: m.revision for id_, m in as_it_was.items()}


@pytest.fixture
def previous(tmp_path: Path) -> dict[str, str]:
    """What makes the command be the previous release: its code before that which is installed."""
    with tarfile.open(PREVIOUS_RELEASE) as archive:
        archive.extractall(tmp_path / "previous", filter="data")
    path = ":".join(str(tmp_path / "previous" / part) for part in ("server", "client", "generated"))
    return {"PYTHONPATH": path}


def test_the_release_before_goes_on_beside_this_one_over_its_schema(
    database: str, told: dict[str, str], previous: dict[str, str], upstream: Path, serve: Serve
) -> None:
    catalog = SmallCatalog()
    publish(catalog, upstream)
    before = [f"applied {each.version:04} {each.name}" for each in load_migrations()]
    applied = migrate(database, **previous)
    assert applied == before[: len(applied)]
    assert len(applied) < len(before), "it is no release of before: see CONTRIBUTING"
    old = serve(**told, **previous)
    assert migrate(database) == before[len(applied) :]
    new = serve(**told)

    # Not with the typed client: it watches a health entry that a release of then does not have.
    for number, (writer, reader) in enumerate([(old, new), (new, old)] * 2, start=2):
        catalog.model("openai/gpt-5")["name"] = f"GPT-5 ({number})"
        catalog.add(f"openai/gpt-{number}0")
        publish(catalog, upstream)
        kind = Refresh.TYPE_INCREMENTAL if number < 4 else Refresh.TYPE_FULL
        assert refresh(writer, kind).result_revision == number
        for server in (reader, writer):
            found = get_model(server, "openai/gpt-5", x_catalog_min_revision=str(number))
            assert (found.model.name, found.catalog_revision) == (f"GPT-5 ({number})", number)
            assert first_found(server, f"gpt-{number}0") == f"openai/gpt-{number}0"
    assert without_what_is_new(models_of(old)) == without_what_is_new(models_of(new))
    CatalogAdminStub(old.channel).UpdateProvider(UpdateProviderRequest(provider_id="zeldoc", enabled=False), timeout=10)
    until(lambda: "zeldoc/z-code" not in models_of(new))
    assert not failures(old)
    assert not failures(new)


def without_what_is_new(models: dict[str, Model]) -> dict[str, Any]:
    """Leave out what each release derives by rules of its own when it answers."""
    return {id_: (model.name, model.pricing, model.limits, model.revision, model.etag) for id_, model in models.items()}


def failures(server: Server) -> list[dict[str, Any]]:
    told = [event for event in server.events if event["level"] in {"warning", "error"}]
    # On a busy machine Redis may be given up for a second; that is no affair of this test.
    return [event for event in told if not event["event"].startswith("redis is ")]
