"""What measures a network in floats: quantization by a row of a table, energies, histograms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, reduce

import numpy as np
from torch_mlir.dialects import arith, vector
from torch_mlir.ir import F64Type, IndexType, Value, VectorType

from mlq.kernels import code, margins
from mlq.kernels.code import Index
from mlq.kernels.executable import Buffer
from mlq.kernels.image import Image
from mlq.kernels.isa import Isa
from mlq.kernels.movement import each_part

_EXTREMES = 2  # numbers before the counts
_ROW = 4  # numbers of a row: scale, zero point, least, greatest
_CHAINS = 4  # sums, or extremes, of which each waits for itself only
_GRAIN = 1 << 16  # elements that make a workgroup worthwhile


@dataclass(frozen=True)
class FakeQuantize:
    """numerics.fake_quantize_row of an image of floats, by a row that is chosen at run time."""

    isa: Isa
    input: Image
    output: Image
    rows: int

    @property
    def label(self) -> str:
        """As `fake_quantize_64x56x56`."""
        return f"fake_quantize_{_size(self.output)}"

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """Image, table, number of the row; the result."""
        return (
            Buffer("f32", self.input.batch * self.input.size),
            Buffer("f32", self.rows * _ROW),
            Buffer("i32", 1),
            Buffer("f32", self.output.batch * self.output.size),
        )

    @property
    def grid(self) -> tuple[int, int, int]:
        """Groups of rows, one, images."""
        return max(1, min(4, self.output.size // _GRAIN)), 1, self.output.batch

    def emit(self, memory: Sequence[Value], group: Sequence[Index]) -> None:
        """The code of one workgroup."""
        image = self.output
        margins.fill(image, memory[-1], code.constant(0, "i32"), group, self.grid)
        first = code.times(arith.index_cast(IndexType.get(), code.scalar(memory[2], 0)), _ROW)
        row = [code.scalar(memory[1], code.plus(first, i)) for i in range(_ROW)]
        low, high = code.share(image.height, group[0], self.grid[0])

        def line(y: Index) -> None:
            source, target = self.input.at(group[2], y, 0), image.at(group[2], y, 0)

            def part(at: Index, lanes: int) -> None:
                x = code.load(memory[0], code.plus(source, at), lanes)
                code.store(_simulated(x, row), memory[-1], code.plus(target, at))

            each_part(image.width * image.channels, self.isa.lanes, part)

        code.loop(low, high, 1, line)


@dataclass(frozen=True)
class Energies:
    """The energy of an image of floats, and of its difference to another, added up in f64.

    Of every `step`-th row, scaled to all of them.
    """

    isa: Isa
    reference: Image
    value: Image
    step: int = 1

    @property
    def label(self) -> str:
        """As `energies_64x56x56`."""
        every = "" if self.step == 1 else f"_every{self.step}"
        return f"energies{every}_{_size(self.reference)}"

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """The two images; signal and noise."""
        images = (self.reference, self.value)
        return (*(Buffer("f32", each.batch * each.size) for each in images), Buffer("f32", 2))

    @property
    def grid(self) -> tuple[int, int, int]:
        """One workgroup, whose sums do not depend on the number of threads."""
        return 1, 1, 1

    def emit(self, memory: Sequence[Value], _group: Sequence[Index]) -> None:
        """The code of the workgroup: f32 within a row, f64 over rows."""
        wide = VectorType.get([self.isa.lanes], F64Type.get())
        zero = arith.extf(wide, code.splat(code.constant(0.0, "f32"), self.isa.lanes))

        def image(batch: Index, *totals: Value) -> list[Value]:
            def row(y: Index, *totals: Value) -> list[Value]:
                sums = self._row(memory, (batch, y))
                pairs = zip(totals, sums, strict=True)
                return [arith.addf(total, arith.extf(wide, each)) for total, each in pairs]

            return code.loop(0, self.reference.height, self.step, row, totals)

        totals = code.loop(0, self.reference.batch, 1, image, [zero, zero])
        rows = self.reference.height
        scale = code.constant(rows / -(-rows // self.step), "f32")
        for place, total in enumerate(totals):
            value = vector.reduction(F64Type.get(), "add", total)
            narrow = arith.mulf(arith.truncf(code.element("f32"), value), scale)
            code.store(code.splat(narrow, 1), memory[-1], place)

    def _row(self, memory: Sequence[Value], at: tuple[Index, Index]) -> list[Value]:
        """Signal and noise of one row, a vector of each."""
        places = [image.at(*at, 0) for image in (self.reference, self.value)]
        lanes, elements = self.isa.lanes, self.reference.width * self.reference.channels
        zero = code.splat(code.constant(0.0, "f32"), lanes)

        def loaded(offset: Index, lanes: int) -> list[Value]:
            pairs = zip(memory[:2], places, strict=True)
            return [code.load(each, code.plus(place, offset), lanes) for each, place in pairs]

        def added(sums: Sequence[Value], operands: Sequence[Value]) -> list[Value]:
            (signal, noise), (reference, value) = sums, operands
            difference = arith.subf(reference, value)
            return [
                vector.fma(reference, reference, signal),
                vector.fma(difference, difference, noise),
            ]

        def step(offset: Index, *sums: Value) -> list[Value]:
            return added(sums, loaded(offset, lanes))

        sums, whole = _each_vector(elements, lanes, step, [zero, zero])
        for done, piece in code.pieces(elements - whole, lanes):
            rest = [code.inserted(each, zero, 0) for each in loaded(whole + done, piece)]
            sums[:2] = added(sums[:2], rest)
        for place in range(2, len(sums), 2):
            sums[:2] = map(arith.addf, sums[:2], sums[place : place + 2])
        return sums[:2]


@dataclass(frozen=True)
class Observe:
    """Least and greatest of an image of floats, then counts of every `stride`-th element.

    The `bins` of equal width lie between least and greatest; all numbers are f32.
    """

    isa: Isa
    image: Image
    bins: int
    stride: int

    @property
    def label(self) -> str:
        """As `observe_64x56x56`."""
        return f"observe_{_size(self.image)}"

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
        zero = code.splat(code.constant(0.0, "f32"), 1)
        code.loop(0, self.bins, 1, lambda i: code.store(zero, memory[1], code.plus(i, _EXTREMES)))
        self._count(memory, least, greatest)

    def _extremes(self, memory: Value) -> list[Value]:
        """The least and the greatest of all elements."""
        shape = self.image.as_row() if self.image.is_dense else self.image
        elements, lanes = shape.width * shape.channels, self.isa.lanes
        while lanes > elements:
            lanes //= 2
        infinities = (code.constant(number, "f32") for number in (np.inf, -np.inf))
        start = [code.splat(each, lanes) for each in infinities]

        def row(batch: Index, y: Index, *found: Value) -> list[Value]:
            first = shape.at(batch, y, 0)

            def step(at: Index, least: Value, greatest: Value) -> list[Value]:
                x = code.load(memory, code.plus(first, at), lanes)
                return [code.lesser(x, least), code.greater(x, greatest)]

            reached, whole = _each_vector(elements, lanes, step, found)
            if whole < elements:
                reached[:2] = step(elements - lanes, *reached[:2])
            return reached

        def image(batch: Index, *found: Value) -> list[Value]:
            return code.loop(0, shape.height, 1, partial(row, batch), found)

        found = code.loop(0, shape.batch, 1, image, start * _CHAINS)
        scalar = code.element("f32")
        kinds = (("minimumf", code.lesser), ("maximumf", code.greater))
        return [
            vector.reduction(scalar, kind, reduce(pick, found[place::2]))
            for place, (kind, pick) in enumerate(kinds)
        ]

    def _count(self, memory: Sequence[Value], least: Value, greatest: Value) -> None:
        """Count each element of the subsample, in the order of memory without margins."""
        shape = self.image.as_row() if self.image.is_dense else self.image
        row = shape.width * shape.channels
        width, (zero, most) = arith.subf(greatest, least), self._constants()
        per_unit = arith.divf(code.constant(self.bins, "f32"), width)
        wide = arith.cmpf(arith.CmpFPredicate.OGT, width, zero)
        per_unit = arith.select(wide, per_unit, zero)
        one = code.splat(code.constant(1.0, "f32"), 1)

        def element(at: Index) -> None:
            place = arith.mulf(arith.subf(code.scalar(memory[0], at), least), per_unit)
            place = code.lesser(code.greater(place, zero), most)
            index = arith.index_cast(IndexType.get(), arith.fptosi(code.element("i32"), place))
            counted = code.plus(index, _EXTREMES)
            code.store(arith.addf(code.load(memory[1], counted, 1), one), memory[1], counted)

        def line(number: Index) -> None:
            first = shape.at(*code.split(number, shape.height), 0)
            # The first of the row is the next of a stride that does not end with rows.
            over = code.split(code.times(number, row), self.stride)[1]
            skipped = code.split(code.plus(code.times(over, -1), self.stride), self.stride)[1]
            code.loop(skipped, row, self.stride, lambda at: element(code.plus(first, at)))

        code.loop(0, shape.batch * shape.height, 1, line)

    def _constants(self) -> tuple[Value, Value]:
        return code.constant(0.0, "f32"), code.constant(self.bins - 1, "f32")


def _each_vector(
    elements: int, lanes: int, step: Callable[..., list[Value]], carried: Sequence[Value]
) -> tuple[list[Value], int]:
    """`step(offset, first, second)` at each whole vector; what is carried, and where they end.

    `_CHAINS` pairs take turns, so that none waits for its last step: an addition takes longer than
    what it adds. A single pair that is `carried` begins each of them.
    """
    carried = list(carried) * (2 * _CHAINS // len(carried))

    def steps(first: Index, *found: Value) -> list[Value]:
        parts = [
            step(code.plus(first, i * lanes), *found[2 * i : 2 * i + 2]) for i in range(_CHAINS)
        ]
        return [value for part in parts for value in part]

    together = _CHAINS * lanes
    many, whole = elements // together * together, elements // lanes * lanes
    found = code.loop(0, many, together, steps, carried)
    for i, offset in enumerate(range(many, whole, lanes)):
        found[2 * i : 2 * i + 2] = step(offset, *found[2 * i : 2 * i + 2])
    return found, whole


def _simulated(x: Value, row: Sequence[Value]) -> Value:
    """A vector as the row stores it, in floats again; as it is where the scale is not positive."""
    lanes = code.lanes_of(x)
    zero, one = (code.constant(number, "f32") for number in (0.0, 1.0))
    scale, zero_point, low, high = row
    on = arith.cmpf(arith.CmpFPredicate.OGT, scale, zero)
    divisor = code.splat(arith.select(on, scale, one), lanes)
    steps = code.call("llvm.roundeven", x.type, arith.divf(x, divisor))
    least, most = (code.splat(arith.subf(each, zero_point), lanes) for each in (low, high))
    steps = code.lesser(code.greater(steps, least), most)
    return arith.select(on, arith.mulf(steps, divisor), x)


def _size(image: Image) -> str:
    return f"{image.channels}x{image.height}x{image.width}"
