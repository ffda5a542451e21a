"""The questions that the catalog is there for, asked with grpcurl as by hand and with the client as by a service."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message

from acceptance.serving import Serve, Server
from conftest import SNAPSHOT, Services
from modelcatalog.v1.refresh_service_pb2 import GetRefreshStatusResponse
from modelcatalog_client import ModelCatalogClient, Refresh, RefreshStatus

pytest_plugins = "acceptance.fixtures"

UNSCHEDULED = ("--refresh-full-cron", "off", "--refresh-incremental-cron", "off")


@pytest.fixture(scope="module")
def server(templates: Services, serve_for_module: Serve, work_dir: Path) -> Iterator[Server]:
    """A server with the whole catalog, whose upstream has just that."""
    upstream = work_dir / "upstream-of-questions"
    upstream.mkdir()
    shutil.copy(SNAPSHOT, upstream / "catalog.json.gz")
    url = templates.clone("mc_loaded")
    own = {"MODELCATALOG_DATABASE_URL": url, "MODELCATALOG_REDIS_URL": templates.redis_url}
    server = serve_for_module("--listen", "127.0.0.1:0", "--upstream-url", upstream.as_uri(), *UNSCHEDULED, **own)
    yield server
    assert server.stop() == 0
    templates.drop(url)


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[ModelCatalogClient]:
    with server.client() as client:
        yield client


def ask(server: Server, rpc: str, service: str = "ModelCatalog", **request: Any) -> Any:
    """Ask with grpcurl."""
    return server.grpcurl(f"modelcatalog.v1.{service}/{rpc}", data=request)


def is_same(by_hand: Any, by_client: Message) -> bool:
    return ParseDict(by_hand, type(by_client)()) == by_client


def test_the_models_of_a_provider_page_by_page(server: Server, client: ModelCatalogClient) -> None:
    def page(number: int) -> Any:
        answer = ask(server, "ListModels", provider_id="anthropic", page=number, page_size=20)
        (by_client,) = client.list_models(provider_id="anthropic", page=number, page_size=20).pages()
        assert is_same(answer, by_client)
        return answer

    first, second = page(1), page(2)
    assert first["total_size"] == second["total_size"] == 24
    ids = [model["id"] for model in (*first["models"], *second["models"])]
    assert (len(first["models"]), len(set(ids))) == (20, 24)
    assert all(id_.startswith("anthropic/") for id_ in ids)


def test_a_model_by_the_bare_id_that_people_write(server: Server, client: ModelCatalogClient) -> None:
    answer = ask(server, "GetModel", model_id="claude-3-sonnet-20240229")
    assert is_same(answer, client.get_model("claude-3-sonnet-20240229"))
    model = answer["model"]
    assert (model["id"], model["provider_id"]) == ("anthropic/claude-3-sonnet-20240229", "anthropic")
    assert model["limits"] == {"context_window": "200000", "max_output_tokens": "4096"}
    # The plan's figures are for one token.
    assert Decimal(model["pricing"]["input"]) / 1_000_000 == Decimal("0.000003")
    assert Decimal(model["pricing"]["output"]) / 1_000_000 == Decimal("0.000015")
    assert model["capabilities"]["vision"] is True
    assert model["capabilities"]["function_calling"] is True
    assert answer["resolution"]["reference"] == "claude-3-sonnet-20240229"


def test_models_by_words(server: Server, client: ModelCatalogClient) -> None:
    answer = ask(server, "SearchModels", query="claude sonnet", page_size=5)
    by_client = next(client.search_models("claude sonnet", page_size=5).pages())
    assert [each["model"]["id"] for each in answer["results"]] == [each.model.id for each in by_client.results]
    assert all("sonnet" in each["model"]["id"] for each in answer["results"])


def test_several_models_side_by_side(server: Server, client: ModelCatalogClient) -> None:
    ids = ["openai/gpt-5", "anthropic/claude-opus-4-6", "google/gemini-2.5-pro"]
    answer = ask(server, "CompareModels", model_ids=ids)
    assert is_same(answer, client.compare_models(ids))
    price = next(row for row in answer["rows"] if row["field"] == "pricing.input")
    assert [value["value"] for value in price["values"]] == ["1.25", "5", "1.25"]
    assert price["best"] == ["openai/gpt-5", "google/gemini-2.5-pro"]


def test_the_benchmarks_of_a_model(server: Server, client: ModelCatalogClient) -> None:
    answer = ask(server, "ListModelBenchmarks", model_id="gpt-5")
    assert is_same(answer, client.list_model_benchmarks("gpt-5"))
    assert [(each["name"], each["score"]) for each in answer["benchmarks"]] == [
        ("Aider Polyglot", 88),
        ("SWE-Bench Pro", 41.78),
    ]


def test_all_providers(server: Server, client: ModelCatalogClient) -> None:
    answer = ask(server, "ListProviders", page_size=1000)
    (by_client,) = client.list_providers(page_size=1000).pages()
    assert is_same(answer, by_client)
    assert len(answer["providers"]) == answer["total_size"] == 147
    counts = {each["id"]: each["model_count"] for each in answer["providers"]}
    assert (counts["anthropic"], sum(counts.values())) == (24, 5276)
    assert is_same(ask(server, "GetProvider", provider_id="openai"), client.get_provider("openai"))


def test_a_refresh_that_is_asked_for_by_hand_and_how_it_went(server: Server, client: ModelCatalogClient) -> None:
    started = ask(server, "StartRefresh", "RefreshService")["refresh"]
    assert started["trigger"] == "TRIGGER_MANUAL"
    with client.watch_refresh_status(started["id"], timeout=60) as watch:
        *_, last = watch
    assert last.kind == RefreshStatus.KIND_TERMINAL
    assert last.refresh.state == Refresh.STATE_SUCCEEDED
    answer = ask(server, "GetRefreshStatus", "RefreshService")
    assert answer["last_finished"]["id"] == started["id"]
    assert answer["last_success"]["state"] == "STATE_SUCCEEDED"
    by_client = client.get_refresh_status()
    assert not by_client.HasField("running")
    assert by_client.last_finished == ParseDict(answer, GetRefreshStatusResponse()).last_finished
