"""Result shapes of mlq ops; the verifiers and the builders ask the same functions.

A shape is a list of ints in which `DYNAMIC` (MLIR's marker) is a size known at run time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod

from torch_mlir.ir import ShapedType

DYNAMIC: int = ShapedType.get_dynamic_size()

Shape = list[int]

SPATIAL = {"nchw": (2, 3), "nhwc": (1, 2)}
CHANNEL = {"nchw": 1, "nhwc": 3}
# Weights follow the layout of the activations: OIHW beside NCHW, HWIO beside NHWC.
KERNEL = {"nchw": (2, 3), "nhwc": (0, 1)}
OUTPUT_CHANNEL = {"nchw": 0, "nhwc": 3}
INPUT_CHANNEL = {"nchw": 1, "nhwc": 2}


def window(size: int, kernel: int, stride: int, pads: tuple[int, int], dilation: int = 1) -> int:
    """How many windows of `kernel` fit along one axis (ONNX Conv, floor rule)."""
    if size == DYNAMIC:
        return DYNAMIC
    return (size + sum(pads) - dilation * (kernel - 1) - 1) // stride + 1


def conv2d(
    input: Sequence[int],
    weight: Sequence[int],
    *,
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    layout: str,
) -> Shape:
    """Shape of `mlq.conv2d`; pads are [top, left, bottom, right]."""
    shape = list(input)
    for i, axis in enumerate(SPATIAL[layout]):
        kernel = weight[KERNEL[layout][i]]
        shape[axis] = window(input[axis], kernel, strides[i], (pads[i], pads[i + 2]), dilations[i])
    shape[CHANNEL[layout]] = weight[OUTPUT_CHANNEL[layout]]
    return shape


def pool2d(
    input: Sequence[int],
    *,
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int] = (1, 1),
    layout: str,
) -> Shape:
    """Shape of `mlq.max_pool2d` and `mlq.avg_pool2d`; pads are [top, left, bottom, right]."""
    shape = list(input)
    for i, axis in enumerate(SPATIAL[layout]):
        shape[axis] = window(
            input[axis], kernel[i], strides[i], (pads[i], pads[i + 2]), dilations[i]
        )
    return shape


def matmul(lhs: Sequence[int], rhs: Sequence[int], *, transpose_rhs: bool) -> Shape:
    """Shape of `mlq.matmul`: [..., M, K] by [K, N], or by [N, K] when transposed."""
    return [*lhs[:-1], rhs[-2] if transpose_rhs else rhs[-1]]


def concat(inputs: Sequence[Sequence[int]], *, axis: int) -> Shape:
    """Shape of `mlq.concat`."""
    shape = list(inputs[0])
    sizes = [each[axis] for each in inputs]
    shape[axis] = DYNAMIC if DYNAMIC in sizes else sum(sizes)
    return shape


def pad(input: Sequence[int], *, low: Sequence[int], high: Sequence[int]) -> Shape:
    """Shape of `mlq.pad`; a dynamic axis may not be padded."""
    return [
        n if n == DYNAMIC else n + below + above
        for n, below, above in zip(input, low, high, strict=True)
    ]


def slices(
    offsets: Iterable[int], sizes: Iterable[int], strides: Iterable[int]
) -> tuple[slice, ...]:
    """What `mlq.slice` takes of an array."""
    parts = zip(offsets, sizes, strides, strict=True)
    return tuple(
        slice(first, None if size == -1 else first + (size - 1) * step + 1, step)
        for first, size, step in parts
    )


def broadcasts(small: Sequence[int], whole: Sequence[int]) -> bool:
    """Whether a shape is another one, but for axes of size 1."""
    pairs = zip(small, whole, strict=False)
    return len(small) == len(whole) and all(n in {1, most} for n, most in pairs)


def resize(input: Sequence[int], factors: Sequence[int], *, layout: str) -> Shape:
    """Shape of `mlq.resize_nearest`; factors are [down, right]."""
    before = [input[axis] for axis in SPATIAL[layout]]
    after = [DYNAMIC if n == DYNAMIC else n * f for n, f in zip(before, factors, strict=True)]
    return replaced(input, SPATIAL[layout], after)


def replaced(shape: Sequence[int], axes: Sequence[int], sizes: Sequence[int]) -> Shape:
    """A shape with other sizes along some axes."""
    new = dict(zip(axes, sizes, strict=True))
    return [new.get(axis, size) for axis, size in enumerate(shape)]


def elements(shape: Sequence[int]) -> int:
    """The number of elements, the dynamic axes counted as one."""
    return prod(n for n in shape if n != DYNAMIC)
