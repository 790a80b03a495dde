"""Builders: mlq ops from Python values at the current insertion point, and their attributes."""

from __future__ import annotations

from collections.abc import Sequence

from torch_mlir.ir import F32Type, FloatAttr, StringAttr, Type, Value

from mlq.dialect import ops, shapes
from mlq.dialect.attributes import (
    ANNOTATIONS,
    EXTREMES,
    NAME,
    NO_ACTIVATION,
    PRECISION,
    RANGE,
    SENSITIVITY,
    Activation,
    all_attributes_of,
    array,
    attributes_of,
    boolean,
    integer,
    name_of,
    precision_attribute,
    range_attribute,
    sensitivity_attribute,
)
from mlq.dialect.tensors import after, element_of, elements_of, named, shape_of, tensor
from mlq.numerics import nonlinear
from mlq.numerics.nonlinear import Function

__all__ = [
    "ANNOTATIONS",
    "EXTREMES",
    "NAME",
    "NO_ACTIVATION",
    "PRECISION",
    "RANGE",
    "SENSITIVITY",
    "Activation",
    "after",
    "all_attributes_of",
    "array",
    "attributes_of",
    "boolean",
    "element_of",
    "elements_of",
    "integer",
    "name_of",
    "named",
    "precision_attribute",
    "range_attribute",
    "sensitivity_attribute",
    "shape_of",
    "tensor",
]


def quantize(value: Value, element: Type) -> Value:
    """`mlq.quantize` to the quantized `element` type."""
    return ops.QuantizeOp(value, tensor(shape_of(value), element)).output


def dequantize(value: Value) -> Value:
    """`mlq.dequantize` to f32."""
    return ops.DequantizeOp(value, tensor(shape_of(value))).output


def weight(key: str, type_: Type) -> Value:
    """`mlq.weight` for the store's entry `key`."""
    return ops.WeightOp(StringAttr.get(key), type_).output


def conv2d(
    input: Value,
    weight: Value,
    *,
    bias: Value | None = None,
    residual: Value | None = None,
    strides: Sequence[int] = (1, 1),
    pads: Sequence[int] = (0, 0, 0, 0),
    dilations: Sequence[int] = (1, 1),
    groups: int = 1,
    layout: str = "nchw",
    activation: Activation = NO_ACTIVATION,
    element: Type | None = None,
) -> Value:
    """`mlq.conv2d`; `element` is the result's element type, f32 when None."""
    shape = shapes.conv2d(
        shape_of(input),
        shape_of(weight),
        strides=strides,
        pads=pads,
        dilations=dilations,
        layout=layout,
    )
    return ops.Conv2dOp(
        input,
        weight,
        bias,
        residual,
        array(strides),
        array(pads),
        array(dilations),
        integer(groups),
        StringAttr.get(layout),
        activation.attribute(),
        tensor(shape, element),
    ).output


def matmul(
    lhs: Value,
    rhs: Value,
    *,
    bias: Value | None = None,
    residual: Value | None = None,
    transpose_rhs: bool = False,
    activation: Activation = NO_ACTIVATION,
    element: Type | None = None,
) -> Value:
    """`mlq.matmul`; `element` is the result's element type, f32 when None."""
    shape = shapes.matmul(shape_of(lhs), shape_of(rhs), transpose_rhs=transpose_rhs)
    return ops.MatmulOp(
        lhs,
        rhs,
        bias,
        residual,
        boolean(transpose_rhs),
        activation.attribute(),
        tensor(shape, element),
    ).output


def batch_matmul(
    lhs: Value,
    rhs: Value,
    *,
    transpose_rhs: bool = False,
    alpha: float = 1.0,
    activation: Activation = NO_ACTIVATION,
    element: Type | None = None,
) -> Value:
    """`mlq.batch_matmul`; `element` is the result's element type, f32 when None."""
    shape = shapes.matmul(shape_of(lhs), shape_of(rhs), transpose_rhs=transpose_rhs)
    turned, factor = boolean(transpose_rhs), FloatAttr.get(F32Type.get(), alpha)
    type_ = tensor(shape, element)
    return ops.BatchMatmulOp(lhs, rhs, turned, factor, activation.attribute(), type_).output


def add(
    lhs: Value,
    rhs: Value,
    *,
    activation: Activation = NO_ACTIVATION,
    element: Type | None = None,
) -> Value:
    """`mlq.add` of two tensors of one shape."""
    return ops.AddOp(lhs, rhs, activation.attribute(), tensor(shape_of(lhs), element)).output


def mul(
    lhs: Value,
    rhs: Value,
    *,
    activation: Activation = NO_ACTIVATION,
    element: Type | None = None,
) -> Value:
    """`mlq.mul`, whose result has the shape of `lhs`; `rhs` may be 1 along some axes."""
    return ops.MulOp(lhs, rhs, activation.attribute(), tensor(shape_of(lhs), element)).output


def max_pool2d(
    input: Value,
    *,
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int] = (0, 0, 0, 0),
    dilations: Sequence[int] = (1, 1),
    layout: str = "nchw",
) -> Value:
    """`mlq.max_pool2d`; the element type is that of the input."""
    shape = shapes.pool2d(
        shape_of(input),
        kernel=kernel,
        strides=strides,
        pads=pads,
        dilations=dilations,
        layout=layout,
    )
    return ops.MaxPool2dOp(
        input,
        array(kernel),
        array(strides),
        array(pads),
        array(dilations),
        StringAttr.get(layout),
        tensor(shape, element_of(input)),
    ).output


def avg_pool2d(
    input: Value,
    *,
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int] = (0, 0, 0, 0),
    ceil_pads: Sequence[int] = (0, 0),
    count_include_pad: bool = False,
    layout: str = "nchw",
    element: Type | None = None,
) -> Value:
    """`mlq.avg_pool2d`; `element` is the result's element type, f32 when None."""
    shape = shapes.pool2d(
        shape_of(input),
        kernel=kernel,
        strides=strides,
        pads=[pads[0], pads[1], pads[2] + ceil_pads[0], pads[3] + ceil_pads[1]],
        layout=layout,
    )
    return ops.AvgPool2dOp(
        input,
        array(kernel),
        array(strides),
        array(pads),
        array(ceil_pads),
        boolean(count_include_pad),
        StringAttr.get(layout),
        tensor(shape, element),
    ).output


def concat(inputs: Sequence[Value], *, axis: int) -> Value:
    """`mlq.concat` of all `inputs` along `axis`: a chain of ops, of which the last is returned."""
    joined, *rest = inputs
    for value in rest:
        shape = shapes.concat([shape_of(joined), shape_of(value)], axis=axis)
        type_ = tensor(shape, element_of(joined))
        joined = ops.ConcatOp(joined, value, integer(axis), type_).output
    return joined


def reshape(input: Value, shape: Sequence[int]) -> Value:
    """`mlq.reshape` to `shape`, of which one size may be dynamic."""
    return ops.ReshapeOp(input, tensor(shape, element_of(input))).output


def transpose(input: Value, permutation: Sequence[int], element: Type | None = None) -> Value:
    """`mlq.transpose`; `element` differs from the input's when a quantized axis moves."""
    shape = [shape_of(input)[i] for i in permutation]
    type_ = tensor(shape, element or element_of(input))
    return ops.TransposeOp(input, array(permutation), type_).output


def pad(input: Value, *, low: Sequence[int], high: Sequence[int], value: float) -> Value:
    """`mlq.pad` with the real number `value`."""
    shape = shapes.pad(shape_of(input), low=low, high=high)
    constant = FloatAttr.get(F32Type.get(), value)
    type_ = tensor(shape, element_of(input))
    return ops.PadOp(input, array(low), array(high), constant, type_).output


def slice(
    input: Value, *, offsets: Sequence[int], sizes: Sequence[int], strides: Sequence[int]
) -> Value:
    """`mlq.slice`; a size of -1 keeps the whole of a dynamic axis."""
    whole = shape_of(input)
    shape = [n if size == -1 else size for n, size in zip(whole, sizes, strict=True)]
    type_ = tensor(shape, element_of(input))
    return ops.SliceOp(input, array(offsets), array(sizes), array(strides), type_).output


def activate(input: Value, activation: Activation) -> Value:
    """`mlq.activate`."""
    return ops.ActivateOp(input, activation.attribute(), input.type).output


def nonlinearity(input: Value, function: Function, element: Type | None = None) -> Value:
    """`mlq.nonlinearity`; `element` is the result's element type, f32 when None."""
    text = StringAttr.get(nonlinear.text_of(function))
    return ops.NonlinearityOp(input, text, tensor(shape_of(input), element)).output


def resize_nearest(input: Value, factors: Sequence[int], *, layout: str = "nchw") -> Value:
    """`mlq.resize_nearest`; the element type is that of the input."""
    shape = shapes.resize(shape_of(input), factors, layout=layout)
    type_ = tensor(shape, element_of(input))
    return ops.ResizeNearestOp(input, array(factors), StringAttr.get(layout), type_).output


def resample(input: Value, rows: Value, columns: Value, *, layout: str = "nchw") -> Value:
    """`mlq.resample` by two weights, [H', H] and [W', W]."""
    sizes = [shape_of(each)[0] for each in (rows, columns)]
    type_ = tensor(shapes.replaced(shape_of(input), shapes.SPATIAL[layout], sizes))
    return ops.ResampleOp(input, rows, columns, StringAttr.get(layout), type_).output
