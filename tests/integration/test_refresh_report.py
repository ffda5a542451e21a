"""What a run found, stored beside it and read by GetRefresh; and the prices that it is made from."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from uuid import uuid4

import psycopg
import pytest

from conftest import Services, refresh_to_end
from modelcatalog_client import AsyncModelCatalogClient, PriceChange, QuarantinedRecord, RefreshNotFoundError
from modelcatalog_client import RefreshReport as Report
from modelcatalog_server import app
from modelcatalog_server.domain import refresh as domain
from modelcatalog_server.domain.models import Prices
from modelcatalog_server.domain.refresh import Quarantined, Refresh, RefreshReport, RefreshRequest, State
from modelcatalog_server.storage.pools import Pools
from modelcatalog_server.storage.refresh_store import PostgresRefreshes
from small_catalog import clone_small, fetch

REPORT = RefreshReport(
    added_model_ids=("openai/gpt-6", "zeldoc/new"),
    changed_model_ids=("openai/gpt-5",),
    removed_model_ids=("openai/gpt-4",),
    revived_model_ids=("openai/o1",),
    price_changes=(
        domain.PriceChange(model_id="openai/gpt-5", field="input", before=Decimal("1.250"), after=Decimal("2E+1")),
        domain.PriceChange(model_id="openai/gpt-5", field="output", before=None, after=Decimal("2E-8")),
        domain.PriceChange(model_id="openai/gpt-5", field="cache_read", before=Decimal(0), after=None),
    ),
    quarantined=(Quarantined(pointer="/providers/a~1b/models/ü", reason="missing required field name"),),
    truncated=True,
)


@pytest.fixture
def database(templates: Services) -> Iterator[str]:
    yield from clone_small(templates)


@pytest.fixture
async def store(database: str) -> AsyncIterator[PostgresRefreshes]:
    async with Pools(database) as pools:
        yield PostgresRefreshes(pools, owner="test")


@pytest.fixture
async def refresh(store: PostgresRefreshes) -> Refresh:
    """A run that was accepted and has found nothing yet."""
    return await store.create(uuid4(), RefreshRequest())


async def test_prices_are_those_of_the_catalog_now(store: PostgresRefreshes, database: str) -> None:
    await fetch(
        database,
        "UPDATE models_metadata SET pricing_input = 0, pricing_output = 0.00000002, pricing_cache_read = 1.50,"
        " pricing_input_audio = 1e3, pricing_reasoning = NULL, removed_at = now() WHERE model_id = 'openai/gpt-5'",
    )
    await fetch(
        database,
        "UPDATE models_metadata SET pricing_currency = NULL, pricing_input = NULL, pricing_output = NULL,"
        " pricing_cache_read = NULL WHERE model_id = 'openai/gpt-4'",
    )
    prices = await store.get_prices(["openai/gpt-5", "openai/gpt-4", "openai/none"])
    assert prices == {
        "openai/gpt-5": Prices(
            input=Decimal(0), output=Decimal("0.00000002"), cache_read=Decimal("1.5"), input_audio=Decimal(1000)
        ),
        "openai/gpt-4": Prices(),
    }


async def test_prices_of_nothing_are_nothing(store: PostgresRefreshes) -> None:
    assert await store.get_prices([]) == {}


async def test_prices_of_each_model_are_those_of_its_message(
    client: AsyncModelCatalogClient, loaded_database: str
) -> None:
    """Every column under its name, for a whole catalog."""
    models = [model async for model in client.list_models(page_size=1000)]
    async with Pools(loaded_database) as pools:
        prices = await PostgresRefreshes(pools, owner="test").get_prices([model.id for model in models])
    assert len(prices) == len(models)
    for model in models:
        told = {field.name: price for field, price in model.pricing.ListFields() if field.name in Prices.__slots__}
        assert prices[model.id] == Prices(**{name: Decimal(price) for name, price in told.items()}), model.id


async def test_a_report_comes_back_as_it_was(store: PostgresRefreshes, refresh: Refresh) -> None:
    assert await store.get_report(refresh.id) is None
    await store.save_report(refresh.id, REPORT)
    assert await store.get_report(refresh.id) == REPORT
    await store.save_report(refresh.id, RefreshReport())
    assert await store.get_report(refresh.id) == RefreshReport()


async def test_prices_are_stored_as_text(store: PostgresRefreshes, refresh: Refresh, database: str) -> None:
    """As a number they would be a double in the hands of whoever reads the table with another program."""
    await store.save_report(refresh.id, REPORT)
    after = "SELECT report #>> ARRAY['price_changes', %s, 'after'] FROM refresh_reports WHERE refresh_id = %s"
    assert await fetch(database, after, "0", refresh.id) == ["20"]
    assert await fetch(database, after, "1", refresh.id) == ["0.00000002"]
    before = "SELECT jsonb_typeof(report #> '{price_changes,1,before}') FROM refresh_reports WHERE refresh_id = %s"
    assert await fetch(database, before, refresh.id) == ["null"]


async def test_a_report_belongs_to_a_run(store: PostgresRefreshes) -> None:
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        await store.save_report(uuid4(), REPORT)


class TestGetRefresh:
    @pytest.fixture
    async def stored(self, running: app.App, loaded_database: str) -> Refresh:
        async with Pools(loaded_database) as pools:
            store = PostgresRefreshes(pools, owner="test")
            refresh = await store.create(uuid4(), RefreshRequest(validate_only=True))
            await store.save_report(refresh.id, REPORT)
        return refresh

    async def test_has_the_report(self, stored: Refresh, client: AsyncModelCatalogClient) -> None:
        answer = await client.get_refresh(str(stored.id))
        assert answer.refresh.id == str(stored.id)
        assert answer.catalog_revision == 1
        assert answer.report == Report(
            added_model_ids=["openai/gpt-6", "zeldoc/new"],
            changed_model_ids=["openai/gpt-5"],
            removed_model_ids=["openai/gpt-4"],
            revived_model_ids=["openai/o1"],
            price_changes=[
                PriceChange(model_id="openai/gpt-5", field="input", before="1.25", after="20"),
                PriceChange(model_id="openai/gpt-5", field="output", after="0.00000002"),
                PriceChange(model_id="openai/gpt-5", field="cache_read", before="0"),
            ],
            quarantined_records=[
                QuarantinedRecord(pointer="/providers/a~1b/models/ü", reason="missing required field name")
            ],
            truncated=True,
        )
        assert await client.get_refresh_report(str(stored.id)) == answer.report

    async def test_has_none_before_there_is_one(self, running: app.App, client: AsyncModelCatalogClient) -> None:
        """The service of these tests is offline: its run fails before it has anything to compare."""
        failed = await refresh_to_end(running)
        assert failed.state is State.FAILED
        assert not (await client.get_refresh(str(failed.id))).HasField("report")
        assert await client.get_refresh_report(str(failed.id)) is None

    async def test_an_empty_report_is_a_report(
        self, running: app.App, loaded_database: str, client: AsyncModelCatalogClient
    ) -> None:
        async with Pools(loaded_database) as pools:
            store = PostgresRefreshes(pools, owner="test")
            refresh = await store.create(uuid4(), RefreshRequest())
            await store.save_report(refresh.id, RefreshReport())
        assert await client.get_refresh_report(str(refresh.id)) == Report()

    async def test_of_no_run_is_not_found(self, client: AsyncModelCatalogClient) -> None:
        with pytest.raises(RefreshNotFoundError):
            await client.get_refresh_report(str(uuid4()))
