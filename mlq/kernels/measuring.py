"""What measures a quantized network in floats: storage by a row of a table, and energies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from torch_mlir.dialects import arith, scf, vector
from torch_mlir.ir import F64Type, InsertionPoint, Value, VectorType

from mlq import numerics
from mlq.kernels import code, margins
from mlq.kernels.code import Index
from mlq.kernels.executable import Buffer, workers
from mlq.kernels.image import Image
from mlq.kernels.isa import Isa
from mlq.kernels.movement import SIDE_BY_SIDE, each_part, each_vector
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
class Energies:
    """The energy of an image of floats, and of its difference to another, added up in f64.

    Of every `step`-th row, scaled to all of them; `value` may have these rows only.
    """

    isa: Isa
    reference: Image
    value: Image
    step: int = 1

    def __post_init__(self) -> None:
        ours, theirs = self.reference, self.value
        assert theirs.height in (ours.height, -(-ours.height // self.step))
        assert replace(theirs, height=ours.height, margin=ours.margin) == ours

    @property
    def label(self) -> str:
        """As `energies_64x56x56`."""
        every = "" if self.step == 1 else f"_every{self.step}"
        return f"energies{every}{'_thin' * self.is_thin}_{_size(self.reference)}"

    @property
    def is_thin(self) -> bool:
        """Whether `value` has only the rows that are looked at."""
        return self.value.height < self.reference.height

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
        batch, y = at
        row = code.split(y, self.step)[0] if self.is_thin else y
        places = [self.reference.at(batch, y, 0), self.value.at(batch, row, 0)]
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

        sums, whole = each_vector(elements, lanes, step, [zero, zero] * SIDE_BY_SIDE)
        for done, piece in code.pieces(elements - whole, lanes):
            rest = [code.inserted(each, zero, 0) for each in loaded(whole + done, piece)]
            sums[:2] = added(sums[:2], rest)
        for place in range(2, len(sums), 2):
            sums[:2] = map(arith.addf, sums[:2], sums[place : place + 2])
        return sums[:2]


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


def _size(image: Image) -> str:
    return f"{image.channels}x{image.height}x{image.width}"
