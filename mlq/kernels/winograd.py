"""Convolutions of 3x3 with four of nine products, exact in integers: Winograd's F(2x2, 3x3).

A tile d of 4x4 pixels makes 2x2 results A' [(G g G') * (B' d B)] A (Lavin and Gray, arXiv
1509.09308). Here G is doubled, which leaves no fractions, so that sums are four times the
convolution's; a sum may wrap around 32 bits, as long as four times the convolution does not.
Transformed, a u8 has 11 bits and an i8 has 12, their products fit where words of 16 are multiplied.

This is what is transformed; `mlq.kernels.winograd_conv` multiplies it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from torch_mlir.dialects import arith
from torch_mlir.ir import Value

from mlq import numerics
from mlq.kernels import code
from mlq.kernels.code import Index
from mlq.kernels.executable import Buffer
from mlq.kernels.image import Image
from mlq.kernels.isa import Isa

WINDOW = (3, 3)
MADE, READ = 2, 4
"""Pixels along a side of a tile that are made, and that are read."""
PLACES = READ * READ
"""Elements of a tile."""
SCALE_BITS = 2
"""Bits by which sums are to the left of the convolution."""
_GRAIN = 1 << 16  # elements that make a workgroup worthwhile

# What memory holds of a u8: its zero point is made up for by the bias.
_BYTES = numerics.QuantParams(8, signed=False, scale=(1.0,), zero_point=(0,))
# The rows of G, doubled.
_WEIGHTS = np.array([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]], np.int16)
COMBINATIONS: NDArray[np.int16] = np.kron(_WEIGHTS, _WEIGHTS)
"""Which sum of the nine weights of a window stands in each of the 16 places of a tile."""


def fits(weight: NDArray[np.int8]) -> bool:
    """Whether no sum of u8 by weights [3, 3, I, O], four times, is beyond 32 bits."""
    bound = numerics.result_bound(weight, weight.ndim - 1, _BYTES)
    return bound << SCALE_BITS < 1 << 31


@dataclass(frozen=True)
class Cover:
    """The tiles of an image; the last ones overlap those before where sizes are odd."""

    height: int
    width: int

    @property
    def across(self) -> int:
        """Tiles side by side."""
        return -(-self.width // MADE)

    @property
    def down(self) -> int:
        """Rows of tiles."""
        return -(-self.height // MADE)

    @property
    def count(self) -> int:
        """All tiles."""
        return self.across * self.down

    def origin(self, row: Index, column: Index) -> tuple[Index, Index]:
        """Row and column of the first pixel that a tile makes."""
        y = code.at_most(code.times(row, MADE), self.height - MADE)
        return y, code.at_most(code.times(column, MADE), self.width - MADE)


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
        count = self.input.batch * PLACES * self.cover.count * self.input.channels
        return Buffer("i16", self.input.batch * self.input.size), Buffer("i16", count)

    @property
    def grid(self) -> tuple[int, int, int]:
        """Rows of tiles, one, images."""
        work = self.cover.count * PLACES * self.input.channels
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
            first = code.plus(code.times(group[2], PLACES * self.cover.count), number)
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
        for row in range(READ):
            columns = []
            for column in range(READ):
                at = code.plus(source, column * self.input.channels)
                pixels = [
                    code.load(memory[0], code.plus(at, i * self.input.pitch), width)
                    for i in range(READ)
                ]
                columns.append(_differences(pixels)[row])
            for column, value in enumerate(_differences(columns)):
                place = code.plus(target, (row * READ + column) * apart)
                code.store(value, memory[1], place)


def _differences(values: Sequence[Value]) -> list[Value]:
    """B' times a column of four."""
    a, b, c, d = values
    return [arith.subi(a, c), arith.addi(b, c), arith.subi(c, b), arith.subi(b, d)]
