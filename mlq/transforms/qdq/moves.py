"""Ops that move elements: on integers as on reals, for ONNX too; and the casts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch_mlir.ir import StringAttr, Type, Value

from mlq import numerics
from mlq.dialect import build, nodes, quant
from mlq.dialect.build import Activation
from mlq.dialect.ops import WeightOp
from mlq.dialect.shapes import DYNAMIC
from mlq.transforms.concatenation import parts_of
from mlq.transforms.qdq.layers import activated, expect_nchw, real_type
from mlq.transforms.qdq.tensors import (
    Tensors,
    clipped,
    element_of,
    from_builtin,
    integer,
    name_of,
    params_of,
)

_ENDLESS = np.iinfo(np.int64).max
_REPEATING = {
    "mode": "nearest",
    "coordinate_transformation_mode": "asymmetric",
    "nearest_mode": "floor",
}


def weight(op: Any, _at: Tensors) -> Value:
    """The integers of a quantized weight, under the same key."""
    params = params_of(build.element_of(op.output))
    storage = build.tensor(build.shape_of(op.output), integer(params.dtype))
    made = WeightOp(StringAttr.get(op.key.value), storage).output
    return from_builtin(made, nodes.element_name(params.dtype))


def quantize(op: Any, at: Tensors) -> Value:
    """QuantizeLinear."""
    return at.quantized(at.real(op.input), build.element_of(op.output), name_of(op.input))


def dequantize(op: Any, at: Tensors) -> Value:
    """DequantizeLinear."""
    return at.real(op.input)


def requantize(op: Any, at: Tensors) -> Value:
    """DequantizeLinear, then QuantizeLinear."""
    name = f"{name_of(op.input)}:requantize"
    return at.quantized(at.real(op.input), build.element_of(op.output), name)


def reshape(op: Any, at: Tensors) -> Value:
    """Reshape."""
    shape = [-1 if size == DYNAMIC else size for size in build.shape_of(op.output)]
    name = name_of(op.output)
    operands = [at.stored(op.input), _integers(shape, f"{name}:shape")]
    return nodes.node("Reshape", operands, _type(op, operands[0]), name)


def transpose(op: Any, at: Tensors) -> Value:
    """Transpose."""
    x, order = at.stored(op.input), list(op.permutation)
    return nodes.node("Transpose", [x], _type(op, x), name_of(op.output), perm=order)


def concat(op: Any, at: Tensors) -> Value:
    """Concat of all that a chain of mlq's concats of two joins."""
    parts = [at.stored(part) for part in parts_of(op)]
    return nodes.node(
        "Concat", parts, _type(op, parts[0]), name_of(op.output), axis=int(op.axis.value)
    )


def slice(op: Any, at: Tensors) -> Value:
    """Slice of the axes that are cut."""
    x, name = at.stored(op.input), name_of(op.output)
    whole = build.shape_of(op.input)
    parts = list(zip(op.offsets, op.sizes, op.strides, strict=True))
    cut = [
        axis
        for axis, (offset, size, step) in enumerate(parts)
        if (offset, step) != (0, 1) or size not in {-1, whole[axis]}
    ]
    ends = [
        _ENDLESS if size == -1 else offset + (size - 1) * step + 1 for offset, size, step in parts
    ]
    if not cut:
        return x
    bounds = {
        "starts": [parts[axis][0] for axis in cut],
        "ends": [ends[axis] for axis in cut],
        "axes": cut,
        "steps": [parts[axis][2] for axis in cut],
    }
    operands = [_integers(values, f"{name}:{key}") for key, values in bounds.items()]
    return nodes.node("Slice", [x, *operands], _type(op, x), name)


def pad(op: Any, at: Tensors) -> Value:
    """Pad with the code of the value."""
    name, value = name_of(op.output), np.array(op.value.value, np.float32)
    widths = _integers([*op.low, *op.high], f"{name}:pads")

    def padded(x: Value, code: Any) -> Value:
        operands = [x, widths, nodes.constant(np.asarray(code), f"{name}:value")]
        return nodes.node("Pad", operands, _type(op, x), name)

    params = quant.params_of(build.element_of(op.input))
    code = value if params is None else numerics.quantize(value, params)
    return _in_bytes(op, at, lambda x: padded(x, code), lambda x: padded(x, value))


def resize_nearest(op: Any, at: Tensors) -> Value:
    """Resize by scales, of integers as of reals."""
    expect_nchw(op)
    x, name = at.stored(op.input), name_of(op.output)
    scales = nodes.constant(np.array([1, 1, *op.factors], np.float32), f"{name}:scales")
    region = nodes.constant(np.zeros(0, np.float32), f"{name}:roi")
    return nodes.node("Resize", [x, region, scales], _type(op, x), name, **_REPEATING)


def resample(op: Any, at: Tensors) -> Value:
    """Two MatMul, of reals: rows from the left, columns from the right."""
    expect_nchw(op)
    name, (after, before) = name_of(op.output), build.shape_of(op.columns)
    *tall, _ = build.shape_of(op.output)
    rows = [at.real(op.rows), at.real(op.input)]
    made = nodes.node("MatMul", rows, nodes.vtensor([*tall, before], "f32"), f"{name}:rows")
    turned = nodes.vtensor([before, after], "f32")
    columns = nodes.node("Transpose", [at.real(op.columns)], turned, f"{name}:columns", perm=[1, 0])
    return nodes.node("MatMul", [made, columns], real_type(op), name)


def max_pool2d(op: Any, at: Tensors) -> Value:
    """MaxPool."""
    expect_nchw(op)
    kernel, strides, pads, dilations = build.attributes_of(
        op, "kernel", "strides", "pads", "dilations"
    ).values()

    def pooled(x: Value) -> Value:
        return nodes.node(
            "MaxPool",
            [x],
            _type(op, x),
            name_of(op.output),
            kernel_shape=kernel,
            strides=strides,
            pads=pads,
            dilations=dilations,
        )

    return _in_bytes(op, at, pooled, pooled)


def activate(op: Any, at: Tensors) -> Value:
    """Relu or Clip of reals, Clip of integers."""
    name, activation = name_of(op.output), Activation.of(op)
    params = quant.params_of(build.element_of(op.input))

    def clamped(x: Value) -> Value:
        assert params is not None
        bounds = numerics.activation_bounds(params, activation.bounds)
        least, most = np.array(bounds, params.dtype)
        return clipped(x, least, most, name)

    def real(x: Value) -> Value:
        return activated(x, activation, name)

    return _in_bytes(op, at, real if params is None else clamped, real)


def _in_bytes(
    op: Any, at: Tensors, stored: Callable[[Value], Value], real: Callable[[Value], Value]
) -> Value:
    """`stored` of the operand, or, for integers of 16 bits, `real`: ONNX Runtime lacks the ops.

    Back in integers they are the same: storing reals undoes dequantizing, and order is kept.
    """
    params = quant.params_of(build.element_of(op.input))
    if params is None or params.dtype.itemsize == 1:
        return stored(at.stored(op.input))
    name = name_of(op.output)
    return at.quantized(real(at.real(op.input)), build.element_of(op.output), name)


def _integers(values: Sequence[int], name: str) -> Value:
    return nodes.constant(np.array(values, np.int64), name)


def _type(op: Any, x: Value) -> Type:
    """The result's shape with the elements of `x`."""
    return nodes.vtensor(build.shape_of(op.output), element_of(x.type))
