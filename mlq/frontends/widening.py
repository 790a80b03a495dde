"""Networks of other floats than f32 (f16, bf16, f64) are computed in f32."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from mlq.frontends.reading import walk
from mlq.frontends.specs import WEIGHTED

Array = NDArray[Any]
_OTHERS = {TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}
# Attributes that are a type: of Cast, and of what makes tensors out of nothing.
_TYPES = {"to", "dtype"}
_MOST = np.finfo(np.float32).max


def widen(model: onnx.ModelProto, constants: dict[str, Array]) -> None:
    """Make f32 of all other floats, those of inputs and outputs too, if layers' weights are such.

    What has none stays as it is: a node that casts is no network.
    """
    if not any(map(_is_other, _weights(model, constants))):
        return
    constants |= {name: _as_f32(array) for name, array in constants.items() if _is_other(array)}
    for graph in _graphs(model):
        for value in (*graph.input, *graph.output, *graph.value_info):
            if value.type.tensor_type.elem_type in _OTHERS:
                value.type.tensor_type.elem_type = TensorProto.FLOAT
    for attribute in (each for node in _nodes(model) for each in node.attribute):
        if attribute.t.data_type in _OTHERS:
            array = _as_f32(numpy_helper.to_array(attribute.t))
            attribute.t.CopyFrom(numpy_helper.from_array(array, attribute.t.name))
        if attribute.name in _TYPES and attribute.i in _OTHERS:
            attribute.i = TensorProto.FLOAT


def _weights(model: onnx.ModelProto, constants: dict[str, Array]) -> Iterator[Array]:
    """The constants that layers multiply by."""
    here = {
        node.output[0]: numpy_helper.to_array(attribute.t)
        for node in _nodes(model)
        for attribute in node.attribute
        if node.op_type == "Constant" and attribute.name == "value"
    }
    known = here | constants
    read = (node.input for node in _nodes(model) if node.op_type in WEIGHTED)
    return (known[name] for name in chain.from_iterable(read) if name in known)


def _is_other(array: Array) -> bool:
    return array.dtype.name in {"float16", "bfloat16", "float64"}


def _as_f32(array: Array) -> Array:
    """The nearest floats; what is too large is as large as can be."""
    with np.errstate(over="ignore"):
        made = array.astype(np.float32)
    beyond = np.isinf(made) & np.isfinite(array)
    return np.where(beyond, np.copysign(_MOST, made), made) if beyond.any() else made


def _nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    bodies = (model.graph.node, *(function.node for function in model.functions))
    return chain.from_iterable(map(walk, bodies))


def _graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    yield model.graph
    for node in _nodes(model):
        for attribute in node.attribute:
            yield from (attribute.g, *attribute.graphs)
