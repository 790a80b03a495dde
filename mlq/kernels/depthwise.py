"""Convolutions with a filter for each channel: taps of one column side by side in a word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import gcd
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch_mlir.ir import Value

from mlq.kernels import code, lanes, margins
from mlq.kernels.code import Index
from mlq.kernels.executable import Buffer
from mlq.kernels.finishing import Finish, Finisher, coefficient_count
from mlq.kernels.grain import workgroups
from mlq.kernels.image import Image
from mlq.kernels.isa import WORD_BYTES, Isa, Unit
from mlq.kernels.rows import Row
from mlq.kernels.storage import Kind

_LEAST_BYTES = 16  # of the narrowest block

_GRAIN = 1 << 15  # multiply-accumulates that make a workgroup worthwhile

# What a block costs: a column of the window that is read, all else of a pixel, to begin.
_COLUMN, _PIXEL, _BLOCK = 1.0, 3.0, 6.0


@dataclass(frozen=True)
class Depthwise:
    """A depthwise convolution of integers, or of floats, finished in registers (see conv.Conv).

    Blocks of channels overlap where channels are no multiple of their width.
    """

    isa: Isa
    input: Image
    output: Image
    window: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[int, int]
    finish: Finish
    kind: Kind = "u8"

    @property
    def ending(self) -> Finish:
        """How it finishes: sums are in an order that only packs to elements as wide as it reads."""
        alike = self.isa.unit(self.finish.result).depth == self.unit.depth
        return self.finish if alike else replace(self.finish, apart=True)

    @property
    def label(self) -> str:
        """As `depthwise3x3s1_96x56x56`."""
        image = self.input
        size = f"{image.channels}x{image.height}x{image.width}"
        kind = {"u8": "", "u16": "wide_", "f32": "real_"}[self.kind]
        return f"{kind}depthwise{self.window[0]}x{self.window[1]}s{self.strides[0]}_{size}"

    @property
    def unit(self) -> Unit:
        """What multiplies: as many taps at once as a word has elements."""
        return self.isa.unit(self.kind)

    @staticmethod
    def least_channels(unit: Unit) -> int:
        """The fewest channels that fill a block."""
        return _LEAST_BYTES * unit.depth // WORD_BYTES

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """Image, weights, coefficients; the result."""
        return (
            Buffer(self.unit.element, self.input.batch * self.input.size),
            Buffer(self.unit.weight, sum(self._filter_size(width) for _, width in self.blocks)),
            Buffer("i32", coefficient_count(self.stored)),
            Buffer(self.isa.element(self.finish.result), self.output.batch * self.output.size),
        )

    @property
    def grid(self) -> tuple[int, int, int]:
        """Groups of rows, one, images."""
        work = self.output.size * self.window[0] * self.window[1]
        return workgroups(work // _GRAIN, self._steps_down), 1, self.output.batch

    def workers(self) -> Sequence[Index]:
        """The grid, as code knows it."""
        return self.grid

    @property
    def folded(self) -> int:
        """Pixels of a row that are taken as one of all their channels: few fill no register."""
        whole, (image, result) = self.isa.width(self.kind), (self.input, self.output)
        if image.channels != result.channels:
            return 1
        most = min(whole // gcd(whole, result.channels), result.width)
        some = [count for count in range(1, most + 1) if self._folds(count)]
        return min(some, key=lambda count: (self._cost(count), count), default=1)

    def _folds(self, count: int) -> bool:
        """Whether so many pixels make blocks; if strides part them, one of what two loads hold."""
        channels, stride = count * self.output.channels, self.strides[1]
        if channels < self.least_channels(self.unit):
            return False
        firsts, behind = range(0, count * stride, stride), (count - 1) * (stride - 1)
        held = all(first < count or first >= behind for first in firsts)
        return count == 1 or stride == 1 or (held and self._blocks(channels) == ((0, channels),))

    def _cost(self, count: int) -> float:
        """What a row costs, more or less."""
        blocks = len(self._blocks(count * self.output.channels))
        new = min(self.window[1], count * self.strides[1])
        return blocks * (-(-self.output.width // count) * (new * _COLUMN + _PIXEL) + _BLOCK)

    @property
    def blocks(self) -> tuple[tuple[int, int], ...]:
        """First channel and width of each block, the widest first, of folded pixels."""
        return self._blocks(self.folded * self.output.channels)

    def _blocks(self, channels: int) -> tuple[tuple[int, int], ...]:
        assert channels >= self.least_channels(self.unit), self.label
        first, found = 0, []
        while first < channels:
            width = self.isa.width(self.kind)
            while width > self.least_channels(self.unit) and width > channels - first:
                width //= 2
            found.append((min(first, channels - width), width))
            first += width
        return tuple(found)

    @property
    def rows(self) -> int:
        """Output rows made at once: two where they share taps that would else be padding."""
        shares = self.strides[0] == self.dilations[0] == 1 and self.window[0] % self.together
        return 2 if shares and self.output.height > 1 else 1

    @property
    def together(self) -> int:
        """Input rows whose elements are side by side in a register."""
        return self.unit.taps.together

    @property
    def quads(self) -> int:
        """Groups of so many input rows."""
        return -(-(self.window[0] + self.rows - 1) // self.together)

    def pack(self, weight: NDArray[Any]) -> NDArray[Any]:
        """Weights [KH, KW, 1, C] in the order in which the kernel reads them."""
        parts = []
        (height, width), word, depth = self.window, self.together, self.unit.depth
        channels = np.zeros((height, width, self.output.channels), weight.dtype)
        channels[..., : weight.shape[3]] = weight[:, :, 0]
        channels = np.tile(channels, self.folded)
        for first, size in self.blocks:
            order = [first + place for place in lanes.interleaved(size // depth, depth)]
            for row in range(self.rows):
                taps = np.zeros((self.quads * word, width, size), weight.dtype)
                taps[row : row + height] = channels[..., order]
                quads = taps.reshape(self.quads, word, width, size)
                parts.append(quads.transpose(2, 0, 3, 1).reshape(-1))
        return np.concatenate(parts)

    def ordered(self, values: NDArray[Any]) -> NDArray[Any]:
        """A number for each channel [C], in the order of the vectors that are finished."""
        padded, word = np.zeros(self.output.channels, values.dtype), self.unit.depth
        padded[: len(values)] = values
        padded = np.tile(padded, self.folded)
        parts = [
            padded[[first + place for place in lanes.interleaved(size // word, word)]]
            if self.ending.packs
            else padded[first : first + size]
            for first, size in self.blocks
        ]
        return np.concatenate(parts)

    def emit(self, memory: Sequence[Value], group: Sequence[Index]) -> None:
        """The code of one workgroup: blocks of channels on rows of pixels."""
        finisher = Finisher(self.ending, self.isa.storage_of, memory[2], self.stored)
        grid = self.workers()
        margins.fill(self.output, memory[-1], finisher.zero_point(), group, grid)
        low, high = code.share(self._steps_down, group[0], grid[0])

        def down(step: Index) -> None:
            y = code.at_most(code.times(step, self.rows), self.output.height - self.rows)
            for block in self.runs():
                self._run(memory, finisher, (group[2], y), block)

        code.loop(low, high, 1, down)

    @property
    def _steps_down(self) -> int:
        return (self.output.height + self.rows - 1) // self.rows

    @property
    def stored(self) -> int:
        """Channels of all blocks."""
        return sum(width for _, width in self.blocks)

    def _filter_size(self, size: int) -> int:
        return self.rows * self.window[1] * self.quads * self.together * size

    def runs(self) -> list[Run]:
        """Blocks that one loop serves: equally wide, one after the other."""
        runs: list[Run] = []
        for number, (first, width) in enumerate(self.blocks):
            last = runs[-1] if runs else None
            if last and last.width == width and first == last.first + last.count * width:
                runs[-1] = Run(last.first, width, last.count + 1, last.before)
            else:
                before = sum(w for _, w in self.blocks[:number])
                runs.append(Run(first, width, 1, before))
        return runs

    def _run(
        self, memory: Sequence[Value], finisher: Finisher, at: tuple[Index, Index], run: Run
    ) -> None:
        def block(number: Index) -> None:
            offset = code.times(number, run.width)
            place = code.plus(offset, run.before)
            channel = code.plus(offset, run.first)
            Row(self, memory, finisher, at, (channel, place, run.width)).emit()

        code.loop(0, run.count, 1, block)


@dataclass(frozen=True)
class Run:
    """Blocks of one width: the first's channel, how many, the channels stored before them."""

    first: int
    width: int
    count: int
    before: int
