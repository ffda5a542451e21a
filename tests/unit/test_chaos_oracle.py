"""The oracle of `make chaos` finds what it is there to find."""

from __future__ import annotations

import pytest

from chaos.numbered import NumberedCatalog
from chaos.oracle import Oracle, Truth
from modelcatalog.v1.model_pb2 import Model, Pricing

TRUTH = {1: Truth(1, 1, 87, shown=True), 2: Truth(2, 2, 87, shown=True), 3: Truth(2, 2, 87, shown=False)}


@pytest.fixture(scope="module")
def catalog() -> NumberedCatalog:
    return NumberedCatalog()


@pytest.fixture
def oracle(catalog: NumberedCatalog) -> Oracle:
    return Oracle(catalog)


def model_of(oracle: Oracle, number: int, place: int = 0) -> Model:
    """Return the model at a place of the catalog as a document has it."""
    pricing = Pricing(input=f"{number}.{place:03}", output=str(number))
    return Model(id=oracle.catalog.model_ids[place], pricing=pricing)


def test_true_answers_are_not_held_against_anybody(oracle: Oracle) -> None:
    oracle.note_models(1, [model_of(oracle, 1), model_of(oracle, 1, 17)])
    oracle.note_listing(2, oracle.catalog.model_ids)
    oracle.note_listing(3, oracle.catalog.always_listed)
    oracle.judge_answers(TRUTH)
    assert oracle.wrong == []


@pytest.mark.parametrize(("number", "place", "of"), [(2, 0, 0), (1, 1, 0)], ids=["older document", "other model"])
def test_a_price_that_is_not_the_models_own_at_the_revision_is_wrong(
    oracle: Oracle, number: int, place: int, of: int
) -> None:
    model = model_of(oracle, number, place)
    model.id = oracle.catalog.model_ids[of]
    oracle.note_models(1, [model])
    oracle.judge_answers(TRUTH)
    assert len(oracle.wrong) == 1


def test_a_listing_that_has_a_model_twice_is_wrong(oracle: Oracle) -> None:
    ids = oracle.catalog.model_ids
    oracle.note_listing(1, [*ids[:-1], ids[0]])
    assert len(oracle.wrong) == 1


def test_a_listing_that_shows_what_was_hidden_is_wrong(oracle: Oracle) -> None:
    oracle.note_listing(3, oracle.catalog.model_ids)
    oracle.judge_answers(TRUTH)
    assert len(oracle.wrong) == 1


def test_a_revision_of_two_documents_is_wrong(oracle: Oracle) -> None:
    oracle.judge_answers({1: Truth(1, 2, 87, shown=True)})
    assert len(oracle.wrong) == 1


def test_a_commit_that_is_not_there_is_lost(oracle: Oracle) -> None:
    oracle.note_run(2, 2)
    oracle.note_switch(3, shown=False)
    oracle.judge_commits(TRUTH)
    assert oracle.lost == []
    oracle.note_run(4, 3)
    oracle.note_switch(2, shown=False)
    oracle.judge_commits(TRUTH)
    assert len(oracle.lost) == 2


def test_a_process_that_goes_back_is_found(oracle: Oracle) -> None:
    oracle.note_revision("one", 5, asked_at=4)
    oracle.note_revision("one", 4, asked_at=4)
    assert oracle.backwards == []
    oracle.note_revision("one", 4, asked_at=oracle.newest_of("one"))
    assert len(oracle.backwards) == 1
