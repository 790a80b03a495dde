"""Words from image to image: channels of several side by side in one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from torch_mlir.ir import Value

from mlq.kernels import code
from mlq.kernels.code import Index
from mlq.kernels.executable import MARGIN_VALUE, Buffer
from mlq.kernels.gpu import threads
from mlq.kernels.gpu.convolution import buffer_of
from mlq.kernels.gpu.threads import WORD, Threaded
from mlq.kernels.image import Image
from mlq.kernels.storage import Kind


@dataclass(frozen=True, kw_only=True)
class Concat(Threaded):
    """The channels of some images of u8, in whole words but for the last image's.

    `channels` of each are no padding.
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
