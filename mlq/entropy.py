"""Which window of a histogram, quantized, tells least apart from all of it (KL)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]

# The search is over so many bins, and clips so many of them at a time.
_BINS, _STEP = 2048, 8
# Windows that are looked at together: what of them fits into a cache.
_AT_ONCE = 75
# What an empty bin is taken to hold, so that logarithms exist (Glow Calibration.cpp).
_EPSILON = 1e-4
_LEAST = np.finfo(np.float64).tiny


def closest_window(
    edges: Reals, below: Reals, levels: int, *, centred: bool
) -> tuple[float, float]:
    """The window [low, high] that tells least apart; `below` counts the values below each edge.

    It shrinks, on the side that loses fewer values or, if `centred`, on both at once, until one bin
    is left to each of the `levels`.
    """
    low, high = edges[0], edges[-1]
    if centred:
        low, high = -max(-low, high), max(-low, high)
    grid = np.linspace(low, high, _BINS + 1)
    sums = _Sums.of(_without_zeros(np.diff(np.interp(grid, edges, below)), grid))
    windows = _windows(sums.below.tolist(), levels, centred=centred)
    parts = np.array_split(np.array(windows), -(-len(windows) // _AT_ONCE))
    divergences = np.concatenate([_divergences(sums, part, levels) for part in parts])
    first, last = windows[int(np.argmin(divergences))]
    return float(grid[first]), float(grid[last])


def _without_zeros(counts: Reals, grid: Reals) -> Reals:
    """Level the pile of exact zeros, which every range stores without error."""
    zero = min(int(np.searchsorted(grid, 0.0, "right")), len(counts)) - 1
    levelled: Reals = counts.copy()
    neighbours = [counts[i] for i in (zero - 1, zero + 1) if 0 <= i < len(counts)]
    levelled[zero] = min(counts[zero], max(neighbours))
    return levelled


def _windows(below: Sequence[float], levels: int, *, centred: bool) -> list[tuple[int, int]]:
    """All of the histogram, then a step less each: off both ends, or where the fewest are lost.

    `below` counts the values below each edge.
    """
    half, first, last = _STEP // 2, 0, len(below) - 1
    windows = [(first, last)]
    while last - first - _STEP >= levels:
        left = half
        if not centred:
            both = below[last - half] - below[first + half]
            right = below[last - _STEP] - below[first]
            beyond = below[last] - below[first + _STEP]
            left = half if right <= both >= beyond else 0 if right >= beyond else _STEP
        first, last = first + left, last - (_STEP - left)
        windows.append((first, last))
    return windows


class _Sums(NamedTuple):
    """A histogram and what lies below each edge between its bins: of values, bins in use, n log n.

    So that the sum over any stretch of bins is a difference.
    """

    counts: Reals
    below: Reals
    filled: Reals
    entropic: Reals

    @classmethod
    def of(cls, counts: Reals) -> _Sums:
        """The sums of a histogram."""
        return cls(counts, *(_below(each) for each in (counts, counts > 0.0, _entropic(counts))))


def _divergences(sums: _Sums, windows: NDArray[np.int64], levels: int) -> Reals:
    """KL of the clipped histogram from what `levels` equal levels leave of it, by window [W, 2].

    A level shares out what the window holds there among its bins that are not empty, which are
    those of the clipped histogram, whose outermost bins hold what was clipped, too. From sums over
    levels, so that all windows take as long as one would bin by bin.
    """
    first, last = windows.T
    edges = _parted(len(sums.counts), levels)[last - first] + first[:, None]
    total, floor = sums.below[-1], _EPSILON / (last - first)[:, None]
    ends = _clipped_ends(sums, windows)
    inside, filled = (_between(each[edges]) for each in (sums.below, sums.filled))
    kept = sums.below[last] - sums.below[first]
    surprise = sums.entropic[last] - sums.entropic[first]
    for (before, after), level in zip(ends, (0, -1), strict=True):
        filled[:, level] += (before == 0.0) & (after > 0.0)
        surprise += _entropic(after) - _entropic(before)
    # Where nothing is filled or kept, nothing is inside either.
    spread = filled * kept[:, None]
    shares = inside / np.maximum(spread, _LEAST, out=spread)
    np.maximum(shares, floor, out=shares)
    empty = (last - first - filled.sum(axis=1)) * floor[:, 0]
    left = np.einsum("wl,wl->w", filled, shares) + empty
    # Good to 1e-7 and much faster than in f64; windows differ by far more.
    logarithms = np.log(shares.astype(np.float32))
    cross = np.einsum("wl,wl->w", inside, logarithms)
    for (before, after), level in zip(ends, (0, -1), strict=True):
        cross += (after - before) * logarithms[:, level]
    whole = 1.0 + empty
    found: Reals = (surprise / total - np.log(total) - cross / total) / whole + np.log(left / whole)
    return np.where(kept > 0.0, found, np.inf)


def _clipped_ends(sums: _Sums, windows: NDArray[np.int64]) -> list[tuple[Reals, Reals]]:
    """What the first and the last bin of each window hold, and hold with what is beyond them."""
    below = sums.below
    first, last = windows.T
    lowest, highest = sums.counts[first], sums.counts[last - 1]
    return [
        (lowest, lowest + below[first]),
        (highest, highest + below[-1] - below[last]),
    ]


@lru_cache(maxsize=4)
def _parted(most: int, levels: int) -> NDArray[np.int32]:
    """Where each of `levels` equal parts begins, and the end, by width [most + 1, levels + 1]."""
    return (np.arange(most + 1)[:, None] * np.arange(levels + 1) // levels).astype(np.int32)


def _between(edges: Reals) -> Reals:
    """What is new from each edge to the next [W, L + 1]; several times as fast as np.diff."""
    return edges[:, 1:] - edges[:, :-1]


def _below(values: NDArray[Any]) -> Reals:
    """What lies below each edge between values."""
    return np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])


def _entropic(counts: Reals) -> Reals:
    """`n log n`, 0 for nothing."""
    found: Reals = counts * np.log(np.where(counts > 0.0, counts, 1.0))
    return found
