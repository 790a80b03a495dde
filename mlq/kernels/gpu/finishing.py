"""What becomes of the accumulators of neighbouring channels: scaled, rounded, saturated, stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import gcd

from torch_mlir.dialects import arith
from torch_mlir.ir import Value

from mlq.kernels import code, coefficients
from mlq.kernels.code import Index
from mlq.kernels.finishing import Finish
from mlq.kernels.gpu import threads
from mlq.kernels.gpu.isa import Gpu
from mlq.kernels.gpu.threads import WORD, Pixel
from mlq.kernels.image import Image
from mlq.kernels.storage import REALS

_NUMBERS = (
    coefficients.ZERO_POINT,
    coefficients.LOW,
    coefficients.HIGH,
    coefficients.RESIDUAL_ZERO_POINT,
)
_REALS = (coefficients.RESIDUAL_SCALE, coefficients.REAL_LOW, coefficients.REAL_HIGH)


@dataclass(frozen=True)
class Place:
    """A pixel (batch, row, column) of an image (in elements) in a memory."""

    memory: Value
    image: Image
    pixel: Pixel

    def at(self, channel: Index) -> Index:
        """Where a channel is, counted in elements."""
        return code.plus(self.image.at(*self.pixel), channel)

    def word(self, number: Index) -> Index:
        """Where a word of four channels is, counted in words."""
        return code.plus(threads.in_words(self.image).at(*self.pixel), number)


class Finisher:
    """The code after an accumulation, for one kernel; `memory` holds coefficients of `channels`.

    Sums and scales are scalars, of channels side by side that fill words.
    """

    def __init__(self, isa: Gpu, finish: Finish, memory: Value, channels: int) -> None:
        self._isa, self._finish = isa, finish
        self._memory, self._channels = memory, channels
        self._numbers = {each: self._load(each, 1)[0] for each in _NUMBERS}
        self._reals = {each: code.bits(self._load(each, 1)[0], "f32") for each in _REALS}

    def biases(self, channel: Index, count: int = WORD) -> list[Value]:
        """The biases of some channels, with which their accumulators begin."""
        found = self._load(code.plus(channel, coefficients.HEADER), count)
        return [code.bits(each, self._finish.sums) for each in found]

    def scales(self, channel: Index, count: int = WORD) -> list[Value]:
        """The scales of some channels."""
        found = self._load(code.plus(channel, coefficients.HEADER + self._channels), count)
        return [code.bits(each, "f32") for each in found]

    @property
    def margin(self) -> Value:
        """What fills the margin of the result: the zero point in each byte of a word, or 0."""
        zero = self._numbers[coefficients.ZERO_POINT]
        if self._finish.result in REALS:
            return code.constant(0.0, self._finish.result)
        return threads.word_of([zero] * WORD)

    def store(
        self,
        sums: Sequence[Value],
        scales: Sequence[Value],
        word: Index,
        target: Place,
        residual: Place | None = None,
    ) -> None:
        """Finish the accumulators of channels from a word on; store those that the image has."""
        whole = -(-target.image.channels // WORD)
        size = len(sums) if whole % (len(sums) // WORD) == 0 else WORD
        for first in range(0, len(sums), size):
            each, part = code.plus(word, first // WORD), slice(first, first + size)
            write = partial(self._write, sums[part], scales[part], each, target, residual)
            threads.below(each, whole, write)

    def stored(self, real: Value) -> Value:
        """The nearest integer, ties to even, plus the zero point, within the bounds of a u8."""
        if self._finish.guarded:
            real = self._clamped(real, low=True, high=True)
        value = self._isa.arithmetic.rounded(real)
        value = arith.addi(value, self._numbers[coefficients.ZERO_POINT])
        value = arith.maxsi(value, self._numbers[coefficients.LOW])
        return arith.minsi(value, self._numbers[coefficients.HIGH])

    def _write(
        self,
        sums: Sequence[Value],
        scales: Sequence[Value],
        word: Index,
        target: Place,
        residual: Place | None,
    ) -> None:
        terms: Sequence[Value | None] = [None] * len(sums)
        if residual is not None:
            terms = self._terms(residual, word, len(sums))
        reals = [self._real(*each) for each in zip(sums, scales, terms, strict=True)]
        self.keep(reals, word, target)

    def keep(self, reals: Sequence[Value], word: Index, target: Place) -> None:
        """Store reals, as they are or as integers, from a word of channels on."""
        if self._finish.result in REALS:
            self._write_reals(reals, code.times(word, WORD), target)
            return
        stored = [self.stored(each) for each in reals]
        words = [threads.word_of(stored[i : i + WORD]) for i in range(0, len(stored), WORD)]
        width = self._width(target.image.channels // WORD, len(words))
        threads.store(words, target.memory, target.word(word), width)

    def _write_reals(self, reals: Sequence[Value], channel: Index, target: Place) -> None:
        low, high, channels = self._finish.low, self._finish.high, target.image.channels
        values = [self._clamped(each, low=low, high=high) for each in reals]
        if channels % WORD == 0:
            width = self._width(channels, len(values))
            threads.store(values, target.memory, target.at(channel), width)
            return
        for i, value in enumerate(values):
            each = code.plus(channel, i)
            write = partial(threads.store, [value], target.memory, target.at(each), 1)
            threads.below(each, channels, write)

    def _terms(self, residual: Place, word: Index, count: int) -> list[Value]:
        """What a residual adds: f32(r - zero point) * scale, or r * scale."""
        if self._finish.residual in REALS:
            reals = self._residual_reals(residual, code.times(word, WORD), count)
        else:
            width = self._width(residual.image.channels // WORD, count // WORD)
            words = threads.load(residual.memory, residual.word(word), count // WORD, width)
            zero, f32 = self._numbers[coefficients.RESIDUAL_ZERO_POINT], code.element("f32")
            stored = [byte for each in words for byte in threads.bytes_of(each)]
            reals = [arith.sitofp(f32, arith.subi(each, zero)) for each in stored]
        scale = self._reals[coefficients.RESIDUAL_SCALE]
        return [self._isa.arithmetic.product(each, scale) for each in reals]

    def _residual_reals(self, residual: Place, channel: Index, count: int) -> list[Value]:
        image, at = residual.image, residual.at(channel)
        if image.channels % WORD == 0:
            width = self._width(image.channels, count)
            return threads.load_reals(residual.memory, at, count, width)
        last = image.batch * image.size - 1  # what is read instead of what lies beyond
        places = [code.at_most(code.plus(at, i), last) for i in range(count)]
        return [threads.load_reals(residual.memory, place, 1, 1)[0] for place in places]

    def _real(self, total: Value, scale: Value, term: Value | None) -> Value:
        """`f32(acc) * scale [+ residual]`, each step rounded; sums of reals are not scaled."""
        product = total
        if self._finish.sums == "i32":
            real = arith.sitofp(code.element("f32"), total)
            product = self._isa.arithmetic.product(real, scale)
        return product if term is None else self._isa.arithmetic.total(product, term)

    def _clamped(self, value: Value, *, low: bool, high: bool) -> Value:
        if low:
            value = code.greater(value, self._reals[coefficients.REAL_LOW])
        if high:
            value = code.lesser(value, self._reals[coefficients.REAL_HIGH])
        return value

    def _load(self, at: Index, count: int) -> list[Value]:
        return threads.load(self._memory, at, count, self._width(WORD, count))

    def _width(self, aligned: int, count: int) -> int:
        """Elements of one access to `count` of those that begin at a multiple of `aligned`."""
        return threads.widest(gcd(aligned, count), self._isa.words)
