"""The code of a convolution: tiles of its output, one after the other, each held in registers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from torch_mlir.dialects import arith, memref
from torch_mlir.ir import Value

from mlq.kernels import code, margins
from mlq.kernels.code import Index
from mlq.kernels.finishing import Finisher
from mlq.kernels.image import Image
from mlq.kernels.pixels import Pixels
from mlq.kernels.reduction import Part, Step
from mlq.kernels.tiling import Columns

if TYPE_CHECKING:
    from mlq.kernels.conv import Conv

_At: TypeAlias = tuple[Index, Index]
"""Row and column of a pixel."""


class Body:
    """The code of one workgroup of a convolution."""

    def __init__(self, conv: Conv, memory: Sequence[Value], group: Sequence[Index]) -> None:
        self.conv, self.memory, self.group = conv.flat, memory, group
        self.columns, self.grid = conv.columns, conv.workers()
        self.finisher = Finisher(conv.finish, conv.isa.storage_of, memory[2], conv.padded)
        self.prefetching: Index | None = None  # the tile whose code prefetches weights

    def emit(self) -> None:
        memory, zero = self.memory[-1], self.finisher.zero_point()
        fill = partial(margins.fill, self.conv.output, memory, zero, self.group, self.grid)
        code.when(self.group[1], 0, fill)
        for column in self.columns:
            low, high = code.share(column.blocks, self.group[1], self.grid[1])
            code.loop(low, high, 1, partial(self._block, column))

    def _block(self, column: Columns, block: Index) -> None:
        """One block of channels on all tiles of the workgroup."""
        size = self.conv.isa.lanes
        channel = code.plus(code.times(block, column.vectors * size), column.first * size)
        biases = [
            self.finisher.biases(code.plus(channel, i * size), size) for i in range(column.vectors)
        ]
        low, high = code.share(self.conv.tiles(column), self.group[0], self.grid[0])
        code.loop(low, high, 1, partial(self._tile, column, channel, biases))

    def _tile(self, column: Columns, channel: Index, biases: list[Value], tile: Index) -> None:
        """Accumulate and finish one tile."""
        pixels = self._pixels(column, tile)
        depth, groups = self.conv.input.channels // self.conv.groups, self.conv.groups
        first: Index = 0
        if groups > 1:
            first = code.times(code.split(channel, self.conv.channels // groups)[0], depth)
        (down, right), input = self.conv.strides, self.conv.input
        steps = down * input.pitch, right * input.channels
        places = self._each(column, pixels, self._source, steps)
        sources = [code.plus(place, first) for place in places]
        self.prefetching = tile if self.conv.prefetches(column) else None
        sums = self._accumulate(column, channel, sources, biases)
        self._finish(column, channel, pixels, sums)

    def _finish(
        self,
        column: Columns,
        channel: Index,
        pixels: list[_At],
        sums: Sequence[Value],
    ) -> None:
        """Make the results of pixels of their sums, the vectors of a pixel side by side."""
        size = self.conv.isa.lanes
        scales = [
            self.finisher.scales(code.plus(channel, i * size), size) for i in range(column.vectors)
        ]
        count, residual = column.vectors, None
        if self.conv.residual is not None:
            residual = self._places(column, (self.memory[3], self.conv.residual), pixels, channel)
        self.finisher.store(
            [sums[i : i + count] for i in range(0, len(sums), count)],
            scales,
            self._places(column, (self.memory[-1], self.conv.output), pixels, channel),
            residual=residual,
            width=self.conv.stored(column),
        )

    def _places(
        self, column: Columns, where: tuple[Value, Image], pixels: list[_At], channel: Index
    ) -> Pixels:
        memory, image = where
        steps = image.pitch, image.channels
        places = self._each(column, pixels, partial(image.at, self.group[2]), steps)
        step = image.channels if column.by_row or image.is_dense else None
        return Pixels(memory, [code.plus(place, channel) for place in places], step)

    def _each(
        self,
        column: Columns,
        pixels: list[_At],
        place: Callable[[Index, Index], Index],
        steps: tuple[Index, Index],
    ) -> list[Index]:
        """Where each pixel of a tile is, with steps from row to row and from pixel to pixel."""
        if not self.conv.wraps(column):
            return [place(*pixel) for pixel in pixels]
        (down, right), width, first = steps, code.index(self.conv.output.width), place(*pixels[0])
        jump = code.index(code.plus(down, code.times(code.times(right, width), -1)))
        found = []
        for i, (_, x) in enumerate(pixels):
            beyond = arith.cmpi(arith.CmpIPredicate.sge, code.index(x), width)
            at = code.plus(first, code.times(right, i))
            found.append(code.plus(at, arith.select(beyond, jump, code.index(0))))
        return found

    def _pixels(self, column: Columns, tile: Index) -> list[_At]:
        """Row and column of each pixel of a tile."""
        output = self.conv.output
        if column.by_row:
            per_row = (output.width + column.pixels - 1) // column.pixels
            y, part = code.split(tile, per_row)
            x = code.at_most(code.times(part, column.pixels), output.width - column.pixels)
            return [(y, code.plus(x, i)) for i in range(column.pixels)]
        first = code.at_most(code.times(tile, column.pixels), output.pixels - column.pixels)
        if self.conv.wraps(column):
            y, x = code.split(first, output.width)
            return [(y, code.plus(x, i)) for i in range(column.pixels)]
        return [code.split(code.plus(first, i), output.width) for i in range(column.pixels)]

    def _source(self, y: Index, x: Index) -> Index:
        """Where the window of an output pixel begins in the input."""
        top, left = self.conv.pads
        down, right = self.conv.strides
        row = code.plus(code.times(y, down), code.times(top, -1))
        pixel = code.plus(code.times(x, right), code.times(left, -1))
        return self.conv.input.at(self.group[2], row, pixel)

    def _accumulate(
        self, column: Columns, channel: Index, sources: list[Index], biases: list[Value]
    ) -> list[Value]:
        """Sums of products over the window: rows of it, perhaps pixels of a row, then channels."""
        conv, reduction = self.conv, self.conv.unit.reduction
        size = column.vectors * conv.isa.lanes
        joined = conv.is_joined
        per_row = 1 if joined else conv.window[1]
        base = self._weights(channel)

        def row(kh: Index, *sums: Value) -> list[Value]:
            down = code.times(kh, conv.dilations[0] * conv.input.pitch)
            place = code.plus(base, code.times(kh, per_row * conv.row * size))
            if joined:
                return self.run(column, sources, (down, place), list(sums))

            def pixel(kw: Index, *sums: Value) -> list[Value]:
                right = code.times(kw, conv.dilations[1] * conv.input.channels)
                at = code.plus(place, code.times(kw, conv.row * size))
                return self.run(column, sources, (code.plus(down, right), at), list(sums))

            return code.loop(0, conv.window[1], 1, pixel, sums)

        begun = reduction.begun(biases, column.pixels)
        sums = code.loop(0, conv.window[0], 1, row, begun)
        return reduction.ended(sums, biases)[: column.pixels * column.vectors]

    def _weights(self, channel: Index) -> Index:
        """Where the weights of a block of channels begin."""
        return code.times(channel, self.conv.rows * self.conv.row)

    def run(
        self, column: Columns, sources: list[Index], start: tuple[Index, Index], sums: list[Value]
    ) -> list[Value]:
        """Sums of products over elements side by side."""
        for part in self.conv.parts:
            sums = self._part(column, part, sources, start, sums)
        return sums

    def _part(
        self,
        column: Columns,
        part: Part,
        sources: list[Index],
        start: tuple[Index, Index],
        sums: list[Value],
    ) -> list[Value]:
        """Sums of products over steps that are alike."""
        unit, size = self.conv.unit, column.vectors * self.conv.isa.lanes
        unrolled = self.conv.unrolled(column, part)

        def steps(k: Index, *sums: Value) -> list[Value]:
            done = list(sums)
            if self.prefetching is not None:
                at = code.plus(start[1], code.times(k, size))
                self._prefetch(column, self.prefetching, at, unrolled * part.stored * size)
            for u in range(unrolled):
                offset = code.plus(k, u * part.span)
                step = Step(
                    image=self.memory[0],
                    windows=sources,
                    beyond=(start[0], offset),
                    weights=self.memory[1],
                    at=code.plus(start[1], code.times(offset, size)),
                    span=part.span,
                    stored=part.stored,
                )
                done = unit.reduction.added(done, step)
            return done

        end = part.first + part.steps * part.span
        return code.loop(part.first, end, unrolled * part.span, steps, sums)

    def _prefetch(self, column: Columns, tile: Index, at: Index, count: int) -> None:
        """Prefetch the tile's part of what the next block has in the place of `count` weights.

        Behind the last block other layers' may be; to ask for what is not there does nothing.
        """
        conv, line = self.conv, 512 // int(self.conv.unit.weight[1:])  # of a cache
        low, _ = code.share(conv.tiles(column), self.group[0], self.grid[0])
        lines, tiles = -(-count // line), -(-conv.tiles(column) // conv.grid[0])
        each = -(-lines // tiles)
        done = code.times(code.plus(tile, code.times(low, -1)), each)
        first = code.plus(at, code.times(code.at_most(done, lines - each), line))
        block = column.vectors * conv.isa.lanes * conv.rows * conv.row
        for place in range(block, block + each * line, line):
            where = code.index(code.plus(first, place))
            memref.prefetch(self.memory[1], [where], False, 2, True)  # noqa: FBT003 -- second cache
