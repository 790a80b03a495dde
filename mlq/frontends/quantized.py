"""Networks that are quantized already, taken for the float ones that they stand for.

Q/DQ nodes, operators on integers (`operators`), and what ONNX Runtime makes of "dynamic"
quantization. An integer becomes the real that it stands for, in inputs and outputs too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from mlq.errors import ModelError
from mlq.frontends.computing import NEWEST, computed, without_constants
from mlq.frontends.operators import take_apart
from mlq.frontends.ordering import put_in_order
from mlq.frontends.reading import Source, label, put_nodes, unused, value_names, walk

Array = NDArray[Any]
_Storage: TypeAlias = tuple[Array, Array]
"""Scale and zero point."""

# How the ops begin of networks that are quantized. A DequantizeLinear alone is how to keep weights.
_OF_INTEGERS = ("ConvInteger", "DynamicQuantize", "MatMulInteger", "QGemm", "QLinear", "Quantize")
# What moves integers, or picks some, makes of reals the reals that those would stand for.
_MOVES = frozenset(
    {
        "Concat",
        "DepthToSpace",
        "Expand",
        "Flatten",
        "Gather",
        "Identity",
        "MaxPool",
        "Reshape",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    }
)
_POSITIVE = frozenset({"Abs", "Exp", "HardSigmoid", "Relu", "Sigmoid", "Softmax"})
# What makes nothing below zero of operands that are not.
_KEEPS = _MOVES | {"Add", "AveragePool", "GlobalAveragePool", "Mul", "ReduceMean"}
_PRODUCTS = {"ConvInteger": "Conv", "MatMulInteger": "MatMul"}
_FEWEST = {
    "ConvInteger": 2,
    "DequantizeLinear": 2,
    "DynamicQuantizeLinear": 1,
    "MatMulInteger": 2,
    "QuantizeLinear": 2,
}
# Before, Clip had its limits as attributes.
_LIMITS_ARE_INPUTS = 11


def as_floats(source: Source) -> int:
    """Make reals of the integers of a quantized graph; how many nodes computed with such.

    What saturation cuts off below zero, where it takes the place of a Relu, a Clip does. ModelError
    names what computes with integers in another way.
    """
    graph, constants = source.model.graph, source.constants
    count = sum(map(_is_of_integers, walk(graph.node)))
    if not count:
        return 0
    put_in_order(source.path, graph)
    taken = {*constants, *value_names(graph)}
    nodes = take_apart(list(without_constants(graph, constants)), constants, taken)
    reals = _Reals(source, nodes, taken)
    put_nodes(graph, [made for node in nodes for made in reals.of(node)])
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.name in reals.stored:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for node in walk(graph.node):
        if _is_of_integers(node):
            _refuse(source.path, node)
    return count


class _Reals:
    """Node after node, what it is on reals.

    `stored` has scale and zero point of the values that were integers; `sums` are of products.
    """

    def __init__(self, source: Source, nodes: list[onnx.NodeProto], taken: set[str]) -> None:
        self.path, self.constants, self.taken = source.path, source.constants, taken
        self.sums: set[str] = set()
        self.positive: set[str] = set()
        self.read = _readers(nodes)
        inputs = {value.name for value in source.model.graph.input} - self.constants.keys()
        self.stored: dict[str, _Storage] = {
            name: self._parameters(self.read[name])[1:] for name in inputs & self.read.keys()
        }
        versions = {each.domain: each.version for each in source.model.opset_import}
        self.clips_by_inputs = versions.get("", 0) >= _LIMITS_ARE_INPUTS

    def of(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """What stands for a node."""
        least = _FEWEST.get(node.op_type, 0)
        if least and (len(node.input) < least or not node.output):
            _refuse(self.path, node)
        kinds = {
            "QuantizeLinear": self._quantize,
            "DequantizeLinear": self._dequantize,
            "DynamicQuantizeLinear": self._measure,
            **dict.fromkeys(_PRODUCTS, self._product),
        }
        made = kinds.get(node.op_type, self._other)(node)
        self.positive.update(name for each in made for name in self._not_below_zero(each))
        return made

    def _quantize(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """Saturation without rounding, where it is not that of a calibrated range."""
        x, scale, zero = self._parameters(node)
        made = node.output[0]
        if x in self.constants:
            self.constants[made] = self._computed(node)
            return []
        least, most = _limits(zero.dtype)
        self.stored[made] = scale, zero
        relu = scale.size == 1 and zero.size == 1 and int(zero.reshape(())) == least
        if not relu or x in self.positive:
            return [_same(node, x)]
        return [self._clip(node, x, (most - least) * float(scale.reshape(())))]

    def _dequantize(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        x, *storage = self._parameters(node)
        if x in self.constants:
            self.constants[node.output[0]] = self._computed(node)
            return []
        if x not in self.stored or not _equal(self.stored[x], storage):
            _refuse(self.path, node)
        return [_same(node, x)]

    def _measure(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """Scales that each call finds anew are left out: integers stand for themselves."""
        made, *storage = node.output
        self.stored[made] = np.ones((), np.float32), np.zeros((), np.uint8)
        self.constants |= dict(zip(storage, self.stored[made], strict=False))
        return [_same(node, node.input[0])]

    def _product(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """A sum of products of integers, from reals: by the weight over the reals' scale."""
        x, weight, *zeros = (*node.input, "", "")[:4]
        nothing = np.zeros((), np.int8)
        below = [self.constants.get(name) if name else nothing for name in zeros]
        if x not in self.stored or weight not in self.constants or below[1] is None:
            _refuse(self.path, node)
        scale, zero = self.stored[x]
        if scale.size != 1 or below[0] is None or not _equal([zero], [below[0]]):
            _refuse(self.path, node)
        array = self.constants[weight].astype(np.float32)
        rank = array.ndim - 1 if node.op_type == "ConvInteger" and below[1].ndim else 0
        array -= below[1].astype(np.float32).reshape((*below[1].shape, *[1] * rank))
        name = unused(f"{weight}/real", self.taken)
        self.constants[name] = array / scale.astype(np.float32).reshape(())
        made = helper.make_node(_PRODUCTS[node.op_type], [x, name], node.output, node.name)
        made.attribute.extend(node.attribute)
        self.sums.add(node.output[0])
        return [made]

    def _other(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        if node.op_type == "Cast" and node.input[0] in self.sums:
            return [_same(node, node.input[0])]
        read = [self.stored[name] for name in node.input if name in self.stored]
        joined = len(node.input) if node.op_type == "Concat" else 1
        alike = len(read) >= joined and all(_equal(each, read[0]) for each in read)
        if (read and not (node.op_type in _MOVES and alike)) or self.sums & set(node.input):
            _refuse(self.path, node)
        if read:
            self.stored |= dict.fromkeys(node.output, read[0])
        elif node.op_type == "Gather" and node.output[0] in self.read:
            return [self._looked_up(node)]
        return [node]

    def _looked_up(self, node: onnx.NodeProto) -> onnx.NodeProto:
        """Rows of a table of integers, whose reals are asked for behind, as rows of reals."""
        table, place = node.input
        reader = self.read[node.output[0]]
        if table not in self.constants:
            return node
        storage = self._parameters(reader)[1:]
        if any(each.size != 1 for each in storage):
            _refuse(self.path, reader)
        name = unused(f"{table}/real", self.taken)
        whole = helper.make_node("DequantizeLinear", [table, *reader.input[1:]], [name])
        self.constants[name] = self._computed(whole)
        self.stored[node.output[0]] = storage
        made = helper.make_node("Gather", [name, place], node.output, node.name)
        made.attribute.extend(node.attribute)
        return made

    def _parameters(self, node: onnx.NodeProto) -> tuple[str, Array, Array]:
        """What is read, scale and zero point; ModelError where they are not known."""
        x, scale, *zeros = node.input
        names = [scale, *filter(None, zeros)]
        if any(name not in self.constants for name in names):
            _refuse(self.path, node)
        known = [np.asarray(self.constants[name]) for name in names]
        kind = next((each.i for each in node.attribute if each.name == "output_dtype"), 0)
        nothing = np.zeros((), helper.tensor_dtype_to_np_dtype(kind or TensorProto.UINT8))
        return x, known[0], known[1] if len(known) > 1 else nothing

    def _computed(self, node: onnx.NodeProto) -> Array:
        """What Q or DQ, be it ONNX's or ONNX Runtime's, makes of constants."""
        plain = helper.make_node(node.op_type, node.input, node.output, node.name)
        plain.attribute.extend(node.attribute)
        found = computed(plain, self.constants, NEWEST)
        if found is None:
            _refuse(self.path, node)
        return found[0]

    def _clip(self, node: onnx.NodeProto, x: str, high: float) -> onnx.NodeProto:
        self.positive.add(node.output[0])
        if not self.clips_by_inputs:
            return helper.make_node("Clip", [x], node.output, node.name, min=0.0, max=high)
        ends = {unused(f"{node.output[0]}/low", self.taken): 0.0}
        ends[unused(f"{node.output[0]}/high", self.taken)] = high
        self.constants |= {name: np.asarray(end, np.float32) for name, end in ends.items()}
        return helper.make_node("Clip", [x, *ends], node.output, node.name)

    def _not_below_zero(self, node: onnx.NodeProto) -> Iterator[str]:
        known = [self.constants[name] for name in node.input if name in self.constants]
        # Other constants are axes and shapes.
        reals = all((each >= 0).all() for each in known if each.dtype.kind == "f")
        reads = {name for name in node.input if name not in self.constants}
        kept = node.op_type in _KEEPS and reads <= self.positive and reals
        least = {name: self.constants.get(name) for name in node.input[1:2]}.values()
        clips = node.op_type == "Clip" and any(low is not None and low >= 0 for low in least)
        if kept or clips or node.op_type in _POSITIVE:
            yield from node.output


def _is_of_integers(node: onnx.NodeProto) -> bool:
    return bool(node.op_type.startswith(_OF_INTEGERS))


def _refuse(path: Path, node: onnx.NodeProto) -> NoReturn:
    raise ModelError(
        f"{path}: node {label(node)} computes with integers whose reals are not known;"
        " give the float network that was quantized"
    )


def _readers(nodes: list[onnx.NodeProto]) -> dict[str, onnx.NodeProto]:
    """What makes reals of a value, whatever it is moved by until then."""
    makers = {name: node for node in nodes for name in node.output}
    found = {}
    for node in (
        each for each in nodes if each.op_type == "DequantizeLinear" and len(each.input) > 1
    ):
        name = node.input[0]
        while name in makers and makers[name].op_type in _MOVES - {"Gather"}:
            name = makers[name].input[0]
        found[name] = node
    return found


def _same(node: onnx.NodeProto, x: str) -> onnx.NodeProto:
    return helper.make_node("Identity", [x], node.output[:1], node.name)


def _limits(dtype: np.dtype[Any]) -> tuple[int, int]:
    """The least and the greatest integer of a type: i8, u8, i4, which numpy has not, ..."""
    unsigned, _, bits = dtype.name.rpartition("int")
    if unsigned:
        return 0, (1 << int(bits)) - 1
    return -(1 << int(bits) - 1), (1 << int(bits) - 1) - 1


def _equal(one: Iterable[Array], other: Iterable[Array]) -> bool:
    return all(map(np.array_equal, one, other))
