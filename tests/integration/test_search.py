"""SearchModels of a real server over the whole catalog: what is found for what people type, and in which order."""

# ruff: noqa: S311 -- what is drawn here is no secret

from __future__ import annotations

import random
import re
from collections.abc import AsyncIterator, Callable, Iterator
from functools import cache
from typing import Any

import psycopg
import pytest
import pytest_asyncio

from conftest import Services, make_settings
from filter_oracle import Inventor, Table, spell
from modelcatalog.v1 import model_pb2
from modelcatalog.v1.model_catalog_service_pb2 import SearchModelsResponse, SearchResult
from modelcatalog_client import AsyncModelCatalogClient
from modelcatalog_client.errors import (
    InvalidFieldMaskError,
    InvalidFilterError,
    InvalidPageTokenError,
    InvalidQueryError,
    ModelNotFoundError,
)
from modelcatalog_server import app
from modelcatalog_server.catalog.fields import MODEL_FIELDS
from modelcatalog_server.catalog.resolver.reference import OWN_PROVIDERS
from modelcatalog_server.catalog.search_words import read_words
from seeds import seed_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

HIDDEN = "abacus"
DESCRIPTION = "Unusually %(good)s at Zymurgy_2 & <b>brewing</b>, 100%; für 中文 too"
TAGS = ["long-context", "quokka-grade"]
DESCRIBED, TAGGED = "deepinfra/zai-org/GLM-4.6", "zhipuai/glm-4.6"


@pytest.fixture(scope="module")
def url(templates: Services) -> Iterator[str]:
    """The full catalog, in which one model has a description and one has tags, as upstream's may have."""
    url = templates.clone("mc_loaded")
    with psycopg.connect(url) as connection:
        for id_, more in ((DESCRIBED, model_pb2.Model(description=DESCRIPTION)), (TAGGED, model_pb2.Model(tags=TAGS))):
            # Encoded messages that follow each other are one that is merged.
            connection.execute(
                "UPDATE models_metadata SET description = %s, tags = %s, message = message || %s WHERE model_id = %s",
                [more.description or None, list(more.tags), more.SerializeToString(), id_],
            )
        connection.execute(
            "UPDATE search_documents AS d SET words = s.words FROM search_sources AS s WHERE s.model_id = d.model_id"
        )
        connection.execute("INSERT INTO search_vocabulary VALUES ('zymurgy', search_letters('zymurgy'))")
    yield url
    templates.drop(url)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(templates: Services, url: str) -> AsyncIterator[AsyncModelCatalogClient]:
    async with (
        app.start(make_settings(templates, url, offline=True)) as running,
        AsyncModelCatalogClient(running.server.address) as client,
    ):
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def models(client: AsyncModelCatalogClient) -> list[model_pb2.Model]:
    return [model async for model in client.list_models(page_size=1000)]


@pytest.fixture
def rng() -> random.Random:
    return random.Random(seed_of("SEED"))


async def search(client: AsyncModelCatalogClient, query: str, **arguments: Any) -> SearchModelsResponse:
    """Return the first page of a search."""
    async for page in client.search_models(query, **arguments).pages():
        return page
    raise AssertionError("there is always a page")


async def find(client: AsyncModelCatalogClient, query: str, **arguments: Any) -> list[str]:
    """Return all ids that are found, in their order."""
    arguments = {"page_size": 1000, "read_mask": ["id"], **arguments}
    return [result.model.id async for result in client.search_models(query, **arguments)]


# --- what comes first ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "first"),
    [
        # ids, as they are and as people write them
        ("openai/gpt-5", ["openai/gpt-5"]),
        ("openrouter/openai/gpt-5", ["openrouter/openai/gpt-5"]),
        ("azure gpt 5 mini", ["azure/gpt-5-mini"]),
        ("gpt 4o", ["openai/gpt-4o"]),
        ("gpt-4o", ["openai/gpt-4o"]),
        ("GPT4o", ["openai/gpt-4o"]),
        ("GPT_4O", ["openai/gpt-4o"]),
        ("gpt41", ["openai/gpt-4.1"]),
        ("minimax m25", ["minimax/MiniMax-M2.5"]),
        ("o3", ["openai/o3", "openai/o3-pro"]),
        ("gpt-4o-2024-11-20", ["openai/gpt-4o-2024-11-20"]),
        ("claude-sonnet-4.5", ["anthropic/claude-sonnet-4-5", "anthropic/claude-sonnet-4-5-20250929"]),
        ("glm 4.6", ["zhipuai/glm-4.6"]),
        # the lab's own current model: before its snapshots, before those who resell it
        ("claude", ["anthropic/claude-sonnet-5"]),
        ("sonnet", ["anthropic/claude-sonnet-5", "anthropic/claude-sonnet-4-6", "anthropic/claude-sonnet-4-5"]),
        ("opus 4.6", ["anthropic/claude-opus-4-6"]),
        ("gpt", ["openai/gpt-5.5"]),
        ("gemini flash", ["google/gemini-flash-latest", "google/gemini-3.5-flash"]),
        ("mistral large", ["mistral/mistral-large-latest"]),
        ("grok", ["xai/grok-4.3"]),
        ("deepseek", ["deepseek/deepseek-chat", "deepseek/deepseek-v4-flash", "deepseek/deepseek-v4-pro"]),
        ("llama 3.3 70b", ["llama/llama-3.3-70b-instruct"]),
        ("qwen3 coder", ["alibaba/qwen3-coder-flash"]),
        # providers, alone and with a model
        ("groq llama 70b", ["groq/llama-3.3-70b-versatile"]),
        ("anthropic", ["anthropic/claude-sonnet-5"]),
        ("Amazon Bedrock claude sonnet 5", ["amazon-bedrock/anthropic.claude-sonnet-5"]),
        # beginnings
        ("claud son", ["anthropic/claude-sonnet-5"]),
        ("embeddi", ["google/gemini-embedding-001"]),
        # typos: letters that are missing, swapped, wrong
        ("claud sonet 4", ["anthropic/claude-sonnet-4-6", "anthropic/claude-sonnet-4-5"]),
        ("gtp 4o", ["openai/gpt-4o"]),
        ("gemni pro", ["google/gemini-3.1-pro-preview"]),
        ("mistrel large", ["mistral/mistral-large-latest"]),
        ("lama 3.3 70b", ["llama/llama-3.3-70b-instruct"]),
        ("anthropci haiku", ["anthropic/claude-haiku-4-5"]),
        # families, descriptions and tags
        ("kimi k2", ["moonshotai/kimi-k2.7-code"]),
        ("zymurgy", [DESCRIBED]),
        ("brewing glm", [DESCRIBED]),
        ("zymurgi", [DESCRIBED]),
        ("中文", [DESCRIBED]),
        ("für 中文 too", [DESCRIBED]),
        ("quokka grade long context", [TAGGED]),
        # words that say nothing beside others, and alone
        ("the model of claude for sonnet", ["anthropic/claude-sonnet-5"]),
        ("the", ["the-grid-ai/text-max"]),
    ],
)
async def test_what_comes_first(client: AsyncModelCatalogClient, query: str, first: list[str]) -> None:
    page = await search(client, query, page_size=10)
    assert [result.model.id for result in page.results][: len(first)] == first
    assert first or not page.total_size


async def test_spellings_of_a_version_find_the_same(client: AsyncModelCatalogClient) -> None:
    for spellings in (
        ("gpt 4o", "gpt-4o", "GPT4o", "gPt.4O", " gpt\t4 o "),
        ("claude sonnet 4.5", "claude-sonnet-4-5", "Claude_Sonnet_4.5"),
        ("llama 3.3 70b", "Llama-3.3-70B", "llama3.3:70b"),
    ):
        found = [await find(client, spelling) for spelling in spellings]
        assert len(found[0]) > 20
        assert all(each == found[0] for each in found)


async def test_every_model_is_found_by_its_id_first(client: AsyncModelCatalogClient, rng: random.Random) -> None:
    ids = [model.id async for model in client.list_models(page_size=1000, read_mask=["id"])]
    for id_ in rng.sample(ids, 150):
        page = await search(client, id_, page_size=2)
        first = page.results[0]
        # Punctuation does not count: of an id that differs in nothing else (claude-3.5 and claude-3-5) it is an equal.
        equals = [result.model.id for result in page.results if result.score == first.score]
        assert id_ in equals
        assert {"".join(read_words(each)) for each in equals} == {"".join(read_words(id_))}
        assert first.score > 300


async def test_scores_fall(client: AsyncModelCatalogClient) -> None:
    scores = [result.score for result in (await search(client, "gpt 4o", page_size=100)).results]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > scores[1]
    assert len(scores) > 70


async def test_snapshots_and_deprecated_models_come_behind(client: AsyncModelCatalogClient) -> None:
    found = await find(client, "gpt 4o", filter="provider_id = openai")
    dated = [found.index(id_) for id_ in found if "-2024-" in id_]
    undated = [found.index(id_) for id_ in ("openai/gpt-4o", "openai/gpt-4o-mini")]
    assert dated
    assert max(undated) < min(dated)
    deprecated = set(await find(client, "claude", filter="provider_id = anthropic AND status = deprecated"))
    statuses = [id_ in deprecated for id_ in await find(client, "claude", filter="provider_id = anthropic")]
    assert 0 < sum(statuses) < len(statuses)
    assert statuses == sorted(statuses)


async def test_own_providers_are_those_of_the_resolver(url: str) -> None:
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT DISTINCT split_part(m.canonical_id, '/', 1), m.provider_id FROM search_documents AS d"
            " JOIN models_metadata AS m ON m.model_id = d.model_id WHERE d.is_own AND m.canonical_id IS NOT NULL"
        ).fetchall()
        (view,) = connection.execute("SELECT pg_get_viewdef('search_sources')").fetchone() or ("",)
    assert re.findall(r"WHEN '(\w+)'::text THEN '(\w+)'::text", view) == list(OWN_PROVIDERS.items()) * 2
    assert len(rows) > 10
    assert all(OWN_PROVIDERS.get(lab, lab) == provider_id for lab, provider_id in rows)


# --- what is found -------------------------------------------------------------------------------------------------

SEARCHED: dict[str, Callable[[model_pb2.Model], str]] = {
    "id": lambda model: model.id,
    "name": lambda model: model.name,
    "family": lambda model: model.family,
    "provider_name": lambda model: model.provider_name,
    "tags": lambda model: " ".join(model.tags),
    "canonical_id": lambda model: model.canonical_id,
    "description": lambda model: model.description,
}


def fits(query: str, text: str) -> bool:
    """Whether a text has a word of a query, without the service's own code."""
    words = split(text)
    return any(
        word == asked or (len(asked) > 1 and asked.isalpha() and word.startswith(asked))
        for asked in split(query)
        for word in words
    )


@cache
def split(text: str) -> tuple[str, ...]:
    spaced = "".join(f" {c} " if not c.isalnum() else c for c in text.lower())
    words: list[str] = []
    for chunk in spaced.split():
        for character in chunk:
            if words and words[-1] and words[-1][-1].isdigit() == character.isdigit():
                words[-1] += character
            else:
                words.append(character)
        words.append("")
    return tuple(word for word in words if word)


@pytest.mark.parametrize("query", ["groq llama 70b", "claude sonnet", "openai", "gpt 5", "qwen", "mist"])
async def test_what_is_found_are_the_models_with_all_words_and_no_others(
    client: AsyncModelCatalogClient, models: list[model_pb2.Model], query: str
) -> None:
    expected = {
        model.id
        for model in models
        if all(any(fits(word, text(model)) for text in SEARCHED.values()) for word in split(query))
    }
    found = await find(client, query)
    assert len(found) == len(set(found)) == (await search(client, query)).total_size
    assert expected == set(found)


@pytest.mark.parametrize("query", ["groq llama 70b", "anthropic sonnet", "zhipuai long glm", "GPT mini", "brewing"])
async def test_matched_fields_are_those_with_a_word(client: AsyncModelCatalogClient, query: str) -> None:
    results: list[SearchResult] = list((await search(client, query, page_size=100)).results)
    assert results
    for result in results:
        expected = [name for name, text in SEARCHED.items() if fits(query, text(result.model))]
        assert list(result.matched_fields) == expected
        assert expected


async def test_matched_fields_of_mistyped_words_and_of_names_in_one_piece(client: AsyncModelCatalogClient) -> None:
    (first, *_) = (await search(client, "sonet", page_size=1)).results
    assert list(first.matched_fields) == ["id", "name", "family", "canonical_id"]
    (first, *_) = (await search(client, "gpt41", page_size=1)).results
    assert "id" in first.matched_fields


async def test_masks_and_views_are_those_of_every_read(client: AsyncModelCatalogClient) -> None:
    (basic,) = (await search(client, "gpt 5", page_size=1)).results
    (full,) = (await search(client, "gpt 5", page_size=1, view="full")).results
    (cut,) = (await search(client, "gpt 5", page_size=1, read_mask=["pricing.input"])).results
    assert not basic.model.HasField("raw")
    assert full.model.raw["id"] == "gpt-5"
    assert cut.model.pricing.input == "1.25"
    assert not cut.model.id
    assert cut.matched_fields == basic.matched_fields
    assert basic.model == (await client.get_model("openai/gpt-5")).model
    with pytest.raises(InvalidFieldMaskError):
        await search(client, "gpt", read_mask=["nothing"])


async def test_filters_select_among_what_is_found(
    client: AsyncModelCatalogClient, models: list[model_pb2.Model], rng: random.Random
) -> None:
    queries = ["gpt", "claude sonnet", "llama 70b", "qwen", "openrouter"]
    found = {query: await find(client, query) for query in queries}
    table = Table(MODEL_FIELDS, models)
    inventor = Inventor(rng, MODEL_FIELDS, table)
    telling = 0
    for _ in range(40):
        query = rng.choice(queries)
        filter_ = inventor.invent(2)
        text = spell(filter_, rng)
        print(query, text)
        fitting = set(table.find(filter_))
        expected = [id_ for id_ in found[query] if id_ in fitting]
        assert await find(client, query, filter=text) == expected
        assert (await search(client, query, filter=text)).total_size == len(expected)
        telling += 0 < len(expected) < len(found[query])
    assert telling > 5


async def test_a_filter_that_leaves_nothing_makes_no_word_a_typo(client: AsyncModelCatalogClient) -> None:
    assert (await search(client, "gpt", filter="provider_id = anthropic")).total_size == 0
    assert (await search(client, "sonet", filter="provider_id = openai")).total_size == 0


# --- pages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", ["gpt 4o", "claud sonet", "mistral"])
async def test_pages_are_the_whole(client: AsyncModelCatalogClient, query: str) -> None:
    whole = await find(client, query)
    assert len(whole) > 50
    for size in (1, 7, 50) if len(whole) < 150 else (13, 50):
        pages = [page async for page in client.search_models(query, page_size=size, read_mask=["id"]).pages()]
        assert [result.model.id for page in pages for result in page.results] == whole
        assert {page.total_size for page in pages} == {len(whole)}
        assert all(page.next_page_token for page in pages[:-1])
    by_number = [
        result.model.id
        for number in range(1, 4)
        for result in (await search(client, query, page=number, page_size=20)).results
    ]
    assert by_number == whole[:60]
    behind = await search(client, query, page=1000, page_size=20)
    assert (list(behind.results), behind.total_size) == ([], len(whole))


async def test_a_token_belongs_to_its_query_and_filter(client: AsyncModelCatalogClient) -> None:
    token = (await search(client, "gpt", page_size=5)).next_page_token
    assert await search(client, "gpt", page_token=token, page_size=9, view="full")
    with pytest.raises(InvalidPageTokenError):
        await search(client, "gpt 5", page_token=token)
    with pytest.raises(InvalidPageTokenError):
        await search(client, "gpt", filter="type = chat", page_token=token)
    with pytest.raises(InvalidPageTokenError):
        await search(client, "gpt", page_token="nonsense")  # noqa: S106 - no secret
    async for page in client.list_models(page_size=1).pages():
        token = page.next_page_token
        break
    with pytest.raises(InvalidPageTokenError):
        await search(client, "gpt", page_token=token)
    with pytest.raises(InvalidQueryError):
        await search(client, "gpt", page_token=token, page=2)


# --- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("", "is required"),
        ("x" * 257, "at most 256 bytes"),
        ("中" * 86, "at most 256 bytes"),
        (" ", "no letter and no digit"),
        ("%_*':&|!<->()\\", "no letter and no digit"),
        (" ".join(f"w{number}" for number in range(24)), "25 different words"),
    ],
)
async def test_a_query_that_cannot_be(client: AsyncModelCatalogClient, query: str, why: str) -> None:
    with pytest.raises(InvalidQueryError) as caught:
        await search(client, query)
    assert [violation.field for violation in caught.value.field_violations] == ["query"]
    assert why in str(caught.value)


async def test_filters_and_pages_that_cannot_be(client: AsyncModelCatalogClient) -> None:
    with pytest.raises(InvalidFilterError):
        await search(client, "gpt", filter="nothing = 1")
    for arguments in ({"page": -1}, {"page_size": -1}):
        with pytest.raises(InvalidQueryError):
            await search(client, "gpt", **arguments)


async def test_what_means_something_to_postgresql_is_text_here(client: AsyncModelCatalogClient) -> None:
    plain = await find(client, "claude sonnet")
    for query in ("claude' sonnet", "claude & sonnet", "claude:* sonnet:A", "%claude_ sonnet%", "claude <-> !sonnet"):
        assert await find(client, query.replace(":A", "")) == plain
    assert await find(client, "gpt\0") == await find(client, "gpt")


async def test_whatever_is_typed_is_answered_or_refused(client: AsyncModelCatalogClient, rng: random.Random) -> None:
    ids = [model.id async for model in client.list_models(page_size=1000, read_mask=["id"])]
    alphabets = [
        "abcdefgop345-./ ",
        "%_\\'\"&|!():*<->~^$[]{}?+,; aA1",
        "äßſİıﬁ中文字🙂\u200b\u0301\u202e xX9",
        "\0\t\n\r a",
    ]
    answered = 0
    for number in range(300):
        match number % 4:
            case 0:
                query = rng.choice(ids)[rng.randrange(5) :]
            case 1:
                query = "".join(chr(rng.randrange(0xD7FF)) for _ in range(rng.randrange(60)))
            case _:
                query = "".join(rng.choices(rng.choice(alphabets), k=rng.randrange(80)))
        try:
            page = await search(client, query, page_size=1, read_mask=["id"])
        except InvalidQueryError:
            continue
        assert len(page.results) == min(page.total_size, 1), query
        answered += page.total_size > 0
    assert answered > 50


# --- words ---------------------------------------------------------------------------------------------------------


async def test_python_and_postgresql_read_the_same_words(url: str, rng: random.Random) -> None:
    """Queries are read by one, documents by the other."""
    with psycopg.connect(url) as connection:
        texts = [
            text
            for row in connection.execute(
                "SELECT m.modelsdev_id, m.model_name, p.name, m.description FROM models_metadata AS m"
                " JOIN llm_providers AS p ON p.id = m.provider_id"
            )
            for text in row
            if text
        ]
        letters = "aAzZ059 -./'\"\\:*ÄßİıſﬁЖ中ぁ가🙂\u2013\x01\x7f\u00ad\u200b\ufeff\uffdc"
        texts += ["".join(rng.choices(letters, k=rng.randrange(1, 40))) for _ in range(3000)]
        texts += ["".join(chr(rng.randrange(1, 0xD7FF)) for _ in range(30)) for _ in range(500)]
        texts += ["x" * 700 + "y", "中" * 700, "1" * 700]
        rows = connection.execute(
            "SELECT text, tsvector_to_array(ts_filter(search_lexemes('', '', '', '', '', text), '{d}'))"
            " FROM unnest(%s::text[]) AS text",
            [texts],
        ).fetchall()
    assert len(rows) > 15_000
    for text, words in rows:
        if "\x01" not in text:  # parts the texts of a model
            assert set(read_words(text)) == set(words), text


# --- who is not found ----------------------------------------------------------------------------------------------


async def test_hidden_providers_are_not_found_and_come_back(client: AsyncModelCatalogClient) -> None:
    before = await find(client, "gpt 4o")
    assert any(id_.startswith(f"{HIDDEN}/") for id_ in before)
    await client.update_provider(HIDDEN, enabled=False)
    try:
        expected = [id_ for id_ in before if not id_.startswith(f"{HIDDEN}/")]
        assert await find(client, "gpt 4o") == expected
        assert await find(client, "gpt 4o", filter="type = chat OR NOT type = chat") == expected
        with pytest.raises(ModelNotFoundError) as caught:
            await client.get_model(f"{HIDDEN}/gpt-4o-2024-11-20")
        assert not any(id_.startswith(f"{HIDDEN}/") for id_ in caught.value.candidates)
    finally:
        await client.update_provider(HIDDEN, enabled=True)
    assert await find(client, "gpt 4o") == before
