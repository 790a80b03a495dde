"""From floats to integers, or to f16: the network's input in NCHW, and images in NHWC."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from torch_mlir.ir import Value

from mlq.kernels import code
from mlq.kernels.code import Index
from mlq.kernels.executable import Buffer
from mlq.kernels.finishing import Finish, coefficient_count
from mlq.kernels.gpu import threads
from mlq.kernels.gpu.convolution import buffer_of
from mlq.kernels.gpu.finishing import Finisher, Place
from mlq.kernels.gpu.threads import WORD, Pixel, Threaded
from mlq.kernels.image import Image
from mlq.kernels.storage import REALS


@dataclass(frozen=True, kw_only=True)
class _Quantizing(Threaded):
    """numerics.quantize: true division by the scale, which is the coefficients' only scale.

    Of f16 the scale is 1.
    """

    output: Image
    channels: int
    finish: Finish

    @property
    def items(self) -> int:
        """Words of the output."""
        return threads.words_in(self.output)

    @property
    def reads(self) -> int:
        """Floats of a word."""
        return WORD

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """Floats, coefficients; the result."""
        coefficients = Buffer("i32", coefficient_count(1))
        result = buffer_of(self.finish.result, self.output)
        return Buffer("f32", self._floats), coefficients, result

    @property
    def _kind(self) -> str:
        return "half_" if self.finish.result == "f16" else ""

    @property
    @abstractmethod
    def _floats(self) -> int:
        """How many there are."""

    def emit(self, memory: Sequence[Value], group: Sequence[Index]) -> None:
        """The code of one thread."""
        finisher = Finisher(self.isa, self.finish, memory[1], 1)
        thread = self.begin(group, memory[-1], self.output, finisher.margin)
        threads.below(thread, self.items, partial(self._word, memory, finisher, thread))

    def _word(self, memory: Sequence[Value], finisher: Finisher, number: Index) -> None:
        """A word of a pixel; channels that there are none of repeat the last."""
        pixel, word = threads.word_in(self.output, number)
        first = code.times(word, WORD)
        channels = [code.at_most(code.plus(first, i), self.channels - 1) for i in range(WORD)]
        places = [self._place(pixel, channel) for channel in channels]
        reals = [threads.load(memory[0], place, 1, 1)[0] for place in places]
        if self.finish.result not in REALS:
            scale = finisher.scales(0, 1)[0]
            reals = [self.isa.arithmetic.quotient(real, scale) for real in reals]
        finisher.keep(reals, word, Place(memory[-1], self.output, pixel))

    @abstractmethod
    def _place(self, pixel: Pixel, channel: Index) -> Index:
        """Where a float is."""


@dataclass(frozen=True, kw_only=True)
class QuantizeImage(_Quantizing):
    """Few channels of floats, one plane after the other, as u8 pixel by pixel."""

    @property
    def label(self) -> str:
        """As `quantize_3x224x224`."""
        return f"{self._kind}quantize_{self.channels}x{self.output.height}x{self.output.width}"

    @property
    def _floats(self) -> int:
        return self.output.batch * self.channels * self.output.pixels

    def _place(self, pixel: Pixel, channel: Index) -> Index:
        batch, y, x = pixel
        plane = code.plus(code.times(batch, self.channels), channel)
        at = code.plus(code.times(plane, self.output.pixels), x)
        return code.plus(at, code.times(y, self.output.width))


@dataclass(frozen=True, kw_only=True)
class Quantize(_Quantizing):
    """An image of floats as u8."""

    input: Image

    @property
    def label(self) -> str:
        """As `quantize_image_64x56x56`."""
        size = f"{self.channels}x{self.output.height}x{self.output.width}"
        return f"{self._kind}quantize_image_{size}"

    @property
    def _floats(self) -> int:
        return self.input.batch * self.input.size

    def _place(self, pixel: Pixel, channel: Index) -> Index:
        return code.plus(self.input.at(*pixel), channel)
