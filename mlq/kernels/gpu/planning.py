"""Which tile a warp takes on tensor cores, and how many warps share it: one estimate of time.

Its constants are of an A100, from NVIDIA's documents: 108 multiprocessors, each with half a product
(m16n8k32) a cycle and 128 bytes a cycle from its first cache. But for what a load takes, which is
what the steps of the smallest kernels took on an H100.
"""

from __future__ import annotations

from functools import cache, partial
from itertools import product
from typing import NamedTuple

# Cycles of a product, of what 16 pixels, 8 channels load.
_PRODUCT, _PIXELS, _WEIGHTS = 2.0, 8.0, 2.0
_LATENCY, _FINISH, _JOIN = 800.0, 20.0, 12.0  # of a load, to finish and to add up a product's sums
_LANES = 4  # lanes that share a pixel
_MOST = 16  # products of a tile, four accumulators each
_ABREAST = (4,)  # columns of a warp's tile with stages
_REGISTERS = 64  # that loads on their way may take
_SHARED, _COPIED = 64 << 10, 32.0  # bytes for the stages of a workgroup; bytes copied in a cycle
_READ_AGAIN = 4.0  # cycles of what 16 pixels load from a stage
_RESIDENT, _SYNC = 16, 100.0  # warps with 128 registers a thread; cycles until a stage is at hand
# Large kernels without stages took 1.4 times as long as estimated on an H100: their loads wait.
_HIDDEN = 1 / 1.4
_WARP, _READ = 32, 4.0  # threads; cycles of a word for each of them, from the first cache


class Plan(NamedTuple):
    """A tile of `rows` x 16 pixels by `columns` x 8 channels, its steps shared by `parts` warps.

    With `stages` in shared memory all `warps` of a workgroup make one together, `across` of them
    side by side along channels.
    """

    rows: int
    columns: int
    parts: int = 1
    across: int = 1
    stages: int = 0
    warps: int = 4

    @property
    def pixels(self) -> int:
        """Of what is made together."""
        return 16 * self.rows * (self.warps // self.across if self.stages else 1)

    @property
    def channels(self) -> int:
        """Of what is made together."""
        return 8 * self.columns * self.across

    def fits(self, task: Task) -> bool:
        """Whether registers and shared memory hold it, all threads copy, channels are whole."""
        if not self.stages:
            return self.rows * self.columns <= _MOST
        whole = -(-task.channels // (8 * self.columns)) % self.across == 0
        shares = self.pixels % (8 * self.warps) == self.channels % (8 * self.warps) == 0
        return whole and shares and self.stages * self.stage(task.words) <= _SHARED

    def stage(self, words: int) -> int:
        """Bytes of a stage, in which lanes take so many words."""
        return (self.pixels + self.channels) * _LANES * 4 * words

    def unrolled(self, words: int, steps: int) -> int:
        """Steps whose loads, of `words` for each lane, are on their way at once."""
        registers = (2 * self.rows + self.columns) * words
        whole = (n for n in (4, 3, 2) if steps % (n * self.parts) == 0)
        return next((n for n in whole if n * registers <= _REGISTERS), 1)


class Task(NamedTuple):
    """An output of so many pixels by channels, over `steps` of `words` for each lane.

    `aligned` says whether these begin where one asynchronous copy may.
    """

    pixels: int
    channels: int
    words: int
    steps: int
    aligned: bool


class Room(NamedTuple):
    """How many multiprocessors work for a kernel, and how many of its warps at once."""

    processors: float
    warps: int


WHOLE = Room(108, 108 * 12)
"""A card that one kernel has for itself."""


def cycles_of_reads(items: int, reads: int, room: Room) -> float:
    """Of a kernel each of whose threads takes one of some items, and reads so often for it."""
    warps = -(-items // _WARP)
    rounds = -(-warps // room.warps)
    return max(warps / room.processors * reads * _READ, rounds * _LATENCY)


def cycles_of(task: Task, room: Room, plan: Plan) -> float:
    """Of a convolution by tensor cores."""
    pixels, channels, words, steps = task[:4]
    rows, columns, parts = plan[:3]
    warps = -(-pixels // (16 * rows)) * -(-channels // (8 * columns))
    products = words // 2 * rows * columns * _PRODUCT
    loads = words // 2 * (rows * _PIXELS + columns * _WEIGHTS)
    finish = rows * columns * (_FINISH + (parts - 1) * _JOIN)
    if plan.stages:
        loads = words // 2 * (rows * _READ_AGAIN + columns * _WEIGHTS)
        return _cycles_of_stages(task, room, plan, max(products, loads), finish)
    work = warps / room.processors * (steps * max(products, loads) + finish)
    rounds = -(-warps * parts // room.warps)
    waits = -(-steps // (parts * plan.unrolled(words, steps))) * _LATENCY
    return max(work, rounds * (waits + finish))


def _cycles_of_stages(task: Task, room: Room, plan: Plan, step: float, finish: float) -> float:
    """Of workgroups that copy and multiply at once; on each processor a whole number of them."""
    tiles = -(-task.pixels // plan.pixels) * -(-task.channels // plan.channels)
    step, finish = max(plan.warps * step, plan.stage(task.words) / _COPIED), plan.warps * finish
    turns = -(-tiles // int(room.processors))
    rounds = -(-turns // (_RESIDENT // plan.warps))
    alone = _LATENCY + task.steps * max(step + _SYNC, _LATENCY / (plan.stages - 1)) + finish
    return _HIDDEN * max(turns * (task.steps * step + finish), rounds * alone)


@cache
def best_plan(task: Task, room: Room = WHOLE, columns: int = 0) -> Plan:
    """For a convolution; `columns` of a tile if it must have so many."""
    widths = (columns,) if columns else (2, 4, 8)
    tiles = [Plan(*each) for each in product((1, 2, 4), widths, (1, 2, 4))]
    if task.aligned and room == WHOLE:
        tiles += [
            Plan(rows, each, 1, *more)
            for rows, each, *more in product((4, 2), _ABREAST, (1, 2, 4), (4, 3), (4, 8))
        ]
    return min((each for each in tiles if each.fits(task)), key=partial(cycles_of, task, room))
