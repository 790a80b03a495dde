"""Maxima and means of windows: a word of four channels for a thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

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
        return f"{self.name}_pool{height}x{width}_{size}"

    @property
    def reads(self) -> int:
        """The words of a window."""
        return self.window[0] * self.window[1]

    def _origin(self, y: Index, x: Index) -> tuple[Index, Index]:
        """Where the window of an output pixel begins; within the margin, perhaps."""
        down, right = code.times(y, self.strides[0]), code.times(x, self.strides[1])
        return code.plus(down, -self.pads[0]), code.plus(right, -self.pads[1])


@dataclass(frozen=True, kw_only=True)
class MaxPool(_Pool):
    """The greatest u8 of each window; elements beyond the image do not count."""

    name = "max"

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """Image, what stands for zero in the margin (an i32); the result."""
        return buffer_of("u8", self.input), MARGIN_VALUE, buffer_of("u8", self.output)

    def emit(self, memory: Sequence[Value], group: Sequence[Index]) -> None:
        """The code of one thread."""
        zero = threads.load(memory[1], 0, 1, 1)[0]
        thread = self.begin(group, memory[-1], self.output, threads.word_of([zero] * WORD))
        threads.below(thread, self.items, partial(self._greatest, memory, thread))

    def _greatest(self, memory: Sequence[Value], number: Index) -> None:
        """What lies beyond the image is replaced by what is nearest in the window."""
        (batch, y, x), word = threads.word_in(self.output, number)
        image, (top, left) = threads.in_words(self.input), self._origin(y, x)
        rows = [_within(code.plus(top, i), image.height) for i in range(self.window[0])]
        columns = [_within(code.plus(left, i), image.width) for i in range(self.window[1])]
        places = [image.at(batch, row, column) for row in rows for column in columns]
        words = [threads.load(memory[0], code.plus(at, word), 1, 1)[0] for at in places]
        greatest, *others = map(threads.bytes_of, words)
        for each in others:
            greatest = [code.greater(*pair) for pair in zip(greatest, each, strict=True)]
        at = code.plus(threads.in_words(self.output).at(batch, y, x), word)
        threads.store([threads.word_of(greatest)], memory[-1], at, 1)


@dataclass(frozen=True, kw_only=True)
class MeanPool(_Pool):
    """Sums of u8 windows, finished as accumulators are; the margin counts as zeros.

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
        return buffer_of("u8", self.input), coefficients, result

    def emit(self, memory: Sequence[Value], group: Sequence[Index]) -> None:
        """The code of one thread."""
        finisher = Finisher(self.isa, self.finish, memory[1], self.scales)
        thread = self.begin(group, memory[-1], self.output, finisher.margin)
        threads.below(thread, self.items, partial(self._mean, memory, finisher, thread))

    def _mean(self, memory: Sequence[Value], finisher: Finisher, number: Index) -> None:
        (batch, y, x), word = threads.word_in(self.output, number)
        image = threads.in_words(self.input)
        source = code.plus(image.at(batch, *self._origin(y, x)), word)
        picks = [threads.number(1 << 8 * i) for i in range(WORD)]

        def row(down: Index, *sums: Value) -> list[Value]:
            def element(right: Index, *sums: Value) -> list[Value]:
                at = code.plus(code.times(down, image.pitch), code.times(right, image.channels))
                found = threads.load(memory[0], code.plus(source, at), 1, 1)[0]
                pairs = zip(sums, picks, strict=True)
                return [self.isa.arithmetic.dot(total, found, pick) for total, pick in pairs]

            return code.loop(0, self.window[1], 1, element, sums)

        sums = code.loop(0, self.window[0], 1, row, finisher.biases(0, 1) * WORD)
        which = code.plus(code.times(y, self.output.width), x) if self.scales > 1 else 0
        target = Place(memory[-1], self.output, (batch, y, x))
        finisher.store(sums, finisher.scales(which, 1) * WORD, word, target)


def _within(at: Index, size: int) -> Index:
    return code.at_least(code.at_most(at, size - 1), 0)
