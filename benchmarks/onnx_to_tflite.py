"""The network of an ONNX Q/DQ model, int8 per channel, as the TFLite model of int8 that it is.

Scales, zero points, weights and biases are taken as they are, with one exception: whatever only a
concatenation reads gets the concatenation's scale, as TFLite's own converter does it. Activations
are in NHWC, the input and the output floats. Only what arm.py's networks need is known.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime_baseline
from numpy.typing import NDArray
from tflite import Flatbuffer

_NHWC = (0, 2, 3, 1)
_SAME, _VALID = 0, 1  # TFLite's paddings


class Conversion:
    """What is known of an ONNX model while its nodes become TFLite operators."""

    def __init__(self, model: onnx.ModelProto) -> None:
        onnxruntime_baseline.fix_batch(model)
        del model.graph.value_info[:]
        self.graph = onnx.shape_inference.infer_shapes(model).graph
        self.constants = {
            each.name: onnx.numpy_helper.to_array(each) for each in self.graph.initializer
        }
        self.makers = {name: node for node in self.graph.node for name in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        infos = [*self.graph.value_info, *self.graph.input, *self.graph.output]
        self.shapes = {
            each.name: tuple(size.dim_value for size in each.type.tensor_type.shape.dim)
            for each in infos
        }
        self.out = Flatbuffer()
        self.indices: dict[str, int] = {}

    def constant(self, name: str) -> NDArray[Any]:
        """A constant, dequantized or not."""
        return self.constants[name if name in self.constants else self.source(name)]

    def source(self, name: str) -> str:
        """The integers whose dequantization has this name."""
        node = self.makers[name]
        if node.op_type != "DequantizeLinear":
            raise SystemExit(f"{name} is no dequantized tensor but made by {node.op_type}")
        return str(node.input[0])

    def quantizer(self, name: str) -> onnx.NodeProto:
        """The one node that quantizes a tensor, which nothing else may read."""
        (node,) = self.readers[name]
        if node.op_type != "QuantizeLinear":
            raise SystemExit(f"{name} is read by {node.op_type} as a float")
        return node

    def parameters(self, node: onnx.NodeProto) -> tuple[NDArray[Any], NDArray[Any]]:
        """Scale and zero point of a node that quantizes, or the concatenation's that reads it."""
        reader = self.readers[node.output[0]]
        floats = [other for each in reader for other in self.readers.get(each.output[0], [])]
        if [each.op_type for each in floats] == ["Concat"]:
            return self.parameters(self.quantizer(floats[0].output[0]))
        return self.constants[node.input[1]], self.constants[node.input[2]]

    def activation(self, name: str) -> int:
        """The tensor that a float stands for: the integers it is dequantized from."""
        return self.indices[self.source(name)]

    def weights(self, name: str, array: NDArray[Any], axis: int) -> int:
        """A constant as its dequantization has it, its elements in TFLite's order."""
        node = self.makers[name]
        zero_points = self.constants[node.input[2]]
        if zero_points.any():
            raise SystemExit(f"{name} is asymmetric")
        return self.out.tensor(name, array, self.constants[node.input[1]], zero_points, axis)

    def result(self, node: onnx.NodeProto, shape: tuple[int, ...] | None = None) -> int:
        """The quantized tensor that a node makes, in NHWC unless its shape is given."""
        quantizer = self.quantizer(node.output[0])
        known = self.shapes[node.output[0]]
        shape = shape or tuple(known[axis] for axis in _NHWC)
        made = self.out.tensor(node.name, (shape, np.int8), *self.parameters(quantizer))
        self.indices[quantizer.output[0]] = made
        return made

    def packed(self, *, every: bool = False) -> bytes:
        """The TFLite model, once all is converted; to be seen, it also returns every activation."""
        first, last = (self.indices[each[0].name] for each in (self.graph.input, self.graph.output))
        others = sorted({*self.indices.values()} - {first, last}) if every else []
        return self.out.packed([first], [last, *others])

    def padded(self, tensor: int, pads: list[list[int]]) -> int:
        """A tensor with a margin of its zero point; numbers before and after for each axis."""
        before = self.out.tensors[tensor]
        margins = np.array(pads, np.int32)
        shape = tuple(int(each) for each in np.array(before.shape) + margins.sum(1))
        scale, zero_point = before.quantization.scale, before.quantization.zeroPoint
        name = f"{before.name}:padded"
        after = self.out.tensor(name, (shape, np.int8), scale, zero_point)
        self.out.operator("PAD", [tensor, self.out.tensor(name, margins)], [after], "PadOptions")
        return after


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}


def _conv(found: Conversion, node: onnx.NodeProto) -> None:
    given = _attributes(node)
    array = found.constant(node.input[1])
    depthwise = given["group"] > 1
    if depthwise and (array.shape[1] != 1 or given["group"] != array.shape[0]):
        raise SystemExit(f"{node.name} has groups but is not depthwise")
    array = array.transpose((1, 2, 3, 0) if depthwise else (0, 2, 3, 1))
    weights = found.weights(node.input[1], array, 3 if depthwise else 0)
    bias = found.weights(node.input[2], found.constant(node.input[2]), 0)
    before = found.activation(node.input[0])
    pads, kernel, strides = given["pads"], given["kernel_shape"], given["strides"]
    same = _same_pads(found.out.tensors[before].shape[1:3], kernel, strides)
    if any(pads) and pads != same:
        before = found.padded(before, [[0, 0], pads[0::2], pads[1::2], [0, 0]])
    options = {
        "padding": _SAME if any(pads) and pads == same else _VALID,
        "strideH": strides[0],
        "strideW": strides[1],
    }
    if depthwise:
        options["depthMultiplier"] = 1
    name = "DepthwiseConv2DOptions" if depthwise else "Conv2DOptions"
    code = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
    found.out.operator(code, [before, weights, bias], [found.result(node)], name, **options)


def _same_pads(size: list[int], kernel: list[int], strides: list[int]) -> list[int]:
    """ONNX's pads that are TFLite's SAME."""
    steps = zip(size, kernel, strides, strict=True)
    whole = [max((-(-n // step) - 1) * step + width - n, 0) for n, width, step in steps]
    return [each // 2 for each in whole] + [each - each // 2 for each in whole]


def _gemm(found: Conversion, node: onnx.NodeProto) -> None:
    given = _attributes(node)
    array = found.constant(node.input[1])
    if not given.get("transB"):
        raise SystemExit(f"{node.name} has its weights the other way round")
    inputs = [
        found.activation(node.input[0]),
        found.weights(node.input[1], array, 0),
        found.weights(node.input[2], found.constant(node.input[2]), 0),
    ]
    after = found.result(node, (1, array.shape[0]))
    found.out.operator("FULLY_CONNECTED", inputs, [after], "FullyConnectedOptions")


def _add(found: Conversion, node: onnx.NodeProto) -> None:
    inputs = [found.activation(name) for name in node.input]
    found.out.operator("ADD", inputs, [found.result(node)], "AddOptions")


def _concat(found: Conversion, node: onnx.NodeProto) -> None:
    inputs = [found.activation(name) for name in node.input]
    after = [found.result(node)]
    found.out.operator("CONCATENATION", inputs, after, "ConcatenationOptions", axis=3)


def _max_pool(found: Conversion, node: onnx.NodeProto) -> None:
    given = _attributes(node)
    before, after = found.activation(node.input[0]), found.result(node)
    (height, width), strides = given["kernel_shape"], given["strides"]
    size = found.out.tensors[before].shape[1:3]
    whole = [(n - k) % step for n, k, step in zip(size, (height, width), strides, strict=True)]
    if any(given["pads"]) or (given.get("ceil_mode") and any(whole)):
        raise SystemExit(f"{node.name} reaches over the margin")
    options = {"padding": _VALID, "strideH": strides[0], "strideW": strides[1]}
    options |= {"filterHeight": height, "filterWidth": width}
    found.out.operator("MAX_POOL_2D", [before], [after], "Pool2DOptions", **options)


def _mean(found: Conversion, node: onnx.NodeProto) -> None:
    """A pool over the whole image; what it leaves has no height and no width any more."""
    before = found.activation(node.input[0])
    if found.shapes[node.output[0]][2:] != (1, 1):
        raise SystemExit(f"{node.name} is not global")
    axes = found.out.tensor(f"{node.name}:axes", np.array([1, 2], np.int32))
    after = found.result(node, found.shapes[node.output[0]][:2])
    found.out.operator("MEAN", [before, axes], [after], "ReducerOptions", keepDims=False)


def _flatten(found: Conversion, node: onnx.NodeProto) -> None:
    before = found.activation(node.input[0])
    if len(found.out.tensors[before].shape) != 2:
        raise SystemExit(f"{node.name} flattens an image")
    found.indices[found.quantizer(node.output[0]).output[0]] = before


def _slice(found: Conversion, node: onnx.NodeProto) -> None:
    """A depthwise convolution by one, as a slice with steps is nothing that XNNPACK takes."""
    before = found.activation(node.input[0])
    starts, ends, axes, steps = (found.constant(name).tolist() for name in node.input[1:])
    size = [found.shapes[node.input[0]][axis] for axis in axes]
    if axes != [2, 3] or any(starts) or any(end < n for end, n in zip(ends, size, strict=True)):
        raise SystemExit(f"{node.name} takes no whole image by steps")
    image = found.out.tensors[before]
    channels, one = image.shape[3], np.float32(1 / 127)
    ones = np.full((1, 1, 1, channels), 127, np.int8)
    weights = found.out.tensor(f"{node.name}:one", ones, np.full(channels, one), axis=3)
    scales = np.full(channels, image.quantization.scale[0] * one)
    bias = found.out.tensor(f"{node.name}:zero", np.zeros(channels, np.int32), scales)
    options = {"padding": _VALID, "strideH": steps[0], "strideW": steps[1], "depthMultiplier": 1}
    inputs, after = [before, weights, bias], [found.result(node)]
    found.out.operator("DEPTHWISE_CONV_2D", inputs, after, "DepthwiseConv2DOptions", **options)


def _pad(found: Conversion, node: onnx.NodeProto) -> None:
    pads = found.constant(node.input[1]).reshape(2, 4).T[list(_NHWC)]
    after = found.padded(found.activation(node.input[0]), pads.tolist())
    found.indices[found.quantizer(node.output[0]).output[0]] = after


def _quantize(found: Conversion, node: onnx.NodeProto) -> None:
    """Where the network's input is; any other belongs to the node before it."""
    name = node.input[0]
    if name != found.graph.input[0].name:
        return
    shape = tuple(found.shapes[name][axis] for axis in _NHWC)
    before = found.out.tensor(name, (shape, np.float32))
    after = found.out.tensor(node.name, (shape, np.int8), *found.parameters(node))
    found.indices[name], found.indices[node.output[0]] = before, after
    found.out.operator("QUANTIZE", [before], [after], "QuantizeOptions")


def _dequantize(found: Conversion, node: onnx.NodeProto) -> None:
    """Where the network's output is; any other belongs to the node after it."""
    name = node.output[0]
    if name != found.graph.output[0].name:
        return
    before = found.indices[node.input[0]]
    shape = tuple(found.out.tensors[before].shape)
    found.indices[name] = found.out.tensor(name, (shape, np.float32))
    found.out.operator("DEQUANTIZE", [before], [found.indices[name]], "DequantizeOptions")


_NODES: dict[str, Callable[[Conversion, onnx.NodeProto], None]] = {
    "Add": _add,
    "AveragePool": _mean,
    "Concat": _concat,
    "Conv": _conv,
    "DequantizeLinear": _dequantize,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "GlobalAveragePool": _mean,
    "MaxPool": _max_pool,
    "Pad": _pad,
    "QuantizeLinear": _quantize,
    "Slice": _slice,
}


def convert(model: Path) -> Conversion:
    """A Q/DQ model of s8 activations, all converted; SystemExit at what is not known here."""
    found = Conversion(onnx.load(model))
    for node in found.graph.node:
        if node.op_type not in _NODES:
            raise SystemExit(f"{node.name}: {node.op_type} is not known here")
        _NODES[node.op_type](found, node)
    return found
