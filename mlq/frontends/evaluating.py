"""ONNX nodes that are no ops of mlq, computed by ONNX's own reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlq.dialect import bridge
from mlq.dialect.exporter import Node, node_of
from mlq.errors import DataError, DiagnosticError
from mlq.frontends.exporting import proto_of

Array = NDArray[Any]

_OPSET = "torch.onnx_meta.opset_version"
# What only says that a value is of another type.
_SAME = {bridge.FROM, bridge.TO, "quant.scast"}


def in_order(inputs: Sequence[Array] | Mapping[str, Array], names: list[str | None]) -> list[Array]:
    """A network's inputs in its order, which is that of `names`; DataError where one is missing."""
    if isinstance(inputs, Mapping):
        called = [name or "" for name in names]
        missing = [name for name in called if name not in inputs]
        if missing:
            raise DataError(f"no input is called {missing[0]!r}; there are {', '.join(inputs)}")
        return [inputs[name] for name in called]
    if len(inputs) != len(names):
        raise DataError(f"the network takes {len(names)} inputs, got {len(inputs)}")
    return list(inputs)


def execute(op: Any, operands: Sequence[Array | None]) -> list[Any]:
    """The results of a `torch.operator "onnx.X"`, of a cast between types, of a value left out.

    Computed by `onnx.reference` in the operator set of the op's function. `operands` are arrays,
    None for those that are left out, and so are the results. DiagnosticError for other ops, for
    nodes with subgraphs, and where ONNX's reference fails.
    """
    if op.operation.name in _SAME:
        return [operands[0]]
    results = list(op.operation.results)
    if results and bridge.is_none(results[0]):
        return [None]
    node = node_of(op)
    if node is None:
        raise DiagnosticError(op, "is no op of mlq and no ONNX node: there is no reference for it")
    try:
        return _evaluated(node, operands, _opset(op))
    except Exception as error:  # numpy's and ONNX's own, of any kind
        reason = " ".join(str(error).split())[:200]
        raise DiagnosticError(op, f"ONNX's reference cannot compute it: {reason}") from error


def _evaluated(node: Node, operands: Sequence[Array | None], opset: int) -> list[Any]:
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    proto = proto_of(node, {}, {})
    inputs, outputs = (
        [helper.make_empty_tensor_value_info(name) for name in names if name]
        for names in (node.inputs, node.outputs)
    )
    domains = {"": opset, **({proto.domain: 1} if proto.domain else {})}
    model = helper.make_model(
        helper.make_graph([proto], "node", inputs, outputs),
        opset_imports=[helper.make_opsetid(*each) for each in domains.items()],
    )
    given = zip(node.inputs, operands, strict=True)
    feeds = {name: np.asarray(array) for name, array in given if name}
    return list(ReferenceEvaluator(model).run(None, feeds))


def _opset(op: Any) -> int:
    """The operator set of the function that an op is in."""
    function = op.operation.parent
    return int(function.attributes[_OPSET].value)
