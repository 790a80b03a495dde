"""Operators on integers that stand for reals (QLinearConv, QGemm, ...) as plain ones among Q/DQ.

ONNX's own, and those of ONNX Runtime (domain com.microsoft), which it writes as QOperator.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from mlq.frontends.reading import unused

Array = NDArray[Any]

# Each operand, then the result, comes with a scale and a zero point.
_PLAIN = {
    "QLinearAdd": "Add",
    "QLinearAveragePool": "AveragePool",
    "QLinearGlobalAveragePool": "GlobalAveragePool",
    "QLinearLeakyRelu": "LeakyRelu",
    "QLinearMatMul": "MatMul",
    "QLinearMul": "Mul",
    "QLinearReduceMean": "ReduceMean",
    "QLinearSigmoid": "Sigmoid",
    "QLinearSoftmax": "Softmax",
}
_INPUTS = {"QLinearConv": (8, 9), "QGemm": (6, 7, 9), "DynamicQuantizeLSTM": (12,)}
_TRIPLE = 3
# Attributes that the plain operators do not have.
_EXTRA = frozenset({"channels_last", "opset"})


def take_apart(
    nodes: Sequence[onnx.NodeProto], constants: dict[str, Array], taken: set[str]
) -> list[onnx.NodeProto]:
    """The nodes, of which those that compute with integers are in three: DQ, the plain one, Q.

    `taken` are the names that values have; scales of biases are added to the constants.
    """
    apart = _Apart(constants, taken)
    return [made for node in nodes for made in apart.of(node)]


class _Apart:
    def __init__(self, constants: dict[str, Array], taken: set[str]) -> None:
        self.constants, self.taken = constants, taken

    def of(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """What stands for a node: itself, where it is none of these."""
        names, found = list(node.input), [node]
        # Scales and zero points of all operands, and two of the result: else the node is malformed.
        whole = len(names) > _TRIPLE and len(names) % _TRIPLE == _TRIPLE - 1
        if any(each.name == "channels_last" and each.i for each in node.attribute):
            return found
        match node.op_type:
            case kind if kind in _PLAIN and whole:
                found = self._made(node, _PLAIN[kind], _threes(names[:-2]), names[-2:])
            case "QLinearConcat" if whole:
                found = self._made(node, "Concat", _threes(names[2:]), names[:2])
            case "QLinearConv" if len(names) in _INPUTS["QLinearConv"]:
                found = self._biased(node, "Conv", bias=names[8:9], result=names[6:8])
            case "QGemm" if len(names) in _INPUTS["QGemm"]:
                found = self._biased(node, "Gemm", bias=names[6:7], result=names[7:9])
            case "DynamicQuantizeLSTM" if len(names) in _INPUTS["DynamicQuantizeLSTM"]:
                found = self._recurrent(node)
        return found

    def _recurrent(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """An LSTM whose weights are stored the other way round, each with its scale behind."""
        x, *stored, bias, lengths, hidden, cell, peepholes = node.input[:8]
        found, turned = [], []
        for i, weight in enumerate(stored):
            of, real = (self._name(f"{node.name}/{what}{i}") for what in ("stored", "weight"))
            triple = [weight, *node.input[8 + 2 * i : 10 + 2 * i]]
            found.append(helper.make_node("DequantizeLinear", triple, [of], of, axis=0))
            found.append(helper.make_node("Transpose", [of], [real], real, perm=[0, 2, 1]))
            turned.append(real)
        inputs = [x, *turned, bias, lengths, hidden, cell, peepholes]
        plain = helper.make_node("LSTM", inputs, node.output, node.name)
        plain.attribute.extend(node.attribute)
        return [*found, plain]

    def _biased(
        self, node: onnx.NodeProto, kind: str, *, bias: list[str], result: list[str]
    ) -> list[onnx.NodeProto]:
        """Of two operands, and a bias in i32, whose scale is the product of theirs."""
        factors, scales = _threes(list(node.input[:6])), []
        if not any(bias):
            return self._made(node, kind, factors, result)
        for _, scale, *_ in factors:
            if scale not in self.constants:
                return [node]
            scales.append(self.constants[scale].astype(np.float32))
        name = self._name(f"{node.name}/bias scale")
        self.constants[name] = scales[0] * scales[1]
        return self._made(node, kind, [*factors, (bias[0], name)], result)

    def _made(
        self,
        node: onnx.NodeProto,
        kind: str,
        operands: Sequence[tuple[str, ...]],
        result: Sequence[str],
    ) -> list[onnx.NodeProto]:
        reals = [self._name(f"{node.name}/{i}") for i in range(len(operands))]
        made = self._name(f"{node.name}/real") if any(result) else node.output[0]
        plain = helper.make_node(kind, reals, [made], node.name)
        plain.attribute.extend(each for each in node.attribute if each.name not in _EXTRA)
        found = [
            helper.make_node("DequantizeLinear", triple, [real], real, axis=_axis(plain, i))
            for i, (triple, real) in enumerate(zip(operands, reals, strict=True))
        ]
        found.append(plain)
        if any(result):
            found.append(helper.make_node("QuantizeLinear", [made, *result], node.output, made))
        return found

    def _name(self, wanted: str) -> str:
        return unused(wanted, self.taken)


def _axis(node: onnx.NodeProto, operand: int) -> int:
    """Which axis of an operand has scales of its own, if one has: the channels that are made."""
    if operand != 1 or node.op_type == "Conv":
        return 0
    turned = any(each.name == "transB" and each.i for each in node.attribute)
    return 0 if turned else -1


def _threes(names: list[str]) -> list[tuple[str, ...]]:
    return [tuple(names[i : i + _TRIPLE]) for i in range(0, len(names), _TRIPLE)]
