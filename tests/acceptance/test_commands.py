"""``modelcatalog models``, ``providers`` and ``info`` as a user runs them, on a real server with the whole catalog."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from click.testing import CliRunner, Result

from acceptance.serving import COMMAND, OFFLINE, Serve, Server, environment, run
from conftest import Services
from contract.client_peer import Peer, serving
from modelcatalog_server.__main__ import cli

pytest_plugins = "acceptance.fixtures"


@pytest.fixture(scope="module")
def server(templates: Services, serve_for_module: Serve) -> Iterator[Server]:
    url = templates.clone("mc_loaded")
    own = {"MODELCATALOG_DATABASE_URL": url, "MODELCATALOG_REDIS_URL": templates.redis_url}
    server = serve_for_module(*OFFLINE, **own)
    yield server
    assert server.stop() == 0
    templates.drop(url)


def ask(server: Server, *arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, env={"MODELCATALOG_ADDRESS": server.address}, prog_name="modelcatalog")


def answer(server: Server, *arguments: str) -> str:
    """Run a command that must succeed, and return what it prints."""
    result = ask(server, *arguments)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def rows(text: str) -> list[list[str]]:
    """Return the cells of a table or a sheet, which have two spaces between them."""
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in text.splitlines()]


def documents(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


# --- models ---------------------------------------------------------------------------------------------------


def test_models_are_listed_in_columns(server: Server) -> None:
    result = ask(server, "models", "list", "--provider", "openai", "--limit", "4")
    header, first, second, *_ = rows(result.stdout)
    assert header == ["model", "context", "max output", "input/1M", "output/1M", "released", "status", "name"]
    assert first[:5] == ["openai/chatgpt-image-latest", "unknown", "unknown", "unknown", "unknown"]
    assert second[:5] == ["openai/gpt-3.5-turbo", "16.4K", "4.1K", "$0.50", "$1.50"]
    assert len(result.stdout.splitlines()) == 5
    assert result.stderr == "modelcatalog: 4 of 51; --limit 0 lists them all\n"
    assert "\x1b" not in result.stdout


def test_filter_and_order_are_passed_on(server: Server) -> None:
    filter_ = "provider_id = openai AND limits.context_window >= 1000000"
    text = answer(server, "models", "list", "--filter", filter_, "--order-by", "pricing.input desc", "--json")
    models = documents(text)
    assert len(models) > 3
    prices = [float(model["pricing"]["input"]) for model in models]
    assert prices == sorted(prices, reverse=True)
    assert all(int(model["limits"]["context_window"]) >= 1_000_000 for model in models)


def test_a_limit_of_0_lists_all_over_many_pages(server: Server) -> None:
    result = ask(server, "models", "list", "--filter", "status = active", "--limit", "0", "--json", "--fields", "id")
    ids = [model["id"] for model in documents(result.stdout)]
    assert len(ids) == len(set(ids)) > 3000
    assert result.stderr == ""


def test_a_page_is_one_of_limit(server: Server) -> None:
    first = documents(answer(server, "models", "list", "--limit", "6", "--json", "--fields", "id"))
    result = ask(server, "models", "list", "--limit", "3", "--page", "2", "--json", "--fields", "id")
    assert documents(result.stdout) == first[3:]
    assert result.stderr == "modelcatalog: page 2, 3 of 5,276\n"


def test_fields_choose_columns_and_cut_the_json(server: Server) -> None:
    arguments = ("models", "list", "--provider", "openai", "--limit", "2", "--fields", "id, pricing.input,limits")
    header, *_ = rows(answer(server, *arguments))
    assert header == ["id", "pricing.input", "limits"]
    first, second = documents(answer(server, *arguments, "--json"))
    assert first == {"id": "openai/chatgpt-image-latest", "limits": {}}
    assert second["pricing"] == {"input": "0.5"}
    assert second.keys() == {"id", "pricing", "limits"}


def test_one_model_is_a_sheet(server: Server) -> None:
    sheet = dict(rows(answer(server, "models", "get", "openai/gpt-5")))
    assert sheet["context window"] == "400K"
    assert (sheet["input per 1M"], sheet["cache read per 1M"]) == ("$1.25", "$0.125")
    assert "vision" in sheet["can"].split(", ")
    assert "audio" in sheet["cannot"].split(", ")
    assert "streaming" in sheet["not known whether"].split(", ")


def test_one_model_as_json_is_the_response(server: Server) -> None:
    document = json.loads(answer(server, "models", "get", "openai/gpt-5", "--json"))
    assert document["catalog_revision"] == json.loads(answer(server, "info", "--json"))["catalog_revision"]
    model = document["model"]
    assert model["limits"]["context_window"] == "400000"
    assert model["pricing"]["input"] == "1.25"
    assert model["capabilities"]["audio"] is False
    assert "streaming" not in model["capabilities"], "unknown is not false"
    assert "raw" not in model
    raw = json.loads(answer(server, "models", "get", "openai/gpt-5", "--raw", "--json"))["model"]["raw"]
    assert raw["cost"]["input"] == 1.25
    fields = json.loads(answer(server, "models", "get", "openai/gpt-5", "--json", "--fields", "name,pricing.input"))
    assert fields["model"] == {"name": "GPT-5", "pricing": {"input": "1.25"}}


def test_what_people_write_for_a_model_is_resolved_and_said(server: Server) -> None:
    result = ask(server, "models", "get", "claude-opus-4.6", "--fields", "id")
    assert result.stdout == "id  anthropic/claude-opus-4-6\n"
    assert result.stderr.startswith("modelcatalog: claude-opus-4.6 is taken for anthropic/claude-opus-4-6 (rule ")


def test_an_id_that_is_not_there_is_exit_code_1_with_near_ones(server: Server) -> None:
    result = ask(server, "models", "get", "anthropic/claude-sonet-4-5")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "did you mean anthropic/claude-sonnet-4-5?" in result.stderr
    assert "MODEL_NOT_FOUND" in result.stderr
    assert "`modelcatalog models search`" in result.stderr


def test_an_ambiguous_reference_is_exit_code_1_and_can_be_decided(server: Server) -> None:
    result = ask(server, "models", "get", "gpt-oss-120b")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "AMBIGUOUS_MODEL" in result.stderr
    assert "cerebras/gpt-oss-120b" in result.stderr
    assert "--prefer" in result.stderr
    sheet = dict(rows(answer(server, "models", "resolve", "gpt-oss-120b", "--prefer", "cerebras")))
    assert sheet["model"] == "cerebras/gpt-oss-120b"


def test_a_reference_is_resolved_with_rule_and_confidence(server: Server) -> None:
    sheet = rows(answer(server, "models", "resolve", "claude-opus-4.6"))
    assert sheet[0] == ["model", "anthropic/claude-opus-4-6"]
    assert sheet[2][0] == "rule"
    assert 0 < float(sheet[3][1]) <= 1
    document = json.loads(answer(server, "models", "resolve", "claude-opus-4.6", "--json"))
    assert document["model"]["id"] == "anthropic/claude-opus-4-6"
    assert document["rule"] == sheet[2][1]


def test_benchmarks_are_those_of_the_model_itself(server: Server) -> None:
    result = ask(server, "models", "benchmarks", "openrouter/openai/gpt-5")
    header, first, *_ = rows(result.stdout)
    assert header == ["benchmark", "score", "rank", "normalized", "date", "source"]
    assert first[:2] == ["Aider Polyglot, percent correct", "88"]
    document = json.loads(answer(server, "models", "benchmarks", "openrouter/openai/gpt-5", "--json"))
    assert document["canonical_id"] == "openai/gpt-5"
    none = ask(server, "models", "benchmarks", "openai/text-embedding-3-small")
    assert (none.exit_code, none.stdout) == (0, "")
    assert "no results are known of openai/text-embedding-3-small" in none.stderr


# --- search, compare, offers, facets --------------------------------------------------------------------------


def test_words_find_models_best_first(server: Server) -> None:
    result = ask(server, "models", "search", "claud", "sonet", "4", "--limit", "3")
    header, *found = rows(result.stdout)
    assert (header[0], header[-1]) == ("model", "found in")
    assert len(found) == 3
    assert all(row[0].startswith("anthropic/claude-sonnet-4") for row in found)
    assert " of " in result.stderr
    arguments = ("models", "search", "gpt", "4o", "--limit", "2", "--fields", "id,pricing.input", "--json")
    first, second = documents(answer(server, *arguments))
    assert first["model"].keys() == {"id", "pricing"}
    assert first["model"]["id"] == "openai/gpt-4o"
    assert first["score"] >= second["score"]


def test_models_are_set_side_by_side(server: Server) -> None:
    models = ("openai/gpt-5", "claude-opus-4.6")
    result = ask(server, "models", "compare", *models, "--input-tokens", "100000", "--output-tokens", "5000")
    header, *fields = rows(result.stdout)
    assert header == ["field", "openai/gpt-5", "anthropic/claude-opus-4-6"]
    assert ["pricing.input", "$1.25 *", "$5.00"] in fields
    assert ["limits.context_window", "400K", "1M *"] in fields
    assert ["capabilities.streaming", "unknown", "unknown"] in fields
    assert ["cost of the workload", "$0.175", "$0.625"] in fields
    assert "claude-opus-4.6 is taken for anthropic/claude-opus-4-6" in result.stderr
    fewer = rows(answer(server, "models", "compare", *models, "--only-differences"))
    assert "capabilities.streaming" not in [row[0] for row in fewer]
    assert "cost of the workload" not in [row[0] for row in fewer]
    document = json.loads(answer(server, "models", "compare", *models, "--json"))
    assert [model["id"] for model in document["models"]] == header[1:]
    assert document["costs"] == []


def test_offers_are_cheapest_first(server: Server) -> None:
    header, *offers = rows(answer(server, "models", "offers", "gpt-5", "--limit", "0"))
    assert header[:2] == ["model", "blended/1M"]
    prices = [float(row[1].removeprefix("$")) for row in offers if row[1].startswith("$")]
    assert prices == sorted(prices)
    assert len(prices) > 5
    arguments = ("models", "offers", "openai/gpt-5", "--canonical", "--limit", "1", "--ratio", "0", "--json")
    (cheapest,) = documents(answer(server, *arguments))
    assert cheapest["blended_price"] == cheapest["model"]["pricing"]["output"]


def test_facets_say_what_a_filter_can_ask_for(server: Server) -> None:
    header, *fields = rows(answer(server, "models", "facets"))
    assert header == ["field", "type", "unknown", "values", "operators"]
    assert next(row for row in fields if row[0] == "pricing.input")[3].startswith("free to $")
    header, *families = rows(answer(server, "models", "facets", "family", "--filter", "provider_id = openai"))
    assert header == ["family", "models"]
    assert ["gpt", "14"] in families
    assert dict(rows(answer(server, "models", "facets", "pricing.input")))["from"] == "free"
    (facet,) = documents(answer(server, "models", "facets", "family", "--json"))
    assert facet["field"] == "family"
    nothing = ask(server, "models", "facets", "price")
    assert nothing.exit_code == 2
    assert "no filter takes a field 'price'; there are: id, " in nothing.stderr


# --- providers, info ------------------------------------------------------------------------------------------


def test_providers_are_listed_and_shown(server: Server) -> None:
    arguments = ("providers", "list", "--filter", "model_count >= 50", "--order-by", "model_count desc")
    header, *listed = rows(answer(server, *arguments, "--limit", "3"))
    assert header[:4] == ["provider", "models", "enabled", "status"]
    counts = [int(row[1]) for row in listed]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > 100
    assert [provider["id"] for provider in documents(answer(server, *arguments, "--limit", "3", "--json"))] == [
        row[0] for row in listed
    ]
    assert rows(answer(server, "providers", "list", "--limit", "1", "--fields", "id,npm_package"))[0] == [
        "id",
        "npm_package",
    ]
    assert dict(rows(answer(server, "providers", "get", "openai")))["env vars"] == "OPENAI_API_KEY"
    assert json.loads(answer(server, "providers", "get", "openai", "--json"))["provider"]["enabled"] is True


def test_a_provider_is_hidden_and_shown_again(server: Server) -> None:
    sheet = dict(rows(answer(server, "providers", "disable", "groq")))
    try:
        assert (sheet["enabled"], sheet["enabled model count"]) == ("no", "0")
        assert ask(server, "models", "list", "--provider", "groq", "--json").stdout == ""
    finally:
        document = json.loads(answer(server, "providers", "enable", "groq", "--json"))
    assert document["provider"]["enabled"] is True
    assert int(document["catalog_revision"]) > int(sheet["catalog revision"])
    assert answer(server, "models", "list", "--provider", "groq", "--json")


def test_info_says_what_there_is_and_how_fresh(server: Server) -> None:
    sheet = dict(rows(answer(server, "info")))
    assert (sheet["providers"], sheet["models"]) == ("147", "5,276")
    assert int(sheet["catalog revision"]) >= 1
    assert json.loads(answer(server, "info", "--json"))["counts"]["models"] == 5276


# --- mistakes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["models", "list", "--filter", "price < 1"], "INVALID_FILTER"),
        (["models", "list", "--order-by", "price"], "INVALID_ORDER_BY"),
        (["models", "get", "openai/gpt-5", "--fields", "price"], "INVALID_FIELD_MASK"),
        (["providers", "list", "--fields", "id,price"], "a provider has no field 'price'; there are: id, name, "),
        (["models", "list", "--page", "2", "--limit", "0"], "--page takes a --limit"),
        (["models", "get", "openai/gpt-5", "--raw", "--fields", "id"], "say raw"),
        (["models", "list", "--limit", "-1"], "Invalid value for '--limit'"),
        (["info", "--address", "nonsense"], "must be host:port"),
        (
            ["info", "--address", "127.0.0.1:1"],
            "no server answers at 127.0.0.1:1: is it running (`modelcatalog serve`)?",
        ),
        (["info", "--tls-ca", "/nowhere.pem"], "does not exist"),
        (["info", "--tls-cert", sys.executable], "certificate and key belong together"),
        (["info", "--token", "\x01"], "token must be printable ASCII"),
        (["info", "--tls"], "no server answers"),
        (["models", "nonsense"], "No such command"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_exit_code_2_and_say_what_is_wrong(server: Server, arguments: list[str], said: str) -> None:
    result = ask(server, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr


def test_a_provider_that_is_not_there_is_exit_code_1(server: Server) -> None:
    result = ask(server, "providers", "get", "opnai")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "did you mean openai?" in result.stderr


async def test_the_token_is_sent_and_comes_from_the_environment() -> None:
    async with serving(Peer()) as peer:
        variables = {"MODELCATALOG_ADDRESS": peer.target, "MODELCATALOG_TOKEN": "mc_1"}
        result = await asyncio.to_thread(CliRunner().invoke, cli, ["info", "--json"], env=variables)
        assert result.exit_code == 0, result.stderr
        assert peer.calls[-1].metadata["authorization"] == "Bearer mc_1"


# --- a process of its own -------------------------------------------------------------------------------------


def test_a_script_gets_json_and_nothing_else(server: Server) -> None:
    result = run(
        [*COMMAND, "models", "list", "--provider", "openai", "--json", "--limit", "2"],
        MODELCATALOG_LISTEN=server.address,
    )
    assert result.returncode == 0, result.stderr
    assert [model["provider_id"] for model in documents(result.stdout)] == ["openai", "openai"]


def test_on_a_terminal_it_fits(server: Server) -> None:
    terminal, end = pty.openpty()
    variables = environment(MODELCATALOG_ADDRESS=server.address, COLUMNS="60", TERM="xterm")
    with subprocess.Popen(
        [*COMMAND, "models", "list", "--limit", "3"], stdout=end, stderr=subprocess.PIPE, text=True, env=variables
    ) as process:
        os.close(end)
        _, errors = process.communicate(timeout=60)
    shown = read_terminal(terminal)
    os.close(terminal)
    assert process.returncode == 0, errors
    assert "\x1b[1mmodel" in shown
    assert "name" not in shown
    assert "too narrow for: " in errors


def read_terminal(terminal: int) -> str:
    """Return all that was written to it by those who have closed it."""
    shown = b""
    with suppress(OSError):  # how Linux says that the other side is closed
        while chunk := os.read(terminal, 65536):
            shown += chunk
    return shown.decode()


def complete(server: Server, shell: str, *words: str) -> list[str]:
    variables = {
        "_MODELCATALOG_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": " ".join(("modelcatalog", *words)),
        "COMP_CWORD": str(len(words)),
        "MODELCATALOG_ADDRESS": server.address,
    }
    result = CliRunner().invoke(cli, [], env=variables, prog_name="modelcatalog", complete_var="_MODELCATALOG_COMPLETE")
    return result.stdout.splitlines()


def test_shells_complete_commands_and_ids(server: Server) -> None:
    assert complete(server, "bash", "mod") == ["plain,models"]
    assert "plain,openai/gpt-5" in complete(server, "bash", "models", "get", "openai/gpt-5")
    assert complete(server, "zsh", "providers", "get", "openai") == ["plain", "openai", "OpenAI"]
    assert complete(server, "bash", "models", "list", "--provider", "anthro") == ["plain,anthropic"]
    assert complete(server, "bash", "models", "get", "x(y") == [""]
    assert complete(server, "bash", "models", "get", "--address", "127.0.0.1:1", "openai/") == [""]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_line_that_installs_completion_prints_a_script(shell: str) -> None:
    variables = {"_MODELCATALOG_COMPLETE": f"{shell}_source"}
    result = CliRunner().invoke(cli, [], env=variables, prog_name="modelcatalog", complete_var="_MODELCATALOG_COMPLETE")
    assert "_MODELCATALOG_COMPLETE=" in result.stdout
