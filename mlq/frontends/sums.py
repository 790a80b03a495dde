"""Sum as Add: exporters write residual connections as either, and layers are Adds only."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import helper

from mlq.frontends.reading import put_nodes, unused, value_names


def split_sums(graph: onnx.GraphProto) -> None:
    """Make each Sum of the graph an Add, or a chain of them that adds from left to right.

    The sums on the way have no shape yet. The Sum of one operand becomes an Identity.
    """
    taken = value_names(graph)
    put_nodes(graph, [made for node in graph.node for made in _additions(node, taken)])


def _additions(node: onnx.NodeProto, taken: set[str]) -> Iterator[onnx.NodeProto]:
    if node.op_type != "Sum" or node.domain:
        yield node
        return
    total, *rest = node.input
    if not rest:
        yield helper.make_node("Identity", [total], node.output, node.name)
    for i, term in enumerate(rest, start=1):
        last = i == len(rest)
        result = node.output[0] if last else unused(f"{node.output[0]}/{i}", taken)
        name = node.name if last else f"{node.name}/{i}"
        yield helper.make_node("Add", [total, term], [result], name)
        total = result
