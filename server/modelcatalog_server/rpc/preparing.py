"""Responses that are made before anybody asks: GetModel of every listed model, as most callers ask for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from modelcatalog.v1 import model_catalog_service_pb2 as pb
from modelcatalog_server.catalog.reader import CatalogReader
from modelcatalog_server.catalog.snapshots import Read
from modelcatalog_server.domain.models import Model
from modelcatalog_server.domain.ports.caching import EncodedResponse, RequestKey
from modelcatalog_server.domain.tasks import rest, run_in_slices
from modelcatalog_server.rpc.model_messages import to_model

GET_MODEL = "/modelcatalog.v1.ModelCatalog/GetModel"
#: Models at a time: to read their rows takes about a millisecond of the event loop.
SLICE = 50


async def prepare_models(
    reader: CatalogReader, after: str
) -> tuple[list[tuple[RequestKey, EncodedResponse]], str | None]:
    """Return the responses for the models behind an id, and the id to go on from; ``None`` after the last one.

    The request is that of the typed client and of grpcurl when they are given an id and nothing else.
    """
    read = await reader.list_models_after(after, SLICE)
    responses: list[tuple[RequestKey, EncodedResponse]] = []
    await run_in_slices(_respond_to_each(read, responses))
    return responses, read.value[-1].model_id if len(read.value) == SLICE else None


async def prepare_ahead(reader: CatalogReader, keys: Iterable[RequestKey]) -> list[tuple[RequestKey, EncodedResponse]]:
    """Return the responses to those of the requests that are for a model as above, of what is committed.

    The process may not be at that revision yet: see `catalog.current`.
    """
    ids = [id_ for key in keys if (id_ := _asked_for(key)) is not None][:SLICE]
    if not ids:
        return []
    await rest()
    read = await reader.get_models_ahead(ids)
    await rest()
    responses: list[tuple[RequestKey, EncodedResponse]] = []
    await run_in_slices(_respond_to_each(Read(state=read.state, value=list(read.value.values())), responses))
    return responses


def _asked_for(key: RequestKey) -> str | None:
    """Return the id of a model that is asked for with nothing else."""
    method, request = key
    if method != GET_MODEL:
        return None
    id_ = pb.GetModelRequest.FromString(request).model_id
    return id_ if _key_of(id_) == key else None


def _key_of(model_id: str) -> RequestKey:
    return GET_MODEL, pb.GetModelRequest(model_id=model_id).SerializeToString()


def _respond_to_each(read: Read[list[Model]], responses: list[tuple[RequestKey, EncodedResponse]]) -> Iterator[None]:
    for model in read.value:
        response = pb.GetModelResponse(model=to_model(model), catalog_revision=read.state.revision)
        responses.append(
            (_key_of(model.model_id), EncodedResponse(body=response.SerializeToString(), state=read.state))
        )
        yield
