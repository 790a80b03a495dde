"""The ops that are mlq's own: registered, verified, and pure, so unused ones vanish.

Precision is in the types: an op on `f32` tensors, on `f16` and on `!quant.uniform` tensors are the
same op. Only the three casts change between these worlds.
"""

# No `from __future__ import annotations` here: `ext` reads the annotations as objects.
from typing import Any

from torch_mlir.dialects.ext import Operand, Pure, Result
from torch_mlir.ir import FloatAttr, IntegerAttr, StringAttr

from mlq.dialect import verify
from mlq.dialect.demands import verified
from mlq.dialect.namespace import ActivationAttr, Mlq


@verified(verify.quantize)
class QuantizeOp(Mlq.Operation, name="quantize", traits=[Pure]):
    """Reals to the quantized type (ONNX QuantizeLinear), or f16; its inverse never folds it."""

    input: Operand[Any]
    output: Result[Any]


@verified(verify.dequantize)
class DequantizeOp(Mlq.Operation, name="dequantize", traits=[Pure]):
    """The quantized type, or f16, back to expressed reals (ONNX DequantizeLinear)."""

    input: Operand[Any]
    output: Result[Any]


@verified(verify.requantize)
class RequantizeOp(Mlq.Operation, name="requantize", traits=[Pure]):
    """One quantized type to another, by one float32 multiplication and one rounding."""

    input: Operand[Any]
    output: Result[Any]


@verified(verify.weight)
class WeightOp(Mlq.Operation, name="weight", traits=[Pure]):
    """The constant that the WeightStore holds under `key`; no weight ever stands in the text."""

    key: StringAttr
    output: Result[Any]


@verified(verify.conv2d)
class Conv2dOp(Mlq.Operation, name="conv2d", traits=[Pure]):
    """2-D convolution with all that was fused into it: bias, residual, activation (ONNX Conv).

    `output = activation(conv(input, weight) + bias + residual)`. `pads` are [top, left, bottom,
    right]. `layout` "nchw" takes OIHW weights, "nhwc" HWIO. Sums of integers are exact; an f32
    result is the unrounded accumulator times its scale.
    """

    input: Operand[Any]
    weight: Operand[Any]
    bias: Operand[Any] | None
    residual: Operand[Any] | None
    strides: Any
    pads: Any
    dilations: Any
    groups: IntegerAttr
    layout: StringAttr
    activation: ActivationAttr
    output: Result[Any]


@verified(verify.matmul)
class MatmulOp(Mlq.Operation, name="matmul", traits=[Pure]):
    """`activation(lhs @ rhs + bias + residual)` (ONNX Gemm, MatMul).

    `lhs` is [..., M, K]; `rhs` is [K, N], or [N, K] with `transpose_rhs`; `bias` is [N].
    """

    lhs: Operand[Any]
    rhs: Operand[Any]
    bias: Operand[Any] | None
    residual: Operand[Any] | None
    transpose_rhs: Any
    activation: ActivationAttr
    output: Result[Any]


@verified(verify.batch_matmul)
class BatchMatmulOp(Mlq.Operation, name="batch_matmul", traits=[Pure]):
    """`activation(alpha * lhs @ rhs)` of activations [N, H, M, K], [N, H, K, P] (ONNX MatMul).

    With `transpose_rhs` it is [N, H, P, K]; its integers are symmetric about their zero point.
    """

    lhs: Operand[Any]
    rhs: Operand[Any]
    transpose_rhs: Any
    alpha: FloatAttr
    activation: ActivationAttr
    output: Result[Any]


@verified(verify.add)
class AddOp(Mlq.Operation, name="add", traits=[Pure]):
    """`activation(lhs + rhs)` of equal shapes (ONNX Add); each side has a scale of its own."""

    lhs: Operand[Any]
    rhs: Operand[Any]
    activation: ActivationAttr
    output: Result[Any]


@verified(verify.mul)
class MulOp(Mlq.Operation, name="mul", traits=[Pure]):
    """`activation(lhs * rhs)` (ONNX Mul), where `rhs` is repeated along axes of size 1."""

    lhs: Operand[Any]
    rhs: Operand[Any]
    activation: ActivationAttr
    output: Result[Any]


@verified(verify.nonlinearity)
class NonlinearityOp(Mlq.Operation, name="nonlinearity", traits=[Pure]):
    """A function of each element (ONNX Sigmoid, ...): steps of numerics.nonlinear, or a table."""

    input: Operand[Any]
    function: StringAttr
    output: Result[Any]


@verified(verify.max_pool2d)
class MaxPool2dOp(Mlq.Operation, name="max_pool2d", traits=[Pure]):
    """Maximum over windows (ONNX MaxPool); moves storage, so its type is that of its input."""

    input: Operand[Any]
    kernel: Any
    strides: Any
    pads: Any
    dilations: Any
    layout: StringAttr
    output: Result[Any]


@verified(verify.avg_pool2d)
class AvgPool2dOp(Mlq.Operation, name="avg_pool2d", traits=[Pure]):
    """Mean over windows (ONNX AveragePool, GlobalAveragePool).

    Elements of `pads` count if `count_include_pad`, of `ceil_pads` [bottom, right] never.
    """

    input: Operand[Any]
    kernel: Any
    strides: Any
    pads: Any
    ceil_pads: Any
    count_include_pad: Any
    layout: StringAttr
    output: Result[Any]


@verified(verify.concat)
class ConcatOp(Mlq.Operation, name="concat", traits=[Pure]):
    """`lhs`, then `rhs` along `axis` (ONNX Concat); quantized operands share one type."""

    # Two, for IRDL makes all operands of a variadic one type, and those of a concat differ.
    lhs: Operand[Any]
    rhs: Operand[Any]
    axis: IntegerAttr
    output: Result[Any]


@verified(verify.reshape)
class ReshapeOp(Mlq.Operation, name="reshape", traits=[Pure]):
    """The same elements in another shape (ONNX Reshape, Flatten, Squeeze, Unsqueeze)."""

    input: Operand[Any]
    output: Result[Any]


@verified(verify.transpose)
class TransposeOp(Mlq.Operation, name="transpose", traits=[Pure]):
    """Axes in another order: result axis i is input axis `permutation[i]` (ONNX Transpose)."""

    input: Operand[Any]
    permutation: Any
    output: Result[Any]


@verified(verify.pad)
class PadOp(Mlq.Operation, name="pad", traits=[Pure]):
    """`value` around the input (ONNX Pad, constant mode); storage is padded with its code."""

    input: Operand[Any]
    low: Any
    high: Any
    value: FloatAttr
    output: Result[Any]


@verified(verify.resize_nearest)
class ResizeNearestOp(Mlq.Operation, name="resize_nearest", traits=[Pure]):
    """Each pixel `factors` [down, right] times over (ONNX Resize, nearest, by whole factors)."""

    input: Operand[Any]
    factors: Any
    layout: StringAttr
    output: Result[Any]


@verified(verify.resample)
class ResampleOp(Mlq.Operation, name="resample", traits=[Pure]):
    """Sums of rows and of columns, by constants [H', H] and [W', W] (ONNX Resize, linear).

    Of reals only: each channel X of an image becomes `rows @ X @ transposed columns`.
    """

    input: Operand[Any]
    rows: Operand[Any]
    columns: Operand[Any]
    layout: StringAttr
    output: Result[Any]


@verified(verify.slice)
class SliceOp(Mlq.Operation, name="slice", traits=[Pure]):
    """A strided part (ONNX Slice with positive steps); size -1 keeps a whole dynamic axis."""

    input: Operand[Any]
    offsets: Any
    sizes: Any
    strides: Any
    output: Result[Any]


@verified(verify.activate)
class ActivateOp(Mlq.Operation, name="activate", traits=[Pure]):
    """An activation that no producer has taken in (ONNX Relu, Clip)."""

    input: Operand[Any]
    activation: ActivationAttr
    output: Result[Any]


@verified(verify.observe)
class ObserveOp(Mlq.Operation, name="observe", traits=[Pure]):
    """Least, greatest and a histogram of a tensor: `statistics` [2 + bins], in floats.

    The `bins` of equal width span [least, greatest] and count about `max_elements` elements.
    """

    input: Operand[Any]
    bins: IntegerAttr
    max_elements: IntegerAttr
    statistics: Result[Any]


@verified(verify.fake_quantize)
class FakeQuantizeOp(Mlq.Operation, name="fake_quantize", traits=[Pure]):
    """Quantize and dequantize in float by `row` of a run-time table [L, 4].

    A row is (scale, zero_point, qmin, qmax); scale 0 is none at all, a negative one that of f16.
    """

    input: Operand[Any]
    table: Operand[Any]
    row: IntegerAttr
    output: Result[Any]


@verified(verify.compare)
class CompareOp(Mlq.Operation, name="compare", traits=[Pure]):
    """Energies for SQNR: sums of reference^2 and of (reference - value)^2.

    Of rank 4 every n-th slice of axis 1 (a row in NHWC), about `max_elements`, stands for all;
    `value` may consist of just these.
    """

    reference: Operand[Any]
    value: Operand[Any]
    max_elements: IntegerAttr
    energies: Result[Any]
