"""A catalog whose every price says which document it came from, so that an answer can be told to be right or wrong."""

from __future__ import annotations

from decimal import Decimal

from modelcatalog.v1.model_pb2 import Model
from small_catalog import SmallCatalog

#: The provider that is hidden and shown again, and how many models that takes away.
SWITCHED = "zeldoc"


class NumberedCatalog:
    """Documents 1, 2, 3, … with the same models.

    In document n the price of output is n for every model, and that of input n and as many thousandths as the model's
    place in the catalog: no model has the price of another, nor its own of another document.
    """

    def __init__(self) -> None:
        self._catalog = SmallCatalog()
        self.model_ids = self._catalog.model_ids
        self.always_listed = [id_ for id_ in self.model_ids if not id_.startswith(f"{SWITCHED}/")]
        self._places = {id_: place for place, id_ in enumerate(self.model_ids)}

    def make_body(self, number: int) -> bytes:
        """Return the document as upstream serves it."""
        for id_ in self.model_ids:
            self._catalog.model(id_)["cost"] = {"input": float(self._input(id_, number)), "output": number}
        return self._catalog.body

    def number_of(self, model: Model) -> int | None:
        """Return which document a model is from; ``None`` when it is from none."""
        if model.id not in self._places or not model.pricing.output.isdigit():
            return None
        number = int(model.pricing.output)
        return number if Decimal(model.pricing.input) == self._input(model.id, number) else None

    def _input(self, model_id: str, number: int) -> Decimal:
        return number + Decimal(self._places[model_id]) / 1000
