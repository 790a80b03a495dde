"""Convolutions with a filter for each channel: four channels of some pixels for a thread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch_mlir.ir import Value

from mlq.kernels import code
from mlq.kernels.code import Index
from mlq.kernels.gpu.convolution import DotConv, Tile
from mlq.kernels.gpu.threads import WORD


@dataclass(frozen=True, kw_only=True)
class Depthwise(DotConv):
    """A depthwise convolution: dot products with words that hold one weight and three zeros.

    That picks a channel out of a word of four and multiplies it in one instruction.
    """

    @property
    def label(self) -> str:
        """As `depthwise3x3s1_96x56x56`."""
        image = self.input
        size = f"{image.channels}x{image.height}x{image.width}"
        return f"depthwise{self.window[0]}x{self.window[1]}s{self.strides[0]}_{size}"

    @property
    def steps(self) -> int:
        """Taps of the window."""
        return self.window[0] * self.window[1]

    def pack(self, weight: NDArray[Any]) -> NDArray[Any]:
        """Weights [KH, KW, 1, C]: for each tap a word for each channel, in its byte there."""
        height, width, _, channels = weight.shape
        taps = np.zeros((height * width, self.padded, WORD), np.int8)
        places = np.arange(channels)
        taps[:, places, places % WORD] = weight.reshape(height * width, channels)
        return taps.reshape(-1)

    @property
    def is_joined(self) -> bool:
        """Never: each tap of a channel is alone."""
        return False

    def _run(self, tile: Tile, number: Index, *sums: Value) -> list[Value]:
        """One tap: a word of each pixel."""
        words = tile.words(code.plus(self.run_offset(number), tile.word), 1, 1)
        weights = self._weights(tile, code.times(number, self.padded))
        return self._dots(sums, [word for (word,) in words], weights)
