"""What a graph is rid of before it is imported: constants to compute, nodes that do nothing.

`fold` takes and leaves a model without initializers; its constants live in a dictionary beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import prod
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, helper, numpy_helper

from mlq.frontends.computing import computed
from mlq.frontends.reading import put_nodes, walk
from mlq.frontends.reshaping import Size, inferred_shapes

Array = NDArray[Any]

# More would cost memory for what a device computes once.
_MAX_ELEMENTS = 1 << 27
_RANDOM = {
    "Bernoulli",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
}


def fold(model: onnx.ModelProto, constants: dict[str, Array]) -> bool:
    """Compute what is constant, drop what does nothing or is not used; whether anything changed.

    Needs inferred shapes. What ONNX's reference cannot compute is left to the device.
    """
    graph = model.graph
    before = [node.SerializeToString() for node in graph.node]
    shapes: dict[str, list[Size]] = {name: list(array.shape) for name, array in constants.items()}
    shapes |= inferred_shapes(graph)
    results = {value.name for value in graph.output}
    kept = []
    for node in _without_decided_ifs(graph.node, constants):
        arrays = _constant(node, model, constants, shapes)
        if arrays is None or results & set(node.output):
            kept.append(node)
        else:
            constants.update(zip(node.output, arrays, strict=False))
    kept = _bypass(kept, {value.name for value in graph.input}, constants, results)
    kept = _live(kept, results)
    used = {name for node in walk(kept) for name in node.input} | results
    for name in constants.keys() - used:
        del constants[name]
    put_nodes(graph, kept)
    return before != [node.SerializeToString() for node in graph.node]


def _without_decided_ifs(
    nodes: Iterable[onnx.NodeProto], constants: dict[str, Array]
) -> Iterator[onnx.NodeProto]:
    """Put the branch that is taken in the place of each If whose condition is constant."""
    for node in nodes:
        if node.op_type != "If" or node.domain or node.input[0] not in constants:
            yield node
            continue
        taken = "then_branch" if constants[node.input[0]].any() else "else_branch"
        branch = next(each.g for each in node.attribute if each.name == taken)
        # Names are unique across nested graphs, so that the branch can stand outside.
        for tensor in branch.initializer:
            constants[tensor.name] = numpy_helper.to_array(tensor)
        yield from branch.node
        for inner, outer in zip(branch.output, node.output, strict=True):
            if outer:
                yield helper.make_node("Identity", [inner.name], [outer])


def _constant(
    node: onnx.NodeProto,
    model: onnx.ModelProto,
    constants: dict[str, Array],
    shapes: dict[str, list[Size]],
) -> list[Array] | None:
    """The node's results, when they do not depend on the input."""
    if node.domain or node.op_type in _RANDOM or _has_graph(node):
        return None
    if node.op_type == "Shape":
        return _shape_of(node, shapes)
    if not all(name in constants for name in node.input if name):
        return None
    if node.op_type == "Identity":
        return [constants[node.input[0]]]
    results = [shapes.get(name, []) for name in node.output]
    if any(prod(size for size in r if isinstance(size, int)) > _MAX_ELEMENTS for r in results):
        return None
    return computed(node, constants, model.opset_import)


def _shape_of(node: onnx.NodeProto, shapes: dict[str, list[Size]]) -> list[Array] | None:
    shape = shapes.get(node.input[0])
    if shape is None:
        return None
    bounds = {attribute.name: attribute.i for attribute in node.attribute}
    part = shape[bounds.get("start", 0) : bounds.get("end", len(shape))]
    sizes = [size for size in part if isinstance(size, int)]
    return [np.array(sizes, np.int64)] if len(sizes) == len(part) else None


def _bypass(
    nodes: list[onnx.NodeProto], inputs: set[str], constants: dict[str, Array], results: set[str]
) -> list[onnx.NodeProto]:
    """Drop Identity, and Dropout in inference: their consumers read their input."""
    renamed: dict[str, str] = {}
    kept = []
    for node in nodes:
        _rename_inputs(node, renamed)
        if not _does_nothing(node, nodes, constants, results):
            kept.append(node)
        elif node.output[0] in results:
            kept.append(helper.make_node("Identity", node.input[:1], node.output[:1], node.name))
        else:
            renamed[node.output[0]] = node.input[0]
    return _bypass_to_results(kept, inputs | constants.keys(), results)


def _bypass_to_results(
    nodes: list[onnx.NodeProto], given: set[str], results: set[str]
) -> list[onnx.NodeProto]:
    """Let the node before a final Identity make the graph's output itself."""
    renamed: dict[str, str] = {}
    for node in nodes:
        if node.op_type == "Identity" and not node.domain and node.output[0] in results:
            source = node.input[0]
            if source not in given | results | renamed.keys():
                renamed[source] = node.output[0]
    kept = []
    for node in nodes:
        if node.op_type == "Identity" and renamed.get(node.input[0]) == node.output[0]:
            continue
        _rename_inputs(node, renamed)
        for i, name in enumerate(node.output):
            node.output[i] = renamed.get(name, name)
        kept.append(node)
    return kept


def _does_nothing(
    node: onnx.NodeProto,
    nodes: list[onnx.NodeProto],
    constants: dict[str, Array],
    results: set[str],
) -> bool:
    if node.domain or node.op_type not in {"Identity", "Dropout"}:
        return False
    if node.op_type == "Identity":
        return True
    training = node.input[2] if len(node.input) > 2 else ""  # noqa: PLR2004 -- training_mode
    if training and (training not in constants or bool(constants[training])):
        return False
    masks = set(node.output[1:]) - {""}
    return not masks & results and not any(masks & set(other.input) for other in walk(nodes))


def _rename_inputs(node: onnx.NodeProto, renamed: dict[str, str]) -> None:
    if renamed:
        for each in walk([node]):
            for i, name in enumerate(each.input):
                each.input[i] = renamed.get(name, name)


def _live(nodes: list[onnx.NodeProto], results: set[str]) -> list[onnx.NodeProto]:
    wanted = set(results)
    kept = []
    for node in reversed(nodes):
        if wanted & set(node.output):
            kept.append(node)
            wanted |= set(_reads(node))
    return kept[::-1]


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    for each in walk([node]):
        yield from each.input
        for attribute in each.attribute:
            for graph in (attribute.g, *attribute.graphs):
                # What an inner graph gives back may come from outside of it.
                yield from (value.name for value in graph.output)


def _has_graph(node: onnx.NodeProto) -> bool:
    return any(a.type in {AttributeProto.GRAPH, AttributeProto.GRAPHS} for a in node.attribute)
