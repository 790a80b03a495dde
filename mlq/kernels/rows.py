"""The code of a depthwise convolution: a block of channels along one row, or two."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from torch_mlir.dialects import arith
from torch_mlir.ir import Value

from mlq.kernels import code, lanes
from mlq.kernels.code import Index
from mlq.kernels.finishing import Finisher
from mlq.kernels.pixels import Pixels
from mlq.kernels.taps import Tap

if TYPE_CHECKING:
    from mlq.kernels.depthwise import Depthwise

_CARRIED = 12  # registers that columns may stay in from one pixel to the next


class Row:
    """One block of channels along one row, or two.

    `at` is the image and the row; `block` its first channel, where its numbers are, counted in
    channels, and its width.
    """

    def __init__(
        self,
        kernel: Depthwise,
        memory: Sequence[Value],
        finisher: Finisher,
        at: tuple[Index, Index],
        block: tuple[Index, Index, int],
    ) -> None:
        self.kernel, self.memory, self.finisher = kernel, memory, finisher
        (batch, y), (channel, place, self.size) = at, block
        top, left = (code.times(each, -1) for each in kernel.pads)
        row = code.plus(code.times(y, kernel.strides[0]), top)
        self.source = code.plus(kernel.input.at(batch, row, left), channel)
        self.target = code.plus(kernel.output.at(batch, y, 0), channel)
        self.word, self.parts = kernel.together, kernel.unit.depth
        self.folded, self.step = kernel.folded, kernel.folded * kernel.strides[1]
        taps = kernel.rows * kernel.window[1] * kernel.quads * self.word
        self.weights = code.times(place, taps)
        lane = self.size // self.parts
        places = [code.plus(place, i * lane) for i in range(self.parts)]
        self.biases = [finisher.biases(at, lane) for at in places]
        self.scales = [finisher.scales(at, lane) for at in places]

    def emit(self) -> None:
        """The pixels of the row, one after the other; some of the last again."""
        width, folded, at_once = self.kernel.output.width, self.folded, self._at_once
        if folded == at_once == 1:
            code.loop(0, width, 1, partial(self._pixels, 1), self._first(0))
            return
        several, whole = (width // each * each for each in (at_once * folded, folded))
        every = partial(self._pixels, at_once)
        rest = code.loop(0, several, at_once * folded, every, self._first(0))
        code.loop(several, whole, folded, partial(self._pixels, 1), rest)
        if whole < width:
            self._pixels(1, width - folded, *self._first(width - folded))

    def _first(self, x: Index) -> list[Value]:
        """The columns that are kept for a pixel which none is before."""
        at = self._source_of(x)
        return [v for column in range(self._kept) for v in self._column(at, column)]

    def _source_of(self, x: Index) -> Index:
        step = self.kernel.strides[1] * self.kernel.input.channels
        return code.plus(self.source, code.times(x, step))

    @property
    def _at_once(self) -> int:
        """Pixels that share weights."""
        return self.kernel.unit.taps.pixels if self.kernel.dilations[1] == 1 else 1

    @property
    def _kept(self) -> int:
        """Columns that the next pixel needs again and that stay in registers until then."""
        kernel = self.kernel
        shared = kernel.window[1] - self.step if kernel.dilations[1] == 1 else 0
        return shared if 0 < shared * kernel.quads * self.word <= _CARRIED else 0

    def _pixels(self, count: int, x: Index, *carried: Value) -> list[Value]:
        kernel, kept, per_column = self.kernel, self._kept, self.kernel.quads * self.word
        step, at = self.step, self._source_of(x)
        columns = [list(carried[i * per_column : (i + 1) * per_column]) for i in range(kept)]
        needed = kernel.window[1] + (count - 1) * step
        columns += [self._column(at, column) for column in range(kept, needed)]
        place = code.plus(self.target, code.times(x, kernel.output.channels))
        further = self.folded * kernel.output.channels
        for row in range(kernel.rows):
            sums = kernel.unit.taps.added(self._begun() * count, self._taps(columns, row, count))
            down = code.plus(place, row * kernel.output.pitch)
            self.finisher.store(
                [self._ended(sums[i : i + self.parts]) for i in range(0, len(sums), self.parts)],
                self.scales,
                Pixels(
                    self.memory[-1],
                    [code.plus(down, i * further) for i in range(count)],
                ),
            )
        return [v for column in columns[count * step :][:kept] for v in column]

    def _taps(self, columns: list[list[Value]], row: int, count: int) -> Iterator[Tap]:
        """Column by column, what meets the same weights side by side."""
        width, step = self.kernel.window[1], self.step
        first, per_column = row * width * self.kernel.quads, self.kernel.quads
        for column in range(width):
            for quad in range(per_column):
                number = (first + column * per_column + quad) * self.word
                weights = map(self._weight, range(number, number + self.word))
                yield from _met(
                    [
                        columns[column + i * step][quad * self.word : (quad + 1) * self.word]
                        for i in range(count)
                    ],
                    weights,
                )

    @property
    def _in_order(self) -> bool:
        """Whether the biases are in the order of channels, which the sums are not."""
        return self.parts > 1 and not self.kernel.ending.packs

    def _begun(self) -> list[Value]:
        if not self._in_order:
            return list(self.biases)
        zero = code.constant(0, self.kernel.unit.total)
        return [code.splat(zero, code.lanes_of(each)) for each in self.biases]

    def _ended(self, sums: list[Value]) -> list[Value]:
        if not self._in_order:
            return sums
        pairs = zip(lanes.in_order(sums), self.biases, strict=True)
        return [arith.addi(total, bias) for total, bias in pairs]

    def _weight(self, number: int) -> Value:
        """A register of weights."""
        return code.load(self.memory[1], code.plus(self.weights, number * self.size), self.size)

    def _column(self, at: Index, number: int) -> list[Value]:
        """A column of the window: for each word of rows, vectors with a tap in each element."""
        kernel = self.kernel
        right = number * kernel.dilations[1] * kernel.input.channels
        down = kernel.dilations[0] * kernel.input.pitch
        needed = kernel.window[0] + kernel.rows - 1
        nothing = code.splat(code.constant(0, kernel.unit.element), self.size)
        rows = [
            self._loaded(code.plus(at, right + row * down)) if row < needed else nothing
            for row in range(kernel.quads * self.word)
        ]
        words = range(0, len(rows), self.word)
        return [v for i in words for v in lanes.in_turn(rows[i : i + self.word])]

    def _loaded(self, at: Index) -> Value:
        """The channels of a pixel, or of those that are folded, from where strides part them."""
        stride, channels = self.kernel.strides[1], self.kernel.input.channels
        one = code.load(self.memory[0], at, self.size)
        if self.folded == 1 or stride == 1:
            return one
        # The other ends where the last pixel does.
        behind = (self.folded - 1) * (stride - 1) * channels
        other = code.load(self.memory[0], code.plus(at, behind), self.size)
        firsts = [pixel * stride * channels for pixel in range(self.folded)]
        starts = [
            first if first + channels <= self.size else first - behind + self.size
            for first in firsts
        ]
        return code.shuffle(one, other, [start + i for start in starts for i in range(channels)])


def _met(pixels: list[list[Value]], weights: Iterable[Value]) -> Iterator[Tap]:
    """The elements of pixels, each with its weight, which is the same for all of them."""
    first, *others = pixels
    kept = []
    for value, weight in zip(first, weights, strict=True):
        kept.append(weight)
        yield value, weight
    for other in others:
        yield from zip(other, kept, strict=True)
