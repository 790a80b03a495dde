"""Convolutions with a filter for each channel: four channels of some pixels for a thread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch_mlir.dialects import math
from torch_mlir.ir import Value

from mlq.kernels import code
from mlq.kernels.code import Index
from mlq.kernels.gpu import threads
from mlq.kernels.gpu.convolution import DotConv, Tile
from mlq.kernels.gpu.threads import WORD


@dataclass(frozen=True, kw_only=True)
class Depthwise(DotConv):
    """A depthwise convolution: dot products with words that hold one weight and three zeros.

    That picks a channel out of a word of four and multiplies it in one instruction. Of f16, which
    are four to two words, a channel is multiplied and added in f32.
    """

    @property
    def label(self) -> str:
        """As `depthwise3x3s1_96x56x56`."""
        image = self.input
        size = f"{image.channels}x{image.height}x{image.width}"
        kind = "half_" if self.kind == "f16" else ""
        return f"{kind}depthwise{self.window[0]}x{self.window[1]}s{self.strides[0]}_{size}"

    @property
    def steps(self) -> int:
        """Taps of the window."""
        return self.window[0] * self.window[1]

    @property
    def weight_words(self) -> int:
        """For each tap a word, or two bytes, for each channel."""
        return super().weight_words * self.dtype.itemsize // (WORD if self.kind == "f16" else 1)

    def pack(self, weight: NDArray[Any]) -> NDArray[Any]:
        """Weights [KH, KW, 1, C]: for each tap a word for each channel, in its byte there."""
        height, width, _, channels = weight.shape
        each = 1 if self.kind == "f16" else WORD
        taps = np.zeros((height * width, self.padded, each), self.dtype)
        places = np.arange(channels)
        taps[:, places, places % each] = weight.reshape(height * width, channels)
        return taps.reshape(-1).view(np.int8)

    @property
    def is_joined(self) -> bool:
        """Never: each tap of a channel is alone."""
        return False

    def _run(self, tile: Tile, number: Index, *sums: Value) -> list[Value]:
        """One tap: a word of each pixel, or two."""
        if self.kind == "f16":
            return self._tap(tile, number, *sums)
        words = tile.words(code.plus(self.run_offset(number), tile.word), 1, 1)
        weights = self._weights(tile, code.times(number, self.padded))
        return self._dots(sums, [word for (word,) in words], weights)

    def _tap(self, tile: Tile, number: Index, *sums: Value) -> list[Value]:
        """One tap of f16: products and sums in f32."""
        word = code.times(tile.word, 2)
        pixels = tile.words(code.plus(self.run_offset(number), word), 2, 2)
        place = code.plus(code.times(number, self.padded // 2), word)
        taps = threads.halves_of(threads.load(tile.memory[1], place, 2, 2))
        channels = [half for words in pixels for half in threads.halves_of(words)]
        pairs = zip(channels, taps * len(pixels), strict=True)
        return [math.fma(*pair, total) for pair, total in zip(pairs, sums, strict=True)]
