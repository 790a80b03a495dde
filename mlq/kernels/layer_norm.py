"""Layer norms of floats along rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch_mlir.dialects import arith, vector
from torch_mlir.ir import Value

from mlq.kernels import code
from mlq.kernels.code import Index
from mlq.kernels.executable import Buffer
from mlq.kernels.float_rows import FloatRows


@dataclass(frozen=True)
class LayerNorm(FloatRows):
    """ONNX LayerNormalization of rows: (x - mean) / sqrt(variance + epsilon) * scale + shift.

    The variance is the mean of squared distances from the mean, which is computed first.
    """

    epsilon: float

    @property
    def label(self) -> str:
        """As `layer_norm_197x192`."""
        return f"layer_norm_{self.rows}x{self.size}"

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """The rows, scales, shifts; the result."""
        rows, numbers = Buffer("f32", self.count), Buffer("f32", self.size)
        return rows, numbers, numbers, rows

    def row(self, memory: Sequence[Value], at: Index) -> None:
        """A sum, a sum of squares, and the result: three times through the row."""

        def distance(lanes: int, i: Index) -> Value:
            value = code.load(memory[0], code.plus(at, i), lanes)
            return arith.subf(value, code.splat(mean, lanes))

        def squared(i: Index) -> Value:
            value = distance(self.lanes, i)
            return arith.mulf(value, value)

        def normal(lanes: int, i: Index) -> None:
            value = arith.mulf(distance(lanes, i), code.splat(factor, lanes))
            scale, shift = (code.load(each, i, lanes) for each in memory[1:3])
            code.store(vector.fma(value, scale, shift), memory[3], code.plus(at, i))

        count, f32 = code.constant(float(self.size), "f32"), code.element("f32")
        total = self.total(lambda i: code.load(memory[0], code.plus(at, i), self.lanes))
        mean = arith.divf(total, count)
        variance = arith.divf(self.total(squared), count)
        epsilon = code.constant(self.epsilon, "f32")
        root = code.call("llvm.sqrt", f32, arith.addf(variance, epsilon))
        factor = arith.divf(code.constant(1.0, "f32"), root)
        self.each(normal)
