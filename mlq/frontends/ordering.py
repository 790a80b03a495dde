"""Nodes in an order in which they can be run: ONNX asks for it, and some tools forget."""

from __future__ import annotations

from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import onnx

from mlq.errors import ModelError
from mlq.frontends.reading import label, put_nodes, walk


def put_in_order(path: Path, graph: onnx.GraphProto) -> None:
    """Sort the nodes if one of them reads what a later one makes.

    ModelError where nodes wait for each other.
    """
    makers = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    needs = {
        i: {makers[name] for name in _read(node) if name in makers} - {i}
        for i, node in enumerate(graph.node)
    }
    if all(max(each, default=-1) < i for i, each in needs.items()):
        return
    try:
        order = list(TopologicalSorter(needs).static_order())
    except CycleError as error:
        node = graph.node[error.args[1][0]]
        raise ModelError(
            f"{path}: node {label(node)} reads what is made of its own result; export it again"
        ) from None
    put_nodes(graph, [graph.node[i] for i in order])


def _read(node: onnx.NodeProto) -> Iterator[str]:
    """What a node reads, and what graphs inside it do."""
    for each in walk([node]):
        yield from each.input
