"""Which calls count as reads: those about the catalog, from their start on."""

from __future__ import annotations

import time
from typing import Any

import grpc
import pytest

from modelcatalog.v1 import model_catalog_service_pb2
from modelcatalog_server.rpc.call_measures import CallMeasures, MeasuredMethod
from modelcatalog_server.rpc.health import HEALTH

READS = f"/{model_catalog_service_pb2.DESCRIPTOR.services_by_name['ModelCatalog'].full_name}/"


def method(measures: CallMeasures, name: str) -> MeasuredMethod:
    async def answer(request: Any, context: Any) -> Any:
        raise NotImplementedError

    return measures.of(name, grpc.unary_unary_rpc_method_handler(answer))


def test_reads_are_counted_from_their_start_and_near_hits_too() -> None:
    measures = CallMeasures()
    get, watch = method(measures, f"{READS}GetModel"), method(measures, f"{READS}WatchModels")
    assert measures.count_reads() == 0
    get.note_start()
    assert measures.count_reads() == 1
    get.note_hit(time.perf_counter())
    watch.note_start()
    assert measures.count_reads() == measures.count_started() == 3


@pytest.mark.parametrize(
    ("name", "is_started"),
    [
        ("/modelcatalog.v1.RefreshService/GetRefresh", True),
        ("/modelcatalog.v1.CatalogAdmin/GetModel", True),
        ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", True),
        (f"/{HEALTH}/Check", False),
    ],
)
def test_other_calls_are_no_reads(name: str, is_started: bool) -> None:
    measures = CallMeasures()
    other = method(measures, name)
    other.note_start()
    assert (measures.count_reads(), measures.count_started()) == (0, is_started)


def test_a_method_that_there_is_not_is_no_read() -> None:
    measures = CallMeasures()
    measures.note_unknown()
    assert (measures.count_reads(), measures.count_started()) == (0, 1)
