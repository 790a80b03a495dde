"""What a float network sees of its own tensors: extremes, and histograms of a subsample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import ClassVar

import numpy as np
from torch_mlir.dialects import arith, memref, vector
from torch_mlir.ir import IndexType, MemRefType, Value

from mlq.kernels import code
from mlq.kernels.code import Index
from mlq.kernels.executable import Buffer
from mlq.kernels.image import Image
from mlq.kernels.isa import Isa
from mlq.kernels.movement import SIDE_BY_SIDE
from mlq.kernels.sized import Sized

_EXTREMES = 2  # numbers before the counts


@dataclass(frozen=True)
class Observe(Sized):
    """Least and greatest of an image of floats, then counts of every `stride`-th element.

    The `bins` of equal width lie between least and greatest; all numbers are f32.
    """

    isa: Isa
    image: Image
    bins: int
    stride: int
    sizes: ClassVar[tuple[str, ...]] = ("image", "stride")
    label: ClassVar[str] = "observe"

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """The image; least, greatest, counts."""
        return (
            Buffer("f32", self.image.batch * self.image.size),
            Buffer("f32", _EXTREMES + self.bins),
        )

    @property
    def grid(self) -> tuple[int, int, int]:
        """One workgroup, which needs all extremes before it counts."""
        return 1, 1, 1

    def emit(self, memory: Sequence[Value], _group: Sequence[Index]) -> None:
        """The code of the workgroup."""
        least, greatest = self._extremes(memory[0])
        for place, value in enumerate((least, greatest)):
            code.store(code.splat(value, 1), memory[1], place)
        self._count(memory, least, greatest)

    def _extremes(self, memory: Value) -> list[Value]:
        """The least and the greatest of all elements."""
        rows, lanes = self.image, self.isa.lanes
        elements = rows.width * rows.channels
        together = SIDE_BY_SIDE * lanes
        whole = elements // together * together
        infinities = (code.constant(number, "f32") for number in (np.inf, -np.inf))
        start = [code.splat(each, lanes) for each in infinities]

        def met(x: Value, least: Value, greatest: Value) -> list[Value]:
            return [code.lesser(x, least), code.greater(x, greatest)]

        def row(batch: Index, y: Index, *found: Value) -> list[Value]:
            first = rows.at(batch, y, 0)

            def several(at: Index, *found: Value) -> list[Value]:
                places = [code.plus(code.plus(first, at), i * lanes) for i in range(SIDE_BY_SIDE)]
                pairs = zip(places, found[::2], found[1::2], strict=True)
                return [
                    each for at, *pair in pairs for each in met(code.load(memory, at, lanes), *pair)
                ]

            def alone(at: Index, *found: Value) -> list[Value]:
                x = code.splat(code.scalar(memory, code.plus(first, at)), lanes)
                return [*met(x, *found[:2]), *found[2:]]

            reached = code.loop(0, whole, together, several, found)
            return code.loop(whole, elements, 1, alone, reached)

        def image(batch: Index, *found: Value) -> list[Value]:
            return code.loop(0, rows.height, 1, partial(row, batch), found)

        found = code.loop(0, rows.batch, 1, image, start * SIDE_BY_SIDE)
        scalar = code.element("f32")
        kinds = (("minimumf", code.lesser), ("maximumf", code.greater))
        return [
            vector.reduction(scalar, kind, reduce(pick, found[place::2]))
            for place, (kind, pick) in enumerate(kinds)
        ]

    def _count(self, memory: Sequence[Value], least: Value, greatest: Value) -> None:
        """Count each element of the subsample, in the order of memory without margins.

        In several histograms by turns: ReLU makes run after run of zeros, and a number that was
        just stored takes several cycles to be read again.
        """
        kept = MemRefType.get([SIDE_BY_SIDE * self.bins], code.element("i32"))
        counts, none = memref.alloca(kept, [], []), code.splat(code.constant(0, "i32"), 1)
        code.loop(0, SIDE_BY_SIDE * self.bins, 1, lambda at: code.store(none, counts, at))
        place = partial(self._bins, least, self._per_unit(least, greatest))
        rows = self.image
        row, several = rows.width * rows.channels, SIDE_BY_SIDE * self.stride

        def line(number: Index) -> None:
            first = rows.at(*code.split(number, rows.height), 0)
            # The first of the row is the next of a stride that does not end with rows.
            over = code.split(code.times(number, row), self.stride)[1]
            skipped = code.split(code.plus(code.times(over, -1), self.stride), self.stride)[1]
            rest = code.at_least(code.plus(code.times(skipped, -1), row), 0)
            whole = code.split(rest, several)[0]
            reached = code.plus(skipped, code.times(whole, several))

            def together(at: Index) -> None:
                self._increment(counts, place(self._elements(memory[0], code.plus(first, at))))

            def alone(at: Index) -> None:
                self._increment(counts, place(code.load(memory[0], code.plus(first, at), 1)))

            code.loop(skipped, reached, several, together)
            code.loop(reached, row, self.stride, alone)

        code.loop(0, rows.batch * rows.height, 1, line)

        def total(at: Index) -> None:
            each = [code.load(counts, code.plus(at, i * self.bins), 1) for i in range(SIDE_BY_SIDE)]
            number = arith.sitofp(code.vector_type(1, "f32"), reduce(arith.addi, each))
            code.store(number, memory[1], code.plus(at, _EXTREMES))

        code.loop(0, self.bins, 1, total)

    def _elements(self, memory: Value, at: Index) -> Value:
        """The next elements of the subsample, one for each of the histograms."""
        return code.gathered(
            [code.scalar(memory, code.plus(at, i * self.stride)) for i in range(SIDE_BY_SIDE)]
        )

    def _per_unit(self, least: Value, greatest: Value) -> Value:
        """Bins over the range of values; 0 where there is none."""
        width, zero = arith.subf(greatest, least), code.constant(0.0, "f32")
        wide = arith.cmpf(arith.CmpFPredicate.OGT, width, zero)
        return arith.select(wide, arith.divf(code.constant(self.bins, "f32"), width), zero)

    def _bins(self, least: Value, per_unit: Value, elements: Value) -> Value:
        """The bin of each element, as i32."""
        lanes = code.lanes_of(elements)
        low, scale, zero, most = (
            code.splat(each, lanes)
            for each in (
                least,
                per_unit,
                code.constant(0.0, "f32"),
                code.constant(self.bins - 1, "f32"),
            )
        )
        place = arith.mulf(arith.subf(elements, low), scale)
        place = code.lesser(code.greater(place, zero), most)
        return arith.fptosi(code.vector_type(lanes, "i32"), place)

    def _increment(self, counts: Value, bins: Value) -> None:
        """Count one element of each lane, in the histogram of that lane."""
        one = code.splat(code.constant(1, "i32"), 1)
        for i in range(code.lanes_of(bins)):
            index = arith.index_cast(IndexType.get(), code.lane(bins, i))
            at = code.plus(index, i * self.bins)
            code.store(arith.addi(code.load(counts, at, 1), one), counts, at)
