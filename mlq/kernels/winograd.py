"""Convolutions of 3x3 with a quarter of the products, exact in integers: Winograd's.

F(n x n, 3x3): a tile d of (n + 2)^2 pixels makes n^2 results A' [(G g G') * (B' d B)] A (Lavin and
Gray, arXiv 1509.09308); of stride 2 it has (2 n + 1)^2. The rows of G are multiplied by whatever
leaves no fractions, and A' makes up for it: its sums are known multiples of the convolution. They
may wrap around 32 bits: odd factors have an inverse there, powers of two are shifted away, so that
all is exact as long as the convolution times the power of two fits.

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
from mlq.kernels.grain import workgroups
from mlq.kernels.image import Image
from mlq.kernels.isa import Isa

WINDOW = (3, 3)
_GRAIN = 1 << 14  # elements that make a workgroup worthwhile
_LINE, _SETS = 32, 16  # i16 of a line of a cache; places so many lines apart share too few sets

# What memory holds of a u8: its zero point is made up for by the bias.
_BYTES = numerics.QuantParams(8, signed=False, scale=(1.0,), zero_point=(0,))


@dataclass(frozen=True)
class Form:
    """F(made x made, 3x3) of a stride: the rows of G, of B' and of A', none with fractions.

    `scales` says of each row of A' which multiple of the convolution's it makes.
    """

    made: int
    stride: int
    weights: tuple[tuple[int, ...], ...]
    pixels: tuple[tuple[int, ...], ...]
    results: tuple[tuple[int, ...], ...]
    scales: tuple[int, ...]

    @property
    def read(self) -> int:
        """Pixels along a side of a tile that are read."""
        return len(self.weights)

    @property
    def places(self) -> int:
        """Elements of a tile."""
        return self.read * self.read

    @property
    def combinations(self) -> NDArray[np.int16]:
        """Which sum of the nine weights of a window stands in each place of a tile."""
        side = np.array(self.weights, np.int16)
        return np.kron(side, side)

    def fits(self, weight: NDArray[np.int8]) -> bool:
        """Whether no sum of u8 by weights [3, 3, I, O], shifted, is beyond 32 bits."""
        bound = numerics.result_bound(weight, weight.ndim - 1, _BYTES)
        return bound << _shift(max(self.scales) ** 2) < 1 << 31


def _shift(scale: int) -> int:
    """How often two divides a number."""
    return (scale & -scale).bit_length() - 1


def rescaled(total: Value, scale: int) -> Value:
    """The convolution of a sum that is so many times it, maybe wrapped around."""
    bits, lanes = _shift(scale), code.lanes_of(total)
    odd = scale >> bits
    if odd > 1:
        inverse = code.splat(code.constant(pow(odd, -1, 1 << 32), "i32"), lanes)
        total = arith.muli(total, inverse)
    return arith.shrsi(total, code.splat(code.constant(bits, "i32"), lanes))


def linear_combination(values: Sequence[Value], factors: Sequence[int]) -> Value:
    """The sum of vectors of integers times small factors, by shifts and sums: bit after bit."""
    total, negative, behind = None, False, 0
    for bit in reversed(range(max(map(abs, factors)).bit_length())):
        terms = [(v, f < 0) for v, f in zip(values, factors, strict=True) if abs(f) >> bit & 1]
        for value, less in sorted(terms, key=lambda term: term[1]):
            if total is None:
                total, negative = value, less
                continue
            total, behind = _shifted(total, behind), 0
            # As long as all is subtracted, the total is what there is to subtract.
            if less == negative:
                total = arith.addi(total, value)
            else:
                one, other = (value, total) if negative else (total, value)
                total, negative = arith.subi(one, other), False
        behind += total is not None
    assert total is not None
    assert not negative
    return _shifted(total, behind - 1)


def loaded_combination(
    memory: Value, places: Sequence[Index], lanes: int, factors: Sequence[int]
) -> Value:
    """The same of vectors in memory, of which those that do not count are not read."""
    counting = [(place, factor) for place, factor in zip(places, factors, strict=True) if factor]
    values = [_word(code.load(memory, place, lanes)) for place, _ in counting]
    return linear_combination(values, [factor for _, factor in counting])


def _word(value: Value) -> Value:
    """Bytes as words; other vectors as they are."""
    if code.element_of(value) != "i8":
        return value
    return arith.extui(code.vector_type(code.lanes_of(value), "i16"), value)


def _shifted(value: Value, bits: int) -> Value:
    if bits == 0:
        return value
    count = code.constant(bits, code.element_of(value))
    return arith.shli(value, code.splat(count, code.lanes_of(value)))


F2 = Form(
    made=2,
    stride=1,
    weights=((2, 0, 0), (1, 1, 1), (1, -1, 1), (0, 0, 2)),
    pixels=((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
    results=((1, 1, 1, 0), (0, 1, -1, -1)),
    scales=(2, 2),
)
"""By the points 0, 1, -1: of a u8 come 11 bits, of an i8 12."""
F4 = Form(
    made=4,
    stride=1,
    weights=((6, 0, 0), (1, 1, 1), (1, -1, 1), (1, 2, 4), (1, -2, 4), (0, 0, 6)),
    pixels=(
        (4, 0, -5, 0, 1, 0),
        (0, -4, -4, 1, 1, 0),
        (0, 4, -4, -1, 1, 0),
        (0, -2, -1, 2, 1, 0),
        (0, 2, -1, -2, 1, 0),
        (0, 4, 0, -5, 0, 1),
    ),
    results=(
        (1, -4, -4, 1, 1, 0),
        (0, -2, 2, 1, -1, 0),
        (0, -1, -1, 1, 1, 0),
        (0, -1, 1, 2, -2, 1),
    ),
    scales=(24, 12, 6, 6),
)
"""By the points 0, 1, -1, 2, -2: of a u8 come 15 bits, of an i8 14."""
F2_STRIDE2 = Form(
    made=2,
    stride=2,
    weights=((1, 0, 0), (1, 0, 1), (0, 0, 1), (0, 1, 0), (0, 1, 0)),
    pixels=((1, 0, -1, 0, 0), (0, 0, 1, 0, 0), (0, 0, -1, 0, 1), (0, 1, 0, 0, 0), (0, 0, 0, 1, 0)),
    results=((1, 1, 0, 1, 0), (0, 1, 1, 0, 1)),
    scales=(1, 1),
)
"""Every other pixel by F(2, 2) at the points 0, 1, those between by themselves."""
FORMS = (F2, F4, F2_STRIDE2)


@dataclass(frozen=True)
class Cover:
    """The tiles of an image; the last ones overlap those before where sizes are odd."""

    height: int
    width: int
    made: int

    @property
    def across(self) -> int:
        """Tiles side by side."""
        return -(-self.width // self.made)

    @property
    def down(self) -> int:
        """Rows of tiles."""
        return -(-self.height // self.made)

    @property
    def count(self) -> int:
        """All tiles."""
        return self.across * self.down

    def origin(self, row: Index, column: Index) -> tuple[Index, Index]:
        """Row and column of the first pixel that a tile makes."""
        y = code.at_most(code.times(row, self.made), self.height - self.made)
        return y, code.at_most(code.times(column, self.made), self.width - self.made)


@dataclass(frozen=True)
class Transform:
    """B' d B of every tile of an image: [batch, group, place in the tile, tile, channel] of i16.

    `together` tiles are a group, which is multiplied at once; the last is filled with the last
    tile. So what is read next lies next, in an image of any size.
    """

    isa: Isa
    form: Form
    input: Image
    cover: Cover
    pads: tuple[int, int]
    together: int

    @property
    def label(self) -> str:
        """As `tiles64x56x56`."""
        return f"tiles{self.input.channels}x{self.cover.height}x{self.cover.width}"

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """The image; its tiles."""
        count = self.input.batch * self.groups * self.group
        stored = self.isa.element("u8")
        return Buffer(stored, self.input.batch * self.input.size), Buffer("i16", count)

    @property
    def grid(self) -> tuple[int, int, int]:
        """Shares of the tiles, one, images."""
        work = self.cover.count * self.form.places * self.input.channels
        return workgroups(work // _GRAIN, self.cover.down), 1, self.input.batch

    @property
    def groups(self) -> int:
        """Groups of an image."""
        return -(-self.cover.count // self.together)

    @property
    def apart(self) -> int:
        """Elements from a place of a group to the next."""
        size = self.together * self.input.channels
        return size if size % (_LINE * _SETS) else size + _LINE

    @property
    def group(self) -> int:
        """Elements of a group."""
        return self.form.places * self.apart

    def emit(self, memory: Sequence[Value], group: Sequence[Index]) -> None:
        """A tile after the other, a register of channels after the other."""
        width, channels = self.isa.vector_bytes // 2, self.input.channels
        whole = channels // width * width

        def tile(slot: Index) -> None:
            number = code.at_most(slot, self.cover.count - 1)
            y, x = self.cover.origin(*code.split(number, self.cover.across))
            y, x = code.times(y, self.form.stride), code.times(x, self.form.stride)
            top, left = self.pads
            source = self.input.at(group[2], code.plus(y, -top), code.plus(x, -left))
            which, within = code.split(slot, self.together)
            which = code.plus(code.times(group[2], self.groups), which)
            target = code.plus(code.times(which, self.group), code.times(within, channels))
            part = partial(self._part, memory, source, target)
            code.loop(0, whole, width, partial(part, width))
            for done, piece in code.pieces(channels - whole, width):
                part(piece, whole + done)

        low, high = code.share(self.groups * self.together, group[0], self.grid[0])
        code.loop(low, high, 1, tile)

    def _part(
        self, memory: Sequence[Value], source: Index, target: Index, width: int, channel: Index
    ) -> None:
        """Some channels of a tile, each row of the result by itself so that registers do."""
        source, target = code.plus(source, channel), code.plus(target, channel)
        read, sides = self.form.read, self.form.pixels
        for row in range(read):
            columns = []
            for column in range(read):
                at = code.plus(source, column * self.input.channels)
                places = [code.plus(at, i * self.input.pitch) for i in range(read)]
                columns.append(loaded_combination(memory[0], places, width, sides[row]))
            for column, side in enumerate(sides):
                place = code.plus(target, (row * read + column) * self.apart)
                code.store(linear_combination(columns, side), memory[1], place)
