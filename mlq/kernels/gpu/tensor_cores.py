"""Convolutions and matrix products by tensor cores: mma m16n8k32, u8 by i8 into i32.

A warp makes a tile of `rows` x 16 pixels by `columns` x 8 channels. In what order the elements of a
window are taken is free as long as pixels and weights agree: a lane takes 8 or 16 bytes of a pixel
that lie side by side, so that one access fetches them. So is the order of channels in a tile: a
lane ends up with neighbours. Weights lie in memory in the order in which lanes take them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch_mlir.dialects import llvm
from torch_mlir.ir import Type, Value

from mlq.kernels import code
from mlq.kernels.code import Index
from mlq.kernels.gpu import threads
from mlq.kernels.gpu.convolution import GpuConvolution
from mlq.kernels.gpu.finishing import Finisher
from mlq.kernels.gpu.threads import WORD

_HEIGHT, _WIDTH, _LANES = 16, 8, 4  # pixels and channels of a product; lanes that share a pixel
_MMA = "llvm.nvvm.mma.m16n8k32.row.col.u8.s8"
_WARPS = 432  # that keep a GPU busy: four for each of 108 multiprocessors (A100)
# Cycles of a warp, estimated: of a product, of a load of a fragment, of finishing a word.
_PRODUCT, _LOAD, _FINISH = 16.0, 12.0, 30.0
_TILES = tuple((rows, columns) for columns in (8, 4, 2) for rows in (4, 2, 1))
_MOST = 24  # products of a tile: four accumulators each


@dataclass(frozen=True, kw_only=True)
class TensorConv(GpuConvolution):
    """A convolution on tensor cores."""

    @property
    def padded(self) -> int:
        """Channels that are computed: whole tiles."""
        width = self.tile[1] * _WIDTH
        return -(-self.channels // width) * width

    @property
    def tile(self) -> tuple[int, int]:
        """Products along pixels and along channels: what is estimated to take least time."""
        return _best_tile(self.pixels, self.channels, self.window[0] * self.runs * self.run)

    @property
    def bytes(self) -> int:
        """Of a pixel that a lane takes at once: 16 if that fills no more up, else 8."""
        words = self.input.channels * self.window[1] // self.runs // WORD
        sixteen = self.input.channels % 16 == 0 and -(-words // 8) % 2 == 0
        return 16 if sixteen else 8

    @property
    def run(self) -> int:
        """Words of a run, filled up to whole products."""
        each = self.bytes * _LANES // WORD
        return -(-super().run // each) * each

    @property
    def warps(self) -> int:
        """Tiles of pixels by tiles of channels."""
        return self.pixel_tiles * self.padded // (self.tile[1] * _WIDTH)

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
        thread, finisher = self.begin(memory, group)
        _Lane(self.flattened(), memory, finisher, thread).emit()

    @property
    def pixel_tiles(self) -> int:
        """Tiles along pixels."""
        return -(-self.pixels // (self.tile[0] * _HEIGHT))

    @property
    def _order(self) -> list[int]:
        """Which channel each column of the tiles is."""
        columns = self.tile[1]
        return [
            first + 2 * columns * (n // 2) + 2 * tile + n % 2
            for first in range(0, self.padded, columns * _WIDTH)
            for tile in range(columns)
            for n in range(_WIDTH)
        ]


@cache
def _best_tile(pixels: int, channels: int, words: int) -> tuple[int, int]:
    def cycles(tile: tuple[int, int]) -> float:
        rows, columns = tile
        products, loads = rows * columns * _PRODUCT, (2 * rows + columns) * _LOAD
        each = words / 8 * (products + loads) + rows * columns * _FINISH
        warps = -(-pixels // (rows * _HEIGHT)) * -(-channels // (columns * _WIDTH))
        return each * max(1.0, warps / _WARPS)

    return min((tile for tile in _TILES if tile[0] * tile[1] <= _MOST), key=cycles)


class _Lane:
    """The code of one lane: its part of the fragments of a tile."""

    def __init__(
        self, kernel: TensorConv, memory: Sequence[Value], finisher: Finisher, thread: Index
    ) -> None:
        self.kernel, self.memory, self.finisher = kernel, memory, finisher
        warp, lane = code.split(thread, kernel.isa.warp)
        (self.rows, self.columns), self.lane = kernel.tile, lane
        row, part = code.split(lane, _LANES)
        tile, first = code.split(code.at_most(warp, kernel.warps - 1), kernel.pixel_tiles)
        first = code.plus(code.times(first, self.rows * _HEIGHT), row)
        numbers = [code.plus(first, i * _HEIGHT // 2) for i in range(2 * self.rows)]
        self.pixels = [kernel.pixel(number) for number in numbers]
        self.words = kernel.bytes // WORD
        offset = code.times(part, self.words)
        self.sources = [code.plus(kernel.source(pixel), offset) for pixel in self.pixels]
        self.tile = code.times(tile, self.columns)
        self.channel = code.plus(
            code.times(tile, self.columns * _WIDTH), code.times(part, 2 * self.columns)
        )

    def emit(self) -> None:
        """Sums of products over the window, from the biases on; then what becomes of them."""
        count = 2 * self.columns
        biases = self.finisher.biases(self.channel, count)
        pairs = [biases[i : i + 2] for i in range(0, count, 2)]
        first = [bias for _ in range(self.rows) for pair in pairs for bias in (*pair, *pair)]
        sums = self.kernel.each_run(self._run, first)
        scales = self.finisher.scales(self.channel, count)
        word = code.split(self.channel, WORD)[0]
        for i, pixel in enumerate(self.pixels):
            part = [
                sums[4 * (i // 2 * self.columns + column) + 2 * (i % 2) + place]
                for column in range(self.columns)
                for place in range(2)
            ]
            self.finisher.store(part, scales, word, *self.kernel.places(self.memory, pixel))

    def _run(self, number: Index, offset: Index, *sums: Value) -> list[Value]:
        """Products over one run; its last step may reach beyond it, where weights are zero."""
        size, run = self.words * _LANES, self.kernel.run
        real = self.kernel.input.channels * self.kernel.window[1] // self.kernel.runs // WORD
        whole = real // size

        def step(k: Index, *sums: Value) -> list[Value]:
            place = code.plus(code.times(number, run // size), k)
            return self._step(code.plus(offset, code.times(k, size)), place, sums, last=False)

        sums = tuple(code.loop(0, whole, 1, step, sums))
        if whole * size == real:
            return list(sums)
        place = code.plus(code.times(number, run // size), whole)
        return self._step(code.plus(offset, whole * size), place, sums, last=True)

    def _step(
        self, offset: Index, number: Index, sums: Sequence[Value], *, last: bool
    ) -> list[Value]:
        """Products over the bytes that the lanes take at once."""
        done, isa = list(sums), self.kernel.isa
        aligned = threads.widest(self.kernel.input.channels // WORD, isa.words)
        rows = [self._pixel(code.plus(each, offset), aligned, last=last) for each in self.sources]
        steps = self.kernel.window[0] * self.kernel.runs * self.kernel.run // (self.words * _LANES)
        for column in range(self.columns):
            place = code.plus(code.times(code.plus(self.tile, column), steps), number)
            at = code.plus(code.times(place, isa.warp), self.lane)
            weights = threads.load(
                self.memory[1], code.times(at, self.words), self.words, self.words
            )
            for half in range(0, self.words, 2):
                part = slice(half, half + 2)
                for row in range(self.rows):
                    first = 4 * (row * self.columns + column)
                    upper, lower = rows[2 * row][part], rows[2 * row + 1][part]
                    done[first : first + 4] = _product(
                        done[first : first + 4], upper, lower, weights[part]
                    )
        return done

    def _pixel(self, at: Index, aligned: int, *, last: bool) -> list[Value]:
        """The bytes of a pixel; what lies beyond the image is replaced by its last."""
        width = min(aligned, self.words)
        memory, image = self.memory[0], self.kernel.input
        if not last:
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
