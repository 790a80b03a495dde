"""Tiles of workgroups on tensor cores: what they multiply comes by shared memory, in stages.

A stage is what all warps take in one step over the window: bytes of each pixel, and of each
channel. Asynchronous copies fill one stage while warps multiply what is in another, so that no
register waits for memory, and a pixel is fetched once for all the channels of the tile. In both
parts of a stage a lane's bytes lie beside those of the next lane: no access of a warp meets
another in a bank.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch_mlir.ir import Attribute, Operation, Type, Value

from mlq.kernels import code
from mlq.kernels.code import Index
from mlq.kernels.gpu import threads
from mlq.kernels.gpu.fragments import HEIGHT, LANES, WIDTH, Lane

_WHOLE = 4  # words of a copy that need not pass the first cache


class StagedLane(Lane):
    """The code of one lane of a workgroup that makes a tile."""

    def _place(self, warp: Index) -> tuple[Index, Index]:
        kernel, plan = self.kernel, self.plan
        group, self.warp = code.split(warp, plan.warps)
        tile, first = code.split(code.at_most(group, kernel.tiles - 1), kernel.pixel_tiles)
        self.pixel = code.times(first, plan.pixels)
        self.column = code.times(tile, plan.channels // WIDTH)
        self.down, self.beside = code.split(self.warp, plan.across)
        column = code.plus(self.column, code.times(self.beside, plan.columns))
        return code.plus(self.pixel, code.times(self.down, plan.rows * HEIGHT)), column

    def _steps(self, sums: Sequence[Value]) -> list[Value]:
        """Products over all steps; copies are some stages ahead of them."""
        steps, ahead = self.kernel.takes, self.plan.stages - 1
        self.shared = threads.shared(self.kernel.shared_words)
        self.pieces, self.weights = self._pieces(), self._weights()
        for number in range(ahead):
            if number < steps:
                self._fetch(number)
            _commit()

        def step(number: Index, *sums: Value) -> list[Value]:
            _wait(ahead - 1)
            threads.wait()
            later = code.plus(number, ahead)
            threads.below(later, steps, partial(self._fetch, later))
            _commit()
            return self._products(number, sums)

        return code.loop(0, steps, 1, step, sums)

    def _pieces(self) -> list[Index]:
        """Where the thread's share of the pixels lies, a lane's bytes of each."""
        row, quarter = code.split(threads.identity(), LANES)
        apart, offset = self.kernel.group // LANES, code.times(quarter, self.words)
        first = code.plus(self.pixel, row)
        pixels = (self.kernel.pixel(code.plus(first, i)) for i in range(0, self.plan.pixels, apart))
        return [code.plus(self.kernel.source(pixel), offset) for pixel in pixels]

    def _weights(self) -> list[Index]:
        """Where the thread's share of the weights lies: that of a lane, in some of the columns."""
        size, lane = self.kernel.isa.warp * self.words, code.times(self.lane, self.words)
        first = code.plus(self.column, self.warp)
        count, apart = self.plan.channels // WIDTH, self.plan.warps
        columns = (code.plus(first, i) for i in range(0, count, apart))
        return [code.plus(code.times(each, self.kernel.takes * size), lane) for each in columns]

    def _fetch(self, number: Index) -> None:
        """Have the thread's share of a step copied to its stage."""
        kernel, words = self.kernel, self.words
        offset, size = self._offset(number), kernel.isa.warp * words
        pieces = [code.plus(each, offset) for each in self.pieces]
        if kernel.is_filled_up:
            image = kernel.source_bytes
            last = image.batch * image.size // threads.WORD - words
            pieces = [code.at_most(each, last) for each in pieces]
        first = code.plus(self._stage(number), code.times(threads.identity(), words))
        for i, piece in enumerate(pieces):
            place = code.plus(first, i * self.kernel.group * words)
            _copy(self.memory[0], piece, self.shared, place, words)
        first = code.plus(first, len(pieces) * self.kernel.group * words)
        for i, each in enumerate(self.weights):
            place = code.plus(first, i * self.kernel.group * words)
            source = code.plus(each, code.times(number, size))
            _copy(self.memory[1], source, self.shared, place, words)

    def _stage(self, number: Index) -> Index:
        """Where in shared memory the stage of a step begins."""
        stages = self.plan.stages
        return code.times(code.split(number, stages)[1], self.kernel.shared_words // stages)

    def _products(self, number: Index, sums: Sequence[Value]) -> list[Value]:
        """Products of what is in a stage."""
        plan, words, stage = self.plan, self.words, self._stage(number)
        lane = code.plus(stage, code.times(self.lane, words))
        first = code.plus(lane, code.times(self.down, plan.rows * HEIGHT * LANES * words))
        apart = HEIGHT // 2 * LANES * words
        rows = [self._load(code.plus(first, i * apart)) for i in range(2 * plan.rows)]
        size = self.kernel.isa.warp * words
        begin = code.plus(code.times(self.beside, plan.columns * size), plan.pixels * LANES * words)
        begin = code.plus(lane, begin)
        return self._multiply(sums, rows, lambda i: self._load(code.plus(begin, i * size)))

    def _load(self, at: Index) -> list[Value]:
        return threads.load(self.shared, at, self.words, self.words)


def _copy(source: Value, at: Index, target: Value, place: Index, words: int) -> None:
    """Have words side by side copied to where they are after `_wait`."""
    past = ["bypassL1"] if words == _WHOLE else []
    Operation.create(
        "nvgpu.device_async_copy",
        results=[Type.parse("!nvgpu.device.async.token")],
        operands=[target, code.index(place), source, code.index(at)],
        attributes={
            "dstElements": Attribute.parse(f"{words} : index"),
            "operandSegmentSizes": Attribute.parse("array<i32: 1, 1, 1, 1, 0>"),
            **dict.fromkeys(past, Attribute.parse("unit")),
        },
    )


def _commit() -> None:
    """Make a group of a thread's copies since the last group."""
    Operation.create("nvvm.cp.async.commit.group")


def _wait(groups: int) -> None:
    """Until all of a thread's copies are there but those of its last groups."""
    count = {"n": Attribute.parse(f"{groups} : i32")}
    Operation.create("nvvm.cp.async.wait.group", attributes=count)
