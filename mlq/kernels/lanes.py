"""Vectors of i32 become one of bytes, as packing instructions do it: within 128 bits.

Four become one of bytes, two one of words of 16 bits: a `group`, which is a pixel's, or two pixels'
pairs, or several pixels' single ones. The elements come in another order than the vectors had;
vectors made from weights in `interleaved` order give elements in order.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch_mlir.dialects import arith
from torch_mlir.ir import Value

from mlq.kernels import code
from mlq.kernels.code import Index
from mlq.kernels.storage import Packing


def loaded(memory: Value, at: Index, count: int, size: int) -> Value:
    """A vector of which the first `count` elements come from memory, and the others are zero."""
    if count == size:
        return code.load(memory, at, size)
    value = code.splat(code.constant(0, code.element_of(memory)), size)
    for done, piece in code.pieces(count, size):
        value = code.inserted(code.load(memory, code.plus(at, done), piece), value, done)
    return value


def group_of(element: str) -> int:
    """Vectors of i32 that are packed into one of the elements."""
    return 32 // int(element[1:])


def runs(vectors: int, group: int) -> list[tuple[int, int]]:
    """How a pixel's vectors are packed: the first and how many, a `group` or a part at a time."""
    found, first = [], 0
    while first < vectors:
        count = next(n for n in (4, 2, 1) if n <= group and first + n <= vectors)
        found.append((first, count))
        first += count
    return found


def interleaved(lanes: int, count: int) -> list[int]:
    """Which of a pixel's elements each lane of `count` vectors of i32 becomes."""
    return [
        4 * count * block + 4 * vector + lane
        for vector in range(count)
        for block in range(lanes // 4)
        for lane in range(4)
    ]


def packed(
    storage: Packing, vectors: Sequence[Value], zero_point: Value | None, *, fits: bool
) -> Value:
    """A group of vectors of i32 plus a zero point (`summed`), saturated to bytes, or to i16.

    Without the zero point they fit i16 if they are said to, or their last bits do.
    """
    if zero_point is not None and summed(storage) == "i32":
        offset = code.splat(zero_point, code.lanes_of(vectors[0]))
        return storage.to_i16(*(arith.addi(vector, offset) for vector in vectors))
    both = 2 * code.lanes_of(vectors[0])
    added = None if zero_point is None else code.splat(zero_point, both)
    narrow = storage.cut if fits and storage.cut is not None else storage.to_i16
    sums = [narrow(*vectors[i : i + 2]) for i in range(0, len(vectors), 2)]
    if added is not None:
        sums = [_saturating_sum(pair, added) for pair in sums]
    return sums[0] if len(sums) == 1 else storage.to_bytes(*sums)


def summed(storage: Packing) -> str:
    """The type in which a zero point is added: what is to fill 16 bits may need more before."""
    return "i16" if storage.plain == "i8" else "i32"


def _saturating_sum(one: Value, other: Value) -> Value:
    return code.call("llvm.sadd.sat", one.type, one, other)


def parted(stored: Value, count: int) -> list[Value]:
    """The elements of each pixel, when a pixel has `count` of the vectors that were packed."""
    size, group = code.lanes_of(stored), group_of(code.element_of(stored))
    each = size * count // group
    return [code.part(by_pixel(stored, count), first, each) for first in range(0, size, each)]


def by_pixel(stored: Value, count: int) -> Value:
    """The same, one pixel after the other."""
    group = group_of(code.element_of(stored))
    return _fours_picked(stored, _places(code.lanes_of(stored) // 4, count, group))


def joined(pixels: Sequence[Value], count: int) -> Value:
    """Elements of several pixels as `parted` would take them apart."""
    whole = _side_by_side(pixels)
    group = group_of(code.element_of(whole))
    places = _places(code.lanes_of(whole) // 4, count, group)
    return _fours_picked(whole, [places.index(n) for n in range(len(places))])


def _places(fours: int, count: int, group: int) -> list[int]:
    """Where the pixels' fours of elements, one pixel after the other, are among the packed."""
    return [
        block + count * pixel + i
        for pixel in range(group // count)
        for block in range(0, fours, group)
        for i in range(count)
    ]


def _fours_picked(value: Value, places: Sequence[int]) -> Value:
    if list(places) == list(range(len(places))):
        return value
    name = code.element_of(value)
    fours = code.view(value, f"i{4 * int(name[1:])}")
    return code.view(code.shuffle(fours, fours, places), name)


def unpacked(storage: Packing, stored: Value) -> list[Value]:
    """A vector of elements as vectors of i32, which `packed` would put into order again."""
    if code.element_of(stored) == "i32":
        return [stored]
    return [vector for half in storage.halves(stored) for vector in unpacked(storage, half)]


def in_order(vectors: Sequence[Value]) -> list[Value]:
    """Vectors whose lanes are `interleaved`, as vectors of lanes side by side."""
    size, count = code.lanes_of(vectors[0]), len(vectors)
    if count == 1:
        return list(vectors)
    whole, order = _side_by_side(vectors), interleaved(size, count)
    places = [order.index(lane) for lane in range(size * count)]
    parts = (places[first : first + size] for first in range(0, size * count, size))
    return [code.shuffle(whole, whole, part) for part in parts]


def out_of_order(vectors: Sequence[Value], word: int) -> list[Value]:
    """Vectors of words of so many elements in `interleaved` order, which were side by side."""
    size, count = code.lanes_of(vectors[0]) // word, len(vectors)
    if count == 1:
        return list(vectors)
    whole = _side_by_side(vectors)
    places = [word * lane + i for lane in interleaved(size, count) for i in range(word)]
    parts = (places[first : first + size * word] for first in range(0, len(places), size * word))
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


def in_turn(rows: list[Value]) -> list[Value]:
    """Elements of the rows in turn, in the order that `packed` undoes."""
    if len(rows) == 1:
        return rows
    name = code.element_of(rows[0])
    twice = f"i{2 * int(name[1:])}"
    pairs = [(rows[i], rows[i + 1]) for i in range(0, len(rows), 2)]
    halves = [
        [code.view(zipped(*pair, high=high), twice) for pair in pairs] for high in (False, True)
    ]
    return [code.view(vector, name) for half in halves for vector in in_turn(half)]


def narrowed(storage: Packing, value: Value, zero_point: Value, name: str, *, fits: bool) -> Value:
    """One vector of i32 plus a zero point (an i32), saturated to elements of a type.

    It fits them if it is said to.
    """
    lanes = code.lanes_of(value)
    value = arith.addi(value, code.splat(zero_point, lanes))
    if not fits:
        low, high = (code.splat(code.constant(n, "i32"), lanes) for n in storage.limits)
        value = arith.minsi(arith.maxsi(value, low), high)
    return arith.trunci(code.vector_type(lanes, name), value)
