"""A graph that ends where someone says: at values inside of it, without what comes after them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches

import onnx
from onnx import helper, shape_inference

from mlq.errors import ModelError
from mlq.frontends.reading import Source, put_nodes, walk


def cut(source: Source, names: Sequence[str]) -> Source:
    """The model with these values as outputs, and only the nodes and constants that make them.

    Inputs that nothing is made of any more are dropped. No name leaves all as it is. ModelError
    names a value that no node makes, and those that are called like it.
    """
    if not names:
        return source
    path, graph = source.path, source.model.graph
    makers = {name: node for node in graph.node for name in node.output if name}
    for name in names:
        if name not in makers:
            near = " or ".join(map(repr, get_close_matches(name, makers, n=2)))
            meant = f"is it {near}?" if near else "give outputs of nodes, as Netron shows them"
            raise ModelError(f"{path}: no node makes {name!r} of --outputs; {meant}")
    needed = _needed(names, makers)
    constants = {name: array for name, array in source.constants.items() if name in needed}
    types = {value.name: value.type for value in (*graph.value_info, *graph.output)}
    inputs = [value for value in graph.input if value.name in needed]
    shorter = onnx.ModelProto.FromString(source.model.SerializeToString())
    put_nodes(shorter.graph, [node for node in graph.node if needed.intersection(node.output)])
    for field in ("input", "output", "value_info"):
        shorter.graph.ClearField(field)
    shorter.graph.input.extend(inputs)
    cut_off = replace(source, model=shorter, constants=constants)
    if not types.keys() >= set(names):
        types |= _types(cut_off)
    for name in names:
        if not types.get(name, onnx.TypeProto()).tensor_type.elem_type:
            raise ModelError(f"{path}: the type of {name!r} is unknown; end at another value")
        shorter.graph.output.add(name=name, type=types[name])
    kept = [value for value in graph.value_info if value.name in needed - set(names)]
    shorter.graph.value_info.extend(kept)
    return cut_off


def _needed(names: Sequence[str], makers: Mapping[str, onnx.NodeProto]) -> set[str]:
    """All values that these are made of, and they; what graphs inside of nodes read, too."""
    found, waiting = set[str](), list(names)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        if name in makers:
            waiting += [read for inner in walk([makers[name]]) for read in inner.input if read]
            waiting += [made.name for made in _ends(makers[name])]
    return found


def _ends(node: onnx.NodeProto) -> list[onnx.ValueInfoProto]:
    """What graphs inside of a node end with; that may be a value of the graph outside."""
    return [
        value
        for inner in walk([node])
        for attribute in inner.attribute
        for graph in (attribute.g, *attribute.graphs)
        for value in graph.output
    ]


def _types(source: Source) -> dict[str, onnx.TypeProto]:
    """The types of values, as far as they follow from those of inputs and constants."""
    model = onnx.ModelProto.FromString(source.model.SerializeToString())
    for name, array in source.constants.items():
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        model.graph.input.append(helper.make_tensor_value_info(name, kind, array.shape))
    inferred = shape_inference.infer_shapes(model)
    return {value.name: value.type for value in inferred.graph.value_info}
