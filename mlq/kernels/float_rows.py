"""Rows of floats that are computed one by one, each from sums over all of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch_mlir.dialects import arith, vector
from torch_mlir.ir import Value

from mlq.kernels import code
from mlq.kernels.code import Index
from mlq.kernels.isa import Isa

_GRAIN = 1 << 14  # elements that make a workgroup worthwhile


@dataclass(frozen=True)
class FloatRows(ABC):
    """A kernel of `rows` rows of `size` floats; where the batch is dynamic, those of one sample."""

    isa: Isa
    rows: int
    size: int

    @property
    def count(self) -> int:
        """Floats of all rows."""
        return self.rows * self.size

    @property
    def grid(self) -> tuple[int, int, int]:
        """Groups of rows."""
        return max(1, min(8, self.count // _GRAIN, self.rows)), 1, 1

    @property
    def lanes(self) -> int:
        """Elements of a vector, of which a row has one at least."""
        lanes = self.isa.lanes
        while lanes > self.size:
            lanes //= 2
        return lanes

    @property
    def whole(self) -> int:
        """Elements in whole vectors; the last vector reaches back among them if there are more."""
        return self.size // self.lanes * self.lanes

    def emit(self, memory: Sequence[Value], group: Sequence[Index]) -> None:
        """The code of one workgroup: row by row."""
        first = code.times(group[2], self.rows)

        def row(y: Index) -> None:
            self.row(memory, code.times(code.plus(first, y), self.size))

        code.loop(*code.share(self.rows, group[0], self.grid[0]), 1, row)

    @abstractmethod
    def row(self, memory: Sequence[Value], at: Index) -> None:
        """The code of the row that begins at a place."""

    def total(self, made: Callable[[Index], Value]) -> Value:
        """The sum of what vectors become; `made` is told how far from its start each begins."""

        def step(i: Index, total: Value) -> list[Value]:
            return [arith.addf(total, made(i))]

        lanes = self.lanes
        zero = code.splat(code.constant(0.0, "f32"), lanes)
        (total,) = code.loop(0, self.whole, lanes, step, [zero])
        if rest := self.size - self.whole:
            seen = lanes - rest
            mask = [i if i < seen else lanes + i for i in range(lanes)]
            total = arith.addf(total, code.shuffle(zero, made(self.size - lanes), mask))
        return vector.reduction(code.element("f32"), "add", total)

    def each(self, body: Callable[[int, Index], None]) -> None:
        """`body` for vectors, and then parts of one, that together are the row."""
        code.loop(0, self.whole, self.lanes, lambda i: body(self.lanes, i))
        for done, piece in code.pieces(self.size - self.whole, self.lanes):
            body(piece, self.whole + done)
