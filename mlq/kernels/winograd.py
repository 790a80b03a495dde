"""Convolutions of 3x3 with four of nine products, exact in integers: Winograd's F(2x2, 3x3).

A tile d of 4x4 pixels makes 2x2 results A' [(G g G') * (B' d B)] A (Lavin and Gray, arXiv
1509.09308). Here G is doubled, which leaves no fractions, so that sums are four times the
convolution's; a sum may wrap around 32 bits, as long as four times the convolution does not.
Transformed, a u8 has 11 bits and an i8 has 12, their products fit where words of 16 are multiplied.
"""

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
from mlq.kernels.isa import Isa
from mlq.kernels.tiling import Columns

WINDOW = (3, 3)
_MADE, _READ = 2, 4  # pixels along a side of a tile that are made, and that are read
_PLACES = _READ * _READ
_SCALE_BITS = 2  # sums are so many bits to the left
_MOST_GROUPS = 4
_GRAIN = 1 << 16  # elements that make a workgroup worthwhile

# The rows of G, doubled.
_WEIGHTS = np.array([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]], np.int16)
COMBINATIONS: NDArray[np.int16] = np.kron(_WEIGHTS, _WEIGHTS)
"""Which sum of the nine weights of a window stands in each of the 16 places of a tile."""


def fits(weight: NDArray[np.int8]) -> bool:
    """Whether no sum of u8 by weights [3, 3, I, O], four times, is beyond 32 bits."""
    wide = weight.astype(np.int64)
    most = max(np.maximum(sign * wide, 0).sum(axis=(0, 1, 2)).max(initial=0) for sign in (1, -1))
    return bool(most * 255 << _SCALE_BITS < 1 << 31)


@dataclass(frozen=True)
class Cover:
    """The tiles of an image; the last ones overlap those before where sizes are odd."""

    height: int
    width: int

    @property
    def across(self) -> int:
        """Tiles side by side."""
        return -(-self.width // _MADE)

    @property
    def down(self) -> int:
        """Rows of tiles."""
        return -(-self.height // _MADE)

    @property
    def count(self) -> int:
        """All tiles."""
        return self.across * self.down

    def origin(self, row: Index, column: Index) -> tuple[Index, Index]:
        """Row and column of the first pixel that a tile makes."""
        y = code.at_most(code.times(row, _MADE), self.height - _MADE)
        return y, code.at_most(code.times(column, _MADE), self.width - _MADE)


@dataclass(frozen=True)
class Transform:
    """B' d B of every tile of an image: [batch, place in the tile, tile, channel] of i16."""

    isa: Isa
    input: Image
    cover: Cover
    pads: tuple[int, int]

    @property
    def label(self) -> str:
        """As `tiles64x56x56`."""
        return f"tiles{self.input.channels}x{self.cover.height}x{self.cover.width}"

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """The image; its tiles."""
        count = self.input.batch * _PLACES * self.cover.count * self.input.channels
        return Buffer("i16", self.input.batch * self.input.size), Buffer("i16", count)

    @property
    def grid(self) -> tuple[int, int, int]:
        """Rows of tiles, one, images."""
        work = self.cover.count * _PLACES * self.input.channels
        return max(1, min(4, work // _GRAIN, self.cover.down)), 1, self.input.batch

    def emit(self, memory: Sequence[Value], group: Sequence[Index]) -> None:
        """A tile after the other, a register of channels after the other."""
        width = self.isa.vector_bytes // 2
        whole = self.input.channels // width * width

        def tile(row: Index, column: Index) -> None:
            y, x = self.cover.origin(row, column)
            top, left = self.pads
            source = self.input.at(group[2], code.plus(y, -top), code.plus(x, -left))
            number = code.plus(code.times(row, self.cover.across), column)
            first = code.plus(code.times(group[2], _PLACES * self.cover.count), number)
            target = code.times(first, self.input.channels)
            part = partial(self._part, memory, source, target)
            code.loop(0, whole, width, partial(part, width))
            for done, piece in code.pieces(self.input.channels - whole, width):
                part(piece, whole + done)

        def tile_row(row: Index) -> None:
            code.loop(0, self.cover.across, 1, partial(tile, row))

        low, high = code.share(self.cover.down, group[0], self.grid[0])
        code.loop(low, high, 1, tile_row)

    def _part(
        self, memory: Sequence[Value], source: Index, target: Index, width: int, channel: Index
    ) -> None:
        """Some channels of a tile, each row of the result by itself so that registers do."""
        source, target = code.plus(source, channel), code.plus(target, channel)
        apart = self.cover.count * self.input.channels
        for row in range(_READ):
            columns = []
            for column in range(_READ):
                at = code.plus(source, column * self.input.channels)
                pixels = [
                    code.load(memory[0], code.plus(at, i * self.input.pitch), width)
                    for i in range(_READ)
                ]
                columns.append(_differences(pixels)[row])
            for column, value in enumerate(_differences(columns)):
                place = code.plus(target, (row * _READ + column) * apart)
                code.store(value, memory[1], place)


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
        images = self.output.batch * _PLACES
        return (
            replace(tiles, count=images * tiles.count),
            replace(weights, count=_PLACES * weights.count),
            *others,
        )

    @property
    def cycles(self) -> float:
        """What the products of an image take, about."""
        return _PLACES * self.product.cycles

    @property
    def columns(self) -> tuple[Columns, ...]:
        """How channels and tiles are divided."""
        return self.product.columns

    def tiles(self, column: Columns) -> int:
        """Runs of groups of tiles; the tiles of a group are in registers together."""
        return -(-self.product.tiles(column) // self.run_of(column))

    def run_of(self, column: Columns) -> int:
        """Groups that go through a place one after the other: they share its weights."""
        groups = self.product.tiles(column)
        most = min(_MOST_GROUPS, groups)
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
        kept = MemRefType.get([_PLACES * max(map(self._apart, self.columns))], code.element("i32"))
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
        code.loop(0, _PLACES, 1, place)
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
        image = code.plus(code.times(self.group[2], _PLACES * count), code.times(place, count))
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
                for n in range(_PLACES)
            ]
            made.append([_rescaled(total, bias) for total in _gathered(products)])
        pixels = [(code.plus(y, i), code.plus(x, j)) for i in range(_MADE) for j in range(_MADE)]
        sums = [vectors[k] for k in range(len(pixels)) for vectors in made]
        self._finish(column, channel, pixels, sums)


def _differences(values: Sequence[Value]) -> list[Value]:
    """B' times a column of four."""
    a, b, c, d = values
    return [arith.subi(a, c), arith.addi(b, c), arith.subi(c, b), arith.subi(b, d)]


def _gathered(products: Sequence[Value]) -> list[Value]:
    """A' m A: the four sums of 16 products."""
    rows = [products[i : i + _READ] for i in range(0, _PLACES, _READ)]
    columns = zip(*(_pair(column) for column in zip(*rows, strict=True)), strict=True)
    return [total for column in columns for total in _pair(column)]


def _pair(values: Sequence[Value]) -> list[Value]:
    """A' times a column of four."""
    a, b, c, d = values
    return [arith.addi(arith.addi(a, b), c), arith.subi(arith.subi(b, c), d)]


def _rescaled(total: Value, bias: Value) -> Value:
    """The convolution of a sum that is a multiple of it, with its bias."""
    bits = code.splat(code.constant(_SCALE_BITS, "i32"), code.lanes_of(total))
    return arith.addi(arith.shrsi(total, bits), bias)
