"""Products of two activations, matrix by matrix: the right ones are packed as weights first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from torch_mlir.dialects import arith
from torch_mlir.ir import Value

from mlq.kernels import code, lanes, reduction, tiles, tiling
from mlq.kernels.code import Index
from mlq.kernels.conv import Conv
from mlq.kernels.executable import Buffer
from mlq.kernels.grain import Traffic
from mlq.kernels.image import Image, Margin
from mlq.kernels.isa import Unit
from mlq.kernels.reduction import Part
from mlq.kernels.storage import Kind
from mlq.kernels.tiling import Columns

ZEROS: Margin = (0, 0, 0, 1)
"""What the left matrices must have behind them: a row of zero points."""


@dataclass(frozen=True, kw_only=True)
class BatchMatmul(Conv):
    """The product of each image, which is a matrix whose rows are pixels, with a matrix of its own.

    No bias makes up for the zero point of the left sides, for the right sides are known at run time
    only: what a row of zero points yields is subtracted instead.
    """

    @property
    def label(self) -> str:
        """As `batch_matmul_3x197x64_197`."""
        image, kind = self.input, {"f32": "real_", "u16": "wide_", "u8": ""}[self.kind]
        return f"{kind}batch_matmul_{image.batch}x{image.width}x{image.channels}_{self.channels}"

    @property
    def unit(self) -> Unit:
        """What multiplies: weights of 16 bits where they are as fast, for these are made anew."""
        halves, wide = self.isa.halves, self.kind == "u16" or self.isa.widens
        return halves if halves is not None and wide and self.kind != "f32" else super().unit

    @property
    def flat(self) -> BatchMatmul:
        """Images stay apart."""
        return self

    @property
    def traffic(self) -> Traffic:
        """Bytes of one image, of its right side and of their product."""
        traffic = super().traffic
        return replace(traffic, weights=traffic.weights // self.input.batch)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The steps of a row, none of which reads beyond it."""
        return reduction.parts(self.unit.reduction, self.run, 0)

    @property
    def columns(self) -> tuple[Columns, ...]:
        """How columns are divided: the last block is apart if it has too many."""
        *others, last = tiling.columns(self.isa, self.work)
        return (*others, *(last.apart() if last.end * self.isa.lanes > self.channels else [last]))

    @property
    def matrix(self) -> int:
        """Elements of a right side as it is packed."""
        return self.padded * self.row

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """Left sides, packed right sides, coefficients; the result."""
        left, right, *others = super().buffers
        return left, replace(right, count=self.input.batch * self.matrix), *others

    def emit(self, memory: Sequence[Value], group: Sequence[Index]) -> None:
        """The code of one workgroup."""
        _Body(self, memory, group).emit()


class _Body(tiles.Body):
    """The code of one workgroup, which has one pair of matrices."""

    def _block(self, column: Columns, block: Index) -> None:
        """One block of columns, whose sums begin where zero points make them zero."""
        if self.conv.kind == "f32":
            super()._block(column, block)
            return
        size = self.conv.isa.lanes
        channel = code.plus(code.times(block, column.vectors * size), column.first * size)
        zeros = [code.splat(code.constant(0, "i32"), size)] * column.vectors
        row = self._source(0, self.conv.input.width)
        excess = self._accumulate(replace(column, pixels=1), channel, [row], zeros)
        biases = [arith.subi(*pair) for pair in zip(zeros, excess, strict=True)]
        low, high = code.share(self.conv.tiles(column), self.group[0], self.grid[0])
        code.loop(low, high, 1, partial(self._tile, column, channel, biases))

    def _weights(self, channel: Index) -> Index:
        conv = self.conv
        assert isinstance(conv, BatchMatmul)
        return code.plus(code.times(self.group[2], conv.matrix), super()._weights(channel))


@dataclass(frozen=True, kw_only=True)
class Pack:
    """Right sides as `product` reads them.

    `source` has their `depth` rows, or their columns if they are `turned`, for pixels. Integers
    of a `kind` are stored around `zero`; reals are multiplied by `factor`.
    """

    product: BatchMatmul
    source: Image
    kind: Kind
    depth: int
    turned: bool
    zero: int
    factor: float

    @property
    def label(self) -> str:
        """As `pack_turned_batch_matmul_3x197x64_197`."""
        return f"pack_{'turned_' if self.turned else ''}{self.product.label}"

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """Right sides before and after."""
        source, element = self.source, self.product.isa.element(self.kind)
        return Buffer(element, source.batch * source.size), self.product.buffers[1]

    @property
    def grid(self) -> tuple[int, int, int]:
        """Matrices."""
        return 1, 1, self.source.batch

    def emit(self, memory: Sequence[Value], group: Sequence[Index]) -> None:
        """The code of one workgroup: block of columns by block, step by step."""
        first = code.times(group[2], self.product.matrix)
        for column in self.product.columns:

            def block(number: Index, column: Columns = column) -> None:
                size = column.vectors * self.product.isa.lanes
                start = code.times(column.first, self.product.isa.lanes)
                channel = code.plus(start, code.times(number, size))
                at = code.plus(first, code.times(channel, self.product.row))
                for part in self.product.parts:
                    at = self._part(_Block(self, column, memory, group[2], channel), part, at)

            code.loop(0, column.blocks, 1, block)

    def _part(self, block: _Block, part: Part, at: Index) -> Index:
        """Write the steps of a part; where the next one begins."""
        each = part.stored * block.size
        known = min(part.steps, max(0, self.depth - part.first) // part.span)

        def step(number: Index) -> None:
            first = code.plus(code.times(number, part.span), part.first)
            block.step(part, first, part.span, code.plus(at, code.times(number, each)))

        code.loop(0, known, 1, step)
        for number in range(known, part.steps):
            first = part.first + number * part.span
            block.step(part, first, self.depth - first, code.plus(at, number * each))
        return code.plus(at, part.steps * each)


@dataclass(frozen=True)
class _Block:
    """A block of columns of one right side."""

    pack: Pack
    column: Columns
    memory: Sequence[Value]
    matrix: Index
    channel: Index

    @property
    def size(self) -> int:
        """Columns."""
        return self.column.vectors * self.pack.product.isa.lanes

    def step(self, part: Part, first: Index, known: int, at: Index) -> None:
        """Write the elements of a step from `first` on, of which so many are known, at a place."""
        word = self.pack.product.unit.reduction.word(part.span)
        for start in range(0, part.stored, word):
            count = min(word, max(0, min(known, part.span) - start))
            for number, words in self._words(code.plus(first, start), count, word):
                place = code.plus(at, start * self.size + number * word)
                code.store(words, self.memory[1], place)

    def _words(self, first: Index, count: int, word: int) -> Iterator[tuple[int, Value]]:
        """A word of each column, zeros behind its `count` elements: the first column, and words."""
        if self.pack.turned:
            yield from self._loaded(first, count, word)
            return
        product = self.pack.product
        for start, vectors in product.runs(self.column.vectors):
            zipped = [
                _zipped([self._row(code.plus(first, i), v, known=i < count) for i in range(word)])
                for v in range(start, start + vectors)
            ]
            for i, words in enumerate(lanes.out_of_order(zipped, word)):
                yield (start + i) * product.isa.lanes, words

    def _row(self, k: Index, vector: int, *, known: bool) -> Value:
        """Elements of a row of the right side that a vector of columns has."""
        isa, source = self.pack.product.isa, self.pack.source
        first = vector * isa.lanes
        count = min(isa.lanes, self._stored - first) if known else 0
        at = code.plus(source.at(self.matrix, 0, k), code.plus(self.channel, first))
        return self._centred(lanes.loaded(self.memory[0], at, max(count, 0), isa.lanes), count)

    def _loaded(self, first: Index, count: int, word: int) -> Iterator[tuple[int, Value]]:
        """Words that lie side by side in memory, column by column in the order of the lanes."""
        source, product = self.pack.source, self.pack.product
        order = product.within(self.column.vectors)
        for number, channel in enumerate(order):
            there = count if channel < self._stored else 0
            at = source.at(self.matrix, 0, code.plus(self.channel, channel))
            loaded = lanes.loaded(self.memory[0], code.plus(at, first), there, word)
            yield number, self._centred(loaded, there)

    @property
    def _stored(self) -> int:
        """Columns of the block that there are."""
        product = self.pack.product
        last = product.channels - self.column.first * product.isa.lanes
        return min(self.size, last) if self.column.blocks == 1 else self.size

    def _centred(self, values: Value, count: int) -> Value:
        """Elements around zero, of which so many are no zeros yet, as the product multiplies."""
        pack = self.pack
        if pack.product.kind == "f32":
            factor = code.splat(code.constant(pack.factor, "f32"), code.lanes_of(values))
            return values if pack.factor == 1.0 else arith.mulf(values, factor)
        size, element = code.lanes_of(values), pack.product.unit.weight
        if code.element_of(values) != element:  # a byte becomes a word
            values = arith.extui(code.vector_type(size, element), values)
        zero = code.splat(code.constant(pack.zero, element), size)
        moved = arith.subi(values, zero) if pack.zero else values
        nothing = code.splat(code.constant(0, element), size)
        if count < size:
            moved = code.shuffle(
                moved, nothing, [i if i < count else size + i for i in range(size)]
            )
        return moved


def _zipped(rows: Sequence[Value]) -> Value:
    """Elements of rows in turn, as one vector: rows that are half of them apart meet first."""
    rows = list(rows)
    while len(rows) > 1:
        half, size = len(rows) // 2, code.lanes_of(rows[0])
        mask = [side * size + i for i in range(size) for side in (0, 1)]
        rows = [code.shuffle(rows[i], rows[i + half], mask) for i in range(half)]
    return rows[0]
