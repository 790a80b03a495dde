"""Element by element: sums and products of two images, and functions looked up in tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch_mlir.dialects import arith
from torch_mlir.ir import IndexType, Value

from mlq.kernels import code, lanes, margins
from mlq.kernels.code import Index
from mlq.kernels.executable import MARGIN_VALUE, Buffer
from mlq.kernels.finishing import Finish, Finisher, coefficient_count
from mlq.kernels.grain import workgroups
from mlq.kernels.image import Image
from mlq.kernels.isa import Isa
from mlq.kernels.movement import each_block
from mlq.kernels.storage import Kind

_GRAIN = 1 << 14  # elements that make a workgroup worthwhile
_UNROLLED = 8  # elements that are looked up without a loop


@dataclass(frozen=True)
class Pairwise:
    """`lhs` plus or times `rhs`, of u8 or u16; `rhs` may be one pixel, and one for all images.

    Of the coefficients, the biases are the two zero points as they are stored. The scales are those
    of the terms of a sum, or, the first one, of a product.
    """

    isa: Isa
    operation: Literal["add", "mul"]
    lhs: Image
    rhs: Image
    output: Image
    finish: Finish
    kinds: tuple[Kind, Kind] = ("u8", "u8")

    @property
    def label(self) -> str:
        """As `add_64x56x56`, `wide_mul_64x56x56_by_1x1`."""
        gated = f"_by_{self.rhs.height}x{self.rhs.width}" * (self.rhs.pixels < self.lhs.pixels)
        image, wide = self.output, "wide_" * ("u16" in self.kinds)
        return f"{wide}{self.operation}_{image.channels}x{image.height}x{image.width}{gated}"

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """Images, coefficients; the result."""
        left, right = map(self.isa.element, self.kinds)
        return (
            Buffer(left, self.lhs.batch * self.lhs.size),
            Buffer(right, self.rhs.batch * self.rhs.size),
            Buffer("i32", coefficient_count(2)),
            Buffer(self.isa.element(self.finish.result), self.output.batch * self.output.size),
        )

    @property
    def grid(self) -> tuple[int, int, int]:
        """Groups of rows, one, images."""
        return _grid(self.output)

    def emit(self, memory: Sequence[Value], group: Sequence[Index]) -> None:
        """The code of one workgroup: a block of channels along a row, after the other."""
        finisher = Finisher(self.finish, self.isa.storage_of, memory[2], 2)
        margins.fill(self.output, memory[-1], finisher.zero_point(), group, self.grid)
        images = self.lhs, self.rhs, self.output
        in_one = self.lhs.pixels == self.rhs.pixels and _run_on(images)
        channels = min(image.channels for image in images)
        width, run = (1, channels * self.output.width) if in_one else (self.output.width, channels)

        def row(y: Index) -> None:
            at = [self._begin(image, group[2], y) for image in images]
            block = partial(self._block, memory, finisher, (at, width))
            each_block(run, self._width, block)

        code.loop(*code.share(self.output.height, group[0], self.grid[0]), 1, row)

    @property
    def _packs(self) -> bool:
        """Whether results are packed, in the order that they were in: elements are as wide then."""
        return {*map(self.isa.element, self.kinds)} == {self.isa.element(self.finish.result)}

    @property
    def _width(self) -> int:
        """Elements of a register; where none are packed, as many as it has lanes."""
        return self.isa.width(self.finish.result) if self._packs else self.isa.lanes

    def _begin(self, image: Image, batch: Index, y: Index) -> Index:
        """Where the row that meets row y begins."""
        return image.at(
            batch if image.batch == self.output.batch else 0, y if image.height > 1 else 0, 0
        )

    def _block(
        self,
        memory: Sequence[Value],
        finisher: Finisher,
        row: tuple[Sequence[Index], int],
        size: int,
        channel: Index,
    ) -> None:
        """Some channels of the pixels of a row; those of a gate are read once."""
        places, pixels = row
        left, right, target = (code.plus(at, channel) for at in places)
        gate = self._terms(memory[1], right, size, finisher, 1) if self.rhs.width == 1 else None

        def pixel(x: Index) -> None:
            place = code.plus(left, code.times(x, self.lhs.channels))
            terms = self._terms(memory[0], place, size, finisher, 0)
            others = gate
            if others is None:
                place = code.plus(right, code.times(x, self.rhs.channels))
                others = self._terms(memory[1], place, size, finisher, 1)
            results = [self._joined(finisher, *pair) for pair in zip(terms, others, strict=True)]
            if self._packs:
                made = finisher.packed(results)
            else:
                (made,) = (finisher.stored(r, code.element_of(memory[-1])) for r in results)
            place = code.plus(target, code.times(x, self.output.channels))
            code.store(made, memory[-1], place)

        code.loop(0, pixels, 1, pixel)

    def _terms(
        self, memory: Value, place: Index, size: int, finisher: Finisher, side: int
    ) -> list[Value]:
        """Elements less their zero point, as reals, in the order that packing undoes."""
        storage, stored = self.isa.storage_of(self.kinds[side]), code.load(memory, place, size)
        packs = self._packs
        whole = lanes.unpacked(storage, stored) if packs else [storage.extended(stored)]
        zero = code.splat(code.lane(finisher.biases(side, 1), 0), code.lanes_of(whole[0]))
        real = code.vector_type(code.lanes_of(whole[0]), "f32")
        terms = [arith.sitofp(real, arith.subi(each, zero)) for each in whole]
        if self.operation == "mul":
            return terms
        scale = _scale(finisher, side, terms[0])
        return [code.fenced(arith.mulf(term, scale)) for term in terms]

    def _joined(self, finisher: Finisher, one: Value, other: Value) -> Value:
        if self.operation == "add":
            return arith.addf(one, other)
        return arith.mulf(arith.mulf(one, other), _scale(finisher, 0, one))


@dataclass(frozen=True)
class Lookup:
    """Elements of an image looked up in a table of so many `entries`.

    Where bytes are looked up for bytes, that is what the table holds, as the CPU's `Tables` see
    it; otherwise what memory holds of results, by the elements of the image as they are stored.
    """

    isa: Isa
    input: Image
    output: Image
    kinds: tuple[Kind, Kind] = ("u8", "u8")
    entries: int = 256

    @property
    def label(self) -> str:
        """As `lookup_64x56x56`, `lookup_u16_f32_64x56x56`."""
        kinds = "" if self._of_bytes else f"_{self.kinds[0]}_{self.kinds[1]}"
        return f"lookup{kinds}_{self.output.channels}x{self.output.height}x{self.output.width}"

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """The image, the table, what stands for zero in the margin (an i32); the result."""
        element, result = map(self.isa.element, self.kinds)
        return (
            Buffer(element, self.input.batch * self.input.size),
            Buffer("i8" if self._of_bytes else result, self.entries),
            MARGIN_VALUE,
            Buffer(result, self.output.batch * self.output.size),
        )

    @property
    def _of_bytes(self) -> bool:
        return self.kinds == ("u8", "u8")

    @property
    def grid(self) -> tuple[int, int, int]:
        """Groups of rows, one, images."""
        return _grid(self.output)

    def emit(self, memory: Sequence[Value], group: Sequence[Index]) -> None:
        """The code of one workgroup."""
        margins.fill(self.output, memory[-1], code.scalar(memory[2], 0), group, self.grid)
        images = self.input, self.output
        channels, width = min(image.channels for image in images), self.output.width
        width, run = (1, channels * width) if _run_on(images) else (width, channels)

        def row(y: Index) -> None:
            def pixel(x: Index) -> None:
                places = [image.at(group[2], y, x) for image in images]
                if self._of_bytes:
                    each_block(run, self.isa.vector_bytes, partial(self._vector, memory, places))
                else:
                    each_block(run, _UNROLLED, partial(self._each, memory, places))

            code.loop(0, width, 1, pixel)

        code.loop(*code.share(self.output.height, group[0], self.grid[0]), 1, row)

    def _vector(
        self, memory: Sequence[Value], places: Sequence[Index], size: int, first: Index
    ) -> None:
        """Some bytes side by side; those that words hold are packed, and spread again."""
        source, target = (code.plus(place, first) for place in places)
        value = code.load(memory[0], source, size)
        storage, look_up = self.isa.storage, self.isa.tables.look_up
        if code.element_of(value) == "i8":
            made = look_up(memory[1], value)
        else:
            halves = [code.part(value, i, size // 2) for i in (0, size // 2)]
            words = storage.halves(look_up(memory[1], storage.to_bytes(*halves)))
            made = code.shuffle(words[0], words[1], range(size))
        code.store(made, memory[-1], target)

    def _each(
        self, memory: Sequence[Value], places: Sequence[Index], size: int, first: Index
    ) -> None:
        """Some elements, one after the other."""
        storage = self.isa.storage_of(self.kinds[0])
        for i in range(size):
            source, target = (code.plus(place, code.plus(first, i)) for place in places)
            shown = storage.shown(code.scalar(memory[0], source))
            if self.entries < 1 << shown.type.width:
                # Behind the last channel of a pixel there may be any number.
                shown = arith.andi(shown, code.constant(self.entries - 1, str(shown.type)))
            number = arith.index_castui(IndexType.get(), shown)
            code.store(code.load(memory[1], number, 1), memory[-1], target)


def _grid(output: Image) -> tuple[int, int, int]:
    return workgroups(output.size // _GRAIN, output.height), 1, output.batch


def _run_on(images: Sequence[Image]) -> bool:
    """Whether the pixels of a row follow each other, padding and all, alike in all images."""
    return len({image.channels for image in images}) == 1


def _scale(finisher: Finisher, number: int, like: Value) -> Value:
    return code.splat(code.lane(finisher.scales(number, 1), 0), code.lanes_of(like))
