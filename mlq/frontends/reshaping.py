"""Reshape targets that a graph computes from shapes, made constant where only the batch is open.

Exporters write `x.view(x.size(0), -1)` as Shape, Gather, Unsqueeze, Concat, Reshape, for which
ONNX infers [N, unknown]. A reshape keeps the number of elements, so the unknown size follows.
"""

from __future__ import annotations

from collections import Counter
from math import prod
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

Size = int | str
"""A number, or ONNX's name for a size that is known only at run time."""


def settle_reshapes(graph: onnx.GraphProto, constants: dict[str, NDArray[Any]]) -> bool:
    """Work out unknown sizes, then make targets constant, -1 for the one open size.

    Needs inferred shapes. Whether anything was found: shapes are to be inferred again then.
    """
    shapes = inferred_shapes(graph)
    found = False
    for node in graph.node:
        if node.op_type != "Reshape" or node.domain:
            continue
        before, after = shapes.get(node.input[0]), shapes.get(node.output[0])
        if before is None or after is None:
            continue
        solution = _solve(before, after)
        if solution is not None:
            _substitute(graph, *solution)
            shapes = inferred_shapes(graph)
            after = shapes[node.output[0]]
            found = True
        sizes = [size if isinstance(size, int) else -1 for size in after]
        if node.input[1] not in constants and sizes.count(-1) <= 1 and 0 not in sizes:
            name = f"{node.output[0]}/shape"
            while name in constants or name in shapes:
                name += "_"
            constants[name] = np.array(sizes, np.int64)
            node.input[1] = name
            found = True
    return found


def inferred_shapes(graph: onnx.GraphProto) -> dict[str, list[Size]]:
    """The shape of every value that has one; an unnamed open size is a name of its own."""
    shapes: dict[str, list[Size]] = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        if value.type.tensor_type.HasField("shape"):
            shapes[value.name] = [
                size.dim_value
                if size.HasField("dim_value")
                else size.dim_param or f"{value.name}[{axis}]"
                for axis, size in enumerate(value.type.tensor_type.shape.dim)
            ]
    return shapes


def _solve(before: list[Size], after: list[Size]) -> tuple[str, Size] | None:
    """The one name in `after` that is not in `before`, and the size that it must have."""
    given = Counter(size for size in before if isinstance(size, str))
    made = Counter(size for size in after if isinstance(size, str))
    unknown, missing = list((made - given).elements()), list((given - made).elements())
    elements, rest = (
        prod(size for size in shape if isinstance(size, int)) for shape in (before, after)
    )
    if len(unknown) != 1 or len(missing) > 1 or rest == 0 or elements % rest:
        return None
    if not missing:
        return unknown[0], elements // rest
    return (unknown[0], missing[0]) if elements == rest else None


def _substitute(graph: onnx.GraphProto, name: str, size: Size) -> None:
    """Write `size` wherever the graph says `name`."""
    for value in (*graph.value_info, *graph.output):
        for each in value.type.tensor_type.shape.dim:
            if each.dim_param == name and isinstance(size, int):
                each.dim_value = size
            elif each.dim_param == name:
                each.dim_param = str(size)
