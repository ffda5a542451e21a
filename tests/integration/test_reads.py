"""Reads over the wire, on the full catalog."""

from __future__ import annotations

from modelcatalog_client import AsyncModelCatalogClient


async def test_a_model_is_read_by_its_exact_id(client: AsyncModelCatalogClient) -> None:
    response = await client.get_model("openai/gpt-5")

    assert response.model.pricing.input == "1.25"
    assert response.catalog_revision == 1
