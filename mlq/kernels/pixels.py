"""Pixels in memory, and the channels of them whose sums are finished together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch_mlir.ir import Value

from mlq.kernels import code, lanes
from mlq.kernels.code import Index


@dataclass(frozen=True)
class Pixels:
    """Pixels in a memory, each by the place of its first channel there.

    If they follow one another there, `step` is from each to the next.
    """

    memory: Value
    places: Sequence[Index]
    step: int | None = None


@dataclass(frozen=True)
class Part:
    """Some channels of pixels: their sums, the first channel, how many are in memory."""

    sums: Sequence[Sequence[Value]]
    scales: Sequence[Value]
    first: int
    count: int

    @property
    def size(self) -> int:
        """Channels that the vectors of a pixel hold."""
        return code.lanes_of(self.scales[0]) * len(self.scales)

    def follow(self, where: Pixels, pixels: Sequence[int]) -> bool:
        """Whether nothing lies between these channels of several pixels."""
        return where.step == self.size == self.count and len(set(pixels)) == len(pixels) > 1

    def store(self, value: Value, target: Pixels, pixel: int) -> None:
        """Write the channels of a pixel, or of several that follow."""
        size = code.lanes_of(value)
        count = self.count if size == self.size else size
        code.store(value, target.memory, code.plus(target.places[pixel], self.first), count)

    def side_by_side(self, source: Pixels, pixels: Sequence[int]) -> list[Value]:
        """Read the channels of pixels, all at once if they follow."""
        if not self.follow(source, pixels):
            return [self.loaded(source, pixel) for pixel in pixels]
        at = code.plus(source.places[pixels[0]], self.first)
        return [code.load(source.memory, at, len(pixels) * self.size)]

    def loaded(self, source: Pixels, pixel: int) -> Value:
        """Read the channels of a pixel; what is not in memory is zero."""
        at = code.plus(source.places[pixel], self.first)
        return lanes.loaded(source.memory, at, self.count, self.size)
