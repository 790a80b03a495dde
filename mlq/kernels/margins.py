"""The margin of an image, written by whoever makes the image."""

from __future__ import annotations

from functools import partial

from torch_mlir.ir import Value

from mlq.kernels import code
from mlq.kernels.code import Index
from mlq.kernels.image import Image

_WIDEST, _UNROLLED = 64, 8


def fill(image: Image, memory: Value, zero: Value, batch: Index, rows: tuple[Index, Index]) -> None:
    """Write `zero` to the margin of these rows of one image, counted with the margin."""
    top, left, _, right = image.margin
    start = code.times(batch, image.size)

    def whole(row: Index) -> None:
        _run(memory, zero, code.plus(start, code.times(row, image.pitch)), image.pitch)

    def sides(row: Index) -> None:
        at = code.plus(start, code.times(row, image.pitch))
        _run(memory, zero, at, left * image.channels)
        end = image.pitch - right * image.channels
        _run(memory, zero, code.plus(at, end), right * image.channels)

    low, high = rows
    bottom = top + image.height
    code.loop(low, code.at_most(high, top), 1, whole)
    code.loop(code.at_least(low, top), code.at_most(high, bottom), 1, sides)
    code.loop(code.at_least(low, bottom), high, 1, whole)


def _run(memory: Value, zero: Value, at: Index, count: int) -> None:
    """Write `count` elements from `at` on."""
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
