"""How kernels are parted among workers: all of it, once, and as much for each."""

from __future__ import annotations

from collections import Counter
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlq.kernels import code
from mlq.kernels.grain import Share, Traffic, is_channel_major, partition, workgroups

SIZES = st.integers(1, 40)
SHARES = st.builds(Share, SIZES, SIZES, st.floats(100.0, 1e5))
SOME = st.integers(1, 1 << 22)
TRAFFIC = st.builds(Traffic, SOME, SOME, SOME)


def halves(share: Share, grid: tuple[int, int]) -> tuple[float, float]:
    """Cycles of each of two workers, of whom one begins at the end."""
    across = [high - low for low, high in _parts(share.tiles, grid[0])]
    down = [high - low for low, high in _parts(share.blocks, grid[1])]
    if is_channel_major(grid):
        left = [tiles * blocks for blocks, tiles in product(down, across)]
    else:
        left = [tiles * blocks for tiles, blocks in product(across, down)]
    done = [0.0, 0.0]
    while left:
        worker = done.index(min(done))
        done[worker] += left.pop(-worker) * share.cycles
    return done[0], done[1]


def _parts(count: int, of: int) -> list[tuple[int, int]]:
    parts = [code.share(count, i, of) for i in range(of)]
    return [(low, high) for low, high in parts if isinstance(low, int) and isinstance(high, int)]


@given(count=st.integers(0, 300), of=SIZES)
def test_shares_are_all_and_alike(count: int, of: int) -> None:
    parts = _parts(count, of)
    assert Counter(i for low, high in parts for i in range(low, high)) == Counter(range(count))
    sizes = {high - low for low, high in parts}
    assert max(sizes) - min(sizes) <= 1


@given(shares=st.lists(SHARES, min_size=1, max_size=3), traffic=TRAFFIC, wanted=st.integers(1, 8))
def test_as_many_groups_as_are_wanted(shares: list[Share], traffic: Traffic, wanted: int) -> None:
    """At most twice as many, and none along an axis that has no part."""
    tiles, blocks = min(s.tiles for s in shares), max(s.blocks for s in shares)
    across, down = partition(tuple(shares), traffic, wanted)
    assert 1 <= across <= tiles
    assert 1 <= down <= blocks
    assert min(wanted, min(16, tiles) * min(16, blocks)) <= across * down <= 2 * wanted


@pytest.mark.parametrize(("tiles", "blocks"), [(7, 7), (28, 1), (49, 4), (28, 3), (1, 12), (13, 2)])
def test_two_workers_have_as_much_to_do(tiles: int, blocks: int) -> None:
    """As many tiles and blocks as convolutions of ResNet18 have, of weights near and far."""
    share = Share(tiles, blocks, cycles=4e5 / tiles / blocks)
    for weights in (1 << 16, 1 << 21):
        one, other = halves(share, partition((share,), Traffic(weights, 1 << 16, 1 << 16), 8))
        assert max(one, other) <= 1.1 * (one + other) / 2


@given(worthwhile=st.integers(0, 40), limit=SIZES)
def test_workgroups_are_even_where_they_can_be(worthwhile: int, limit: int) -> None:
    count = workgroups(worthwhile, limit)
    assert 1 <= count <= min(8, limit)
    assert count % 2 == 0 or count in {1, limit}
