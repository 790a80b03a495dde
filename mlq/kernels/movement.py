"""Images side by side: channels of several in one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from torch_mlir.ir import Value

from mlq.kernels import code, margins
from mlq.kernels.code import Index
from mlq.kernels.executable import Buffer
from mlq.kernels.finishing import Kind
from mlq.kernels.image import Image
from mlq.kernels.isa import Isa

_GRAIN = 1 << 17  # elements that make a workgroup worthwhile


@dataclass(frozen=True)
class Concat:
    """The channels of some images, pixel by pixel; `channels` of each are no padding."""

    isa: Isa
    inputs: tuple[Image, ...]
    channels: tuple[int, ...]
    output: Image
    kind: Kind

    @property
    def label(self) -> str:
        """As `concat_64_64x55x55`."""
        *others, last = self.channels
        size = f"{last}x{self.output.height}x{self.output.width}"
        return "_".join(["concat", *map(str, others), size])

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """The images, what stands for zero in the margin (an i32); the result."""
        element = "f32" if self.kind == "f32" else "i8"
        inputs = [Buffer(element, image.batch * image.size) for image in self.inputs]
        result = Buffer(element, self.output.batch * self.output.size)
        return (*inputs, Buffer("i32", 1), result)

    @property
    def grid(self) -> tuple[int, int, int]:
        """Groups of rows, one, images."""
        return max(1, min(4, self.output.size // _GRAIN)), 1, self.output.batch

    def emit(self, memory: Sequence[Value], group: Sequence[Index]) -> None:
        """The code of one workgroup."""
        if not self.output.is_dense:
            zero = code.bits(code.scalar(memory[-2], 0), code.element_of(memory[-1]))
            rows = code.share(self.output.rows, group[0], self.grid[0])
            margins.fill(self.output, memory[-1], zero, group[2], rows)
        low, high = code.share(self.output.height, group[0], self.grid[0])

        def row(y: Index) -> None:
            code.loop(0, self.output.width, 1, partial(self._pixel, memory, group[2], y))

        code.loop(low, high, 1, row)

    def _pixel(self, memory: Sequence[Value], batch: Index, y: Index, x: Index) -> None:
        target, whole = self.output.at(batch, y, x), self.isa.vector_bytes
        width = whole // 4 if self.kind == "f32" else whole
        for source, image, channels in zip(memory, self.inputs, self.channels, strict=False):
            place = image.at(batch, y, x)
            code.each_part(channels, width, partial(_copy, (source, place), (memory[-1], target)))
            target = code.plus(target, channels)


def _copy(source: tuple[Value, Index], target: tuple[Value, Index], at: Index, lanes: int) -> None:
    value = code.load(source[0], code.plus(source[1], at), lanes)
    code.store(value, target[0], code.plus(target[1], at))
