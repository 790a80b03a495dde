"""Maxima and means of windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from torch_mlir.dialects import arith
from torch_mlir.ir import Value

from mlq.kernels import code, lanes, margins
from mlq.kernels.code import Index
from mlq.kernels.executable import MARGIN_VALUE, Buffer
from mlq.kernels.finishing import Finish, Finisher, coefficient_count
from mlq.kernels.grain import workgroups
from mlq.kernels.image import Image
from mlq.kernels.isa import Isa
from mlq.kernels.movement import each_block
from mlq.kernels.pixels import Pixels
from mlq.kernels.storage import Kind

_GRAIN = 1 << 15  # elements read that make a workgroup worthwhile


@dataclass(frozen=True)
class _Pool:
    isa: Isa
    input: Image
    output: Image
    window: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int]

    @property
    def grid(self) -> tuple[int, int, int]:
        """Groups of rows, one, images."""
        work = self.output.size * self.window[0] * self.window[1]
        return workgroups(work // _GRAIN, self.output.height), 1, self.output.batch

    def workers(self) -> Sequence[Index]:
        """The grid, as code knows it."""
        return self.grid

    @property
    def _size(self) -> str:
        height, width = self.window
        image = self.input
        return f"{height}x{width}_{image.channels}x{image.height}x{image.width}"

    @property
    def _channels(self) -> int:
        """Channels to compute; either side may have more, for padding."""
        return min(self.input.channels, self.output.channels)

    def _each_pixel(self, group: Sequence[Index], body: Callable[[Index, Index], None]) -> None:
        """`body(y, x)` for the output pixels of a workgroup."""
        low, high = code.share(self.output.height, group[0], self.workers()[0])

        def row(y: Index) -> None:
            def pixel(x: Index) -> None:
                body(y, x)

            code.loop(0, self.output.width, 1, pixel)

        code.loop(low, high, 1, row)

    def _origin(self, y: Index, x: Index) -> tuple[Index, Index]:
        """Where the window of an output pixel begins; within the margin, perhaps."""
        (top, left), (down, right) = self.pads, self.strides
        row, pixel = code.times(y, down), code.times(x, right)
        return code.plus(row, code.times(top, -1)), code.plus(pixel, code.times(left, -1))


@dataclass(frozen=True)
class MaxPool(_Pool):
    """The greatest element of each window; elements beyond the image do not count."""

    kind: Kind = "u8"

    @property
    def label(self) -> str:
        """As `max_pool3x3_64x112x112`."""
        return f"{'real_' if self.kind == 'f32' else ''}max_pool{self._size}"

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """Image, what stands for zero in the margin (an i32); the result."""
        element = self.isa.element(self.kind)
        return (
            Buffer(element, self.input.batch * self.input.size),
            MARGIN_VALUE,
            Buffer(element, self.output.batch * self.output.size),
        )

    def emit(self, memory: Sequence[Value], group: Sequence[Index]) -> None:
        """The code of one workgroup."""
        margins.fill(self.output, memory[-1], code.scalar(memory[1], 0), group, self.workers())
        self._each_pixel(group, partial(self._greatest, memory, group[2]))

    def _greatest(self, memory: Sequence[Value], batch: Index, y: Index, x: Index) -> None:
        """One pixel. What lies beyond the image is replaced by what is nearest in the window."""
        top, left = self._origin(y, x)
        rows = [_within(code.plus(top, i), self.input.height) for i in range(self.window[0])]
        pixels = [_within(code.plus(left, i), self.input.width) for i in range(self.window[1])]
        places = [self.input.at(batch, row, pixel) for row in rows for pixel in pixels]
        target, signed = self.output.at(batch, y, x), self.isa.storage_of(self.kind).signed

        def block(width: int, channel: Index) -> None:
            values = [code.load(memory[0], code.plus(at, channel), width) for at in places]
            greatest = values[0]
            for value in values[1:]:
                greatest = code.greater(greatest, value, signed=signed)
            code.store(greatest, memory[-1], code.plus(target, channel))

        self._each_block(block)

    def _each_block(self, body: Callable[[int, Index], None]) -> None:
        each_block(self._channels, self.isa.width(self.kind), body)


@dataclass(frozen=True)
class MeanPool(_Pool):
    """Sums of u8 or u16 windows, finished as accumulators are; the margin counts as zeros.

    All channels have one bias; `scales` is how many there are, one for each output pixel or one.
    """

    finish: Finish
    scales: int
    kind: Kind = "u8"

    @property
    def label(self) -> str:
        """As `mean_pool7x7_512x7x7`."""
        return f"mean_pool{self._size}"

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """Image, coefficients; the result."""
        return (
            Buffer(self.isa.element(self.kind), self.input.batch * self.input.size),
            Buffer("i32", coefficient_count(self.scales)),
            Buffer(self.isa.element(self.finish.result), self.output.batch * self.output.size),
        )

    def emit(self, memory: Sequence[Value], group: Sequence[Index]) -> None:
        """The code of one workgroup."""
        finisher = Finisher(self.finish, self.isa.storage_of, memory[1], self.scales)
        margins.fill(self.output, memory[-1], finisher.zero_point(), group, self.grid)
        self._each_pixel(group, partial(self._mean, memory, finisher, group[2]))

    def _mean(
        self, memory: Sequence[Value], finisher: Finisher, batch: Index, y: Index, x: Index
    ) -> None:
        source = self.input.at(batch, *self._origin(y, x))
        target = self.output.at(batch, y, x)
        number = code.plus(code.times(y, self.output.width), x) if self.scales > 1 else 0

        def block(width: int, channel: Index) -> None:
            def row(down: Index, *sums: Value) -> list[Value]:
                def element(right: Index, *totals: Value) -> list[Value]:
                    at = code.plus(code.times(down, self.input.pitch), source)
                    at = code.plus(at, code.times(right, self.input.channels))
                    value = code.load(memory[0], code.plus(at, channel), width)
                    parts = self._extended(value, len(totals))
                    return [arith.addi(*pair) for pair in zip(totals, parts, strict=True)]

                return code.loop(0, self.window[1], 1, element, sums)

            count = max(1, width // self.isa.lanes)
            size = width // count
            bias = code.splat(code.lane(finisher.biases(0, 1), 0), size)
            scale = code.splat(code.lane(finisher.scales(number, 1), 0), size)
            sums = code.loop(0, self.window[0], 1, row, [bias] * count)
            place = code.plus(target, channel)
            finisher.store([sums], [scale] * count, Pixels(memory[-1], [place]))

        each_block(self._channels, self._width, block)

    @property
    def _width(self) -> int:
        """Channels at once: a register of them where packing leaves their order, or of sums.

        Of fewer channels than fill a register, unpacking would make sums that fill none.
        """
        whole = self.isa.width(self.kind)
        order = lanes.interleaved(self.isa.lanes, whole // self.isa.lanes)
        return whole if order == sorted(order) and whole <= self._channels else self.isa.lanes

    def _extended(self, value: Value, count: int) -> list[Value]:
        """Elements as so many vectors of i32."""
        storage = self.isa.storage_of(self.kind)
        return [storage.extended(value)] if count == 1 else lanes.unpacked(storage, value)


def _within(at: Index, size: Index) -> Index:
    return code.at_least(code.at_most(at, code.plus(size, -1)), 0)
