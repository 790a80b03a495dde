"""How many workgroups share what a kernel does, and how they part it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from heapq import heapreplace
from itertools import product

from mlq.kernels import code

_MOST = 8
_WORKERS = 2, 4  # for which workgroups are parted
_CLAIM = 400.0  # cycles to take a workgroup
# Bytes of the cache that is a core's own; that come in a cycle from one that is not, and from the
# caches of a core that made them.
_SECOND_CACHE, _FAR, _OTHERS = 1 << 20, 16.0, 4.0


def workgroups(worthwhile: int, *limits: int) -> int:
    """As many as are worthwhile, as there are parts for and as there may be, and at least one.

    An even number, where there may be, that two workers have as much to do.
    """
    most = min([_MOST, *limits])
    some = max(1, min(worthwhile, most))
    return some + some % 2 if 1 < some < most else some


def is_channel_major(grid: Sequence[int]) -> bool:
    """Whether workgroups that follow one another share channels, not pixels."""
    return grid[1] > grid[0]


def order(grid: Sequence[int]) -> tuple[int, int]:
    """The axes of pixels and channels; first that in which workgroups next to each other differ."""
    return (0, 1) if is_channel_major(grid) else (1, 0)


@dataclass(frozen=True)
class Share:
    """So many tiles of pixels on so many blocks of channels; cycles of one tile on one block."""

    tiles: int
    blocks: int
    cycles: float


@dataclass(frozen=True)
class Traffic:
    """Bytes of weights, of the image and of the result."""

    weights: int
    image: int
    result: int


@cache
def partition(shares: tuple[Share, ...], traffic: Traffic, wanted: int) -> tuple[int, int]:
    """Groups of pixels and of channels: `wanted` or up to twice as many, that few workers wait."""
    tiles, blocks = min(s.tiles for s in shares), max(s.blocks for s in shares)
    across, down = (range(1, max(1, min(2 * _MOST, most)) + 1) for most in (tiles, blocks))
    wanted = min(wanted, across[-1] * down[-1])
    grids = [grid for grid in product(across, down) if wanted <= grid[0] * grid[1] <= 2 * wanted]
    return min(grids, key=lambda grid: _cost(shares, traffic, grid)) if wanted > 1 else (1, 1)


def _cost(shares: Iterable[Share], traffic: Traffic, grid: tuple[int, int]) -> float:
    """Cycles until the last worker is done, and to read what is far."""
    cycles = [_CLAIM + sum(_part(each, grid, at) for each in shares) for at in _places(grid)]
    if is_channel_major(grid):
        # Other kernels part pixels: half of what is read there or here is of another worker.
        far = traffic.weights / 2 / _FAR + (traffic.image + traffic.result) / 2 / _OTHERS
    else:
        # Each group of pixels goes through all weights.
        times = grid[0] / 2 if traffic.weights > _SECOND_CACHE // 2 else 1
        far = traffic.weights * times / _FAR
    return sum(_makespan(cycles, workers) for workers in _WORKERS) + far


def _places(grid: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Workgroups as they follow one another."""
    inner, outer = order(grid)
    for far, near in product(range(grid[outer]), range(grid[inner])):
        yield (near, far) if inner == 0 else (far, near)


def _part(share: Share, grid: tuple[int, int], at: tuple[int, int]) -> float:
    tiles, blocks = map(_size, (share.tiles, share.blocks), at, grid)
    return tiles * blocks * share.cycles


def _size(count: int, identity: int, of: int) -> int:
    low, high = code.share(count, identity, of)
    assert isinstance(low, int)
    assert isinstance(high, int)
    return high - low


def _makespan(cycles: Iterable[float], workers: int) -> float:
    """When the last of the workers is done, of which every other one begins at the end."""
    left, done = deque(cycles), [(0.0, worker) for worker in range(workers)]
    while left:
        time, worker = done[0]
        heapreplace(done, (time + (left.pop() if worker % 2 else left.popleft()), worker))
    return max(done)[0]
