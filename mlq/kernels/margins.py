"""The margin of an image, written by whoever makes the image."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch_mlir.ir import Value

from mlq.kernels import code
from mlq.kernels.code import Index
from mlq.kernels.image import Image

_WIDEST, _UNROLLED = 64, 8


def fill(
    image: Image, memory: Value, number: Value, group: Sequence[Index], grid: Sequence[Index]
) -> None:
    """Write a number (an i32, or the bits of an f32) to a workgroup's share of the margin."""
    if image.is_dense:
        return
    zero = code.bits(number, code.element_of(memory))
    top, left, _, right = image.margin
    start = code.times(group[2], image.size)

    def whole(row: Index) -> None:
        _run(memory, zero, code.plus(start, code.times(row, image.pitch)), image.pitch)

    def sides(row: Index) -> None:
        at = code.plus(start, code.times(row, image.pitch))
        _run(memory, zero, at, left * image.channels)
        end = image.pitch - right * image.channels
        _run(memory, zero, code.plus(at, end), right * image.channels)

    low, high = code.share(image.rows, group[0], grid[0])
    bottom = top + image.height
    code.loop(low, code.at_most(high, top), 1, whole)
    code.loop(code.at_least(low, top), code.at_most(high, bottom), 1, sides)
    code.loop(code.at_least(low, bottom), high, 1, whole)


def _run(memory: Value, zero: Value, at: Index, count: Index) -> None:
    """Write `count` elements from `at` on."""
    if not isinstance(count, int):
        code.loop(0, count, 1, partial(_store, code.splat(zero, 1), memory, at))
        return
    width = next((w for w in (_WIDEST, 32, 16, 8, 4, 2, 1) if w <= count), 0)
    if not width:
        return
    value = code.splat(zero, width)
    whole = count // width * width
    if whole <= _UNROLLED * width:
        for done in range(0, whole, width):
            code.store(value, memory, code.plus(at, done))
    else:
        code.loop(0, whole, width, partial(_store, value, memory, at))
    if whole < count:
        code.store(value, memory, code.plus(at, count - width))


def _store(value: Value, memory: Value, at: Index, offset: Index) -> None:
    code.store(value, memory, code.plus(at, offset))
