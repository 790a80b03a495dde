"""Shapes that exporters compute in the graph: `Shape`, `Gather`, `Concat`, evaluated."""

from __future__ import annotations

import numpy as np
from torch_mlir.ir import BlockArgument, Value

from mlq.dialect import bridge
from mlq.dialect.shapes import DYNAMIC
from mlq.transforms import constants
from mlq.transforms.raising.node import Node

_UNCHANGED = ("Unsqueeze", "Squeeze", "Cast", "Identity")


def sizes_of(value: Value) -> list[int] | None:
    """The integers behind a value, DYNAMIC where one is a dynamic size; None if not known.

    A scalar counts as a list of one.
    """
    array = constants.array_of(value)
    if array is not None:
        return [int(i) for i in np.ravel(array)]
    if isinstance(value, BlockArgument):
        return None
    node = Node(value.owner.opview)
    if node.kind in _UNCHANGED:
        return sizes_of(node.operand(0))
    return {"Shape": _shape, "Gather": _gather, "Concat": _concat, "Slice": _slice}.get(
        node.kind, lambda _: None
    )(node)


def _shape(node: Node) -> list[int] | None:
    tensor = bridge.builtin_of(node.operand(0).type)
    if tensor is None:
        return None
    return list(tensor.shape)[node.attribute("start", 0) : node.attribute("end", None)]


def _gather(node: Node) -> list[int] | None:
    sizes, indices = sizes_of(node.operand(0)), sizes_of(node.operand(1))
    return None if sizes is None or indices is None else [sizes[i] for i in indices]


def _concat(node: Node) -> list[int] | None:
    parts = [sizes_of(operand) for operand in node.op.operation.operands]
    known = [part for part in parts if part is not None]
    return [size for part in known for size in part] if len(known) == len(parts) else None


def _slice(node: Node) -> list[int] | None:
    sizes, start, end = (sizes_of(node.operand(i)) for i in range(3))
    step = sizes_of(node.operand(4)) if node.has(4) else [1]
    if not sizes or not start or not end or not step or DYNAMIC in (*start, *end, *step):
        return None
    return sizes[start[0] : end[0] : step[0]]
