"""Pools and means over windows."""

from __future__ import annotations

from collections.abc import Sequence

from torch_mlir.ir import Value

from mlq.dialect import build
from mlq.transforms.raising.node import Node, unsupported
from mlq.transforms.raising.windows import IMAGE_RANK, as_image, as_input, spatial, windows_of


def max_pool(node: Node) -> Value:
    """MaxPool; what ceil_mode adds is padding like any other, since padding never wins."""
    results = node.op.operation.results
    if len(results) > 1 and list(results[1].uses):
        unsupported("its indices are used")
    windows = windows_of(node, node.attribute("kernel_shape", []))
    if windows.are_pixels:
        return as_input(_picked(as_image(node.activation()), windows.strides), node)
    pooled = build.max_pool2d(
        as_image(node.activation()),
        kernel=windows.kernel,
        strides=windows.strides,
        pads=windows.all_pads,
        dilations=windows.dilations,
    )
    return as_input(pooled, node)


def average_pool(node: Node) -> Value:
    """AveragePool; what ceil_mode adds is never counted, padding if the node says so."""
    windows = windows_of(node, node.attribute("kernel_shape", []))
    if set(windows.dilations) != {1}:
        unsupported("its windows are dilated")
    if windows.are_pixels:
        return as_input(_picked(as_image(node.activation()), windows.strides), node)
    pooled = build.avg_pool2d(
        as_image(node.activation()),
        kernel=windows.kernel,
        strides=windows.strides,
        pads=windows.pads,
        ceil_pads=windows.ceil_pads,
        count_include_pad=bool(node.attribute("count_include_pad", 0)),
    )
    return as_input(pooled, node)


def global_average_pool(node: Node) -> Value:
    """GlobalAveragePool: one window as large as the image."""
    kernel = spatial(node.shape())
    pooled = build.avg_pool2d(as_image(node.activation()), kernel=kernel, strides=(1, 1))
    return as_input(pooled, node)


def global_max_pool(node: Node) -> Value:
    """GlobalMaxPool: one window as large as the image."""
    kernel = spatial(node.shape())
    pooled = build.max_pool2d(as_image(node.activation()), kernel=kernel, strides=(1, 1))
    return as_input(pooled, node)


def reduce_mean(node: Node) -> Value:
    """ReduceMean over the height or width, or both: an average over all of it."""
    shape = node.shape()
    axes = {axis % len(shape) for axis in node.integers("axes", 1) or []}
    if len(shape) != IMAGE_RANK or not axes or not axes <= {2, 3}:
        unsupported("it is no mean over height and width")
    kernel = [shape[axis] if axis in axes else 1 for axis in (2, 3)]
    mean = build.avg_pool2d(node.activation(), kernel=kernel, strides=(1, 1))
    if node.attribute("keepdims", 1):
        return mean
    kept = [size for axis, size in enumerate(build.shape_of(mean)) if axis not in axes]
    return build.reshape(mean, kept)


def _picked(image: Value, strides: Sequence[int]) -> Value:
    """Every n-th pixel of an image in NCHW: what is left of windows of one pixel."""
    sizes = [
        -(-size // step) for size, step in zip(build.shape_of(image)[2:], strides, strict=True)
    ]
    return build.slice(image, offsets=[0] * 4, sizes=[-1, -1, *sizes], strides=[1, 1, *strides])


POOLS = {
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "GlobalAveragePool": global_average_pool,
    "GlobalMaxPool": global_max_pool,
    "ReduceMean": reduce_mean,
}
