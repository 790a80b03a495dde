"""Nodes that move elements and compute nothing."""

from __future__ import annotations

from math import prod

from torch_mlir.ir import Value

from mlq.dialect import build, shapes
from mlq.dialect.shapes import DYNAMIC
from mlq.numerics import interpolation
from mlq.transforms import constants
from mlq.transforms.raising.node import Node, unsupported
from mlq.transforms.raising.sizes import sizes_of
from mlq.transforms.raising.windows import IMAGE_RANK

# What exporters write for "to the end".
_ENDLESS = 2**31 - 1
# Which roundings of a coordinate name pixel y // factor, by how the coordinate is computed.
_REPEATING = {
    "asymmetric": ("floor",),
    "half_pixel": ("round_prefer_floor", "round_prefer_ceil"),
    "pytorch_half_pixel": ("round_prefer_floor", "round_prefer_ceil"),
}


def concat(node: Node) -> Value:
    """Concat of activations along any axis but a dynamic one."""
    count = len(node.op.operation.operands)
    axis = node.attribute("axis", 1) % len(node.shape())
    if any(node.shape(i)[axis] == DYNAMIC for i in range(count)):
        unsupported("it joins along an axis whose size is known only at run time")
    return build.concat([node.activation(i) for i in range(count)], axis=axis)


def flatten(node: Node) -> Value:
    """Flatten to a matrix."""
    shape = node.shape()
    axis = node.attribute("axis", 1)
    axis = axis + len(shape) if axis < 0 else axis
    return _reshaped(node, [_size(shape[:axis]), _size(shape[axis:])])


def reshape(node: Node) -> Value:
    """Reshape to a shape that is constant, computed of shapes, or found by shape inference."""
    shape, declared = node.shape(), node.result_shape()
    wanted = sizes_of(node.operand(1))
    if wanted is None and declared is not None and declared.count(DYNAMIC) <= 1:
        wanted = declared
    if wanted is None:
        unsupported("its shape is computed at run time")
    if not node.attribute("allowzero", 0):
        wanted = [shape[i] if size == 0 else size for i, size in enumerate(wanted)]
    if -1 in wanted:
        known = prod(size for size in wanted if size not in {-1, DYNAMIC})
        takes_batch = DYNAMIC in shape and DYNAMIC not in wanted
        rest = DYNAMIC if takes_batch else shapes.elements(shape) // max(known, 1)
        wanted = [rest if size == -1 else size for size in wanted]
    return _reshaped(node, wanted)


def squeeze(node: Node) -> Value:
    """Squeeze: axes of size 1 go, all of them if none is named."""
    shape = node.shape()
    axes = node.integers("axes", 1)
    if axes is None:
        axes = [axis for axis, size in enumerate(shape) if size == 1]
    gone = {axis % len(shape) for axis in axes}
    return _reshaped(node, [size for axis, size in enumerate(shape) if axis not in gone])


def unsqueeze(node: Node) -> Value:
    """Unsqueeze: axes of size 1 come, counted in the result."""
    axes = node.integers("axes", 1) or []
    rank = len(node.shape()) + len(axes)
    come, rest = {axis % rank for axis in axes}, iter(node.shape())
    return _reshaped(node, [1 if axis in come else next(rest) for axis in range(rank)])


def transpose(node: Node) -> Value:
    """Transpose; without a permutation the axes come in reverse."""
    rank = len(node.tensor().shape)
    return build.transpose(node.activation(), node.attribute("perm", list(range(rank))[::-1]))


def pad(node: Node) -> Value:
    """Pad with a constant; pads, value and axes are constants."""
    if node.attribute("mode", "constant") != "constant":
        unsupported(f"its mode is {node.attribute('mode', '')!r}, not 'constant'")
    shape = node.shape()
    pads = node.integers("pads", 1) or []
    axes = node.integers("axes", 3) if node.has(3) else None
    axes = list(range(len(shape))) if axes is None else [axis % len(shape) for axis in axes]
    low, high = [0] * len(shape), [0] * len(shape)
    for i, axis in enumerate(axes):
        low[axis], high[axis] = pads[i], pads[i + len(axes)]
    if min(low + high) < 0:
        unsupported("its pads are negative")
    if shape[0] == DYNAMIC and (low[0] or high[0]):
        unsupported("it pads the batch, whose size is known only at run time")
    value = node.array(2, "value").item() if node.has(2) else node.attribute("value", 0.0)
    return build.pad(node.activation(), low=low, high=high, value=float(value))


def cut(node: Node) -> Value:
    """Slice with constant bounds and positive steps; a dynamic batch is kept whole."""
    shape = node.shape()
    starts, ends = node.integers("starts", 1) or [], node.integers("ends", 2) or []
    axes = node.integers("axes", 3) or list(range(len(starts)))
    steps = node.integers("steps", 4) or [1] * len(starts)
    offsets, sizes, strides = [0] * len(shape), list(shape), [1] * len(shape)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if step < 1:
            unsupported("a step of it is negative")
        whole = (start, step) == (0, 1) and end >= _ENDLESS
        if shape[axis] == DYNAMIC and not whole:
            unsupported("it cuts the batch, whose size is known only at run time")
        if not whole:
            first, last = (_within(bound, shape[axis]) for bound in (start, end))
            offsets[axis], strides[axis] = first, step
            sizes[axis] = max(-(-(last - first) // step), 0)
    if 0 in sizes:
        unsupported("nothing is left of its input")
    sizes = [-1 if size == DYNAMIC else size for size in sizes]
    return build.slice(node.activation(), offsets=offsets, sizes=sizes, strides=strides)


def resize(node: Node) -> Value:
    """Resize by whole factors to where the nearest pixel is the one that a division names.

    Or to sums of the two nearest along each axis, by any factors (mode linear).
    """
    rule = node.attribute("coordinate_transformation_mode", "half_pixel")
    factors = _factors(node)
    if node.attribute("mode", "nearest") == "linear":
        return _between_pixels(node, rule, factors)
    nearest = node.attribute("nearest_mode", "round_prefer_floor")
    if node.attribute("mode", "nearest") != "nearest" or nearest not in _REPEATING.get(rule, ()):
        unsupported("it is no resize to the nearest pixel that repeats each one")
    if factors[:2] != [1.0, 1.0] or not all(f >= 1.0 and f.is_integer() for f in factors):
        unsupported("its factors are no whole numbers, or not only of height and width")
    return build.resize_nearest(node.activation(), [int(factor) for factor in factors[2:]])


def _factors(node: Node) -> list[float]:
    """By how much each axis of an image grows."""
    shape = node.shape()
    if len(shape) != IMAGE_RANK or node.attribute("axes", None) is not None:
        unsupported("it resizes something other than images")
    if node.has(2) and (scales := node.array(2, "scales")).size:
        return [float(scale) for scale in scales]
    sizes = sizes_of(node.operand(3)) if node.has(3) else None
    if sizes is None:
        unsupported("its sizes are computed at run time")
    return [size / n for size, n in zip(sizes, shape, strict=True)]


def _between_pixels(node: Node, rule: str, factors: list[float]) -> Value:
    """Resize, linear: two matrices, whose rows have a share for each of two pixels."""
    before, after = node.shape()[2:], (node.result_shape() or [])[2:]
    plain = not node.attribute("antialias", 0) and not node.attribute("exclude_outside", 0)
    policy = node.attribute("keep_aspect_ratio_policy", "stretch")
    if rule not in interpolation.RULES or not plain or policy != "stretch":
        unsupported(f"its pixels are not simply between others: {rule}")
    if factors[:2] != [1.0, 1.0] or DYNAMIC in after or not after:
        unsupported("it resizes something other than height and width to sizes that are known")
    rows, columns = (
        constants.keep(f"{rule}.{size}.{count}", interpolation.shares(size, count, factor, rule))
        for size, count, factor in zip(before, after, factors[2:], strict=True)
    )
    return build.resample(node.activation(), rows, columns)


def _reshaped(node: Node, shape: list[int]) -> Value:
    """Check what `mlq.reshape` demands: the batch may move, but not change."""
    before = list(node.tensor().shape)
    dynamic = [each.count(DYNAMIC) for each in (before, shape)]
    if max(dynamic) > 1 or dynamic[0] != dynamic[1]:
        unsupported("more than one size of it is known only at run time")
    if shapes.elements(before) != shapes.elements(shape):
        unsupported("it changes the batch, whose size is known only at run time")
    return build.reshape(node.activation(), shape)


def _size(shape: list[int]) -> int:
    return DYNAMIC if DYNAMIC in shape else prod(shape)


def _within(bound: int, size: int) -> int:
    """A bound of Slice as an offset: from the end when negative, never outside."""
    return min(max(bound + size if bound < 0 else bound, 0), size)


MOVEMENT = {
    "Concat": concat,
    "Flatten": flatten,
    "Reshape": reshape,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Transpose": transpose,
    "Pad": pad,
    "Slice": cut,
    "Resize": resize,
}
