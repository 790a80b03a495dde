"""ONNX files from a model whose weights have no data of their own: they come from a store."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto

Weights = Mapping[str, NDArray[Any]]

# A protobuf message cannot hold 2 GB; leave room for the graph itself.
_MAX_INLINE_BYTES = (1 << 31) - (1 << 26)


def is_large(weights: Weights) -> bool:
    """Whether weights do not fit into one message."""
    return sum(array.nbytes for array in weights.values()) > _MAX_INLINE_BYTES


def filled(model: ModelProto, weights: Weights) -> ModelProto:
    """A copy of `model` with its weights; they must not be large."""
    model = _copy(model)
    for tensor in _without_data(model, weights):
        tensor.raw_data = weights[tensor.name].tobytes()
    return model


def save_beside(model: ModelProto, weights: Weights, path: Path) -> None:
    """Write `model` to `path`, its weights to one file beside it; any size."""
    model = _copy(model)
    data = path.with_name(f"{path.name}.data")
    with data.open("wb") as stream:
        for tensor in _without_data(model, weights):
            array = weights[tensor.name]
            where = {"location": data.name, "offset": stream.tell(), "length": array.nbytes}
            for key, value in where.items():
                tensor.external_data.add(key=key, value=str(value))
            tensor.data_location = tensor.EXTERNAL
            array.tofile(stream)
    path.write_bytes(model.SerializeToString())


def _without_data(model: ModelProto, weights: Weights) -> list[TensorProto]:
    stored = set(weights)
    return [tensor for tensor in model.graph.initializer if tensor.name in stored]


def _copy(model: ModelProto) -> ModelProto:
    copy = type(model)()
    copy.CopyFrom(model)
    return copy
