"""Softmax of floats along rows, with an exponential of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch_mlir.dialects import arith, vector
from torch_mlir.ir import Value

from mlq.kernels import code
from mlq.kernels.code import Index
from mlq.kernels.executable import Buffer
from mlq.kernels.float_rows import FloatRows
from mlq.kernels.functions import exponential


@dataclass(frozen=True)
class Softmax(FloatRows):
    """ONNX Softmax of rows: exp(x - the greatest) over its sum."""

    @property
    def label(self) -> str:
        """As `softmax_591x197`."""
        return f"softmax_{self.rows}x{self.size}"

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """The rows, before and after."""
        return (Buffer("f32", self.count),) * 2

    def row(self, memory: Sequence[Value], at: Index) -> None:
        """Exponentials first; then they are divided by their sum."""
        greatest = code.splat(self._greatest(memory[0], at), self.lanes)

        def exponentials(i: Index) -> Value:
            place = code.plus(at, i)
            value = code.load(memory[0], place, self.lanes)
            value = exponential(arith.subf(value, greatest))
            code.store(value, memory[1], place)
            return value

        total = self.total(exponentials)
        factor = arith.divf(code.constant(1.0, "f32"), total)

        def scaled(lanes: int, i: Index) -> None:
            place = code.plus(at, i)
            value = code.load(memory[1], place, lanes)
            code.store(arith.mulf(value, code.splat(factor, lanes)), memory[1], place)

        self.each(scaled)

    def _greatest(self, memory: Value, at: Index) -> Value:
        lanes = self.lanes

        def step(i: Index, most: Value) -> list[Value]:
            return [code.greater(most, code.load(memory, code.plus(at, i), lanes))]

        first = code.load(memory, code.plus(at, self.size - lanes), lanes)
        (most,) = code.loop(0, self.whole, lanes, step, [first])
        return vector.reduction(code.element("f32"), "maxnumf", most)
