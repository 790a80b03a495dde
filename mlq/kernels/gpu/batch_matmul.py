"""Products of two activations, matrix by matrix: the right ones are packed as weights first.

So a pair of matrices is a convolution of one pixel by weights and coefficients of its own, which
one kernel makes of the right side, and the other finds in parts of its buffers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from torch_mlir.dialects import arith
from torch_mlir.ir import Attribute, IndexType, MemRefType, Operation, Value

from mlq.kernels import code, coefficients
from mlq.kernels.code import Index
from mlq.kernels.executable import Buffer
from mlq.kernels.gpu import threads
from mlq.kernels.gpu.convolution import DotConv, buffer_of
from mlq.kernels.gpu.planning import WHOLE, Room
from mlq.kernels.gpu.tensor_cores import TensorConv
from mlq.kernels.gpu.threads import WORD, Threaded
from mlq.kernels.image import Image

_DIGIT = 7  # bits of a number that a weight holds


@dataclass(frozen=True, kw_only=True)
class BatchMatmul:
    """The product of each of some images, matrices whose rows are pixels, with its own weights.

    `conv` is that of one image. All coefficients of an image lie behind its weights.
    """

    conv: DotConv | TensorConv
    images: int

    @property
    def label(self) -> str:
        """As `batch_matmul_3x197x64_197`."""
        rows, channels = self.conv.input.width, self.conv.input.channels
        return f"batch_matmul_{self.images}x{rows}x{channels}_{self.conv.channels}"

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """Left sides, packed right sides with coefficients; the results."""
        left, *right, result = self.conv.buffers
        counts = [left.count, sum(each.count for each in right), result.count]
        elements = left.element, "i32", result.element
        parts = zip(elements, counts, strict=True)
        return tuple(Buffer(element, count * self.images) for element, count in parts)

    @property
    def grid(self) -> tuple[int, int, int]:
        """Workgroups of an image, and images."""
        return (*self.conv.grid[:2], self.images)

    @property
    def attributes(self) -> dict[str, Attribute]:
        """What the compiler must know of the function."""
        return self.conv.attributes

    def emit(self, memory: Sequence[Value], group: Sequence[Index]) -> None:
        """The code of one thread."""
        left, weights, numbers, result = self.conv.buffers
        apart, image = weights.count + numbers.count, group[2]
        first = code.times(image, apart)
        views = [
            _view(memory[0], left, code.times(image, left.count)),
            _view(memory[1], weights, first),
            _view(memory[1], numbers, code.plus(first, weights.count)),
            _view(memory[2], result, code.times(image, result.count)),
        ]
        self.conv.emit(views, group)


def _view(memory: Value, buffer: Buffer, first: Index) -> Value:
    """A part of a binding's memory, from an element of four bytes on."""
    if first == 0:
        return memory
    whole, kept = memory.owner, ("layout", "binding", "operandSegmentSizes")
    layout = Attribute.parse("strided<[1], offset: ?>")
    return Operation.create(
        whole.name,
        results=[MemRefType.get([buffer.count], code.element(buffer.element), layout)],
        operands=[code.index(code.times(first, WORD))],
        attributes={name: whole.attributes[name] for name in kept},
    ).result


@dataclass(frozen=True, kw_only=True)
class Pack(Threaded):
    """Right sides as `product` reads them, u8 around `zero`, each with its coefficients.

    `source` has their `depth` rows, or their columns if they are `turned`, for pixels. Biases make
    up for the zero point `left_zero` of left sides.
    """

    product: BatchMatmul
    source: Image
    depth: int
    turned: bool
    zero: int
    left_zero: int

    @property
    def label(self) -> str:
        """As `pack_batch_matmul_3x197x64_197`."""
        return f"pack_{self.product.label}"

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """Right sides, `order`, coefficients without biases; packed right sides."""
        _, weights, numbers, _ = self.product.conv.buffers
        return buffer_of("u8", self.source), weights, numbers, self.product.buffers[1]

    @property
    def items(self) -> int:
        """Words of the result."""
        return self.buffers[-1].count

    def share(self, _batch: int, _parts: int, _room: Room) -> None:
        """There are no parts: what reads the result is launched by itself, too."""

    @property
    def order(self) -> NDArray[np.int32]:
        """Which word of which column each packed word is, counted from 1 on; 0 of none.

        Packing says so itself: of the digits of such numbers, in the place of weights.
        """
        conv = self.product.conv
        count = conv.channels
        words = np.arange(conv.input.channels) // WORD
        numbers = words[:, None] * count + np.arange(count) + 1
        found = np.zeros(self.buffers[1].count, np.int32)
        for shift in range(0, 4 * _DIGIT, _DIGIT):
            digits = (numbers >> shift) % (1 << _DIGIT)
            packed = conv.pack(digits.astype(np.int8)[None, None])
            found += packed[::WORD].astype(np.int32) << shift
        return found

    def emit(self, memory: Sequence[Value], group: Sequence[Index]) -> None:
        """The code of one thread: a word of some image."""
        output = Image(1, 1, 1, self.items)
        thread = self.begin(group, memory[-1], output, code.constant(0, "i32"))
        threads.below(thread, self.items, partial(self._word, memory, thread))

    def _word(self, memory: Sequence[Value], thread: Index) -> None:
        _, weights, numbers, result = self.buffers
        image, word = code.split(thread, result.count // self.product.images)
        behind = code.plus(word, -weights.count)
        threads.below(word, weights.count, partial(self._weights, memory, thread, image, word))
        threads.below(behind, numbers.count, partial(self._number, memory, thread, image, behind))

    def _weights(self, memory: Sequence[Value], thread: Index, image: Index, word: Index) -> None:
        """Four elements of a column, one below the other."""
        zero = threads.number(0)
        found = threads.load(memory[1], word, 1, 1)[0]
        none = arith.cmpi(arith.CmpIPredicate.eq, found, zero)
        place = arith.select(none, zero, arith.subi(found, threads.number(1)))
        number = arith.index_castui(IndexType.get(), place)
        k, column = code.split(number, self.product.conv.channels)
        stored = self._elements(memory[0], image, column, code.times(k, WORD))
        moved = [arith.andi(each, threads.number(255)) for each in stored]
        packed = arith.select(none, zero, threads.word_of(moved))
        threads.store([packed], memory[-1], thread, 1)

    def _number(self, memory: Sequence[Value], thread: Index, image: Index, place: Index) -> None:
        """A coefficient, which a bias is that is zero yet."""
        number = threads.load(memory[2], place, 1, 1)[0]
        threads.store([number], memory[-1], thread, 1)
        column = code.plus(place, -coefficients.HEADER)

        def bias() -> None:
            def step(k: Index, total: Value) -> list[Value]:
                for each in self._elements(memory[0], image, column, k):
                    total = arith.addi(total, each)
                return [total]

            (total,) = code.loop(0, self.depth, WORD, step, [threads.number(0)])
            made = arith.muli(total, threads.number(-self.left_zero))
            threads.store([made], memory[-1], thread, 1)

        threads.below(column, self.product.conv.channels, bias)

    def _elements(self, memory: Value, image: Index, column: Index, k: Index) -> list[Value]:
        """Elements of a column from the k-th on, around zero, which those beyond the last are."""
        words, zero = threads.in_words(self.source), threads.number(self.zero)
        rows = [code.plus(k, i) for i in range(WORD)]
        if self.turned:
            at = code.plus(words.at(image, 0, column), code.split(k, WORD)[0])
            stored = threads.bytes_of(threads.load(memory, at, 1, 1)[0])
        else:
            word, which = code.split(column, WORD)
            known = [code.at_most(row, self.depth - 1) for row in rows]
            places = [code.plus(words.at(image, 0, row), word) for row in known]
            loaded = [threads.load(memory, place, 1, 1)[0] for place in places]
            stored = [threads.byte_of(each, which) for each in loaded]
        if self.depth % WORD == 0:
            return [arith.subi(each, zero) for each in stored]
        last, none = code.index(self.depth), threads.number(0)
        there = (arith.cmpi(arith.CmpIPredicate.ult, code.index(row), last) for row in rows)
        found = zip(there, stored, strict=True)
        return [arith.select(each, arith.subi(byte, zero), none) for each, byte in found]


def batch_matmul(product: DotConv | TensorConv) -> BatchMatmul:
    """The kernel for all images of a product, which share the card."""
    images = product.input.batch
    one = replace(
        product,
        input=replace(product.input, batch=1),
        output=replace(product.output, batch=1),
        room=Room(WHOLE.processors / images, max(1, WHOLE.warps // images)),
    )
    return BatchMatmul(conv=one, images=images)
