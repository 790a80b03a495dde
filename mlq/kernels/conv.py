"""Convolutions and matrix products: products of words of four bytes, on tiles in registers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch_mlir.ir import Value

from mlq.kernels import lanes, reduction, tiles, tiling
from mlq.kernels.code import Index
from mlq.kernels.convolution import Convolution
from mlq.kernels.executable import Buffer
from mlq.kernels.finishing import coefficient_count
from mlq.kernels.grain import Share, Traffic, partition, workgroups
from mlq.kernels.image import Image
from mlq.kernels.isa import Isa, Unit
from mlq.kernels.reduction import Part
from mlq.kernels.storage import Kind
from mlq.kernels.tiling import Columns

_GRAIN = 1 << 13  # cycles that make a workgroup worthwhile
_LOADED = 32  # bytes of weights in a cycle, at most


@dataclass(frozen=True, kw_only=True)
class Conv(Convolution):
    """A convolution on a CPU; a pixel that it makes is `folded` of a row, with their channels."""

    isa: Isa
    folded: int = 1

    @property
    def unit(self) -> Unit:
        """What multiplies."""
        return self.isa.unit(self.kind)

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """Image, weights, coefficients, perhaps a residual; the result."""
        residual = []
        if self.residual is not None and self.finish.residual is not None:
            residual = [self._buffer(self.finish.residual, self.residual)]
        return (
            self._buffer(self.kind, self.input),
            Buffer(self.unit.weight, self.padded * self.rows * self.row),
            Buffer("i32", coefficient_count(self.padded)),
            *residual,
            self._buffer(self.finish.result, self.output),
        )

    @property
    def grid(self) -> tuple[int, int, int]:
        """Tiles of pixels, blocks of channels, images."""
        cycles, traffic = self.cycles, self.traffic
        shares = tuple(
            Share(tiles := self.tiles(c), c.blocks, cycles * c.vectors / self._vectors / tiles)
            for c in self.columns
        )
        wanted = workgroups(int(max(cycles, traffic.weights / _LOADED) / _GRAIN))
        return *partition(shares, traffic, wanted), self.flat.output.batch

    @property
    def traffic(self) -> Traffic:
        """Bytes of weights, of an image and of its result."""
        image, weights, *_, result = (each.size for each in self.buffers)
        batch = self.input.batch
        return Traffic(weights, image // batch, result // batch)

    @property
    def cycles(self) -> float:
        """What the products of an image take, about."""
        return self.flat.output.pixels * self.products / self.unit.dots

    @property
    def products(self) -> int:
        """Products of registers that a pixel takes."""
        return self._vectors * self.steps

    def workers(self) -> Sequence[Index]:
        """The grid, as code knows it."""
        return self.grid

    def unrolled(self, column: Columns, part: Part) -> int:
        """How many steps a loop has."""
        return self.unit.reduction.unrolled(column.pixels, column.vectors, part.steps)

    def stored(self, column: Columns) -> int:
        """Channels of a block that are in memory."""
        lanes = self.isa.lanes
        return min(column.vectors * lanes, self.output.channels - column.first * lanes)

    def wraps(self, column: Columns) -> bool:
        """Whether a tile begins in one row and ends in the next, at most, and is told so."""
        return self.isa.selects and not column.by_row and column.pixels <= self.flat.output.width

    def tiles(self, column: Columns) -> int:
        """Tiles that the output of these columns is made of."""
        return column.tiles(self.flat.output.height, self.flat.output.width)

    def prefetches(self, column: Columns) -> bool:
        """Whether tiles prefetch the next block's weights: there are many, and tiles share them."""
        size = self.padded * self.rows * self.row * int(self.unit.weight[1:]) // 8
        far = size > tiling.FIRST_CACHE
        return self.isa.prefetches and far and self.tiles(column) > self.grid[0]

    @property
    def steps(self) -> int:
        """Words of four bytes that each accumulator takes."""
        return self.rows * self.row // self.unit.depth

    @property
    def rows(self) -> int:
        """Runs of input elements side by side that a window has: rows, or pixels."""
        return self.window[0] * (1 if self.is_joined else self.window[1])

    @property
    def run(self) -> int:
        """Elements of a run."""
        return self._depth * (self.window[1] if self.is_joined else 1)

    @property
    def row(self) -> int:
        """Weights of a channel for one run."""
        return sum(part.steps * part.stored for part in self.parts)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The steps of a run; the last may read beyond it where the image does not end there.

        Not of reals: what lies there need not be finite, and zero times that is not zero.
        """
        (_, left), (_, stride) = self.pads, self.strides
        end = (self.output.width - 1) * stride - left + self.window[1]
        spare = self.input.width + self.input.margin[3] - end if self.is_joined else 0
        beyond = spare * self.input.channels if self.unit.total == "i32" else 0
        return reduction.parts(self.unit.reduction, self.run, beyond)

    @property
    def work(self) -> tiling.Work:
        """What is to be divided into tiles."""
        return tiling.Work(
            unit=self.unit,
            height=self.flat.output.height,
            width=self.flat.output.width,
            vectors=self._vectors,
            steps=self.steps,
            run=max(part.steps for part in self.parts),
            packs=self.finish.packs,
            part=self._vectors // self.groups,
        )

    @property
    def cheapest(self) -> tuple[Columns, ...]:
        """The columns that take the least time."""
        return tiling.columns(self.isa, self.work)

    @property
    def columns(self) -> tuple[Columns, ...]:
        """How channels and pixels are divided into tiles; what is not all stored is a block."""
        *others, last = self.cheapest
        partial_end = last.end * self.isa.lanes > self.output.channels
        return (*others, *(last.apart() if partial_end else [last]))

    @property
    def pieces(self) -> tuple[tuple[int, int, int], ...]:
        """Channels whose weights lie together: the first, how many blocks, the width of a block."""
        lanes = self.isa.lanes
        return tuple((c.first * lanes, c.blocks, c.vectors * lanes) for c in self.columns)

    def pack(self, weight: NDArray[Any]) -> NDArray[Any]:
        """Weights [KH, KW, I / groups, O] in the order in which the kernel reads them."""
        _, width, depth, channels = weight.shape
        padded = np.zeros((*self.window, self._depth, self.padded), weight.dtype)
        for pixel in range(self.folded):
            first = pixel * self.strides[1] // self.folded
            place = slice(pixel * channels, (pixel + 1) * channels)
            padded[:, first : first + width, :depth, place] = weight
        # A step may read more than is left of a run.
        ends = (0, 0), (0, max(self.unit.reduction.spans)), (0, 0)
        rows = np.pad(padded[..., self._order].reshape(self.rows, self.run, -1), ends)
        return np.concatenate(
            [
                self._packed(rows[..., start : start + size])
                for first, blocks, size in self.pieces
                for start in range(first, first + blocks * size, size)
            ]
        )

    def _packed(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Weights [rows, run, O] of a block of channels in the order of its steps."""
        packed = []
        for part in self.parts:
            word = self.unit.reduction.word(part.span)
            shape = (len(rows), part.steps, part.stored, rows.shape[2])
            steps = np.zeros(shape, rows.dtype)
            read = rows[:, part.first : part.first + part.steps * part.span]
            steps[:, :, : part.span] = read.reshape(*shape[:2], part.span, shape[3])
            words = steps.reshape(*shape[:2], part.stored // word, word, shape[3])
            packed.append(words.swapaxes(3, 4).reshape(len(rows), -1))
        return np.concatenate(packed, axis=1).reshape(-1)

    def ordered(self, values: NDArray[Any]) -> NDArray[Any]:
        """A number for each channel [O], in the order of the kernel's vectors."""
        padded = np.zeros(self.padded, values.dtype)
        padded[: self.folded * len(values)] = np.tile(values, self.folded)
        return padded[self._order]

    def emit(self, memory: Sequence[Value], group: Sequence[Index]) -> None:
        """The code of one workgroup."""
        tiles.Body(self, memory, group).emit()

    def _buffer(self, kind: Kind, image: Image) -> Buffer:
        return Buffer(self.isa.element(kind), image.batch * image.size)

    @property
    def _depth(self) -> int:
        """Input channels of a group."""
        return self.input.channels // self.groups

    @property
    def _vectors(self) -> int:
        return -(-self.channels // self.isa.lanes)

    @property
    def padded(self) -> int:
        """Channels that there are weights for."""
        return self._vectors * self.isa.lanes

    @property
    def _order(self) -> list[int]:
        """Which channel is in each lane."""
        order: list[int] = []
        for column in self.columns:
            for block in range(column.blocks):
                start = (column.first + block * column.vectors) * self.isa.lanes
                order += [start + place for place in self.within(column.vectors)]
        return order

    def within(self, vectors: int) -> list[int]:
        """Which of a block's channels is in each of its lanes."""
        size = self.isa.lanes
        return [
            first * size + place
            for first, count in self.runs(vectors)
            for place in lanes.interleaved(size, count)
        ]

    def runs(self, vectors: int) -> list[tuple[int, int]]:
        """Which of a block's vectors have their channels interleaved: the first, and how many."""
        return lanes.runs(
            vectors, self.isa.unit(self.finish.result).depth if self.finish.packs else 1
        )

    @property
    def flat(self) -> Conv:
        """The same with all pixels in one row, where nothing tells rows and images apart."""
        return self.flattened()
