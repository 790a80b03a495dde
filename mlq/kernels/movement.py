"""Elements from image to image: side by side, over and over, or a part to another place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from torch_mlir.ir import Value

from mlq.kernels import code, margins
from mlq.kernels.code import Index
from mlq.kernels.executable import MARGIN_VALUE, Buffer
from mlq.kernels.grain import workgroups
from mlq.kernels.image import Image
from mlq.kernels.isa import Isa
from mlq.kernels.storage import Kind

_GRAIN = 1 << 15  # elements that make a workgroup worthwhile
SIDE_BY_SIDE = 4
"""Vectors of one step, so that none waits for another."""


def each_part(elements: Index, lanes: int, body: Callable[[Index, int], None]) -> None:
    """`body(first, lanes)` for vectors that cover the elements; the last ones may be narrower."""
    if not isinstance(elements, int):
        whole = code.times(code.split(elements, lanes)[0], lanes)
        code.loop(0, whole, lanes, lambda at: body(at, lanes))
        code.loop(whole, elements, 1, lambda at: body(at, 1))
        return
    step = lanes * SIDE_BY_SIDE

    def several(at: Index) -> None:
        for i in range(SIDE_BY_SIDE):
            body(code.plus(at, i * lanes), lanes)

    whole = elements // step * step
    code.loop(0, whole, step, several)
    for done, piece in code.pieces(elements - whole, 2 * step):
        for start in range(0, piece, lanes):
            body(whole + done + start, min(piece, lanes))


def each_block(channels: int, width: int, body: Callable[[int, Index], None]) -> None:
    """`body(width, first)` for blocks that cover the channels; the last ones may overlap."""
    while width > channels:
        width //= 2
    whole = channels // width * width
    code.loop(0, whole, width, partial(body, width))
    if whole < channels:
        body(width, channels - width)


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
        element = self.isa.element(self.kind)
        inputs = [Buffer(element, image.batch * image.size) for image in self.inputs]
        result = Buffer(element, self.output.batch * self.output.size)
        return (*inputs, MARGIN_VALUE, result)

    @property
    def grid(self) -> tuple[int, int, int]:
        """Shares of the rows, one, images."""
        return workgroups(self.output.size // _GRAIN), 1, self.output.batch

    def emit(self, memory: Sequence[Value], group: Sequence[Index]) -> None:
        """The code of one workgroup: its rows, pixel by pixel."""
        margins.fill(self.output, memory[-1], code.scalar(memory[-2], 0), group, self.grid)
        low, high = code.share(self.output.height, group[0], self.grid[0])

        def row(y: Index) -> None:
            code.loop(0, self.output.width, 1, partial(self._pixel, memory, group[2], y))

        code.loop(low, high, 1, row)

    def _pixel(self, memory: Sequence[Value], batch: Index, y: Index, x: Index) -> None:
        target, width = self.output.at(batch, y, x), self.isa.width(self.kind)
        for source, image, channels in zip(memory, self.inputs, self.channels, strict=False):
            place = image.at(batch, y, x)
            each_part(channels, width, partial(_copy, (source, place), (memory[-1], target)))
            target = code.plus(target, channels)


@dataclass(frozen=True)
class Resize:
    """Every pixel `factors` [down, right] times over."""

    isa: Isa
    input: Image
    output: Image
    factors: tuple[int, int]
    kind: Kind

    @property
    def label(self) -> str:
        """As `resize2x2_64x28x28`."""
        down, right = self.factors
        return f"resize{down}x{right}_{self.input.channels}x{self.input.height}x{self.input.width}"

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """The image, what stands for zero in the margin (an i32); the result."""
        element = self.isa.element(self.kind)
        input, output = self.input.batch * self.input.size, self.output.batch * self.output.size
        return Buffer(element, input), MARGIN_VALUE, Buffer(element, output)

    @property
    def grid(self) -> tuple[int, int, int]:
        """Groups of rows, one, images."""
        return workgroups(self.output.size // _GRAIN), 1, self.output.batch

    def emit(self, memory: Sequence[Value], group: Sequence[Index]) -> None:
        """The code of one workgroup: its rows, by pixels of the input, each read once a row."""
        margins.fill(self.output, memory[-1], code.scalar(memory[1], 0), group, self.grid)
        channels = min(self.input.channels, self.output.channels)
        down, right = self.factors

        def row(y: Index) -> None:
            above, _ = code.split(y, down)

            def pixel(x: Index) -> None:
                source = self.input.at(group[2], above, x)
                target = self.output.at(group[2], y, code.times(x, right))
                each_block(channels, self.isa.width(self.kind), partial(repeat, source, target))

            code.loop(0, self.input.width, 1, pixel)

        def repeat(source: Index, target: Index, size: int, channel: Index) -> None:
            value = code.load(memory[0], code.plus(source, channel), size)
            for i in range(right):
                place = code.plus(target, i * self.output.channels)
                code.store(value, memory[-1], code.plus(place, channel))

        code.loop(*code.share(self.output.height, group[0], self.grid[0]), 1, row)


@dataclass(frozen=True, kw_only=True)
class Move:
    """A part of an image to a place in another.

    Rows, columns and channels: `size` is how many of the result the part makes, from `place` on;
    `first` where it begins in the input, in which its pixels are `steps` apart. `axes` says which
    axis of the input each axis of the part is: the same, or rows and columns have changed places.
    """

    isa: Isa
    input: Image
    output: Image
    kind: Kind
    size: tuple[int, int, int]
    place: tuple[int, int, int] = (0, 0, 0)
    first: tuple[int, int, int] = (0, 0, 0)
    steps: tuple[int, int] = (1, 1)
    axes: tuple[int, int, int] = (0, 1, 2)

    @property
    def turned(self) -> bool:
        """Whether rows become columns."""
        return self.axes != (0, 1, 2)

    @property
    def label(self) -> str:
        """As `turn_64x197x3`, `move_64x16x16_to_128x18x18`."""
        input, output = (
            f"{image.channels}x{image.height}x{image.width}" for image in (self.input, self.output)
        )
        return f"turn_{input}" if self.turned else f"move_{input}_to_{output}"

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """The image; what stands in the margin, and around the part (i32); the result."""
        element = self.isa.element(self.kind)
        input, output = self.input.batch * self.input.size, self.output.batch * self.output.size
        return Buffer(element, input), Buffer("i32", 2), Buffer(element, output)

    @property
    def grid(self) -> tuple[int, int, int]:
        """Groups of rows, one, images."""
        return workgroups(self.output.size // _GRAIN), 1, self.output.batch

    def emit(self, memory: Sequence[Value], group: Sequence[Index]) -> None:
        """The code of one workgroup: its rows, pixel by pixel."""
        margins.fill(self.output, memory[-1], code.scalar(memory[1], 0), group, self.grid)
        low, high = code.share(self.output.height, group[0], self.grid[0])
        (top, left, channel), (height, width, channels) = self.place, self.size
        if self.size != (self.output.height, self.output.width, self.output.channels):
            code.loop(low, high, 1, partial(self._surround, memory, group[2]))

        def row(y: Index) -> None:
            def pixel(x: Index) -> None:
                source = memory[0], self._source(group[2], code.plus(y, -top), x)
                target = self.output.at(group[2], y, code.plus(x, left))
                to = memory[-1], code.plus(target, channel)
                each_part(channels, self.isa.width(self.kind), partial(_copy, source, to))

            code.loop(0, width, 1, pixel)

        code.loop(code.at_least(low, top), code.at_most(high, top + height), 1, row)

    def _source(self, batch: Index, y: Index, x: Index) -> Index:
        """Where a pixel of the part begins in the input."""
        down, right, channel = self.first
        row = code.plus(code.times(y, self.steps[0]), down)
        pixel = code.plus(code.times(x, self.steps[1]), right)
        at = self.input.at(batch, *((pixel, row) if self.turned else (row, pixel)))
        return code.plus(at, channel)

    def _surround(self, memory: Sequence[Value], batch: Index, y: Index) -> None:
        """Write what is around the part wherever it may be in a row."""
        number = code.bits(code.scalar(memory[1], 1), code.element_of(memory[-1]))
        start = self.output.at(batch, y, 0)

        def part(at: Index, lanes: int) -> None:
            code.store(code.splat(number, lanes), memory[-1], code.plus(start, at))

        each_part(self.output.width * self.output.channels, self.isa.width(self.kind), part)


def _copy(source: tuple[Value, Index], target: tuple[Value, Index], at: Index, lanes: int) -> None:
    value = code.load(source[0], code.plus(source[1], at), lanes)
    code.store(value, target[0], code.plus(target[1], at))
