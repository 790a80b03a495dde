"""Which tile a warp takes on tensor cores, and how many warps share it: one estimate of time.

Its constants are of an A100, from NVIDIA's documents: 108 multiprocessors, each with half a product
(m16n8k32) a cycle and 128 bytes a cycle from its first cache. But for what a load takes, which is
what the steps of the smallest kernels took on an H100.
"""

from __future__ import annotations

from functools import cache, partial
from itertools import product
from typing import NamedTuple

_PRODUCT, _PIXELS, _WEIGHTS = (
    2.0,
    8.0,
    2.0,
)  # cycles of a product, of what 16 pixels, 8 channels load
_LATENCY, _FINISH, _JOIN = 800.0, 20.0, 12.0  # of a load, to finish and to add up a product's sums
_LANES = 4  # lanes that share a pixel
_MOST = 16  # products of a tile, four accumulators each
_REGISTERS = 64  # that loads on their way may take
GROUP = 4  # warps of a workgroup
_STAGES = 4  # of which all but one are on their way
_SHARED, _COPIED = 48 << 10, 48.0  # bytes for the stages of a workgroup; bytes copied in a cycle
_WARP, _READ = 32, 4.0  # threads; cycles of a word for each of them, from the first cache


class Plan(NamedTuple):
    """A tile of `rows` x 16 pixels by `columns` x 8 channels, its steps shared by `parts` warps.

    With `stages` in shared memory a workgroup makes a tile together, `across` of its warps side by
    side along channels.
    """

    rows: int
    columns: int
    parts: int = 1
    across: int = 1
    stages: int = 0

    @property
    def pixels(self) -> int:
        """Of what is made together."""
        return 16 * self.rows * (GROUP // self.across if self.stages else 1)

    @property
    def channels(self) -> int:
        """Of what is made together."""
        return 8 * self.columns * self.across

    def fits(self, task: Task) -> bool:
        """Whether all threads have a share of each copy, and channels are whole tiles."""
        channels = -(-task.channels // (8 * self.columns)) * 8 * self.columns
        stage = 16 * task.words * (self.pixels + self.channels)
        return not self.stages or (
            channels % self.channels == self.pixels % 32 == self.channels % 32 == 0
            and self.stages * stage <= _SHARED
        )

    def unrolled(self, words: int, steps: int) -> int:
        """Steps whose loads, of `words` for each lane, are on their way at once."""
        registers = (2 * self.rows + self.columns) * words
        whole = (n for n in (4, 3, 2) if steps % (n * self.parts) == 0)
        return next((n for n in whole if n * registers <= _REGISTERS), 1)


class Task(NamedTuple):
    """An output of so many pixels by channels, over `steps` of `words` for each lane."""

    pixels: int
    channels: int
    words: int
    steps: int


class Room(NamedTuple):
    """Multiprocessors, and how many warps of a kernel each holds."""

    processors: float
    warps: int


WHOLE = Room(108, 12)
"""A card that one kernel has for itself."""


def cycles_of_reads(items: int, reads: int, room: Room) -> float:
    """Of a kernel each of whose threads takes one of some items, and reads so often for it."""
    warps = -(-items // _WARP)
    rounds = -(-warps // int(room.processors * room.warps))
    return max(warps / room.processors * reads * _READ, rounds * 2 * _LATENCY)


def cycles_of(task: Task, room: Room, plan: Plan) -> float:
    """Of a convolution by tensor cores."""
    pixels, channels, words, steps = task
    rows, columns, parts = plan[:3]
    warps = -(-pixels // (16 * rows)) * -(-channels // (8 * columns))
    products = words // 2 * rows * columns * _PRODUCT
    loads = words // 2 * (rows * _PIXELS + columns * _WEIGHTS)
    finish = rows * columns * (_FINISH + (parts - 1) * _JOIN)
    if plan.stages:
        return _cycles_of_stages(task, room, plan, GROUP * max(products, loads), GROUP * finish)
    work = warps / room.processors * (steps * max(products, loads) + finish)
    rounds = -(-warps * parts // int(room.processors * room.warps))
    waits = -(-steps // (parts * plan.unrolled(words, steps))) * _LATENCY
    return max(work, rounds * (waits + finish))


def _cycles_of_stages(
    task: Task, room: Room, plan: Plan, products: float, finish: float
) -> float:
    """Of workgroups that copy and multiply at once; on each processor a whole number of them."""
    tiles = -(-task.pixels // plan.pixels) * -(-task.channels // plan.channels)
    step = max(products, (plan.pixels + plan.channels) * 4 * task.words / _COPIED * _LANES)
    turns = -(-tiles // int(room.processors))
    rounds = -(-turns // (room.warps // GROUP))
    alone = _LATENCY + task.steps * max(step, _LATENCY / (plan.stages - 1)) + finish
    return max(turns * (task.steps * step + finish), rounds * alone)


@cache
def best_plan(task: Task, room: Room = WHOLE, columns: int = 0) -> Plan:
    """For a convolution; `columns` of a tile if it must have so many."""
    widths = (columns,) if columns else (2, 4, 8)
    tiles = [Plan(*each) for each in product((1, 2, 4), widths, (1, 2, 4))]
    if task.words == 4 and room == WHOLE:
        tiles += [
            Plan(rows, each, across=across, stages=_STAGES)
            for rows, each, across in product((2, 4), widths, (1, 2, 4))
        ]
    fitting = (plan for plan in tiles if plan.rows * plan.columns <= _MOST and plan.fits(task))
    return min(fitting, key=partial(cycles_of, task, room))
