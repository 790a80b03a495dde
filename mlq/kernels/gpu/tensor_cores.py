"""Convolutions and matrix products by tensor cores: mma m16n8k32, u8 by i8 into i32.

A warp makes a tile of `rows` x 16 pixels by `columns` x 8 channels. In what order the elements of a
window are taken is free as long as pixels and weights agree: a lane takes 8 or 16 bytes of a pixel
that lie side by side, so that one access fetches them. So is the order of channels in a tile: a
lane ends up with neighbours. Weights lie in memory in the order in which lanes take them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch_mlir.dialects import arith, llvm
from torch_mlir.ir import Type, Value
from typing_extensions import Self

from mlq.kernels import code
from mlq.kernels.code import Index
from mlq.kernels.gpu import threads
from mlq.kernels.gpu.convolution import GpuConvolution
from mlq.kernels.gpu.finishing import Finisher
from mlq.kernels.gpu.planning import Plan, Room, Task, best_plan, cycles_of
from mlq.kernels.gpu.threads import THREADS, WORD

_HEIGHT, _WIDTH, _LANES = 16, 8, 4  # pixels and channels of a product; lanes that share a pixel
_MMA = "llvm.nvvm.mma.m16n8k32.row.col.u8.s8"


@dataclass(frozen=True, kw_only=True)
class TensorConv(GpuConvolution):
    """A convolution on tensor cores; `columns` of a tile, where weights were packed for so many."""

    columns: int = 0

    @property
    def plan(self) -> Plan:
        """The tile of a warp: what is estimated to take least time."""
        return best_plan(self.task, self.room, self.columns)

    @property
    def task(self) -> Task:
        """What there is to do."""
        return Task(self.pixels, self.channels, self.bytes // WORD, self.takes)

    @property
    def cycles(self) -> float:
        """What the kernel is estimated to take, without its launch."""
        return cycles_of(self.task, self.room, self.plan)

    def share(self, batch: int, parts: int, room: Room) -> Self | None:
        """Its weights stay packed as they are."""
        found = super().share(batch, parts, room)
        return None if found is None else replace(found, columns=self.plan.columns)

    @property
    def shared_words(self) -> int:
        """What all but one of the warps that share a tile have summed up."""
        rows, columns, parts = self.plan
        return THREADS * (parts - 1) // parts * 4 * rows * columns

    @property
    def takes(self) -> int:
        """Steps over the window, in each of which lanes take `bytes`."""
        return self.window[0] * self.runs * self.run * WORD // (_LANES * self.bytes)

    @property
    def padded(self) -> int:
        """Channels that are computed: whole tiles."""
        width = self.plan.columns * _WIDTH
        return -(-self.channels // width) * width

    @property
    def bytes(self) -> int:
        """Of a pixel that a lane takes at once: 16 if that fills no more up, else 8."""
        sixteen = self.input.channels % 16 == 0 and -(-super().run // 8) % 2 == 0
        return 16 if sixteen else 8

    @property
    def run(self) -> int:
        """Words of a run, filled up to whole products."""
        each = self.bytes * _LANES // WORD
        return -(-super().run // each) * each

    @property
    def is_filled_up(self) -> bool:
        """Whether the last step of a run goes beyond it."""
        return self.run != super().run

    @property
    def warps(self) -> int:
        """Tiles of pixels by tiles of channels, by warps that share one."""
        tiles = self.pixel_tiles * self.padded // (self.plan.columns * _WIDTH)
        return tiles * self.plan.parts

    @property
    def items(self) -> int:
        """Lanes of the warps."""
        return self.warps * self.isa.warp

    def pack(self, weight: NDArray[Any]) -> NDArray[Any]:
        """Weights [KH, KW, I, O] in the order of tiles of 8 channels, steps, lanes."""
        runs = self.arranged(weight)
        lanes = runs[..., self._order].reshape(-1, _LANES, self.bytes, self.padded)
        tiles = lanes.reshape(*lanes.shape[:3], self.padded // _WIDTH, _WIDTH)
        return np.ascontiguousarray(tiles.transpose(3, 0, 4, 1, 2)).reshape(-1)

    def emit(self, memory: Sequence[Value], group: Sequence[Index]) -> None:
        """The code of one lane."""
        thread, finisher = self.started(memory, group)
        _Lane(self.flattened(), memory, finisher, thread).emit()

    @property
    def pixel_tiles(self) -> int:
        """Tiles along pixels."""
        return -(-self.pixels // (self.plan.rows * _HEIGHT))

    @property
    def _order(self) -> list[int]:
        """Which channel each column of the tiles is."""
        columns = self.plan.columns
        return [
            first + 2 * columns * (n // 2) + 2 * tile + n % 2
            for first in range(0, self.padded, columns * _WIDTH)
            for tile in range(columns)
            for n in range(_WIDTH)
        ]


class _Lane:
    """The code of one lane: its part of the fragments of a tile."""

    def __init__(
        self, kernel: TensorConv, memory: Sequence[Value], finisher: Finisher, thread: Index
    ) -> None:
        self.kernel, self.memory, self.finisher = kernel, memory, finisher
        self.plan, self.words = kernel.plan, kernel.bytes // WORD
        warp, self.lane = code.split(thread, kernel.isa.warp)
        warp, self.part = code.split(warp, self.plan.parts)
        row, quarter = code.split(self.lane, _LANES)
        last = kernel.warps // self.plan.parts - 1
        tile, first = code.split(code.at_most(warp, last), kernel.pixel_tiles)
        first = code.plus(code.times(first, self.plan.rows * _HEIGHT), row)
        numbers = [code.plus(first, i * _HEIGHT // 2) for i in range(2 * self.plan.rows)]
        self.pixels = [kernel.pixel(number) for number in numbers]
        offset = code.times(quarter, self.words)
        self.sources = [code.plus(kernel.source(pixel), offset) for pixel in self.pixels]
        self.tile = code.times(tile, self.plan.columns)
        neighbours = code.times(quarter, 2 * self.plan.columns)
        self.channel = code.plus(code.times(tile, self.plan.columns * _WIDTH), neighbours)

    def emit(self) -> None:
        """Sums of products over the window, from the biases on; then what becomes of them."""
        biases = self.finisher.biases(self.channel, 2 * self.plan.columns)
        pairs = [biases[i : i + 2] for i in range(0, len(biases), 2)]
        first = [bias for pair in pairs for bias in (*pair, *pair)] * self.plan.rows
        if self.plan.parts == 1:
            self._finish(self._steps(first))
            return
        self._join(self._steps([threads.number(0)] * len(first)), first)

    def _join(self, sums: Sequence[Value], biases: Sequence[Value]) -> None:
        """Add up what the warps that share a tile have, and finish it in the first of them."""
        warp = code.split(threads.identity(), self.kernel.isa.warp)[0]
        others, apart = self.plan.parts - 1, self.kernel.isa.warp
        first = code.times(code.split(warp, self.plan.parts)[0], others * len(sums) * apart)
        shared = threads.shared(self.kernel.shared_words)

        def places(part: Index) -> list[Index]:
            before = code.times(code.plus(part, -1), len(sums) * apart)
            start = code.plus(code.plus(first, before), self.lane)
            return [code.plus(start, i * apart) for i in range(len(sums))]

        def leave() -> None:
            for value, place in zip(sums, places(self.part), strict=True):
                threads.store([value], shared, place, 1)

        def finish() -> None:
            total = [arith.addi(*pair) for pair in zip(sums, biases, strict=True)]
            for part in range(1, self.plan.parts):
                found = [threads.load(shared, place, 1, 1)[0] for place in places(part)]
                total = [arith.addi(*pair) for pair in zip(total, found, strict=True)]
            self._finish(total)

        threads.unless(self.part, 0, leave)
        threads.wait()
        code.when(self.part, 0, finish)

    def _finish(self, sums: Sequence[Value]) -> None:
        scales = self.finisher.scales(self.channel, 2 * self.plan.columns)
        word = code.split(self.channel, WORD)[0]
        for i, pixel in enumerate(self.pixels):
            part = [
                sums[4 * (i // 2 * self.plan.columns + column) + 2 * (i % 2) + place]
                for column in range(self.plan.columns)
                for place in range(2)
            ]
            self.finisher.store(part, scales, word, *self.kernel.places(self.memory, pixel))

    def _steps(self, sums: Sequence[Value]) -> list[Value]:
        """Products over the steps that are this warp's: one of every `parts`."""
        parts, steps = self.plan.parts, self.kernel.takes
        unrolled = self.plan.unrolled(self.words, steps)

        def several(step: Index, *sums: Value) -> list[Value]:
            done = list(sums)
            for i in range(unrolled):
                done = self._step(code.plus(step, i * parts), done)
            return done

        return code.loop(self.part, steps, parts * unrolled, several, sums)

    def _step(self, number: Index, sums: Sequence[Value]) -> list[Value]:
        """Products over the bytes that the lanes take at once."""
        done, kernel, steps = list(sums), self.kernel, self.kernel.takes
        offset = self._offset(number)
        rows = [self._pixel(code.plus(each, offset)) for each in self.sources]
        for column in range(self.plan.columns):
            place = code.plus(code.times(code.plus(self.tile, column), steps), number)
            at = code.plus(code.times(place, kernel.isa.warp), self.lane)
            at = code.times(at, self.words)
            weights = threads.load(self.memory[1], at, self.words, self.words)
            for half in range(0, self.words, 2):
                part = slice(half, half + 2)
                for row in range(self.plan.rows):
                    first = 4 * (row * self.plan.columns + column)
                    upper, lower = rows[2 * row][part], rows[2 * row + 1][part]
                    before = done[first : first + 4]
                    done[first : first + 4] = _product(before, upper, lower, weights[part])
        return done

    def _offset(self, number: Index) -> Index:
        """How many words after the start of a window a step begins."""
        kernel, size = self.kernel, self.words * _LANES
        run, step = code.split(number, kernel.run // size)
        return code.plus(kernel.run_offset(run), code.times(step, size))

    def _pixel(self, at: Index) -> list[Value]:
        """The bytes of a pixel; what lies beyond the image, where weights are zero, is its last."""
        memory, image = self.memory[0], self.kernel.input
        width = min(threads.widest(image.channels // WORD, self.kernel.isa.words), self.words)
        if not self.kernel.is_filled_up:
            return threads.load(memory, at, self.words, width)
        end = image.batch * image.size // WORD - width
        places = [code.at_most(code.plus(at, i), end) for i in range(0, self.words, width)]
        return [word for place in places for word in threads.load(memory, place, width, width)]


def _product(
    sums: Sequence[Value], upper: Sequence[Value], lower: Sequence[Value], weights: Sequence[Value]
) -> list[Value]:
    """One product of fragments: pixels g and g + 8 of a lane, weights of its column."""
    pixels = [upper[0], lower[0], upper[1], lower[1]]
    four = Type.parse("!llvm.struct<(i32, i32, i32, i32)>")
    made = code.call(_MMA, four, *pixels, *weights, *sums)
    return [llvm.extractvalue(code.element("i32"), made, [i]) for i in range(len(sums))]
