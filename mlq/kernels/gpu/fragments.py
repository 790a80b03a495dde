"""What a lane does of products of small matrices: its part of the fragments of a tile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from torch_mlir.dialects import arith, llvm
from torch_mlir.ir import Type, Value

from mlq.kernels import code
from mlq.kernels.code import Index
from mlq.kernels.gpu import threads
from mlq.kernels.gpu.finishing import Finisher
from mlq.kernels.gpu.threads import WORD, Pixel

if TYPE_CHECKING:
    from mlq.kernels.gpu.tensor_cores import TensorConv

HEIGHT, WIDTH, LANES = 16, 8, 4  # pixels and channels of a product; lanes that share a pixel
_MMA = {
    "u8": "llvm.nvvm.mma.m16n8k32.row.col.u8.s8",
    "f16": "llvm.nvvm.mma.m16n8k16.row.col.f32.f32",
}


class Lane:
    """The code of one lane: its part of the fragments of a tile."""

    def __init__(
        self, kernel: TensorConv, memory: Sequence[Value], finisher: Finisher, thread: Index
    ) -> None:
        self.kernel, self.memory, self.finisher = kernel, memory, finisher
        self.plan, self.words, self.of = kernel.plan, kernel.bytes // WORD, kernel.finish.sums
        warp, self.lane = code.split(thread, kernel.isa.warp)
        self.row, self.quarter = code.split(self.lane, LANES)
        self.first, self.tile = self._place(warp)
        neighbours = code.times(self.quarter, 2 * self.plan.columns)
        self.channel = code.plus(code.times(self.tile, WIDTH), neighbours)

    def _place(self, warp: Index) -> tuple[Index, Index]:
        """The first pixel of a warp's tile, and the first of its tiles of 8 channels."""
        number, self.part = code.split(warp, self.plan.parts)
        number = code.at_most(number, self.kernel.tiles - 1)
        tile, first = code.split(number, self.kernel.pixel_tiles)
        return code.times(first, self.plan.pixels), code.times(tile, self.plan.columns)

    @cached_property
    def pixels(self) -> list[Pixel]:
        """Those that the lane has sums of."""
        numbers = (code.plus(self.first, i * HEIGHT // 2) for i in range(2 * self.plan.rows))
        return [self.kernel.pixel(code.plus(number, self.row)) for number in numbers]

    def emit(self) -> None:
        """Sums of products over the window, from the biases on; then what becomes of them."""
        biases = self.finisher.biases(self.channel, 2 * self.plan.columns)
        pairs = [biases[i : i + 2] for i in range(0, len(biases), 2)]
        first = [bias for pair in pairs for bias in (*pair, *pair)] * self.plan.rows
        if self.plan.parts == 1:
            self._finish(self._steps(first))
            return
        zero = code.constant(0, self.of)
        self._join(self._steps([zero] * len(first)), first)

    def _join(self, sums: Sequence[Value], biases: Sequence[Value]) -> None:
        """Add up what the warps that share a tile have, and finish it in the first of them."""
        warp = code.split(threads.identity(), self.kernel.isa.warp)[0]
        others, apart = self.plan.parts - 1, self.kernel.isa.warp
        first = code.times(code.split(warp, self.plan.parts)[0], others * len(sums) * apart)
        shared = threads.shared(self.kernel.shared_words)

        def places(part: Index) -> list[Index]:
            before = code.times(code.plus(part, -1), len(sums) * apart)
            start = code.plus(code.plus(first, before), self.lane)
            return [code.plus(start, i * apart) for i in range(len(sums))]

        def leave() -> None:
            for value, place in zip(sums, places(self.part), strict=True):
                word = value if self.of == "i32" else arith.bitcast(code.element("i32"), value)
                threads.store([word], shared, place, 1)

        def finish() -> None:
            add = arith.addi if self.of == "i32" else arith.addf
            total = [add(*pair) for pair in zip(sums, biases, strict=True)]
            for part in range(1, self.plan.parts):
                words = (threads.load(shared, place, 1, 1)[0] for place in places(part))
                found = [code.bits(word, self.of) for word in words]
                total = [add(*pair) for pair in zip(total, found, strict=True)]
            self._finish(total)

        threads.unless(self.part, 0, leave)
        threads.wait()
        code.when(self.part, 0, finish)

    def _finish(self, sums: Sequence[Value]) -> None:
        scales = self.finisher.scales(self.channel, 2 * self.plan.columns)
        word = code.split(self.channel, WORD)[0]
        for i, pixel in enumerate(self.pixels):
            part = [
                sums[4 * (i // 2 * self.plan.columns + column) + 2 * (i % 2) + place]
                for column in range(self.plan.columns)
                for place in range(2)
            ]
            self.finisher.store(part, scales, word, *self.kernel.places(self.memory, pixel))

    def _steps(self, sums: Sequence[Value]) -> list[Value]:
        """Products over the steps that are this warp's: one of every `parts`."""
        parts, steps, kernel = self.plan.parts, self.kernel.takes, self.kernel
        offset = code.times(self.quarter, self.words)
        sources = [code.plus(kernel.source(pixel), offset) for pixel in self.pixels]
        unrolled = self.plan.unrolled(self.words, steps)

        def several(step: Index, *sums: Value) -> list[Value]:
            done = list(sums)
            for i in range(unrolled):
                done = self._step(code.plus(step, i * parts), sources, done)
            return done

        return code.loop(self.part, steps, parts * unrolled, several, sums)

    def _step(self, number: Index, sources: Sequence[Index], sums: Sequence[Value]) -> list[Value]:
        """Products over the bytes that the lanes take at once."""
        kernel, offset = self.kernel, self._offset(number)
        rows = [self._pixel(code.plus(each, offset)) for each in sources]

        def weights(column: int) -> list[Value]:
            place = code.plus(code.times(code.plus(self.tile, column), kernel.takes), number)
            at = code.plus(code.times(place, kernel.isa.warp), self.lane)
            at = code.times(at, self.words)
            return threads.load(self.memory[1], at, self.words, self.words)

        return self._multiply(sums, rows, weights)

    def _multiply(
        self,
        sums: Sequence[Value],
        rows: Sequence[Sequence[Value]],
        weights: Callable[[int], Sequence[Value]],
    ) -> list[Value]:
        """Products of what the lane has of its pixels with the weights of each column."""
        done, columns = list(sums), self.plan.columns
        for column in range(columns):
            each = weights(column)
            for half in range(0, self.words, 2):
                part = slice(half, half + 2)
                for row in range(self.plan.rows):
                    first = 4 * (row * columns + column)
                    upper, lower = rows[2 * row][part], rows[2 * row + 1][part]
                    before = done[first : first + 4]
                    pixels = [upper[0], lower[0], upper[1], lower[1]]
                    done[first : first + 4] = self._product(before, pixels, each[part])
        return done

    def _offset(self, number: Index) -> Index:
        """How many words after the start of a window a step begins."""
        kernel, size = self.kernel, self.words * LANES
        run, step = code.split(number, kernel.run // size)
        return code.plus(kernel.run_offset(run), code.times(step, size))

    def _pixel(self, at: Index) -> list[Value]:
        """The bytes of a pixel; what lies beyond the image, where weights are zero, is its last."""
        memory, image = self.memory[0], self.kernel.source_bytes
        width = min(threads.widest(image.channels // WORD, self.kernel.isa.words), self.words)
        if not self.kernel.is_filled_up:
            return threads.load(memory, at, self.words, width)
        end = image.batch * image.size // WORD - width
        places = [code.at_most(code.plus(at, i), end) for i in range(0, self.words, width)]
        return [word for place in places for word in threads.load(memory, place, width, width)]

    def _product(
        self, sums: Sequence[Value], pixels: Sequence[Value], weights: Sequence[Value]
    ) -> list[Value]:
        """One product of fragments: pixels g and g + 8 of a lane, weights of its column."""
        words = [*pixels, *weights]
        if self.kernel.kind == "f16":
            words = [llvm.bitcast(code.vector_type(2, "f16"), word) for word in words]
        four = Type.parse(f"!llvm.struct<({', '.join([self.of] * len(sums))})>")
        made = code.call(_MMA[self.kernel.kind], four, *words, *sums)
        return [llvm.extractvalue(code.element(self.of), made, [i]) for i in range(len(sums))]
