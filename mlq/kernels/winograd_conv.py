"""The products of Winograd's convolution, and the results of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from torch_mlir.dialects import arith, memref
from torch_mlir.ir import MemRefType, Value

from mlq.kernels import code, tiles
from mlq.kernels.code import Index
from mlq.kernels.conv import Conv
from mlq.kernels.executable import Buffer
from mlq.kernels.image import Image
from mlq.kernels.tiling import Columns
from mlq.kernels.winograd import (
    WINDOW,
    Cover,
    Form,
    Transform,
    linear_combination,
    loaded_combination,
    rescaled,
)

# Groups of tiles that share weights while these are near; bytes that IREE lets a function keep.
_MOST_GROUPS, _MOST_KEPT = 4, 1 << 15
_TILE = 12.0  # cycles of a tile, whose sums go to memory and come back


@dataclass(frozen=True, kw_only=True)
class Winograd(Conv):
    """What is left of the convolution: a matrix product in each place, and A' m A of that.

    `input` is the image that `Transform` has read.
    """

    form: Form

    @property
    def label(self) -> str:
        """As `winograd4_conv3x3_64x56x56_128`."""
        return f"winograd{self.form.made}_{super().label}"

    @property
    def cover(self) -> Cover:
        """The tiles of the output."""
        return Cover(self.output.height, self.output.width, self.form.made)

    @property
    def product(self) -> Conv:
        """The product in one place: that of a row of pixels, which are tiles."""
        assert self.isa.halves is not None
        # A group's sums are kept for all places.
        most = _MOST_KEPT // (self.form.places * self.isa.vector_bytes)
        registers = min(self.isa.registers, most)
        row = Image(1, 1, self.cover.count, self.input.channels)
        return Conv(
            input=row,
            output=replace(row, channels=self.output.channels),
            residual=None,
            channels=self.channels,
            window=(1, 1),
            strides=(1, 1),
            dilations=(1, 1),
            pads=(0, 0),
            groups=1,
            finish=self.finish,
            isa=replace(
                self.isa.wide, registers=registers, pace=replace(self.isa.pace, tile=_TILE)
            ),
            kind="u16",
        )

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """Tiles, transformed weights, coefficients, perhaps a residual; the result."""
        weights = self.product.buffers[1]
        return (
            self.transform.buffers[1],
            replace(weights, count=self.form.places * weights.count),
            *super().buffers[2:],
        )

    @property
    def cycles(self) -> float:
        """What the products of an image take, about."""
        return self.form.places * self.product.cycles

    @property
    def together(self) -> int:
        """Tiles of a group, which are in registers together."""
        return self.product.columns[0].pixels

    @property
    def columns(self) -> tuple[Columns, ...]:
        """How channels and tiles are divided."""
        columns = self.product.columns
        return tuple(replace(column, pixels=self.together, by_row=False) for column in columns)

    def tiles(self, column: Columns) -> int:
        """Runs of groups of tiles."""
        return -(-self.transform.groups // self.run_of(column))

    def run_of(self, column: Columns) -> int:
        """Groups that go through a place one after the other: they share its weights."""
        groups, each = self.transform.groups, column.pixels * column.vectors
        bytes_kept = self.form.places * each * self.isa.vector_bytes
        most = max(1, min(_MOST_GROUPS, groups, _MOST_KEPT // bytes_kept))
        return min(range(most, 0, -1), key=lambda run: -(-groups // run) * run)

    @property
    def transform(self) -> Transform:
        """What makes the tiles."""
        return Transform(self.isa, self.form, self.input, self.cover, self.pads, self.together)

    @property
    def blocks(self) -> tuple[tuple[int, int], ...]:
        """How weights lie together: so many blocks, and how many a place of each of these has."""
        product = self.product
        return tuple((blocks, size * product.row) for _, blocks, size in product.pieces)

    def pack(self, weight: NDArray[np.int8]) -> NDArray[np.int8]:
        """Weights [3, 3, I, O], block by block, in each the nine of them: not yet transformed."""
        height, width = WINDOW
        product = self.product
        taps = [
            product.pack(weight[i : i + 1, j : j + 1]) for i in range(height) for j in range(width)
        ]
        return self._by_blocks(np.stack(taps))

    def _by_blocks(self, rows: NDArray[np.int8]) -> NDArray[np.int8]:
        """Rows of weights [taps, all blocks], as the blocks [taps, weights of one]."""
        first, found = 0, []
        for blocks, each in self.blocks:
            part = rows[:, first : first + blocks * each].reshape(len(rows), blocks, each)
            found.append(part.swapaxes(0, 1).reshape(-1))
            first += blocks * each
        return np.concatenate(found)

    def emit(self, memory: Sequence[Value], group: Sequence[Index]) -> None:
        """The code of one workgroup."""
        _Body(self, memory, group).emit()


class _Body(tiles.Body):
    """The code of one workgroup; products wait in memory of its own until all places have them."""

    def __init__(self, conv: Winograd, memory: Sequence[Value], group: Sequence[Index]) -> None:
        super().__init__(conv, memory, group)
        self.winograd, self.form = conv, conv.form
        self.product = tiles.Body(conv.product, memory, group)
        kept = self.form.places * max(map(self._apart, self.columns))
        self.kept = memref.alloca(MemRefType.get([kept], code.element("i32")), [], [])

    def _apart(self, column: Columns) -> int:
        """Sums of one place."""
        return self.winograd.run_of(column) * column.pixels * self._sums(column)

    def _sums(self, column: Columns) -> int:
        """Sums of one tile in one place."""
        return column.vectors * self.conv.isa.lanes

    def _tile(self, column: Columns, channel: Index, biases: list[Value], tile: Index) -> None:
        """The products of a run of groups, then the results."""
        run = self.winograd.run_of(column)
        first = code.times(tile, run)

        def place(number: Index) -> None:
            code.loop(0, run, 1, partial(self._products, column, channel, first, number))

        results = partial(self._results, column, channel, biases, first)
        code.loop(0, self.form.places, 1, place)
        code.loop(0, run * column.pixels, 1, results)

    def _group(self, first: Index, number: Index) -> Index:
        """A group of a run; the last run goes on with the last."""
        return code.at_most(code.plus(first, number), self.winograd.transform.groups - 1)

    def _products(
        self, column: Columns, channel: Index, first: Index, place: Index, group: Index
    ) -> None:
        """Those of a group of tiles in one place."""
        product, size = self.product.conv, self.conv.isa.lanes
        tiles, places = self.winograd.transform, self.form.places
        number = code.times(self.group[2], tiles.groups)
        number = code.plus(number, self._group(first, group))
        start = code.plus(code.times(number, tiles.group), code.times(place, tiles.apart))
        sources = [code.plus(start, i * tiles.input.channels) for i in range(column.pixels)]
        block = code.times(channel, product.row * places)
        at = code.plus(block, code.times(place, product.row * self._sums(column)))
        zero = code.splat(code.constant(0, "i32"), size)
        sums = [zero] * (column.pixels * column.vectors)
        to = code.plus(
            code.times(place, self._apart(column)),
            code.times(group, column.pixels * self._sums(column)),
        )
        for i, total in enumerate(self.product.run(column, sources, (0, at), sums)):
            code.store(total, self.kept, code.plus(to, i * size))

    def _results(
        self, column: Columns, channel: Index, biases: list[Value], first: Index, number: Index
    ) -> None:
        """The pixels of one tile of a run, of its products in all places: row by row."""
        cover, form = self.winograd.cover, self.form
        group, place = code.split(number, column.pixels)
        tile = code.plus(code.times(self._group(first, group), column.pixels), place)
        tile = code.at_most(tile, cover.count - 1)
        y, x = cover.origin(*code.split(tile, cover.across))
        at = code.times(number, self._sums(column))
        for row, scale in enumerate(form.scales):
            pixels = [(code.plus(y, row), code.plus(x, i)) for i in range(form.made)]
            made = [
                [
                    arith.addi(rescaled(total, scale * other), bias)
                    for total, other in zip(self._row(column, at, i, row), form.scales, strict=True)
                ]
                for i, bias in enumerate(biases)
            ]
            sums = [vector for pixel in zip(*made, strict=True) for vector in pixel]
            self._finish(column, channel, pixels, sums)

    def _row(self, column: Columns, at: Index, vector: int, row: int) -> list[Value]:
        """A row of A' m A: each result is the same multiple of the convolution as its place's."""
        size, form, apart, columns = self.conv.isa.lanes, self.form, self._apart(column), []
        for i in range(form.read):
            numbers = [n * form.read + i for n in range(form.read)]
            places = [code.plus(at, n * apart + vector * size) for n in numbers]
            columns.append(loaded_combination(self.kept, places, size, form.results[row]))
        return [linear_combination(columns, side) for side in form.results]
