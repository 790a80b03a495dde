"""The network's input, from floats in NCHW to integers in NHWC."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch_mlir.dialects import arith
from torch_mlir.ir import Value

from mlq.kernels import code, margins
from mlq.kernels.code import Index
from mlq.kernels.executable import Buffer
from mlq.kernels.finishing import Finish, Finisher, coefficient_count
from mlq.kernels.image import Image
from mlq.kernels.isa import Isa


@dataclass(frozen=True)
class QuantizeImage:
    """Few channels of floats, one plane after the other, to a word of u8 for each pixel.

    numerics.quantize: true division by the scale, which is the coefficients' only scale.
    """

    isa: Isa
    channels: int
    output: Image
    finish: Finish

    @property
    def label(self) -> str:
        """As `quantize_3x224x224`."""
        return f"quantize_{self.channels}x{self.output.height}x{self.output.width}"

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """Planes, coefficients; the result."""
        return (
            Buffer("f32", self.output.batch * self.channels * self.output.pixels),
            Buffer("i32", coefficient_count(1)),
            Buffer("i8", self.output.batch * self.output.size),
        )

    @property
    def grid(self) -> tuple[int, int, int]:
        """Groups of rows, one, images."""
        return max(1, min(4, self.output.pixels >> 13)), 1, self.output.batch

    def emit(self, memory: Sequence[Value], group: Sequence[Index]) -> None:
        """The code of one workgroup."""
        finisher = Finisher(self.finish, memory[1], 1)
        margins.fill(self.output, memory[-1], finisher.zero_point(), group, self.grid)
        low, high = code.share(self.output.height, group[0], self.grid[0])
        width = self.isa.lanes
        while width > self.output.width:
            width //= 2
        whole = self.output.width // width * width
        scale = code.splat(code.vector_scalar(finisher.scales(0, 1)), width)

        def row(y: Index) -> None:
            def pixels(x: Index) -> None:
                self._pixels(memory, finisher, scale, (group[2], y, x))

            code.loop(0, whole, width, pixels)
            if whole < self.output.width:
                pixels(self.output.width - width)

        code.loop(low, high, 1, row)

    def _pixels(
        self,
        memory: Sequence[Value],
        finisher: Finisher,
        scale: Value,
        at: tuple[Index, Index, Index],
    ) -> None:
        """Pixels side by side: a vector of each plane, then the planes' bytes in turn."""
        batch, y, x = at
        width = code.lanes_of(scale)
        plane = self.output.pixels
        first = code.plus(code.times(batch, self.channels * plane), x)
        first = code.plus(first, code.times(y, self.output.width))
        word: Value | None = None
        for channel in range(self.channels):
            real = code.load(memory[0], code.plus(first, channel * plane), width)
            stored = finisher.stored(arith.divf(real, scale))
            byte = arith.extui(code.vector_type(width, "i32"), stored)
            if word is None:
                word = byte
            else:
                places = code.splat(code.constant(8 * channel, "i32"), width)
                word = arith.ori(word, arith.shli(byte, places))
        assert word is not None
        code.store(code.view(word, "i8"), memory[-1], self.output.at(batch, y, x))
