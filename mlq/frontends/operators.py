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
        names = list(node.input)
        if any(each.name == "channels_last" and each.i for each in node.attribute):
            return [node]
        if node.op_type in _PLAIN:
            return self._made(node, _PLAIN[node.op_type], _threes(names[:-2]), names[-2:])
        if node.op_type == "QLinearConcat":
            return self._made(node, "Concat", _threes(names[2:]), names[:2])
        if node.op_type == "QLinearConv":
            return self._biased(node, "Conv", bias=names[8:9], result=names[6:8])
        if node.op_type == "QGemm":
            return self._biased(node, "Gemm", bias=names[6:7], result=names[7:9])
        return self._recurrent(node) if node.op_type == "DynamicQuantizeLSTM" else [node]

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
    return [tuple(names[i : i + 3]) for i in range(0, len(names), 3)]
