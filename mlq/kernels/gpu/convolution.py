"""Convolutions and matrix products by dot products of words: some pixels by a word for a thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch_mlir.ir import Value

from mlq.kernels import code
from mlq.kernels.code import Index
from mlq.kernels.convolution import Convolution
from mlq.kernels.executable import Buffer
from mlq.kernels.finishing import coefficient_count
from mlq.kernels.gpu import threads
from mlq.kernels.gpu.finishing import Finisher, Place
from mlq.kernels.gpu.threads import WORD, Pixel, Threaded
from mlq.kernels.image import Image
from mlq.kernels.storage import REALS, Kind

_BUSY = 1 << 15  # threads that keep a GPU busy
_UNROLLED = 4  # words of a pixel that a step takes


def buffer_of(kind: Kind, image: Image) -> Buffer:
    """Images of u8 as words, those of floats as they are."""
    elements = image.batch * image.size
    return Buffer(kind, elements) if kind in REALS else Buffer("i32", elements // WORD)


@dataclass(frozen=True, kw_only=True)
class GpuConvolution(Convolution, Threaded):
    """What convolutions on GPUs share, whatever multiplies."""

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """Image, weights, coefficients, perhaps a residual; the result."""
        residual = []
        if self.residual is not None and self.finish.residual is not None:
            residual = [buffer_of(self.finish.residual, self.residual)]
        return (
            buffer_of("u8", self.source_bytes),
            Buffer("i32", self.weight_words),
            Buffer("i32", coefficient_count(self.padded)),
            *residual,
            buffer_of(self.finish.result, self.output),
        )

    @property
    def source_bytes(self) -> Image:
        """The input as an image of bytes: its pixels are multiplied by so many at once."""
        return replace(self.input, channels=self.input.channels * self.dtype.itemsize)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of weights, as wide as what they are multiplied by."""
        return np.dtype(np.float16 if self.kind == "f16" else np.int8)

    @property
    def weight_words(self) -> int:
        """Words of the packed weights."""
        return self.steps * self.padded

    @property
    def steps(self) -> int:
        """Words that each accumulator takes."""
        return self.window[0] * self.runs * self.run

    @property
    def padded(self) -> int:
        """Channels that are computed."""
        return -(-self.channels // WORD) * WORD

    @property
    def runs(self) -> int:
        """Runs of words side by side in a row of the window."""
        return 1 if self.is_joined else self.window[1]

    @property
    def run(self) -> int:
        """Words of a run, with what fills it up."""
        return self.source_bytes.channels * self.window[1] // self.runs // WORD

    @property
    def pixels(self) -> int:
        """Pixels of all images."""
        return self.output.batch * self.output.pixels

    @property
    def is_by_rows(self) -> bool:
        """As a matrix product is."""
        return self.window == (1, 1) and self.strides == (1, 1)

    def ordered(self, values: NDArray[Any]) -> NDArray[Any]:
        """A number for each channel [O], with those that fill words up."""
        filled = np.zeros(self.padded, values.dtype)
        filled[: len(values)] = values
        return filled

    def arranged(self, weight: NDArray[Any]) -> NDArray[Any]:
        """Weights [KH, KW, I, O] as bytes [runs, bytes of a run, channels], filled with zeros."""
        height, width, depth, channels = weight.shape
        taps = np.zeros((height, width, self.input.channels, self.padded), self.dtype)
        taps[:, :, :depth, :channels] = weight
        each = taps[..., None].view(np.int8).swapaxes(-1, -2)
        runs = each.reshape(height * self.runs, -1, self.padded)
        filled = np.zeros((len(runs), self.run * WORD, self.padded), np.int8)
        filled[:, : runs.shape[1]] = runs
        return filled

    def started(self, memory: Sequence[Value], group: Sequence[Index]) -> tuple[Index, Finisher]:
        """A thread's number, and what finishes its sums."""
        finisher = Finisher(self.isa, self.finish, memory[2], self.padded)
        return self.begin(group, memory[-1], self.output, finisher.margin), finisher

    def pixel(self, number: Index) -> Pixel:
        """Batch, row and column of an output pixel, or of the last one where there are fewer."""
        return threads.pixel_of(self.output, code.at_most(number, self.pixels - 1))

    def source(self, pixel: Pixel) -> Index:
        """The word at which the window of an output pixel begins."""
        batch, y, x = pixel
        row = code.plus(code.times(y, self.strides[0]), -self.pads[0])
        column = code.plus(code.times(x, self.strides[1]), -self.pads[1])
        return threads.in_words(self.source_bytes).at(batch, row, column)

    def run_offset(self, number: Index) -> Index:
        """How many words after the start of a window one of its runs begins."""
        image = threads.in_words(self.source_bytes)
        row, column = code.split(number, self.runs)
        down = code.times(row, self.dilations[0] * image.pitch)
        return code.plus(down, code.times(column, self.dilations[1] * image.channels))

    def places(self, memory: Sequence[Value], pixel: Pixel) -> tuple[Place, Place | None]:
        """Where a pixel of the result is, and of a residual."""
        residual = None
        if self.residual is not None:
            residual = Place(memory[3], self.residual, pixel)
        return Place(memory[-1], self.output, pixel), residual


@dataclass(frozen=True)
class Tile:
    """What a thread reads: from where on, for each of its pixels; which word of channels."""

    memory: Sequence[Value]
    sources: Sequence[Index]
    word: Index

    def words(self, offset: Index, count: int, width: int) -> list[list[Value]]:
        """Words side by side of each pixel, `width` at an access."""
        places = (code.plus(source, offset) for source in self.sources)
        return [threads.load(self.memory[0], place, count, width) for place in places]


@dataclass(frozen=True, kw_only=True)
class DotConv(GpuConvolution):
    """A convolution of a few pixels by four channels in each thread."""

    @property
    def tile(self) -> int:
        """Pixels of a thread: as many as leave enough threads."""
        words = self.padded // WORD
        return next(n for n in (4, 2, 1) if n == 1 or self.pixels * words >= n * _BUSY)

    @property
    def items(self) -> int:
        """Tiles of pixels by words of channels."""
        return -(-self.pixels // self.tile) * self.padded // WORD

    @property
    def reads(self) -> int:
        """A word of each pixel, and of weights for each channel."""
        return self.steps * (self.tile + 1)

    def pack(self, weight: NDArray[Any]) -> NDArray[Any]:
        """Weights [KH, KW, I, O]: for each word of the window, that of each channel."""
        runs = self.arranged(weight)
        words = runs.reshape(len(runs) * self.run, WORD, self.padded)
        return np.ascontiguousarray(words.transpose(0, 2, 1)).reshape(-1)

    def emit(self, memory: Sequence[Value], group: Sequence[Index]) -> None:
        """The code of one thread."""
        thread, finisher = self.started(memory, group)
        tile = partial(self.flattened().emit_tile, memory, finisher, thread)
        threads.below(thread, self.items, tile)

    def emit_tile(self, memory: Sequence[Value], finisher: Finisher, thread: Index) -> None:
        """The code of one tile."""
        first, word = code.split(thread, self.padded // WORD)
        channel, first = code.times(word, WORD), code.times(first, self.tile)
        pixels = [self.pixel(code.plus(first, i)) for i in range(self.tile)]
        sources = [self.source(pixel) for pixel in pixels]
        run = partial(self._run, Tile(memory, sources, word))
        sums = finisher.biases(channel) * self.tile
        sums = code.loop(0, self.window[0] * self.runs, 1, run, sums)
        scales = finisher.scales(channel)
        for i, pixel in enumerate(pixels):
            part = sums[i * WORD : (i + 1) * WORD]
            finisher.store(part, scales, word, *self.places(memory, pixel))

    def _run(self, tile: Tile, number: Index, *sums: Value) -> list[Value]:
        """Dot products over the words of a run."""
        wide = threads.widest(self.input.channels // WORD, _UNROLLED)
        start, offset = code.times(number, self.run), self.run_offset(number)

        def step(k: Index, *sums: Value) -> list[Value]:
            rows = tile.words(code.plus(offset, k), wide, min(wide, self.isa.words))
            done = list(sums)
            for i in range(wide):
                place = code.times(code.plus(start, code.plus(k, i)), self.padded)
                weights = self._weights(tile, place)
                done = self._dots(done, [row[i] for row in rows], weights)
            return done

        return code.loop(0, self.run, wide, step, sums)

    def _weights(self, tile: Tile, at: Index) -> list[Value]:
        """A word for each of the tile's channels, of those that begin at a place."""
        place, wide = code.plus(at, code.times(tile.word, WORD)), self.isa.words
        return threads.load(tile.memory[1], place, WORD, threads.widest(WORD, wide))

    def _dots(
        self, sums: Sequence[Value], words: Sequence[Value], weights: Sequence[Value]
    ) -> list[Value]:
        """Each pixel's word by each channel's."""
        pairs = ((word, weight) for word in words for weight in weights)
        dot = self.isa.arithmetic.dot
        return [dot(total, *pair) for total, pair in zip(sums, pairs, strict=True)]
