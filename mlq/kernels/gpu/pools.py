"""Maxima and means of windows: a word of four channels for a thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from torch_mlir.dialects import arith
from torch_mlir.ir import Value

from mlq.kernels import code
from mlq.kernels.code import Index
from mlq.kernels.executable import MARGIN_VALUE, Buffer
from mlq.kernels.finishing import Finish, coefficient_count
from mlq.kernels.gpu import threads
from mlq.kernels.gpu.convolution import buffer_of
from mlq.kernels.gpu.finishing import Finisher, Place
from mlq.kernels.gpu.threads import WORD, Threaded
from mlq.kernels.image import Image
from mlq.kernels.storage import Kind


@dataclass(frozen=True, kw_only=True)
class _Pool(Threaded):
    name: ClassVar[str]

    window: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int]
    input: Image
    output: Image
    kind: Kind = "u8"

    @property
    def items(self) -> int:
        """Words of the output."""
        return threads.words_in(self.output)

    @property
    def label(self) -> str:
        """As `max_pool3x3_64x112x112`."""
        image, (height, width) = self.input, self.window
        size = f"{image.channels}x{image.height}x{image.width}"
        kind = "half_" if self.kind == "f16" else ""
        return f"{kind}{self.name}_pool{height}x{width}_{size}"

    @property
    def reads(self) -> int:
        """The words of a window."""
        return self.window[0] * self.window[1]

    def _read(self, word: Index) -> tuple[Image, Index]:
        """The input as it is read, in words or in f16, and where in a pixel channels begin."""
        if self.kind == "f16":
            return self.input, code.times(word, WORD)
        return threads.in_words(self.input), word

    def _origin(self, y: Index, x: Index) -> tuple[Index, Index]:
        """Where the window of an output pixel begins; within the margin, perhaps."""
        down, right = code.times(y, self.strides[0]), code.times(x, self.strides[1])
        return code.plus(down, -self.pads[0]), code.plus(right, -self.pads[1])


@dataclass(frozen=True, kw_only=True)
class MaxPool(_Pool):
    """The greatest u8, or f16, of each window; elements beyond the image do not count."""

    name = "max"

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """Image, what stands for zero in the margin (an i32); the result."""
        return buffer_of(self.kind, self.input), MARGIN_VALUE, buffer_of(self.kind, self.output)

    def emit(self, memory: Sequence[Value], group: Sequence[Index]) -> None:
        """The code of one thread."""
        zero = threads.word_of([threads.load(memory[1], 0, 1, 1)[0]] * WORD)
        margin = code.constant(0.0, "f16") if self.kind == "f16" else zero
        thread = self.begin(group, memory[-1], self.output, margin)
        threads.below(thread, self.items, partial(self._greatest, memory, thread))

    def _greatest(self, memory: Sequence[Value], number: Index) -> None:
        """What lies beyond the image is replaced by what is nearest in the window."""
        (batch, y, x), word = threads.word_in(self.output, number)
        (image, first), (top, left) = self._read(word), self._origin(y, x)
        rows = [_within(code.plus(top, i), image.height) for i in range(self.window[0])]
        columns = [_within(code.plus(left, i), image.width) for i in range(self.window[1])]
        places = [image.at(batch, row, column) for row in rows for column in columns]
        greatest, *others = [self._four(memory[0], code.plus(at, first)) for at in places]
        for each in others:
            greatest = [code.greater(*pair) for pair in zip(greatest, each, strict=True)]
        target = Place(memory[-1], self.output, (batch, y, x))
        if self.kind == "f16":
            threads.store(greatest, memory[-1], target.at(first), WORD)
        else:
            threads.store([threads.word_of(greatest)], memory[-1], target.word(word), 1)

    def _four(self, memory: Value, at: Index) -> list[Value]:
        """Channels side by side."""
        if self.kind == "f16":
            return threads.load_reals(memory, at, WORD, WORD)
        return threads.bytes_of(threads.load(memory, at, 1, 1)[0])


@dataclass(frozen=True, kw_only=True)
class MeanPool(_Pool):
    """Sums of windows of u8, or f16, finished as accumulators are; the margin counts as zeros.

    All channels have one bias; `scales` is how many there are, one for each output pixel or one.
    """

    name = "mean"
    finish: Finish
    scales: int

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """Image, coefficients; the result."""
        coefficients = Buffer("i32", coefficient_count(self.scales))
        result = buffer_of(self.finish.result, self.output)
        return buffer_of(self.kind, self.input), coefficients, result

    def emit(self, memory: Sequence[Value], group: Sequence[Index]) -> None:
        """The code of one thread."""
        finisher = Finisher(self.isa, self.finish, memory[1], self.scales)
        thread = self.begin(group, memory[-1], self.output, finisher.margin)
        threads.below(thread, self.items, partial(self._mean, memory, finisher, thread))

    def _mean(self, memory: Sequence[Value], finisher: Finisher, number: Index) -> None:
        (batch, y, x), word = threads.word_in(self.output, number)
        image, first = self._read(word)
        source = code.plus(image.at(batch, *self._origin(y, x)), first)

        def row(down: Index, *sums: Value) -> list[Value]:
            def element(right: Index, *sums: Value) -> list[Value]:
                at = code.plus(code.times(down, image.pitch), code.times(right, image.channels))
                return self._added(memory[0], code.plus(source, at), sums)

            return code.loop(0, self.window[1], 1, element, sums)

        sums = code.loop(0, self.window[0], 1, row, finisher.biases(0, 1) * WORD)
        which = code.plus(code.times(y, self.output.width), x) if self.scales > 1 else 0
        target, (scale,) = Place(memory[-1], self.output, (batch, y, x)), finisher.scales(which, 1)
        if self.kind == "f16":
            sums = [arith.mulf(total, scale) for total in sums]
        finisher.store(sums, [scale] * WORD, word, target)

    def _added(self, memory: Value, at: Index, sums: Sequence[Value]) -> list[Value]:
        """Sums of four channels with what is side by side there."""
        if self.kind == "f16":
            found = threads.load_reals(memory, at, WORD, WORD)
            return [arith.addf(*pair) for pair in zip(sums, found, strict=True)]
        (word,), dot = threads.load(memory, at, 1, 1), self.isa.arithmetic.dot
        return [dot(each, word, threads.number(1 << 8 * i)) for i, each in enumerate(sums)]


def _within(at: Index, size: int) -> Index:
    return code.at_least(code.at_most(at, size - 1), 0)
