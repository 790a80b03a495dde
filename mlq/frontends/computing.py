"""What single nodes make of constants, by ONNX's reference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper
from onnx.reference import ReferenceEvaluator

Array = NDArray[Any]

# Whose Q and DQ have scales along an axis, and in blocks.
NEWEST = (helper.make_opsetid("", 21),)
_HAND_ON = frozenset({"Cast", "Constant", "Identity"})


def computed(
    node: onnx.NodeProto,
    constants: Mapping[str, Array],
    opsets: Sequence[onnx.OperatorSetIdProto],
) -> list[Array] | None:
    """The results of a node whose inputs are constants; None where the reference has none."""
    feeds = {name: np.asarray(constants[name]) for name in node.input if name}
    graph = helper.make_graph(
        [node],
        "constant",
        [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            )
            for name, array in feeds.items()
        ],
        [onnx.ValueInfoProto(name=name) for name in node.output if name],
    )
    alone = helper.make_model(graph, opset_imports=opsets)
    try:
        with np.errstate(all="ignore"):
            results = ReferenceEvaluator(alone).run(None, feeds)
    except Exception:  # noqa: BLE001 -- the reference raises anything; a device may know better
        return None
    if not all(isinstance(result, (np.ndarray, np.generic)) for result in results):
        return None
    named = iter(results)
    return [np.asarray(next(named)) if name else np.empty(0) for name in node.output]


def without_constants(
    graph: onnx.GraphProto, constants: dict[str, Array]
) -> Iterator[onnx.NodeProto]:
    """The nodes but those that are, or only hand on, constants, which become such."""
    for node in graph.node:
        hands_on = node.op_type in _HAND_ON and all(name in constants for name in node.input)
        found = computed(node, constants, NEWEST) if hands_on else None
        if found is None:
            yield node
        else:
            constants[node.output[0]] = found[0]
