"""The integer ops, exactly: accumulators, and how an accumulator becomes a result.

An accumulator is the exact sum of `(x - zx) * w`, plus the bias. It becomes reals ("unrounded",
for a float consumer) or storage through float32 operations that every device rounds alike:
int32 to float32, products, one sum, half to even. Never a fused multiply-add.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlq.numerics.affine import (
    Integers,
    QuantParams,
    Reals,
    centre,
    clamp,
    quantize,
    round_and_saturate,
)
from mlq.numerics.windows import convolve, counted, windows, with_ceil

Bounds = tuple[float, float]
UNBOUNDED: Bounds = (-np.inf, np.inf)

# Integers of so many bits are exact in the mantissa.
_EXACT_BITS: tuple[tuple[type[np.generic], int], ...] = ((np.float32, 24), (np.float64, 53))


def conv2d(
    x: Integers,
    weight: Integers,
    bias: Integers | None = None,
    *,
    zero_point: int = 0,
    strides: Sequence[int] = (1, 1),
    pads: Sequence[int] = (0, 0, 0, 0),
    dilations: Sequence[int] = (1, 1),
    groups: int = 1,
) -> NDArray[np.int64]:
    """The accumulator of a convolution, [N, O, OH, OW] (ONNX ConvInteger, plus a bias [O]).

    `x` is storage [N, C, H, W], padded with `zero_point`; `weight` [O, C / groups, KH, KW]; pads
    are [top, left, bottom, right].
    """
    centred = centre(x, zero_point)

    def product(dtype: type[np.generic]) -> NDArray[Any]:
        operands = centred.astype(dtype), weight.astype(dtype)
        return convolve(*operands, strides=strides, pads=pads, dilations=dilations, groups=groups)

    acc = _exactly(product, centred, weight, axis=0)
    return acc if bias is None else acc + bias.astype(np.int64).reshape(1, -1, 1, 1)


def matmul(
    lhs: Integers,
    rhs: Integers,
    bias: Integers | None = None,
    *,
    zero_point: int = 0,
    rhs_zero_point: int = 0,
    transpose_rhs: bool = False,
) -> NDArray[np.int64]:
    """The accumulator of a matrix product, [..., M, N] (ONNX MatMulInteger, plus a bias [N]).

    `lhs` is [..., M, K], `rhs` [..., K, N], or [..., N, K] when `transpose_rhs`.
    """
    left, right = centre(lhs, zero_point), centre(rhs, rhs_zero_point)
    if transpose_rhs:
        right = np.swapaxes(right, -1, -2)
    acc = _exactly(lambda dtype: left.astype(dtype) @ right.astype(dtype), left, right, axis=-1)
    return acc if bias is None else acc + bias.astype(np.int64)


def avg_pool2d(
    x: Integers,
    *,
    zero_point: int,
    kernel: Sequence[int],
    strides: Sequence[int] = (1, 1),
    pads: Sequence[int] = (0, 0, 0, 0),
    ceil_pads: Sequence[int] = (0, 0),
    count_include_pad: bool = False,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sums of `x - zero_point` [N, C, OH, OW] and the counted elements [OH, OW] (AveragePool)."""
    total = with_ceil(pads, ceil_pads)
    view = windows(centre(x, zero_point), kernel, strides=strides, pads=total)
    counts = counted(
        x.shape[2:], kernel, strides, pads, ceil_pads, count_include_pad=count_include_pad
    )
    return view.sum(axis=(-2, -1), dtype=np.int64), counts


def max_pool2d(
    x: NDArray[Any],
    *,
    kernel: Sequence[int],
    strides: Sequence[int] = (1, 1),
    pads: Sequence[int] = (0, 0, 0, 0),
    dilations: Sequence[int] = (1, 1),
) -> NDArray[Any]:
    """The greatest element of each window, of storage or of reals alike (ONNX MaxPool)."""
    real = np.issubdtype(x.dtype, np.floating)
    least = -np.inf if real else np.iinfo(x.dtype).min
    view = windows(x, kernel, strides=strides, pads=pads, dilations=dilations, padding=least)
    greatest: NDArray[Any] = view.max(axis=(-2, -1))
    return greatest


def pool_scale(
    counts: NDArray[np.int64], input: QuantParams, output: QuantParams | None = None
) -> Reals:
    """`f32(sx / (n * sy))` per window position, or `f32(sx / n)` for a real result."""
    divisor = counts * (1.0 if output is None else output.scale[0])
    scale: Reals = (input.scale[0] / divisor).astype(np.float32)
    return scale


def multiply(lhs: Integers, rhs: Integers, *, zero_points: tuple[int, int]) -> NDArray[np.int64]:
    """The accumulator of a product of elements, `(l - zl) * (r - zr)` (ONNX Mul, broadcasting)."""
    sides = zip((lhs, rhs), zero_points, strict=True)
    left, right = (centre(*side).astype(np.int64) for side in sides)
    return left * right


def product_scale(lhs: QuantParams, rhs: QuantParams, output: QuantParams | None = None) -> Reals:
    """`f32(sl * sr / sy)`, or `f32(sl * sr)` for a real result."""
    unit = 1.0 if output is None else output.scale[0]
    return np.asarray(lhs.scale[0] * rhs.scale[0] / unit, np.float32)


def addend(
    value: NDArray[Any], params: QuantParams | None, output: QuantParams | None = None
) -> Reals:
    """One term of a sum: `f32(q - z) * f32(s / sy)`, or `r * f32(1 / sy)` when `value` is real.

    `params` are those of `value`, None for reals; without an `output` the sum is real, `sy` is 1.
    """
    unit = 1.0 if output is None else output.scale[0]
    scale = 1.0 if params is None else params.scale[0]
    multiple = value if params is None else centre(value, params.zero_point[0])
    term: Reals = multiple.astype(np.float32) * np.float32(scale / unit)
    return term


def finish(
    acc: NDArray[np.int64],
    scale: Reals,
    output: QuantParams | None = None,
    *,
    bounds: Bounds = UNBOUNDED,
    residual: Reals | None = None,
) -> Integers | Reals:
    """An accumulator's result: storage of `output`, or unrounded reals when there is none.

    `scale` broadcasts over `acc` (`accumulator_scale`, `pool_scale`); `residual` is an `addend`;
    `bounds` are the activation's.
    """
    if output is None:
        return clamp(expressed_accumulator(acc, scale, residual), *bounds)
    low, high = activation_bounds(output, bounds)
    stored = requantize_accumulator(acc, scale, output.zero_point[0], low, high, residual=residual)
    return stored.astype(output.dtype)


def add(
    lhs: Reals, rhs: Reals, output: QuantParams | None = None, *, bounds: Bounds = UNBOUNDED
) -> Integers | Reals:
    """The sum of two addends, then the activation: storage of `output`, or reals (ONNX Add)."""
    if output is None:
        return clamp(lhs + rhs, *bounds)
    low, high = activation_bounds(output, bounds)
    return round_and_saturate(lhs + rhs, output.zero_point[0], low, high).astype(output.dtype)


def requantize_accumulator(
    acc: NDArray[np.int64],
    scale: Reals,
    zero_point: int,
    low: int,
    high: int,
    *,
    residual: Reals | None = None,
) -> NDArray[np.int64]:
    """`round_and_saturate` of the unrounded result; [low, high] are `activation_bounds`.

    The nearest ONNX op is QLinearConv, which leaves the rounding of the product open.
    """
    value = expressed_accumulator(acc, scale, residual)
    return round_and_saturate(value, zero_point, low, high)


def expressed_accumulator(
    acc: NDArray[np.int64], scale: Reals, residual: Reals | None = None
) -> Reals:
    """`f32(acc) * scale [+ residual]`, each product and the sum rounded to float32."""
    product = acc.astype(np.float32) * scale
    return product if residual is None else product + residual


def activation_bounds(output: QuantParams, bounds: Bounds) -> tuple[int, int]:
    """The storage range within the activation's bounds, each quantized as `quantize` does."""
    low, high = quantize(np.asarray(bounds, np.float32), output).tolist()
    return low, high


def bounds_of(kind: str, low: float = 0.0, high: float = 0.0) -> Bounds:
    """The reals that an activation ("none", "relu", "clip") lets through."""
    return {"none": UNBOUNDED, "relu": (0.0, np.inf), "clip": (low, high)}[kind]


def _exactly(
    product: Callable[[type[np.generic]], NDArray[Any]],
    lhs: Integers,
    rhs: Integers,
    *,
    axis: int,
) -> NDArray[np.int64]:
    """`product` in the fastest dtype in which it is provably exact, as integers.

    No partial sum exceeds max|lhs| times the greatest L1 norm of `rhs` over its output `axis`;
    while that fits a float's mantissa, BLAS rounds nothing, in whatever order it sums.
    """
    others = tuple(i for i in range(rhs.ndim) if i != axis % rhs.ndim)
    norm = np.abs(rhs.astype(np.int64)).sum(axis=others)
    magnitude = max(int(np.max(lhs, initial=0)), -int(np.min(lhs, initial=0)))
    bound = magnitude * int(np.max(norm, initial=0))
    dtype = next((d for d, bits in _EXACT_BITS if bound < 1 << bits), np.int64)
    return product(dtype).astype(np.int64)
