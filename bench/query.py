"""What a read costs without any cache, by the size of the catalog. `make bench-query` prints the table of the docs.

The service is a process of its own, PostgreSQL another, and this one is its single client: one call at a time, over
loopback, with the typed client. A catalog of ten or a hundred times the size is today's with its providers cloned, so
each canonical model has ten or a hundred times the offers, too. PostgreSQL's own time is planning and execution of all
statements of a call, as pg_stat_statements counts it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import psycopg

from modelcatalog_client import AmbiguousModelError, ModelCatalogClient, Workload
from modelcatalog_server.embedded import DataDirectory, EmbeddedPostgres

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "bench")]

from cloned_catalog import TABLES, clone_providers  # noqa: E402 - the path has to be set before
from machine import describe_machine  # noqa: E402 - as above

COMMAND = (sys.executable, "-m", "modelcatalog_server")
FILTER = "capabilities.vision = true AND pricing.input <= 1.25 AND limits.context_window >= 200000"
SEARCHES = (
    "gpt 4o", "claude sonnet 4.5", "claud sonet 4", "llama 3.3 70b instruct", "qwen3 coder", "gemini flash",
    "deepseek", "openrouter gpt-5", "vision reasoning", "mistral large",
)  # fmt: skip
REFERENCES = (
    "gpt-5", "us.anthropic.claude-opus-4-6-v1", "claude-opus-4.6", "workers-ai/@cf/openai/gpt-oss-120b",
    "zai-org/GLM-5-FP8", "qwen-3-7-plus", "minimax-m25", "GPT-4O", "openai-gpt-5-mini", "gemini-3.1-pro",
)  # fmt: skip
COMPARED = ["openai/gpt-5", "anthropic/claude-opus-4-6", "google/gemini-2.5-pro", "openrouter/openai/gpt-5"]
CANONICAL = ("openai/gpt-5", "openai/gpt-oss-120b", "anthropic/claude-opus-4-6", "google/gemini-2.5-pro")

Call = Callable[[ModelCatalogClient], object]


@dataclass(frozen=True)
class Query:
    """A kind of call, and one of it with arguments that differ from call to call."""

    name: str
    make_call: Callable[[random.Random], Call]


def queries(model_ids: list[str]) -> list[Query]:
    def get(chance: random.Random) -> Call:
        model_id = chance.choice(model_ids)
        return lambda client: client.get_model(model_id)

    def listing(chance: random.Random) -> Call:
        price = chance.choice(["1.25", "0.5", "2", "3"])
        text = FILTER.replace("1.25", price)
        return lambda client: first_page(client.list_models(filter=text, page_size=20))

    def cheapest(chance: random.Random) -> Call:
        low = chance.choice(["0.1", "0.5", "1", "2"])
        text = f"pricing.input >= {low} AND pricing.input <= {float(low) * 1.1:.2f}"
        return lambda client: first_page(client.list_models(filter=text, order_by="pricing.input", page_size=20))

    def provider(chance: random.Random) -> Call:
        provider_id = chance.choice(["openai", "openrouter", "anthropic", "groq"])
        return lambda client: first_page(client.list_models(provider_id=provider_id, page_size=20))

    def search(chance: random.Random) -> Call:
        text = chance.choice(SEARCHES)
        return lambda client: first_page(client.search_models(text, page_size=20))

    def compare(_: random.Random) -> Call:
        workload = Workload(input_tokens=30_000, output_tokens=2_000)
        return lambda client: client.compare_models(COMPARED, workload=workload)

    def resolve(chance: random.Random) -> Call:
        reference = chance.choice(REFERENCES)
        return lambda client: answer_of(client, reference)

    def offers(chance: random.Random) -> Call:
        canonical_id = chance.choice(CANONICAL)
        return lambda client: first_page(client.list_model_offers(canonical_id=canonical_id))

    return [
        Query("get", get),
        Query("list 20 of a provider", provider),
        Query("list 20, three filters", listing),
        Query("list 20 by price", cheapest),
        Query("search", search),
        Query("compare 4", compare),
        Query("resolve", resolve),
        Query("offers", offers),
        Query("facets", lambda _: lambda client: client.list_model_facets()),
        Query("facets, three filters", lambda _: lambda client: client.list_model_facets(filter=FILTER)),
    ]


def answer_of(client: ModelCatalogClient, reference: str) -> object:
    """Return what a reference means; among cloned providers it may be ambiguous, which is an answer, too."""
    try:
        return client.resolve_model(reference)
    except AmbiguousModelError as error:
        return error


def first_page(pager: object) -> object:
    return next(iter(pager.pages()))  # type: ignore[attr-defined]  # any of the pagers


@dataclass(frozen=True)
class Measured:
    """Milliseconds."""

    median: float
    p95: float
    worst: float
    database: float
    ambiguous: int

    @property
    def remark(self) -> str:
        return f"  ({self.ambiguous} ambiguous)" if self.ambiguous else ""


def measure(query: Query, client: ModelCatalogClient, database_url: str, calls: int) -> Measured:
    chance = random.Random(7)  # noqa: S311 - arguments, not secrets
    for _ in range(max(calls // 10, 3)):
        query.make_call(chance)(client)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("SELECT pg_stat_statements_reset()")
        answers = [timed(query.make_call(chance), client) for _ in range(calls)]
        row = connection.execute(
            "SELECT sum(total_plan_time + total_exec_time) FROM pg_stat_statements AS s"
            " INNER JOIN pg_database AS d ON d.oid = s.dbid"
            " WHERE d.datname = current_database() AND query NOT LIKE '%%pg_stat_statements%%'"
        ).fetchone()
    assert row is not None
    times = [time for time, _ in answers]
    p95 = statistics.quantiles(times, n=20)[-1]
    ambiguous = sum(isinstance(answer, AmbiguousModelError) for _, answer in answers)
    return Measured(statistics.median(times), p95, max(times), (row[0] or 0) / calls, ambiguous)


def timed(call: Call, client: ModelCatalogClient) -> tuple[float, object]:
    begin = perf_counter()
    answer = call(client)
    return (perf_counter() - begin) * 1000, answer


@contextmanager
def serving(database_url: str) -> Iterator[ModelCatalogClient]:
    environment = {
        "MODELCATALOG_METRICS_LISTEN": "off",
        **os.environ,
        "MODELCATALOG_DATABASE_URL": database_url,
        "MODELCATALOG_LOG_LEVEL": "error",
        "MODELCATALOG_CACHE_ENTRIES": "0",
    }
    flags = ("serve", "--offline", "--listen", "127.0.0.1:0")
    with subprocess.Popen([*COMMAND, *flags], env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ready = process.stdout.readline()
        address = ready.partition(" ready on ")[2].partition(": ")[0]
        assert address, ready
        with ModelCatalogClient(address, timeout=60) as client:
            yield client
        process.terminate()


def prepare(database_url: str) -> None:
    environment = {**os.environ, "MODELCATALOG_DATABASE_URL": database_url}
    subprocess.run([*COMMAND, "migrate"], env=environment, check=True, stdout=subprocess.DEVNULL)
    with serving(database_url):
        pass  # it is ready when the catalog is loaded


def run(database_url: str, times: int, calls: int) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        version = connection.info.server_version
        ids = [row[0] for row in connection.execute("SELECT model_id FROM models_metadata ORDER BY random() LIMIT 500")]
        (models,) = connection.execute("SELECT count(*) FROM models_metadata").fetchone() or (0,)
    print(
        f"\n{times}x: {models:,} models, PostgreSQL {version // 10000}.{version % 10000},"
        f" load {os.getloadavg()[0]:.1f}\n"
        f"{'one call at a time':<24} {'median':>9} {'p95':>9} {'worst':>9} {'PostgreSQL':>11}",
        flush=True,
    )
    with serving(database_url) as client:
        for query in queries(ids):
            try:
                figures = measure(query, client, database_url, calls)
            except Exception as error:
                print(f"{query.name:<24} {type(error).__name__}: {error}", flush=True)
                continue
            print(
                f"{query.name:<24} {figures.median:>6.1f} ms {figures.p95:>6.1f} ms {figures.worst:>6.1f} ms"
                f" {figures.database:>8.1f} ms{figures.remark}",
                flush=True,
            )


async def main(folder: Path, sizes: list[int], calls: int) -> None:
    print(describe_machine(), flush=True)
    async with DataDirectory(folder) as directory:
        async with EmbeddedPostgres(directory) as postgres:
            await asyncio.to_thread(configure, postgres.dsn)
        async with EmbeddedPostgres(directory) as postgres:  # again: only a start loads a library
            for times in sizes:
                url = await asyncio.to_thread(provide_database, postgres.dsn, times)
                if calls:
                    await asyncio.to_thread(run, url, times, calls)


def configure(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements'")
        connection.execute("ALTER SYSTEM SET pg_stat_statements.track_planning = on")
        # Making a large catalog is not what is measured.
        connection.execute("ALTER SYSTEM SET max_wal_size = '8GB'")
        connection.execute("ALTER SYSTEM SET fsync = off")


def provide_database(dsn: str, times: int) -> str:
    """Return the address of a catalog of that size, made unless the folder has it."""
    url = dsn.replace("/modelcatalog?", f"/x{times}?")
    with psycopg.connect(dsn, autocommit=True) as connection:
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [f"x{times}"]).fetchone():
            return url
        if times == 1:
            connection.execute("CREATE DATABASE x1")
            with psycopg.connect(url, autocommit=True) as created:
                created.execute("CREATE EXTENSION pg_stat_statements")
            prepare(url)
        else:
            provide_database(dsn, 1)
            connection.execute(f"CREATE DATABASE x{times} TEMPLATE x1")  # type: ignore[call-overload]  # a number
    begin = perf_counter()
    with psycopg.connect(url, autocommit=True) as created:
        # Nothing here is read as of a past revision.
        rows = clone_providers(created, times, tables=[table for table in TABLES if table != "model_versions"])
    print(f"{times}x: {rows:,} models made in {perf_counter() - begin:.0f} s", flush=True)
    return url


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 10, 100], help="how many times today's catalog")
    parser.add_argument("--calls", type=int, default=200, help="of each kind; 0 only makes the catalogs")
    parser.add_argument("--folder", type=Path, help="where catalogs are kept from one run to the next")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="modelcatalog-bench-"))
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)  # the servers run as an unprivileged user when we are root
    try:
        asyncio.run(main(folder, arguments.sizes, arguments.calls))
    finally:
        if arguments.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
