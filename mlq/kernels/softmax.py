"""Softmax of floats along rows, with an exponential of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch_mlir.dialects import arith, vector
from torch_mlir.ir import Value

from mlq.kernels import code
from mlq.kernels.code import Index
from mlq.kernels.executable import Buffer
from mlq.kernels.functions import exponential
from mlq.kernels.isa import Isa

_GRAIN = 1 << 14  # elements that make a workgroup worthwhile


@dataclass(frozen=True)
class Softmax:
    """ONNX Softmax of `rows` rows of `size` floats: exp(x - the greatest) over its sum.

    Where the batch is dynamic, those are the rows of one sample.
    """

    isa: Isa
    rows: int
    size: int

    @property
    def label(self) -> str:
        """As `softmax_591x197`."""
        return f"softmax_{self.rows}x{self.size}"

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """The rows, before and after."""
        return (Buffer("f32", self.rows * self.size),) * 2

    @property
    def grid(self) -> tuple[int, int, int]:
        """Groups of rows."""
        return max(1, min(8, self.rows * self.size // _GRAIN, self.rows)), 1, 1

    @property
    def _lanes(self) -> int:
        lanes = self.isa.lanes
        while lanes > self.size:
            lanes //= 2
        return lanes

    @property
    def _whole(self) -> int:
        """Elements in whole vectors; the last vector reaches back among them if there are more."""
        return self.size // self._lanes * self._lanes

    def emit(self, memory: Sequence[Value], group: Sequence[Index]) -> None:
        """The code of one workgroup: row by row."""
        first = code.times(group[2], self.rows)

        def row(y: Index) -> None:
            at = code.times(code.plus(first, y), self.size)
            total = self._exponentials(memory, at, self._greatest(memory[0], at))
            one = code.constant(1.0, "f32")
            self._scaled(memory[1], at, arith.divf(one, total))

        code.loop(*code.share(self.rows, group[0], self.grid[0]), 1, row)

    def _greatest(self, memory: Value, at: Index) -> Value:
        lanes = self._lanes

        def step(i: Index, most: Value) -> list[Value]:
            return [code.greater(most, code.load(memory, code.plus(at, i), lanes))]

        first = code.load(memory, code.plus(at, self.size - lanes), lanes)
        (most,) = code.loop(0, self._whole, lanes, step, [first])
        return vector.reduction(code.element("f32"), "maxnumf", most)

    def _exponentials(self, memory: Sequence[Value], at: Index, most: Value) -> Value:
        """Write them, and add them up."""
        lanes = self._lanes
        greatest = code.splat(most, lanes)

        def made(i: Index) -> Value:
            place = code.plus(at, i)
            value = exponential(arith.subf(code.load(memory[0], place, lanes), greatest))
            code.store(value, memory[1], place)
            return value

        def step(i: Index, total: Value) -> list[Value]:
            return [arith.addf(total, made(i))]

        zero = code.splat(code.constant(0.0, "f32"), lanes)
        (total,) = code.loop(0, self._whole, lanes, step, [zero])
        if rest := self.size - self._whole:
            seen = lanes - rest
            last = made(self.size - lanes)
            mask = [i if i < seen else lanes + i for i in range(lanes)]
            total = arith.addf(total, code.shuffle(zero, last, mask))
        return vector.reduction(code.element("f32"), "add", total)

    def _scaled(self, memory: Value, at: Index, factor: Value) -> None:
        def step(lanes: int, i: Index) -> None:
            place = code.plus(at, i)
            value = code.load(memory, place, lanes)
            code.store(arith.mulf(value, code.splat(factor, lanes)), memory, place)

        code.loop(0, self._whole, self._lanes, lambda i: step(self._lanes, i))
        for done, piece in code.pieces(self.size - self._whole, self._lanes):
            step(piece, self._whole + done)
