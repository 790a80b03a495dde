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
from mlq.kernels.winograd import MADE, PLACES, READ, SCALE_BITS, WINDOW, Cover

# Groups of tiles that share weights while these are near; bytes that IREE lets a function keep.
_MOST_GROUPS, _MOST_KEPT = 4, 1 << 15


@dataclass(frozen=True, kw_only=True)
class Winograd(Conv):
    """What is left of the convolution: a matrix product in each place, and A' m A of that.

    `input` is the image that `Transform` has read.
    """

    @property
    def label(self) -> str:
        """As `winograd_conv3x3_64x56x56_128`."""
        return f"winograd_{super().label}"

    @property
    def cover(self) -> Cover:
        """The tiles of the output."""
        return Cover(self.output.height, self.output.width)

    @property
    def product(self) -> Conv:
        """The product in one place: that of a row of pixels, which are tiles."""
        assert self.isa.halves is not None
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
            isa=replace(self.isa, integers=self.isa.halves),
        )

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """Tiles, transformed weights, coefficients, perhaps a residual; the result."""
        tiles, weights, *_ = self.product.buffers
        others = super().buffers[2:]
        images = self.output.batch * PLACES
        return (
            replace(tiles, count=images * tiles.count),
            replace(weights, count=PLACES * weights.count),
            *others,
        )

    @property
    def cycles(self) -> float:
        """What the products of an image take, about."""
        return PLACES * self.product.cycles

    @property
    def columns(self) -> tuple[Columns, ...]:
        """How channels and tiles are divided."""
        return self.product.columns

    def tiles(self, column: Columns) -> int:
        """Runs of groups of tiles; the tiles of a group are in registers together."""
        return -(-self.product.tiles(column) // self.run_of(column))

    def run_of(self, column: Columns) -> int:
        """Groups that go through a place one after the other: they share its weights."""
        groups, each = self.product.tiles(column), column.pixels * column.vectors
        bytes_kept = PLACES * each * self.isa.vector_bytes
        most = max(1, min(_MOST_GROUPS, groups, _MOST_KEPT // bytes_kept))
        return min(range(most, 0, -1), key=lambda run: -(-groups // run) * run)

    def pack(self, weight: NDArray[np.int8]) -> NDArray[np.int8]:
        """Weights [3, 3, I, O], each of the nine as the product reads it: not yet transformed."""
        height, width = WINDOW
        product = self.product
        taps = [(i, j) for i in range(height) for j in range(width)]
        return np.concatenate([product.pack(weight[i : i + 1, j : j + 1]) for i, j in taps])

    def emit(self, memory: Sequence[Value], group: Sequence[Index]) -> None:
        """The code of one workgroup."""
        _Body(self, memory, group).emit()


class _Body(tiles.Body):
    """The code of one workgroup; products wait in memory of its own until all places have them."""

    def __init__(self, conv: Winograd, memory: Sequence[Value], group: Sequence[Index]) -> None:
        super().__init__(conv, memory, group)
        self.winograd, self.product = conv, tiles.Body(conv.product, memory, group)
        kept = MemRefType.get([PLACES * max(map(self._apart, self.columns))], code.element("i32"))
        self.kept = memref.alloca(kept, [], [])

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
        code.loop(0, PLACES, 1, place)
        code.loop(0, run * column.pixels, 1, results)

    def _first(self, column: Columns, group: Index) -> Index:
        """The first tile of a group; the last group overlaps the one before."""
        last = self.winograd.cover.count - column.pixels
        return code.at_most(code.times(group, column.pixels), last)

    def _products(
        self, column: Columns, channel: Index, first: Index, place: Index, group: Index
    ) -> None:
        """Those of a group of tiles in one place."""
        product, size = self.product.conv, self.conv.isa.lanes
        count = self.winograd.cover.count
        tile = self._first(column, code.plus(first, group))
        image = code.plus(code.times(self.group[2], PLACES * count), code.times(place, count))
        start = code.times(code.plus(image, tile), product.input.channels)
        sources = [code.plus(start, i * product.input.channels) for i in range(column.pixels)]
        weights = code.times(place, product.buffers[1].count)
        at = code.plus(weights, code.times(channel, product.row))
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
        """The pixels of one tile of a run, of its products in all places."""
        size, cover = self.conv.isa.lanes, self.winograd.cover
        group, place = code.split(number, column.pixels)
        tile = code.plus(self._first(column, code.plus(first, group)), place)
        y, x = cover.origin(*code.split(tile, cover.across))
        at, made = code.times(number, self._sums(column)), []
        for i, bias in enumerate(biases):
            products = [
                code.load(self.kept, code.plus(at, n * self._apart(column) + i * size), size)
                for n in range(PLACES)
            ]
            made.append([_rescaled(total, bias) for total in _gathered(products)])
        pixels = [(code.plus(y, i), code.plus(x, j)) for i in range(MADE) for j in range(MADE)]
        sums = [vectors[k] for k in range(len(pixels)) for vectors in made]
        self._finish(column, channel, pixels, sums)


def _gathered(products: Sequence[Value]) -> list[Value]:
    """A' m A: the four sums of 16 products."""
    rows = [products[i : i + READ] for i in range(0, PLACES, READ)]
    columns = zip(*(_pair(column) for column in zip(*rows, strict=True)), strict=True)
    return [total for column in columns for total in _pair(column)]


def _pair(values: Sequence[Value]) -> list[Value]:
    """A' times a column of four."""
    a, b, c, d = values
    return [arith.addi(arith.addi(a, b), c), arith.subi(arith.subi(b, c), d)]


def _rescaled(total: Value, bias: Value) -> Value:
    """The convolution of a sum that is a multiple of it, with its bias."""
    bits = code.splat(code.constant(SCALE_BITS, "i32"), code.lanes_of(total))
    return arith.addi(arith.shrsi(total, bits), bias)
