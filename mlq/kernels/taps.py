"""How a depthwise convolution adds up the taps of its window."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch_mlir.ir import Value

from mlq.kernels.reduction import Dot

Tap = tuple[Value, Value]
"""A register of elements, and one of weights."""


class Taps(Protocol):
    """One way of adding up; a tap is of one row, or of as many as `together`, in turn."""

    @property
    def together(self) -> int:
        """Rows whose elements for a channel lie side by side in a register."""

    @property
    def pixels(self) -> int:
        """Pixels side by side that weights are loaded for at once."""

    def added(self, sums: Sequence[Value], taps: Iterable[Tap]) -> list[Value]:
        """The sums of so many pixels, and the products of some taps."""


@dataclass(frozen=True)
class Words:
    """Products of a word to a sum; what meets the same rows is as much as there are sums."""

    dot: Dot = field(repr=False, compare=False)
    together: int
    pixels: int = 1

    def added(self, sums: Sequence[Value], taps: Iterable[Tap]) -> list[Value]:
        """Register by register."""
        done = list(sums)
        for i, (x, weight) in enumerate(taps):
            done[i % len(done)] = self.dot(done[i % len(done)], x, weight)
        return done


@dataclass(frozen=True)
class Plain:
    """Products of whole registers, wider than their elements."""

    add: Callable[[Sequence[Value], Iterable[Tap]], list[Value]] = field(repr=False, compare=False)
    pixels: int = 1

    @property
    def together(self) -> int:
        """A row by itself."""
        return 1

    def added(self, sums: Sequence[Value], taps: Iterable[Tap]) -> list[Value]:
        """As the instructions have it."""
        return self.add(sums, taps)
