"""Images of floats between whose pixels others come: sums of two of the nearest, in both axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from torch_mlir.dialects import arith, vector
from torch_mlir.ir import IndexType, Value

from mlq.kernels import code, margins
from mlq.kernels.code import Index
from mlq.kernels.executable import Buffer
from mlq.kernels.grain import workgroups
from mlq.kernels.image import Image
from mlq.kernels.isa import Isa
from mlq.kernels.movement import each_block

_GRAIN = 1 << 12  # elements that make a workgroup worthwhile
PAIR = 2  # what a pixel of the result is made of, in each axis

_Pair: TypeAlias = tuple[tuple[Index, Index], Value]
"""The two places that a place of the result lies between, and the second one's share."""


@dataclass(frozen=True)
class Resample:
    """`mlq.resample` where each row, and each column, is made of two at most.

    Of `places` come those of rows, then those of columns, two each; of `shares` that of the second.
    """

    isa: Isa
    input: Image
    output: Image

    @property
    def label(self) -> str:
        """As `resample8x8_64x56x56`."""
        before, after = self.input, self.output
        size = f"{after.channels}x{after.height}x{after.width}"
        return f"resample{before.height}x{before.width}_{size}"

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """The image, places, shares; the result."""
        count = self.output.height + self.output.width
        return (
            Buffer("f32", self.input.batch * self.input.size),
            Buffer("i32", PAIR * count),
            Buffer("f32", count),
            Buffer("f32", self.output.batch * self.output.size),
        )

    @property
    def grid(self) -> tuple[int, int, int]:
        """Groups of rows, one, images."""
        return workgroups(self.output.size // _GRAIN, self.output.height), 1, self.output.batch

    def emit(self, memory: Sequence[Value], group: Sequence[Index]) -> None:
        """The code of one workgroup, pixel by pixel."""
        margins.fill(self.output, memory[-1], code.constant(0, "i32"), group, self.grid)
        channels = min(self.input.channels, self.output.channels)

        def row(y: Index) -> None:
            rows = self._pair(memory, y)

            def pixel(x: Index) -> None:
                columns = self._pair(memory, code.plus(x, self.output.height))
                places = [
                    self.input.at(group[2], above, left) for above in rows[0] for left in columns[0]
                ]
                target = self.output.at(group[2], y, x)
                shares = rows[1], columns[1]
                block = partial(_block, (memory[0], places, shares), (memory[-1], target))
                each_block(channels, self.isa.lanes, block)

            code.loop(0, self.output.width, 1, pixel)

        code.loop(*code.share(self.output.height, group[0], self.grid[0]), 1, row)

    @staticmethod
    def _pair(memory: Sequence[Value], number: Index) -> _Pair:
        first, second = (
            arith.index_castui(
                IndexType.get(), code.scalar(memory[1], code.plus(code.times(number, PAIR), i))
            )
            for i in range(PAIR)
        )
        return (first, second), code.scalar(memory[2], number)


def _block(
    source: tuple[Value, Sequence[Index], tuple[Value, Value]],
    target: tuple[Value, Index],
    size: int,
    channel: Index,
) -> None:
    """Some channels of a pixel: of those to the left and right, then above and below."""
    memory, places, shares = source
    down, right = (code.splat(share, size) for share in shares)
    corners = [code.load(memory, code.plus(place, channel), size) for place in places]
    above, below = (_between(corners[i], corners[i + 1], right) for i in (0, PAIR))
    code.store(_between(above, below, down), target[0], code.plus(target[1], channel))


def _between(one: Value, other: Value, share: Value) -> Value:
    return vector.fma(share, arith.subf(other, one), one)
