"""From image to image: channels of several side by side in one, a part of one in another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from torch_mlir.dialects import arith
from torch_mlir.ir import Value

from mlq.kernels import code
from mlq.kernels.code import Index
from mlq.kernels.executable import MARGIN_VALUE, Buffer
from mlq.kernels.gpu import threads
from mlq.kernels.gpu.convolution import buffer_of
from mlq.kernels.gpu.finishing import Place
from mlq.kernels.gpu.threads import WORD, Threaded
from mlq.kernels.image import Image
from mlq.kernels.storage import Kind


@dataclass(frozen=True, kw_only=True)
class Concat(Threaded):
    """The channels of some images of u8, in whole words but for the last image's.

    `channels` of each are no padding. Images of f16 are those of twice as many u8.
    """

    output: Image
    inputs: tuple[Image, ...]
    channels: tuple[int, ...]
    kind: Kind = "u8"

    @property
    def label(self) -> str:
        """As `concat_64_64x55x55`."""
        size = f"x{self.output.height}x{self.output.width}"
        return "_".join(["concat", *map(str, self.channels)]) + size

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """The images, what stands for zero in the margin (an i32); the result."""
        inputs = (buffer_of("u8", image) for image in self.inputs)
        return (*inputs, MARGIN_VALUE, buffer_of("u8", self.output))

    @property
    def items(self) -> int:
        """Words of the widest image: a thread takes one of each."""
        return self.output.batch * self.output.pixels * max(self._words)

    @property
    def _words(self) -> list[int]:
        """Of a pixel of each image."""
        return [-(-channels // WORD) for channels in self.channels]

    def emit(self, memory: Sequence[Value], group: Sequence[Index]) -> None:
        """The code of one thread."""
        zero = threads.word_of([threads.load(memory[-2], 0, 1, 1)[0]] * WORD)
        thread = self.begin(group, memory[-1], self.output, zero)
        pixels, first = self.output.batch * self.output.pixels, 0
        for number, words in enumerate(self._words):
            move = partial(self._move, memory, number, first, thread)
            threads.below(thread, pixels * words, move)
            first += words

    def _move(self, memory: Sequence[Value], number: int, first: int, thread: Index) -> None:
        pixel, word = code.split(thread, self._words[number])
        at = threads.pixel_of(self.output, pixel)
        source = threads.in_words(self.inputs[number]).at(*at)
        found = threads.load(memory[number], code.plus(source, word), 1, 1)
        target = threads.in_words(self.output).at(*at)
        threads.store(found, memory[-1], code.plus(target, code.plus(word, first)), 1)


@dataclass(frozen=True, kw_only=True)
class Move(Threaded):
    """A part of an image to a place in another, as mlq.kernels.movement.Move; element by element.

    `axes` says which axis of the input each axis of the part is.
    """

    input: Image
    output: Image
    size: tuple[int, int, int]
    place: tuple[int, int, int] = (0, 0, 0)
    first: tuple[int, int, int] = (0, 0, 0)
    steps: tuple[int, int] = (1, 1)
    axes: tuple[int, int, int] = (0, 1, 2)
    kind: Kind = "u8"

    @property
    def reads(self) -> int:
        """Elements of a word."""
        return WORD

    @property
    def label(self) -> str:
        """As `move_16x32x32_to_32x16x16`."""
        kind = "half_" if self.kind == "f16" else ""
        images = (f"{e.channels}x{e.height}x{e.width}" for e in (self.input, self.output))
        return f"{kind}move_" + "_to_".join(images)

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """The image; what stands in the margin, and around the part (i32); the result."""
        surroundings = Buffer("i32", 2)
        return buffer_of(self.kind, self.input), surroundings, buffer_of(self.kind, self.output)

    @property
    def items(self) -> int:
        """Words of the output."""
        return threads.words_in(self.output)

    def emit(self, memory: Sequence[Value], group: Sequence[Index]) -> None:
        """The code of one thread."""
        zero, around = threads.load(memory[1], 0, 2, 1)
        filled = threads.word_of([zero] * WORD)
        if self.kind == "f16":
            filled, around = (
                arith.bitcast(code.element("f16"), code.bits(each, "i16"))
                for each in (zero, around)
            )
        thread = self.begin(group, memory[-1], self.output, filled)
        threads.below(thread, self.items, partial(self._word, memory, around, thread))

    def _word(self, memory: Sequence[Value], around: Value, number: Index) -> None:
        (batch, y, x), word = threads.word_in(self.output, number)
        channels = (code.plus(code.times(word, WORD), i) for i in range(WORD))
        stored = [self._element(memory[0], around, batch, (y, x, each)) for each in channels]
        target = Place(memory[-1], self.output, (batch, y, x))
        if self.kind == "f16":
            threads.store(stored, memory[-1], target.at(code.times(word, WORD)), WORD)
        else:
            threads.store([threads.word_of(stored)], memory[-1], target.word(word), 1)

    def _element(
        self, memory: Value, around: Value, batch: Index, at: tuple[Index, Index, Index]
    ) -> Value:
        """What comes to be at a row, a column and a channel of the result."""
        inside = [code.plus(each, -start) for each, start in zip(at, self.place, strict=True)]
        nearest = [
            code.at_least(code.at_most(each, size - 1), 0)
            for each, size in zip(inside, self.size, strict=True)
        ]
        source = [
            code.plus(code.times(each, step), start)
            for each, step, start in zip(nearest, (*self.steps, 1), self.first, strict=True)
        ]
        y, x, channel = (source[self.axes.index(axis)] for axis in range(3))
        place = code.plus(self.input.at(batch, y, x), channel)
        if self.kind == "f16":
            (found,) = threads.load(memory, place, 1, 1)
        else:
            place, byte = code.split(place, WORD)
            found = threads.byte_of(threads.load(memory, place, 1, 1)[0], byte)
        for each, near in zip(inside, nearest, strict=True):
            is_inside = arith.cmpi(arith.CmpIPredicate.eq, code.index(each), code.index(near))
            found = arith.select(is_inside, found, around)
        return found
