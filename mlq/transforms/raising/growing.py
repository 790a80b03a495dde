"""Images that grow: transposed convolutions, and channels that become pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch_mlir.ir import Value

from mlq.dialect import build
from mlq.dialect.shapes import DYNAMIC
from mlq.transforms import constants
from mlq.transforms.raising.node import Node, unsupported
from mlq.transforms.raising.windows import IMAGE_RANK, as_image, as_input, spatial

_TO_NHWC, _TO_NCHW = (0, 2, 3, 1), (0, 3, 1, 2)


@dataclass(frozen=True)
class _Axis:
    """An axis of a transposed convolution, as a convolution that makes `stride` results a step.

    Result `q * stride + r` is of the inputs from `q - most` on, by the weights `taps` [stride, T],
    of which -1 is none; the first `cut` results are too early, and `count` are wanted.
    """

    stride: int
    taps: NDArray[np.int64]
    pads: tuple[int, int]
    cut: int
    count: int


def conv_transpose(node: Node) -> Value:
    """ConvTranspose: a convolution with a channel for each place between inputs, spread out."""
    weight = node.array(1, "weight")
    if node.attribute("group", 1) != 1 or set(node.attribute("dilations", [1])) != {1}:
        unsupported("it has groups, or windows with gaps")
    if DYNAMIC in node.shape():
        unsupported("its batch is known only at run time")
    axes = _axes(node, weight.shape[2:])
    down, right = axes
    image = as_image(node.activation())
    filters = weight.reshape(
        *weight.shape[:2], *([1] * (IMAGE_RANK - weight.ndim)), *weight.shape[2:]
    )
    kernel = constants.keep(f"{constants.key_of(node.operand(1))}:spread", _spread(filters, axes))
    bias = None
    if node.has(2):
        row = np.tile(node.array(2, "bias"), down.stride * right.stride)
        bias = constants.keep(f"{constants.key_of(node.operand(2))}:spread", row)
    made = build.conv2d(
        image, kernel, bias=bias, pads=[axis.pads[side] for side in (0, 1) for axis in axes]
    )
    made = _to_pixels(made, down.stride, right.stride)
    batch, channels, *sizes = build.shape_of(made)
    counts = [axis.count for axis in axes]
    if sizes != counts:
        offsets = [0, 0, down.cut, right.cut]
        sizes = [batch, channels, *counts]
        made = build.slice(made, offsets=offsets, sizes=sizes, strides=[1] * IMAGE_RANK)
    return as_input(made, node)


def depth_to_space(node: Node) -> Value:
    """DepthToSpace: the blocks of a pixel's channels side by side; in mode CRD, channels first."""
    size = int(node.attribute("blocksize", 1))
    if len(node.shape()) != IMAGE_RANK or DYNAMIC in node.shape():
        unsupported("its batch is known only at run time, or it is of no images")
    by_channel = node.attribute("mode", "DCR") == "CRD"
    return _to_pixels(node.activation(), size, size, by_channel=by_channel)


def _axes(node: Node, kernel: Sequence[int]) -> list[_Axis]:
    """The two axes of the node's images; a sequence has one row."""
    rank, shape = len(kernel), node.shape()
    sizes = spatial(shape)[-rank:]
    strides, more = node.attribute("strides", [1] * rank), [0] * rank
    more = node.attribute("output_padding", more)
    pads = node.attribute("pads", [0] * 2 * rank)
    result = node.result_shape()
    if rank != len(shape) - 2 or result is None:
        unsupported("its kernel has other axes than its input, or its result none that are known")
    mode, found = node.attribute("auto_pad", "NOTSET"), []
    for i in range(rank):
        whole = strides[i] * (sizes[i] - 1) + more[i] + kernel[i]
        before = pads[i]
        if mode.startswith("SAME") or node.attribute("output_shape", None) is not None:
            total = whole - result[2 + i]
            before = total // 2 if mode == "SAME_UPPER" else total - total // 2
        found.append(_axis(sizes[i], result[2 + i], kernel[i], strides[i], before))
    return [_axis(1, 1, 1, 1, 0)] * (2 - rank) + found


def _axis(size: int, count: int, kernel: int, stride: int, before: int) -> _Axis:
    """With as few taps as possible; where that takes no more of them, without a cut."""
    if not 0 <= before < kernel or count < 1:
        unsupported("its pads are negative, or as wide as its windows")

    def windows(cut: int) -> _Axis:
        shift = before - cut
        least, most = -((stride - 1 + shift) // stride), (kernel - 1 - shift) // stride
        taps = stride * np.arange(most, least - 1, -1) + np.arange(stride)[:, None] + shift
        taps[(taps < 0) | (taps >= kernel)] = -1
        after = max(-(-(count + cut) // stride) - size - least, 0)
        return _Axis(stride, taps, (most, after), cut, count)

    found = map(windows, {0, before % stride})
    return min(found, key=lambda axis: (axis.taps.shape[1], axis.cut))


def _spread(weight: NDArray[Any], axes: Sequence[_Axis]) -> NDArray[Any]:
    """Of a weight [I, O, KH, KW] that of the convolution: [rows x columns x O, I, TH, TW]."""
    with_none = np.pad(weight, ((0, 0), (0, 0), (0, 1), (0, 1)))
    down, right = (axis.taps for axis in axes)
    picked = with_none[:, :, down[:, None, :, None], right[None, :, None, :]]
    inputs, _, *_, height, width = picked.shape
    return picked.transpose(2, 3, 1, 0, 4, 5).reshape(-1, inputs, height, width)


def _to_pixels(image: Value, down: int, right: int, *, by_channel: bool = False) -> Value:
    """Channels [down, right, C], or [C, down, right], of each pixel as so many pixels."""
    batch, channels, height, width = build.shape_of(image)
    last = build.transpose(image, _TO_NHWC)
    if by_channel:
        blocks = [batch * height, width, channels // (down * right), down, right]
        last = build.transpose(build.reshape(last, blocks), (0, 3, 1, 4, 2))
    elif down > 1:
        rows = build.reshape(last, [batch * height, width, down, channels // down])
        last = build.transpose(rows, (0, 2, 1, 3))
    whole = [batch, height * down, width * right, channels // (down * right)]
    return build.transpose(build.reshape(last, whole), _TO_NCHW)


GROWING = {"ConvTranspose": conv_transpose, "DepthToSpace": depth_to_space}
