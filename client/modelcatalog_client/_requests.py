"""From what callers write to what requests hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias, TypeVar

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from modelcatalog.v1.model_pb2 import ModelView
from modelcatalog.v1.refresh_pb2 import Refresh

View: TypeAlias = ModelView.ValueType | Literal["basic", "full"]
RefreshType: TypeAlias = Refresh.Type.ValueType | Literal["incremental", "full"]

_Request = TypeVar("_Request", bound=Message)

# The default stays unsaid: callers who want the same thing send the same bytes, and the server caches by bytes.
_VIEWS: dict[str, ModelView.ValueType] = {
    "basic": ModelView.MODEL_VIEW_UNSPECIFIED,
    "full": ModelView.MODEL_VIEW_FULL,
}
_REFRESH_TYPES: dict[str, Refresh.Type.ValueType] = {
    "incremental": Refresh.TYPE_INCREMENTAL,
    "full": Refresh.TYPE_FULL,
}


def view_value(view: View) -> ModelView.ValueType:
    """The enum value of a view by name. ValueError for a name there is not."""
    return _named(_VIEWS, view, "view") if isinstance(view, str) else view


def refresh_type_value(refresh_type: RefreshType) -> Refresh.Type.ValueType:
    """The enum value of a refresh type by name. ValueError for a name there is not."""
    return _named(_REFRESH_TYPES, refresh_type, "type") if isinstance(refresh_type, str) else refresh_type


def field_mask(paths: Sequence[str]) -> FieldMask | None:
    """A field mask; None for no paths."""
    return FieldMask(paths=strings("read_mask", paths)) if paths else None


def strings(argument: str, values: Sequence[str]) -> Sequence[str]:
    """Passes several strings on. A single one is a sequence of its letters to Python, which nobody means."""
    if isinstance(values, str):
        raise TypeError(f"{argument} takes several strings, e.g. [{values!r}], not one")
    return values


def following(request: _Request, page_token: str) -> _Request:
    """The request of the page after: the same, less what belongs to the first page alone."""
    successor = type(request)()
    successor.CopyFrom(request)
    fields: dict[str, object] = dict(request.DESCRIPTOR.fields_by_name)
    for name in fields.keys() & {"page", "if_none_match"}:
        successor.ClearField(name)
    successor.page_token = page_token  # type: ignore[attr-defined]  # every list request has one, Message does not
    return successor


def rpc_name(request: Message) -> str:
    """Name of the RPC: each one has its own request, called after it."""
    return type(request).__name__.removesuffix("Request")


_Value = TypeVar("_Value")


def _named(values: dict[str, _Value], name: str, argument: str) -> _Value:
    if name not in values:
        raise ValueError(f"{argument} is one of {', '.join(values)}, not {name!r}")
    return values[name]
