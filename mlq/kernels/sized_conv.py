"""Convolutions and pools of floats that share their code, whatever their sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, ClassVar

from mlq.kernels import code, tiling
from mlq.kernels.code import Index
from mlq.kernels.conv import Conv
from mlq.kernels.depthwise import Depthwise, Run
from mlq.kernels.executable import workers
from mlq.kernels.pools import MaxPool
from mlq.kernels.reduction import Part
from mlq.kernels.sized import Sized
from mlq.kernels.tiling import Columns


@dataclass(frozen=True, kw_only=True)
class SizedConv(Conv, Sized):
    """A convolution of floats whose sizes are known at run time, all but those of its tiles.

    Its result is that of Conv, bit for bit: tiles do not change the order of a sum.
    """

    vectors: int
    pixels: int
    sizes: ClassVar[tuple[str, ...]] = (
        "input",
        "output",
        "residual",
        "channels",
        "window",
        "strides",
        "pads",
    )
    with_margin: ClassVar[str] = "input"

    @property
    def label(self) -> str:
        """As `real_conv_tiles4x2`."""
        return f"real_conv_tiles{self.pixels}x{self.vectors}"

    @property
    def flat(self) -> SizedConv:
        """Itself, which was made so."""
        return self

    @property
    def padded(self) -> int:
        """Channels fill vectors."""
        return self.channels

    @property
    def columns(self) -> tuple[Columns, ...]:
        """Blocks that are all alike."""
        blocks = self.channels // (self.vectors * self.isa.lanes)
        return (Columns(0, blocks, self.vectors, self.pixels, by_row=False),)

    @property
    def parts(self) -> tuple[Part, ...]:
        """Elements of a run, one after the other."""
        return (_single(self.run),)

    def workers(self) -> Sequence[Index]:
        """The grid that a call has."""
        return workers()

    def wraps(self, _column: Columns) -> bool:
        """Every tile may."""
        return True

    def prefetches(self, _column: Columns) -> bool:
        """None: how many weights there are is not known."""
        return False

    def unrolled(self, _column: Columns, _part: Part) -> int:
        """One, whatever their number."""
        return 1

    def stored(self, column: Columns) -> int:
        """All."""
        return column.vectors * self.isa.lanes


def conv(**description: Any) -> Conv:
    """A convolution that shares its code if it can: its channels must fill vectors."""
    given = Conv(**description)
    known = given.flat
    whole = known.channels == known.output.channels == known.padded
    plain = known.kind == "f32" and known.is_joined and known.parts == (_single(known.run),)
    if not (whole and plain):
        return given
    tile = tiling.alike(known.isa, known.work)
    own = {each.name: getattr(known, each.name) for each in fields(known)}
    return SizedConv(**own, vectors=tile.vectors, pixels=tile.pixels)


def _single(run: int) -> Part:
    return Part(0, run, 1, 1)


@dataclass(frozen=True)
class SizedDepthwise(Depthwise, Sized):
    """A depthwise convolution of floats whose sizes are known at run time, all but its window's."""

    sizes: ClassVar[tuple[str, ...]] = ("input", "output", "pads")
    with_margin: ClassVar[str] = "input"

    @property
    def label(self) -> str:
        """As `real_depthwise3x3s1`."""
        return f"real_depthwise{self.window[0]}x{self.window[1]}s{self.strides[0]}"

    @property
    def folded(self) -> int:
        """A pixel by itself, for its channels fill vectors."""
        return 1

    @property
    def stored(self) -> int:
        """Channels fill vectors."""
        return self.output.channels

    def workers(self) -> Sequence[Index]:
        """The grid that a call has."""
        return workers()

    def runs(self) -> list[Run]:
        """Blocks that are all alike."""
        return [Run(0, self.isa.lanes, self.output.channels // self.isa.lanes, 0)]


def depthwise(**description: Any) -> Depthwise:
    """A depthwise convolution that shares its code if it can."""
    known = Depthwise(**description)
    whole = known.output.channels % known.isa.lanes == 0
    return SizedDepthwise(**description) if known.kind == "f32" and whole else known


@dataclass(frozen=True)
class SizedMaxPool(MaxPool, Sized):
    """The maxima of windows of floats of an image whose sizes are known at run time."""

    sizes: ClassVar[tuple[str, ...]] = ("input", "output", "pads")

    @property
    def label(self) -> str:
        """As `real_max_pool3x3s2`."""
        return f"real_max_pool{self.window[0]}x{self.window[1]}s{self.strides[0]}"

    def workers(self) -> Sequence[Index]:
        """The grid that a call has."""
        return workers()

    def _each_block(self, body: Callable[[int, Index], None]) -> None:
        lanes = self.isa.lanes
        code.loop(0, self.output.channels, lanes, partial(body, lanes))


def max_pool(**description: Any) -> MaxPool:
    """A pool that shares its code if it can: its channels must fill vectors."""
    known = MaxPool(**description)
    whole = (
        known.input.channels == known.output.channels
        and known.output.channels % known.isa.lanes == 0
    )
    return SizedMaxPool(**description) if known.kind == "f32" and whole else known
