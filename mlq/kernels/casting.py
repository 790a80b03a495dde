"""From floats to integers: the network's input in NCHW, and images in NHWC."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from torch_mlir.dialects import arith
from torch_mlir.ir import Value

from mlq.kernels import code, lanes, margins
from mlq.kernels.code import Index
from mlq.kernels.executable import Buffer
from mlq.kernels.finishing import Finish, Finisher, coefficient_count
from mlq.kernels.grain import workgroups
from mlq.kernels.image import Image
from mlq.kernels.isa import WORD_BYTES, Isa
from mlq.kernels.movement import each_part


@dataclass(frozen=True)
class _Planes:
    """The planes of an image, by what they are divided, and what becomes of that."""

    memory: Value
    scale: Value
    finisher: Finisher

    def real(self, place: Index) -> Value:
        """Some elements in units of the scale."""
        real = code.load(self.memory, place, code.lanes_of(self.scale))
        return arith.divf(real, self.scale)


@dataclass(frozen=True)
class QuantizeImage:
    """Few channels of floats, one plane after the other, to integers, a pixel after the other.

    numerics.quantize: true division by the scale, which is the coefficients' only scale.
    """

    isa: Isa
    channels: int
    output: Image
    finish: Finish

    @property
    def label(self) -> str:
        """As `quantize_3x224x224`."""
        return f"quantize_{self.channels}x{self.output.height}x{self.output.width}"

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """Planes, coefficients; the result."""
        return (
            Buffer("f32", self.output.batch * self.channels * self.output.pixels),
            Buffer("i32", coefficient_count(1)),
            Buffer(self.isa.element(self.finish.result), self.output.batch * self.output.size),
        )

    @property
    def grid(self) -> tuple[int, int, int]:
        """Groups of rows, one, images."""
        return workgroups(self.output.pixels >> 11), 1, self.output.batch

    def emit(self, memory: Sequence[Value], group: Sequence[Index]) -> None:
        """The code of one workgroup."""
        finisher = Finisher(self.finish, self.isa.storage_of, memory[1], 1)
        margins.fill(self.output, memory[-1], finisher.zero_point(), group, self.grid)
        low, high = code.share(self.output.height, group[0], self.grid[0])
        width, emitted = self.isa.lanes, self._pixels
        while width > self.output.width:
            width //= 2
        scale = code.splat(code.lane(finisher.scales(0, 1), 0), width)
        if self._in_order and width * WORD_BYTES <= self.output.width:
            width, emitted = width * WORD_BYTES, self._words
        whole = self.output.width // width * width
        planes = _Planes(memory[0], scale, finisher)

        def row(y: Index) -> None:
            def pixels(x: Index) -> None:
                emitted(planes, memory[-1], (group[2], y, x))

            code.loop(0, whole, width, pixels)
            if whole < self.output.width:
                pixels(self.output.width - width)

        code.loop(low, high, 1, row)

    @property
    def _in_order(self) -> bool:
        """Whether pixels are words of bytes, and packing leaves elements in their order."""
        order = lanes.interleaved(self.isa.lanes, WORD_BYTES)
        words = self._depth == self.output.channels == WORD_BYTES
        return words and order == sorted(order)

    @property
    def _depth(self) -> int:
        """Elements of a word."""
        return self.isa.unit(self.finish.result).depth

    def _words(self, planes: _Planes, result: Value, at: tuple[Index, Index, Index]) -> None:
        """Pixels side by side: four vectors of each plane packed, then the planes in turn."""
        size, first = code.lanes_of(planes.scale), self._first(at)
        channels = [code.splat(code.constant(0, "i8"), WORD_BYTES * size)] * WORD_BYTES
        for channel in range(self.channels):
            place = code.plus(first, channel * self.output.pixels)
            reals = [planes.real(code.plus(place, i * size)) for i in range(WORD_BYTES)]
            channels[channel] = planes.finisher.packed(reals)
        target = self.output.at(*at)
        for i, vector in enumerate(lanes.in_turn(channels)):
            code.store(vector, result, code.plus(target, i * WORD_BYTES * size))

    def _first(self, at: tuple[Index, Index, Index]) -> Index:
        """Where a pixel is in its image's first plane."""
        batch, y, x = at
        first = code.plus(code.times(batch, self.channels * self.output.pixels), x)
        return code.plus(first, code.times(y, self.output.width))

    def _pixels(self, planes: _Planes, result: Value, at: tuple[Index, Index, Index]) -> None:
        """Pixels side by side: a vector of each plane, then the planes' bytes in turn."""
        width, plane, first = code.lanes_of(planes.scale), self.output.pixels, self._first(at)
        per_word = self._depth
        places = [code.plus(first, channel * plane) for channel in range(self.channels)]
        words = [
            self._word(planes, places[start : start + per_word])
            for start in range(0, self.output.channels, per_word)
        ]
        side_by_side = words[0]
        if len(words) > 1:
            order = [i + width * part for i in range(width) for part in range(len(words))]
            side_by_side = code.shuffle(words[0], words[1], order)
        stored = code.view(side_by_side, self.isa.element(self.finish.result))
        size, count = code.lanes_of(stored) // width, self.output.channels
        if count < size:
            order = [size * pixel + i for pixel in range(width) for i in range(count)]
            stored = code.shuffle(stored, stored, order)
        code.store(stored, result, self.output.at(*at))

    def _word(self, planes: _Planes, places: list[Index]) -> Value:
        """A word of each pixel: the channels that are at these places, then zeros."""
        width, bits = code.lanes_of(planes.scale), 8 * WORD_BYTES // self._depth
        name = self.isa.storage_of(self.finish.result).plain
        word = code.splat(code.constant(0, "i32"), width)
        for number, place in enumerate(places):
            stored = planes.finisher.stored(planes.real(place), name)
            element = arith.extui(code.vector_type(width, "i32"), stored)
            shift = code.splat(code.constant(bits * number, "i32"), width)
            word = arith.ori(word, arith.shli(element, shift))
        return word


@dataclass(frozen=True)
class Quantize:
    """An image of floats as integers (numerics.quantize); coefficients have but one scale."""

    isa: Isa
    input: Image
    output: Image
    channels: int
    finish: Finish

    @property
    def label(self) -> str:
        """As `quantize_image_64x56x56`."""
        return f"quantize_image_{self.channels}x{self.output.height}x{self.output.width}"

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """The image, coefficients; the result."""
        return (
            Buffer("f32", self.input.batch * self.input.size),
            Buffer("i32", coefficient_count(1)),
            Buffer(self.isa.element(self.finish.result), self.output.batch * self.output.size),
        )

    @property
    def grid(self) -> tuple[int, int, int]:
        """Groups of rows, one, images."""
        return workgroups(self.output.size >> 14), 1, self.output.batch

    def emit(self, memory: Sequence[Value], group: Sequence[Index]) -> None:
        """The code of one workgroup: vectors along rows, or along pixels where padding follows."""
        finisher = Finisher(self.finish, self.isa.storage_of, memory[1], 1)
        margins.fill(self.output, memory[-1], finisher.zero_point(), group, self.grid)
        scale, name = code.lane(finisher.scales(0, 1), 0), code.element_of(memory[-1])
        width, run = self.output.width, self.channels
        if self.output.channels == run:
            width, run = 1, width * run

        def pixel(y: Index, x: Index) -> None:
            source, target = self.input.at(group[2], y, x), self.output.at(group[2], y, x)

            def part(at: Index, lanes: int) -> None:
                real = code.load(memory[0], code.plus(source, at), lanes)
                value = finisher.stored(arith.divf(real, code.splat(scale, lanes)), name)
                code.store(value, memory[-1], code.plus(target, at))

            each_part(run, self.isa.lanes, part)

        def row(y: Index) -> None:
            code.loop(0, width, 1, partial(pixel, y))

        code.loop(*code.share(self.output.height, group[0], self.grid[0]), 1, row)
