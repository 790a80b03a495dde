"""Which tile a warp takes on tensor cores, and how many warps share it: one estimate of time.

Its constants are of an A100, from NVIDIA's documents, not measured: 108 multiprocessors, each with
half a product (m16n8k32) a cycle and 128 bytes a cycle from its first cache.
"""

from __future__ import annotations

from functools import cache
from itertools import product
from typing import NamedTuple

_PROCESSORS, _RESIDENT = 108, 12  # multiprocessors, and warps that each holds of these kernels
_PRODUCT, _PIXELS, _WEIGHTS = (
    2.0,
    8.0,
    2.0,
)  # cycles of a product, of what 16 pixels, 8 channels load
_LATENCY, _FINISH, _JOIN = 300.0, 20.0, 12.0  # of a load, to finish and to add up a product's sums
_LANES = 4  # lanes that share a pixel
_MOST = 16  # products of a tile, four accumulators each
_REGISTERS = 64  # that loads on their way may take


class Plan(NamedTuple):
    """A tile of `rows` x 16 pixels by `columns` x 8 channels, its steps shared by `parts` warps."""

    rows: int
    columns: int
    parts: int = 1

    def unrolled(self, words: int, steps: int) -> int:
        """Steps whose loads, of `words` for each lane, are on their way at once."""
        registers = (2 * self.rows + self.columns) * words
        whole = (n for n in (4, 3, 2) if steps % (n * self.parts) == 0)
        return next((n for n in whole if n * registers <= _REGISTERS), 1)


@cache
def best_plan(pixels: int, channels: int, words: int, steps: int) -> Plan:
    """For an output of so many pixels by channels, over `steps` of `words` for each lane."""

    def cycles(plan: Plan) -> float:
        rows, columns, parts = plan
        warps = -(-pixels // (16 * rows)) * -(-channels // (8 * columns))
        products = words // 2 * rows * columns * _PRODUCT
        loads = words // 2 * (rows * _PIXELS + columns * _WEIGHTS)
        finish = rows * columns * (_FINISH + (parts - 1) * _JOIN)
        work = warps / _PROCESSORS * (steps * max(products, loads) + finish)
        rounds = -(-warps * parts // (_PROCESSORS * _RESIDENT))
        waits = -(-steps // (parts * plan.unrolled(words, steps))) * _LATENCY
        return max(work, rounds * (waits + finish))

    tiles = (Plan(*each) for each in product((1, 2, 4), (2, 4, 8), (1, 2, 4)))
    return min((plan for plan in tiles if plan.rows * plan.columns <= _MOST), key=cycles)
