"""Which tile of the output the registers hold: pixels by vectors of channels, by one cost rule."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

from mlq.kernels import lanes
from mlq.kernels.isa import Isa, Unit

FIRST_CACHE = 32 << 10
MOST_VECTORS, _MOST_PIXELS = 12, 20
_FINISHING = 5  # instructions that finish a vector


@dataclass(frozen=True)
class Columns:
    """Vectors of channels from `first` on: `blocks` of them, `vectors` wide, on tiles of `pixels`.

    A tile lies within a row (`by_row`; its last pixels then overlap the tile before), or its
    pixels follow each other across rows.
    """

    first: int
    blocks: int
    vectors: int
    pixels: int = 1
    by_row: bool = True

    @property
    def end(self) -> int:
        """The vector after the last."""
        return self.first + self.blocks * self.vectors

    def apart(self) -> tuple[Columns, ...]:
        """The same with the last block on its own."""
        if self.blocks == 1:
            return (self,)
        last = self.first + (self.blocks - 1) * self.vectors
        return replace(self, blocks=self.blocks - 1), replace(self, first=last, blocks=1)

    def tiles(self, height: int, width: int) -> int:
        """Tiles of an output."""
        if self.by_row:
            return height * ((width + self.pixels - 1) // self.pixels)
        return (height * width + self.pixels - 1) // self.pixels


@dataclass(frozen=True)
class Work:
    """What is to be tiled: an output of height x width, `vectors` of channels, `steps` dots each.

    `run` are the reduction's steps of a run. `packs` says whether vectors are packed four at a
    time; a block must not leave its `part` of vectors (the channels of a group).
    """

    unit: Unit
    height: int
    width: int
    vectors: int
    steps: int
    run: int
    packs: bool
    part: int


@cache
def columns(isa: Isa, work: Work) -> tuple[Columns, ...]:
    """The cheapest cover of the output: blocks of one width, and one for the rest."""
    covers = []
    for vectors in range(1, min(work.part, MOST_VECTORS) + 1):
        blocks, rest = divmod(work.vectors, vectors)
        if work.part < work.vectors and work.part % vectors:
            continue
        if not fitting(isa, work, vectors):
            break
        parts = [_tile(isa, work, Columns(0, blocks, vectors))]
        if rest:
            parts.append(_tile(isa, work, Columns(blocks * vectors, 1, rest)))
        covers.append((sum(cost for cost, _ in parts), tuple(part for _, part in parts)))
    return min(covers, key=lambda cover: cover[0])[1]


@cache
def alike(isa: Isa, work: Work) -> Columns:
    """A cover by blocks that are all alike, on tiles of as many pixels as fit a row.

    By the tile that most others have, if it fits: one more takes longer to compile than it spares.
    """
    usual = _usual(isa, work.unit)
    if work.vectors % usual.vectors == 0 and work.width >= usual.pixels:
        return replace(usual, blocks=work.vectors // usual.vectors)
    most = min(usual.pixels, work.width)
    options = [
        Columns(0, work.vectors // vectors, vectors, min(held, most), by_row=False)
        for vectors in range(1, MOST_VECTORS + 1)
        if work.vectors % vectors == 0 and (held := fitting(isa, work, vectors))
    ]
    return min(options, key=lambda option: _cost(isa, work, option))


@cache
def _usual(isa: Isa, unit: Unit) -> Columns:
    """The cheapest tile of powers of two of vectors where there is much of everything."""
    much = Work(unit, 64, 64, 8, 256, 256, packs=False, part=8)
    options = [
        Columns(0, 1, vectors, held, by_row=False)
        for vectors in (1, 2, 4, 8)
        if (held := fitting(isa, much, vectors))
    ]
    return min(options, key=lambda option: _cost(isa, much, option) / option.vectors)


def _tile(isa: Isa, work: Work, blocks: Columns) -> tuple[float, Columns]:
    """The cheapest tile of pixels for these blocks, and what all of it costs in cycles."""
    most = min(fitting(isa, work, blocks.vectors), work.height * work.width)
    options = [
        replace(blocks, pixels=pixels, by_row=by_row)
        for pixels in range(most, 0, -1)
        for by_row in (True, False)
        if not by_row or pixels <= work.width
    ]
    costs = [_cost(isa, work, option) for option in options]
    least = min(costs)
    return least, options[costs.index(least)]


def _cost(isa: Isa, work: Work, blocks: Columns) -> float:
    """The cycles of all tiles of some blocks."""
    return blocks.tiles(work.height, work.width) * blocks.blocks * _cycles(isa, work, blocks)


def fitting(isa: Isa, work: Work, vectors: int) -> int:
    """The most pixels of which the registers hold so many vectors; none, perhaps."""
    held = work.unit.reduction.registers
    sizes = range(_MOST_PIXELS, 0, -1)
    return next((n for n in sizes if held(n, vectors) <= isa.registers), 0)


def _cycles(isa: Isa, work: Work, tile: Columns) -> float:
    """What a tile costs: its dot products, its loads or their latency, then its end."""
    pace, unit = isa.pace, work.unit
    pointers = 1 if tile.by_row else tile.pixels
    dots, loads = unit.reduction.effort(tile.pixels, tile.vectors, work.run, pointers)
    far = work.steps * tile.vectors * isa.vector_bytes > FIRST_CACHE
    weights = tile.vectors * pace.far if far else 0.0
    step = max(dots / unit.dots, loads / pace.loads, weights, unit.latency)
    step += loads * pace.near + (pace.asking if far else 0.0)
    each = unit.reduction.ending + (pace.packed if work.packs else pace.alone)
    products, end = work.steps * step, tile.pixels * tile.vectors * each
    if work.packs:
        end += tile.pixels * len(lanes.runs(tile.vectors, work.unit.depth)) * pace.stored
    anywhere = 0 if tile.by_row else pace.pixel * tile.pixels
    instructions = work.steps * (dots + loads) + tile.pixels * tile.vectors * _FINISHING
    # What of the end of a small tile passes beside products of the next.
    hidden = max(0.0, 1 - instructions / pace.ahead) if pace.ahead else 0.0
    return products + end - min(products, end) * hidden + pace.tile + anywhere
