"""What measures a quantized network in floats: storage by a row of a table, and energies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import ClassVar

from torch_mlir.dialects import arith, scf, vector
from torch_mlir.ir import F64Type, InsertionPoint, Value, VectorType

from mlq import numerics
from mlq.kernels import code, margins
from mlq.kernels.code import Index
from mlq.kernels.executable import Buffer, workers
from mlq.kernels.image import Image
from mlq.kernels.isa import Isa
from mlq.kernels.movement import SIDE_BY_SIDE, each_part
from mlq.kernels.sized import Sized

_ROW = 4  # numbers of a row: scale, zero point, least, greatest
_GRAIN = 1 << 16  # elements that make a workgroup worthwhile


@dataclass(frozen=True)
class FakeQuantize(Sized):
    """numerics.fake_quantize_row of an image of floats, by a `row` that is chosen at run time."""

    isa: Isa
    input: Image
    output: Image
    row: int
    sizes: ClassVar[tuple[str, ...]] = ("input", "output", "row")
    with_margin: ClassVar[str] = "output"
    label: ClassVar[str] = "fake_quantize"

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """Image, table; the result."""
        source, result = (
            Buffer("f32", each.batch * each.size) for each in (self.input, self.output)
        )
        return source, Buffer("f32", (self.row + 1) * _ROW), result

    @property
    def grid(self) -> tuple[int, int, int]:
        """Groups of rows, one, images."""
        return max(1, min(4, self.output.size // _GRAIN)), 1, self.output.batch

    def emit(self, memory: Sequence[Value], group: Sequence[Index]) -> None:
        """The code of one workgroup."""
        image, grid = self.output, workers()
        margins.fill(image, memory[-1], code.constant(0, "i32"), group, grid)
        row = [code.scalar(memory[1], code.plus(self.row * _ROW, i)) for i in range(_ROW)]
        low, high = code.share(image.height, group[0], grid[0])

        def line(y: Index) -> None:
            source, target = self.input.at(group[2], y, 0), image.at(group[2], y, 0)

            def part(at: Index, lanes: int) -> None:
                x = code.load(memory[0], code.plus(source, at), lanes)
                code.store(_simulated(x, row), memory[-1], code.plus(target, at))

            each_part(image.width * image.channels, self.isa.lanes, part)

        code.loop(low, high, 1, line)


@dataclass(frozen=True)
class Energies(Sized):
    """The energy of an image of floats, and of its difference to another, added up in f64.

    Of every `step`-th row, scaled to all of them; of a `thin` value these rows are all there is.
    """

    isa: Isa
    reference: Image
    value: Image
    step: int = 1
    thin: bool = False
    sizes: ClassVar[tuple[str, ...]] = ("reference", "value", "step")
    with_margin: ClassVar[str] = "reference"
    label: ClassVar[str] = "energies"

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
        rows = self.reference.height
        looked_at = code.split(code.plus(rows, code.plus(self.step, -1)), self.step)[0]

        def image(batch: Index, *totals: Value) -> list[Value]:
            def row(number: Index, *totals: Value) -> list[Value]:
                sums = self._row(memory, batch, number)
                pairs = zip(totals, sums, strict=True)
                return [arith.addf(total, arith.extf(wide, each)) for total, each in pairs]

            return code.loop(0, looked_at, 1, row, totals)

        totals = code.loop(0, self.reference.batch, 1, image, [zero, zero])
        scale = arith.divf(_real(rows), _real(looked_at))
        for place, total in enumerate(totals):
            value = vector.reduction(F64Type.get(), "add", total)
            narrow = arith.mulf(arith.truncf(code.element("f32"), value), scale)
            code.store(code.splat(narrow, 1), memory[-1], place)

    def _row(self, memory: Sequence[Value], batch: Index, number: Index) -> list[Value]:
        """Signal and noise of one of the rows that are looked at, a vector of each."""
        y = code.times(number, self.step)
        places = (
            self.reference.at(batch, y, 0),
            self.value.at(batch, number if self.thin else y, 0),
        )
        lanes, elements = self.isa.lanes, self.reference.width * self.reference.channels
        zero = code.splat(code.constant(0.0, "f32"), lanes)

        def several(offset: Index, *sums: Value) -> list[Value]:
            """A vector for each pair of sums: an addition takes longer than its operands' loads."""
            pairs = zip(sums[::2], sums[1::2], strict=True)
            added = (
                more(code.plus(offset, i * lanes), lanes, *pair) for i, pair in enumerate(pairs)
            )
            return [each for pair in added for each in pair]

        def more(offset: Index, width: int, signal: Value, noise: Value) -> list[Value]:
            """Sums of `width` elements more; those of one are in the first lane."""
            images = zip(memory, places, strict=False)
            loaded = [code.load(each, code.plus(at, offset), width) for each, at in images]
            if width < lanes:
                loaded = [code.inserted(each, zero, 0) for each in loaded]
            reference, value = loaded
            difference = arith.subf(reference, value)
            return [
                vector.fma(reference, reference, signal),
                vector.fma(difference, difference, noise),
            ]

        sums = [zero, zero] * SIDE_BY_SIDE
        reached: Index = 0
        for together in (SIDE_BY_SIDE, 1):
            end = code.times(code.split(elements, together * lanes)[0], together * lanes)
            few = code.loop(reached, end, together * lanes, several, sums[: 2 * together])
            sums[: 2 * together], reached = few, end
        sums[:2] = code.loop(reached, elements, 1, lambda at, *pair: more(at, 1, *pair), sums[:2])
        return [reduce(arith.addf, sums[place::2]) for place in range(2)]


def _real(number: Index) -> Value:
    """A count as f32."""
    word = arith.index_cast(code.element("i32"), code.index(number))
    return arith.sitofp(code.element("f32"), word)


def _simulated(x: Value, row: Sequence[Value]) -> Value:
    """A vector as the row stores it, in floats again; as it is where the scale is zero."""
    lanes = code.lanes_of(x)
    zero, one = (code.constant(number, "f32") for number in (0.0, 1.0))
    scale, zero_point, low, high = row
    on = arith.cmpf(arith.CmpFPredicate.OGT, scale, zero)
    divisor = code.splat(arith.select(on, scale, one), lanes)
    steps = code.call("llvm.roundeven", x.type, arith.divf(x, divisor))
    least, most = (code.splat(arith.subf(each, zero_point), lanes) for each in (low, high))
    steps = code.lesser(code.greater(steps, least), most)
    halves = scf.IfOp(arith.cmpf(arith.CmpFPredicate.OLT, scale, zero), [x.type], has_else=True)
    with InsertionPoint(halves.then_block):
        scf.YieldOp([_rounded_to_f16(x)])
    with InsertionPoint(halves.else_block):
        scf.YieldOp([x])
    return arith.select(on, arith.mulf(steps, divisor), halves.results[0])


def _rounded_to_f16(x: Value) -> Value:
    """A vector rounded to the bits that f16 has, ties to even; few rows ask for it."""
    half, last, one = (
        code.splat(code.constant(number, "i32"), code.lanes_of(x))
        for number in (numerics.F16_HALF_ULP, numerics.F16_DROPPED_BITS, 1)
    )
    bits = code.view(x, "i32")
    rounded = arith.addi(bits, arith.addi(half, arith.andi(arith.shrui(bits, last), one)))
    return code.view(arith.shli(arith.shrui(rounded, last), last), "f32")
