"""Convolutions and matrix products by tensor cores: mma m16n8k32, u8 by i8 into i32.

And m16n8k16, f16 by f16 into f32: fragments of as many bytes, which lie in lanes the same way.

A warp makes a tile of `rows` x 16 pixels by `columns` x 8 channels. In what order the elements of a
window are taken is free as long as pixels and weights agree: a lane takes 8 or 16 bytes of a pixel
that lie side by side, so that one access fetches them. So is the order of channels in a tile: a
lane ends up with neighbours. Weights lie in memory in the order in which lanes take them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch_mlir.ir import Value
from typing_extensions import Self

from mlq.kernels.code import Index
from mlq.kernels.gpu.convolution import DotConv, GpuConvolution
from mlq.kernels.gpu.fragments import LANES, WIDTH, Lane
from mlq.kernels.gpu.isa import Gpu
from mlq.kernels.gpu.planning import Plan, Room, Task, best_plan, cycles_of
from mlq.kernels.gpu.staging import StagedLane
from mlq.kernels.gpu.threads import THREADS, WORD


@dataclass(frozen=True, kw_only=True)
class TensorConv(GpuConvolution):
    """A convolution on tensor cores; `columns` of a tile, where weights were packed for so many."""

    columns: int = 0

    @property
    def plan(self) -> Plan:
        """The tile of a warp: what is estimated to take least time."""
        return best_plan(self.task, self.room, self.columns)

    @property
    def task(self) -> Task:
        """What there is to do."""
        aligned = self.source_bytes.channels % self.bytes == 0
        return Task(self.pixels, self.channels, self.bytes // WORD, self.takes, aligned)

    @property
    def cycles(self) -> float:
        """What the kernel is estimated to take, without its launch."""
        return cycles_of(self.task, self.room, self.plan)

    def share(self, batch: int, parts: int, room: Room) -> Self | None:
        """Its weights stay packed as they are."""
        found = super().share(batch, parts, room)
        return None if found is None else replace(found, columns=self.plan.columns)

    @property
    def shared_words(self) -> int:
        """The stages of a workgroup, or what all but one of the warps that share a tile summed."""
        plan = self.plan
        if plan.stages:
            return plan.stages * self.bytes * LANES // WORD * (plan.pixels + plan.channels)
        return THREADS * (plan.parts - 1) // plan.parts * 4 * plan.rows * plan.columns

    @property
    def takes(self) -> int:
        """Steps over the window, in each of which lanes take `bytes`."""
        return self.window[0] * self.runs * self.run * WORD // (LANES * self.bytes)

    @property
    def padded(self) -> int:
        """Channels that are computed: whole tiles."""
        width = self.plan.columns * WIDTH
        return -(-self.channels // width) * width

    @property
    def bytes(self) -> int:
        """Of a pixel that a lane takes at once: 16 if that fills no more up, else 8."""
        sixteen = self.source_bytes.channels % 16 == 0 and -(-super().run // 8) % 2 == 0
        return 16 if sixteen else 8

    @property
    def run(self) -> int:
        """Words of a run, filled up to whole products."""
        each = self.bytes * LANES // WORD
        return -(-super().run // each) * each

    @property
    def is_filled_up(self) -> bool:
        """Whether the last step of a run goes beyond it."""
        return self.run != super().run

    @property
    def warps(self) -> int:
        """Tiles of pixels by tiles of channels, by warps that share one."""
        return self.tiles * (self.plan.warps if self.plan.stages else self.plan.parts)

    @property
    def group(self) -> int:
        """Threads of a workgroup."""
        return self.isa.warp * self.plan.warps

    @property
    def tiles(self) -> int:
        """Tiles of pixels by tiles of channels."""
        return self.pixel_tiles * self.padded // self.plan.channels

    @property
    def items(self) -> int:
        """Lanes of the warps."""
        return self.warps * self.isa.warp

    def pack(self, weight: NDArray[Any]) -> NDArray[Any]:
        """Weights [KH, KW, I, O] in the order of tiles of 8 channels, steps, lanes."""
        runs = self.arranged(weight)
        lanes = runs[..., self._order].reshape(-1, LANES, self.bytes, self.padded)
        tiles = lanes.reshape(*lanes.shape[:3], self.padded // WIDTH, WIDTH)
        return np.ascontiguousarray(tiles.transpose(3, 0, 4, 1, 2)).reshape(-1)

    def emit(self, memory: Sequence[Value], group: Sequence[Index]) -> None:
        """The code of one lane."""
        thread, finisher = self.started(memory, group)
        lane = StagedLane if self.plan.stages else Lane
        lane(self.flattened(), memory, finisher, thread).emit()

    @property
    def pixel_tiles(self) -> int:
        """Tiles along pixels."""
        return -(-self.pixels // self.plan.pixels)

    @property
    def _order(self) -> list[int]:
        """Which channel each column of the tiles is."""
        columns = self.plan.columns
        return [
            first + 2 * columns * (n // 2) + 2 * tile + n % 2
            for first in range(0, self.padded, columns * WIDTH)
            for tile in range(columns)
            for n in range(WIDTH)
        ]


def conv(*, isa: Gpu, **fields: Any) -> DotConv | TensorConv:
    """A convolution, on tensor cores where there are any."""
    return (TensorConv if isa.fragments else DotConv)(isa=isa, **fields)
