"""Four vectors of i32 become one of u8, as packing instructions do it: within 128 bits.

The four are a pixel's, or two pixels' pairs, or four pixels' single ones. The bytes come in another
order than the vectors had; vectors made from weights in `interleaved` order give bytes in order.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch_mlir.dialects import arith
from torch_mlir.ir import Value

from mlq.kernels import code

GROUP = 4
"""Vectors that are packed into one."""

_TO_I16 = {
    16: "llvm.x86.sse2.packssdw.128",
    32: "llvm.x86.avx2.packssdw",
    64: "llvm.x86.avx512.packssdw.512",
}
_TO_U8 = {
    16: "llvm.x86.sse2.packuswb.128",
    32: "llvm.x86.avx2.packuswb",
    64: "llvm.x86.avx512.packuswb.512",
}


def runs(vectors: int) -> list[tuple[int, int]]:
    """How a pixel's vectors are packed: the first and the number of four, two or one at a time."""
    found, first = [], 0
    while first < vectors:
        count = next(n for n in (GROUP, 2, 1) if first + n <= vectors)
        found.append((first, count))
        first += count
    return found


def interleaved(lanes: int, count: int = GROUP) -> list[int]:
    """Which of a pixel's bytes each lane of `count` vectors of i32 becomes."""
    return [
        4 * count * block + 4 * vector + lane
        for vector in range(count)
        for block in range(lanes // 4)
        for lane in range(4)
    ]


def packed(vectors: Sequence[Value], zero_point: Value) -> Value:
    """Four vectors of i32 plus a zero point (an i16), saturated to u8."""
    lanes = code.lanes_of(vectors[0])
    size = GROUP * lanes
    offset = code.splat(zero_point, 2 * lanes)
    half = code.vector_type(2 * lanes, "i16")
    pairs = [code.call(_TO_I16[size], half, vectors[i], vectors[i + 1]) for i in range(0, GROUP, 2)]
    sums = [_saturating_sum(pair, offset) for pair in pairs]
    return code.call(_TO_U8[size], code.vector_type(size, "i8"), *sums)


def _saturating_sum(one: Value, other: Value) -> Value:
    return code.call("llvm.sadd.sat", one.type, one, other)


def parted(stored: Value, count: int) -> list[Value]:
    """The bytes of each pixel, when a pixel has `count` of the four vectors that were packed."""
    size = code.lanes_of(stored)
    each = size * count // GROUP
    ordered = _words_picked(stored, _places(size // 4, count))
    return [code.part(ordered, first, each) for first in range(0, size, each)]


def joined(pixels: Sequence[Value], count: int) -> Value:
    """Bytes of several pixels as `parted` would take them apart."""
    whole = _side_by_side(pixels)
    places = _places(code.lanes_of(whole) // 4, count)
    return _words_picked(whole, [places.index(n) for n in range(len(places))])


def _places(words: int, count: int) -> list[int]:
    """Where the pixels' words of four bytes, one pixel after the other, are among the packed."""
    return [
        block + count * pixel + i
        for pixel in range(GROUP // count)
        for block in range(0, words, 4)
        for i in range(count)
    ]


def _words_picked(value: Value, places: Sequence[int]) -> Value:
    if list(places) == list(range(len(places))):
        return value
    words = code.view(value, "i32")
    return code.view(code.shuffle(words, words, places), "i8")


def unpacked(stored: Value) -> list[Value]:
    """A vector of u8 as four of i32, which `packed` would put into order again."""
    size = code.lanes_of(stored)
    zero = code.splat(code.constant(0, "i8"), size)
    wide = []
    for high in (False, True):
        words = code.view(zipped(stored, zero, high=high), "i16")
        nothing = code.view(zero, "i16")
        wide += [code.view(zipped(words, nothing, high=h), "i32") for h in (False, True)]
    return wide


def in_order(vectors: Sequence[Value]) -> list[Value]:
    """Vectors whose lanes are `interleaved`, as vectors of lanes side by side."""
    size, count = code.lanes_of(vectors[0]), len(vectors)
    if count == 1:
        return list(vectors)
    whole, order = _side_by_side(vectors), interleaved(size, count)
    places = [order.index(lane) for lane in range(size * count)]
    parts = (places[first : first + size] for first in range(0, size * count, size))
    return [code.shuffle(whole, whole, part) for part in parts]


def _side_by_side(vectors: Sequence[Value]) -> Value:
    """A power of two of vectors as one."""
    whole = list(vectors)
    while len(whole) > 1:
        wide = range(2 * code.lanes_of(whole[0]))
        whole = [code.shuffle(whole[i], whole[i + 1], wide) for i in range(0, len(whole), 2)]
    return whole[0]


def zipped(one: Value, other: Value, *, high: bool) -> Value:
    """Elements of two vectors in turn, from the low or the high half of each 128 bits."""
    size = code.lanes_of(one)
    per_block = 128 // one.type.element_type.width
    half = per_block // 2
    mask = [
        side * size + block + high * half + i
        for block in range(0, size, per_block)
        for i in range(half)
        for side in (0, 1)
    ]
    return code.shuffle(one, other, mask)


def narrowed(value: Value, zero_point: Value) -> Value:
    """One vector of i32 plus a zero point (an i32), saturated to u8."""
    lanes = code.lanes_of(value)
    value = arith.addi(value, code.splat(zero_point, lanes))
    low, high = (code.splat(code.constant(n, "i32"), lanes) for n in (0, 255))
    limited = arith.minsi(arith.maxsi(value, low), high)
    return arith.trunci(code.vector_type(lanes, "i8"), limited)
