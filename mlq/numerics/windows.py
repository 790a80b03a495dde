"""The windows that a convolution or a pool looks through, for numpy arrays in NCHW."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray


def windows(
    x: NDArray[Any],
    kernel: Sequence[int],
    *,
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int] = (1, 1),
    padding: float = 0,
) -> NDArray[Any]:
    """A view [N, C, OH, OW, KH, KW] of `x` [N, C, H, W] after padding; pads are [t, l, b, r]."""
    top, left, bottom, right = pads
    if any(pads):
        widths = ((0, 0), (0, 0), (top, bottom), (left, right))
        x = np.pad(x, widths, constant_values=padding)
    extent = tuple(d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True))
    view: NDArray[Any] = sliding_window_view(  # type: ignore[call-overload]  # stub: one axis
        x, extent, axis=(2, 3)
    )
    return view[:, :, :: strides[0], :: strides[1], :: dilations[0], :: dilations[1]]


def convolve(
    x: NDArray[Any],
    weight: NDArray[Any],
    *,
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    groups: int,
) -> NDArray[Any]:
    """ONNX Conv without bias, in the one dtype of its operands, by im2col: [N, O, OH, OW].

    `x` is [N, C, H, W] and `weight` [O, C / groups, KH, KW]. One image at a time, so that the
    columns of a large batch need not fit in memory at once.
    """
    view = windows(x, weight.shape[2:], strides=strides, pads=pads, dilations=dilations)
    height, width = view.shape[2:4]
    rows = weight.reshape(groups, weight.shape[0] // groups, -1)
    result = np.empty((len(x), weight.shape[0], height, width), x.dtype)
    for image, columns in zip(result, view, strict=True):
        patches = columns.transpose(0, 3, 4, 1, 2).reshape(groups, -1, height * width)
        np.matmul(rows, patches, out=image.reshape(groups, -1, height * width))
    return result


def counted(
    size: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    ceil_pads: Sequence[int],
    *,
    count_include_pad: bool,
) -> NDArray[np.int64]:
    """How many elements of each window an average divides by, [OH, OW]; at least one.

    What `ceil_pads` adds at the bottom and right is never counted; `pads` are if asked.
    """
    ones = np.ones((1, 1, *size), np.int64)
    if count_include_pad:
        top, left, bottom, right = pads
        ones = np.pad(ones, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=1)
        pads = (0, 0, 0, 0)
    view = windows(ones, kernel, strides=strides, pads=with_ceil(pads, ceil_pads))
    counts: NDArray[np.int64] = np.maximum(view.sum(axis=(-2, -1)), 1)[0, 0]
    return counts


def with_ceil(pads: Sequence[int], ceil_pads: Sequence[int]) -> tuple[int, ...]:
    """`pads` with the bottom and right of `ceil_pads` added."""
    top, left, bottom, right = pads
    return top, left, bottom + ceil_pads[0], right + ceil_pads[1]
