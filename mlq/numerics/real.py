"""The float twins of the integer ops, in float32 numpy: how a layer that stays float computes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlq.numerics.affine import Reals
from mlq.numerics.windows import convolve, counted, windows, with_ceil


def to_f32(x: Reals) -> Reals:
    """An array of f16 in f32; others as they are."""
    return x.astype(np.float32) if x.dtype == np.float16 else x


def to_f16(x: Reals) -> Reals:
    """The nearest f16, ties to even; infinite from 65520 on.

    A layer of f16 is one of f32 whose input, weight and stored result were rounded so.
    """
    with np.errstate(over="ignore"):
        return x.astype(np.float16)


def conv2d(
    x: Reals,
    weight: Reals,
    bias: Reals | None = None,
    *,
    strides: Sequence[int] = (1, 1),
    pads: Sequence[int] = (0, 0, 0, 0),
    dilations: Sequence[int] = (1, 1),
    groups: int = 1,
) -> Reals:
    """ONNX Conv: `x` [N, C, H, W] by `weight` [O, C / groups, KH, KW], plus `bias` [O].

    Pads are [top, left, bottom, right].
    """
    result = convolve(x, weight, strides=strides, pads=pads, dilations=dilations, groups=groups)
    return result if bias is None else result + bias.reshape(1, -1, 1, 1)


def matmul(
    lhs: Reals, rhs: Reals, bias: Reals | None = None, *, transpose_rhs: bool = False
) -> Reals:
    """ONNX MatMul and Gemm: `lhs` [..., M, K] by `rhs` [K, N] ([N, K] if transposed), plus [N]."""
    result: Reals = lhs @ (np.swapaxes(rhs, -1, -2) if transpose_rhs else rhs)
    return result if bias is None else result + bias


def avg_pool2d(
    x: Reals,
    *,
    kernel: Sequence[int],
    strides: Sequence[int] = (1, 1),
    pads: Sequence[int] = (0, 0, 0, 0),
    ceil_pads: Sequence[int] = (0, 0),
    count_include_pad: bool = False,
) -> Reals:
    """ONNX AveragePool: the mean of the counted elements of each window, [N, C, OH, OW]."""
    counts = counted(
        x.shape[2:], kernel, strides, pads, ceil_pads, count_include_pad=count_include_pad
    )
    view = windows(x, kernel, strides=strides, pads=with_ceil(pads, ceil_pads))
    mean: Reals = (view.sum(axis=(-2, -1), dtype=np.float64) / counts).astype(np.float32)
    return mean
