"""A backup is the whole catalog with its history, and a restored one goes on from there."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from conftest import Services, StartApp, make_settings
from modelcatalog.v1.model_catalog_service_pb2 import ListModelsRequest
from modelcatalog.v1.model_catalog_service_pb2_grpc import ModelCatalogStub
from modelcatalog_client import AsyncModelCatalogClient, InvalidPageTokenError, from_rpc_error
from modelcatalog_server.backups import restore_backup, write_backup
from modelcatalog_server.domain.errors import StartupError
from modelcatalog_server.embedded import client_programs
from modelcatalog_server.storage.dumps import dump_database, restore_database
from small_catalog import clone_small, fetch, follow


@pytest.fixture
def small_database(templates: Services) -> Iterator[str]:
    yield from clone_small(templates)


@pytest.fixture
def blank_database(services: Services) -> Iterator[str]:
    url = services.clone("template1")
    yield url
    services.drop(url)


async def read_rows(url: str) -> dict[str, list[str]]:
    """Return every row of every table, but for the key, which is a new one."""
    tables = await fetch(url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    return {
        table: await fetch(url, f"SELECT (to_jsonb(t) - 'token_key')::text AS line FROM {table} AS t ORDER BY line")
        for table in tables
    }


async def first_page_token(address: str) -> str:
    async with grpc.aio.insecure_channel(address) as channel:
        answer = await ModelCatalogStub(channel).ListModels(ListModelsRequest(page_size=10))
    return str(answer.next_page_token)


async def test_what_is_restored_has_every_row_and_counts_on_from_there(
    start_app: StartApp, small_database: str, blank_database: str, services: Services, tmp_path: Path
) -> None:
    file = tmp_path / "catalog.dump"
    async with follow(start_app, small_database) as stage:
        stage.catalog.model("openai/gpt-5")["name"] = "GPT-5 (new)"
        stage.catalog.remove("zeldoc/z-code")
        assert (await stage.refresh()).result_revision == 2
        await write_backup(make_settings(services, small_database), file)  # while it serves
        written = await read_rows(small_database)
        stage.catalog.model("openai/gpt-5")["name"] = "GPT-5 (lost)"
        assert (await stage.refresh()).result_revision == 3
        token = await first_page_token(stage.running.server.address)
        async with AsyncModelCatalogClient(stage.running.server.address) as client:
            assert (await client.get_model("openai/gpt-5")).model.name == "GPT-5 (lost)"

    await restore_backup(make_settings(services, blank_database), file)
    assert await read_rows(blank_database) == written
    keys = [await fetch(url, "SELECT token_key FROM catalog_state") for url in (small_database, blank_database)]
    assert keys[0] != keys[1]

    async with follow(start_app, blank_database) as stage:
        async with AsyncModelCatalogClient(stage.running.server.address) as client:
            assert (await client.get_model("openai/gpt-5")).model.name == "GPT-5 (new)"
            # Revision 3 comes again, and is not what the shared cache has of the first one.
            stage.catalog.model("openai/gpt-5")["name"] = "GPT-5 (again)"
            assert (await stage.refresh()).result_revision == 3
            assert (await client.get_model("openai/gpt-5")).model.name == "GPT-5 (again)"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            async with grpc.aio.insecure_channel(stage.running.server.address) as channel:
                await ModelCatalogStub(channel).ListModels(ListModelsRequest(page_size=10, page_token=token))
        assert isinstance(from_rpc_error(refused.value), InvalidPageTokenError)


async def test_a_backup_is_private_and_never_written_over(
    small_database: str, services: Services, tmp_path: Path
) -> None:
    settings, file = make_settings(services, small_database), tmp_path / "catalog.dump"
    await write_backup(settings, file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    before = file.read_bytes()
    with pytest.raises(StartupError, match=r"cannot write .*: it is there already"):
        await write_backup(settings, file)
    assert file.read_bytes() == before
    with pytest.raises(StartupError, match=r"cannot write .*: No such file or directory"):
        await write_backup(settings, tmp_path / "nowhere/catalog.dump")


async def test_a_backup_that_fails_leaves_no_file(services: Services, tmp_path: Path) -> None:
    settings = make_settings(services, services.url_of("there_is_none"))
    with pytest.raises(StartupError, match="pg_dump failed with exit code 1"):
        await write_backup(settings, tmp_path / "catalog.dump")
    assert not await asyncio.to_thread(lambda: list(tmp_path.iterdir()))


async def test_a_catalog_is_not_restored_over(small_database: str, services: Services, tmp_path: Path) -> None:
    settings, file = make_settings(services, small_database), tmp_path / "catalog.dump"
    await write_backup(settings, file)
    before = await read_rows(small_database)
    with pytest.raises(StartupError, match="has a catalog already: restore into an empty one"):
        await restore_backup(settings, file)
    assert await read_rows(small_database) == before


async def test_half_a_file_restores_nothing(
    small_database: str, blank_database: str, services: Services, tmp_path: Path
) -> None:
    file, half = tmp_path / "catalog.dump", tmp_path / "half.dump"
    await write_backup(make_settings(services, small_database), file)
    half.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    settings = make_settings(services, blank_database)
    with pytest.raises(StartupError, match="pg_restore failed with exit code 1"):
        await restore_backup(settings, half)
    assert await fetch(blank_database, "SELECT to_regclass('models_metadata')") == [None]
    with pytest.raises(StartupError, match="cannot read"):
        await restore_backup(settings, tmp_path / "none.dump")
    await restore_backup(settings, file)


async def test_servers_before_17_are_not_told_what_they_do_not_know(
    small_database: str, blank_database: str, services: Services, tmp_path: Path
) -> None:
    """There is none of them here. The program in between writes down what the server is told."""
    await write_backup(make_settings(services, small_database), tmp_path / "catalog.dump")
    (tmp_path / "pg_restore").symlink_to(client_programs() / "pg_restore")
    (tmp_path / "psql").write_text(f'#!/bin/sh\ntee {tmp_path}/told | {client_programs()}/psql "$@"\n')
    (tmp_path / "psql").chmod(0o755)
    await restore_database(blank_database, tmp_path / "catalog.dump", tmp_path)
    told = (tmp_path / "told").read_text()
    assert "SET statement_timeout = 0;\n" in told
    assert "transaction_timeout" not in told.replace("idle_in_transaction_session_timeout", "")
    assert await fetch(blank_database, "SELECT count(*) FROM models_metadata") == [87]


async def test_the_password_is_not_among_the_arguments_of_a_process(tmp_path: Path) -> None:
    """They are everybody's to see. The program here says what it was given."""
    (tmp_path / "pg_dump").write_text('#!/bin/sh\necho "$@"\necho "$PGPASSWORD"\n')
    (tmp_path / "pg_dump").chmod(0o755)
    await dump_database("postgresql://me:correct-horse@db.example/catalog", tmp_path / "said", tmp_path)
    arguments, password = (tmp_path / "said").read_text().splitlines()
    assert "dbname=catalog" in arguments
    assert "correct-horse" not in arguments
    assert password == "correct-horse"  # noqa: S105 -- it opens nothing
