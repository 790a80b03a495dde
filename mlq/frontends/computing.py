"""What single nodes make of constants, before a graph is known to be sound."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper
from onnx.reference import ReferenceEvaluator

Array = NDArray[Any]

# Whose Q and DQ have scales along an axis, and in blocks.
_NEWEST = 21
_HAND_ON = frozenset({"Cast", "Constant", "Identity"})


def computed(node: onnx.NodeProto, constants: dict[str, Array]) -> Array:
    """What one of ONNX's newest makes of constants."""
    plain = onnx.NodeProto.FromString(node.SerializeToString())
    plain.domain = ""
    feeds = {name: np.asarray(constants[name]) for name in node.input if name}
    inputs = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
        )
        for name, array in feeds.items()
    ]
    graph = helper.make_graph(
        [plain], "constant", inputs, [onnx.ValueInfoProto(name=plain.output[0])]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _NEWEST)])
    (found,) = ReferenceEvaluator(model).run(None, feeds)
    return np.asarray(found)


def without_constants(
    graph: onnx.GraphProto, constants: dict[str, Array]
) -> Iterator[onnx.NodeProto]:
    """The nodes but those that are, or only hand on, constants, which become such."""
    for node in graph.node:
        if node.op_type in _HAND_ON and all(name in constants for name in node.input):
            constants[node.output[0]] = computed(node, constants)
        else:
            yield node
