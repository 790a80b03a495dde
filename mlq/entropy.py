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
# Windows that are looked at together: more would only take memory.
_AT_ONCE = 256
# Every so many windows are looked at first: the best of them rules out a third of the others.
_APART = 8
# What an empty bin is taken to hold, so that logarithms exist (Glow Calibration.cpp).
_EPSILON = 1e-4
_LEAST = np.finfo(np.float64).tiny


def closest_windows(
    tensors: Sequence[tuple[Reals, Reals]], levels: int, *, centred: bool
) -> list[tuple[float, float]]:
    """The window [low, high] of each tensor that tells least apart.

    A tensor is edges, and how many values lie below each. Its window shrinks, on the side that
    loses fewer values or, if `centred`, on both at once, until one bin is left to each of the
    `levels`. All tensors are looked at together: it is calls of numpy that take time.
    """
    grids, counts = [], []
    for edges, below in tensors:
        low, high = edges[0], edges[-1]
        if centred:
            low, high = -max(-low, high), max(-low, high)
        grids.append(np.linspace(low, high, _BINS + 1))
        counts.append(_without_zeros(np.diff(np.interp(grids[-1], edges, below)), grids[-1]))
    sums = _Sums.of(np.stack(counts))
    # From here on bins are numbered through all tensors.
    starts = np.arange(0, sums.below.size, _BINS + 1)[:, None, None]
    windows = _windows(sums.below, levels, centred=centred) + starts
    sums = _Sums(*map(np.ravel, sums))
    least = _least_divergences(sums, windows, levels)
    found, chosen = np.full(least.shape, np.inf), np.zeros(least.shape, np.bool_)
    chosen[:, ::_APART] = True
    for _ in range(2):
        found[chosen] = _divergences(sums, windows[chosen], levels)
        chosen = ~chosen & (least <= found.min(axis=1, keepdims=True))
    best = windows[np.arange(len(grids)), found.argmin(axis=1)] - starts[:, 0]
    return [(float(grid[i]), float(grid[j])) for grid, (i, j) in zip(grids, best, strict=True)]


def _without_zeros(counts: Reals, grid: Reals) -> Reals:
    """Level the pile of exact zeros, which every range stores without error."""
    zero = min(int(np.searchsorted(grid, 0.0, "right")), len(counts)) - 1
    levelled: Reals = counts.copy()
    neighbours = [counts[i] for i in (zero - 1, zero + 1) if 0 <= i < len(counts)]
    levelled[zero] = min(counts[zero], max(neighbours))
    return levelled


def _windows(below: Reals, levels: int, *, centred: bool) -> NDArray[np.int64]:
    """All of each histogram, then a step less each: off both ends, or where the fewest are lost.

    `below` counts the values below each edge [T, bins + 1]; returns first and last [T, W, 2].
    """
    half, widths = _STEP // 2, np.arange(_BINS, min(levels, _BINS) - 1, -_STEP)
    firsts = np.tile(half * centred * np.arange(len(widths)), (len(below), 1))
    # Most shrink on the right, as those of what was a ReLU's; the others start where they do not.
    right = below[:, widths - _STEP] - below[:, :1]
    both = below[:, widths - half] - below[:, half : half + 1]
    beyond = below[:, widths] - below[:, _STEP : _STEP + 1]
    alike = centred | (right >= beyond) & ~((right <= both) & (both >= beyond))
    steps = np.logical_and.accumulate(alike, axis=1).sum(axis=1)
    for row in np.flatnonzero(steps < len(widths) - 1).tolist():
        sums, first = below[row].tolist(), 0
        for k in range(steps[row], len(widths) - 1):
            last = first + int(widths[k])
            both = sums[last - half] - sums[first + half]
            right = sums[last - _STEP] - sums[first]
            beyond = sums[last] - sums[first + _STEP]
            first += half if right <= both >= beyond else 0 if right >= beyond else _STEP
            firsts[row, k + 1] = first
    return np.stack([firsts, firsts + widths], axis=-1)


class _Sums(NamedTuple):
    """Histograms and what lies below each edge between bins: of values, bins in use, n log n.

    So that the sum over any stretch of bins is a difference. All are [T, bins + 1]; the last bin of
    `counts` is none.
    """

    counts: Reals
    below: Reals
    filled: Reals
    entropic: Reals

    @classmethod
    def of(cls, counts: Reals) -> _Sums:
        """The sums of histograms [T, bins]."""
        sums = (_below(each) for each in (counts, counts > 0.0, _entropic(counts)))
        return cls(np.pad(counts, ((0, 0), (0, 1))), *sums)


def _divergences(sums: _Sums, windows: NDArray[np.int64], levels: int) -> Reals:
    """KL of the clipped histogram from what `levels` equal levels leave of it, by window [W, 2].

    A level shares out what the window holds there among its bins that are not empty, which are
    those of the clipped histogram, whose outermost bins hold what was clipped, too. From sums over
    levels, so that all windows take as long as one would bin by bin.
    """
    first, last = windows.T
    total = sums.below[first - first % (_BINS + 1) + _BINS]
    kept, surprise = (each[last] - each[first] for each in (sums.below, sums.entropic))
    floor = _EPSILON / (last - first)
    # By level: what its outer bin holds, and what is beyond that.
    ends = {0: (sums.counts[first], sums.below[first])}
    ends[-1] = sums.counts[last - 1], total - sums.below[last]
    left, cross, used = np.empty((3, len(windows)))
    for start in range(0, len(windows), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        edges = _parted(_BINS, levels)[last[part] - first[part]] + first[part, None]
        inside, filled = (_between(each.take(edges)) for each in (sums.below, sums.filled))
        for level, (held, more) in ends.items():
            filled[:, level] += (held[part] == 0.0) & (more[part] > 0.0)
        # Where nothing is filled or kept, nothing is inside either.
        shares = filled * kept[part, None]
        np.divide(inside, np.maximum(shares, _LEAST, out=shares), out=shares)
        np.maximum(shares, floor[part, None], out=shares)
        # Good to 1e-7 and much faster than in f64; windows differ by far more.
        logarithms = np.log(shares.astype(np.float32))
        used[part] = filled.sum(axis=1)
        left[part] = np.einsum("wl,wl->w", filled, shares)
        cross[part] = np.einsum("wl,wl->w", inside, logarithms)
        for level, (_, more) in ends.items():
            cross[part] += more[part] * logarithms[:, level]
    surprise += sum(_entropic(held + more) - _entropic(held) for held, more in ends.values())
    empty = (last - first - used) * floor
    whole, left = 1.0 + empty, left + empty
    found: Reals = (surprise / total - np.log(total) - cross / total) / whole + np.log(left / whole)
    return np.where(kept > 0.0, found, np.inf)


def _least_divergences(sums: _Sums, windows: NDArray[np.int64], levels: int) -> Reals:
    """No more than `_divergences`: as if bins were three, the outermost levels and all between.

    By the log sum inequality; it is what is clipped that counts. Empty bins are taken to hold no
    more than `_EPSILON` in all.
    """
    first, last = windows[..., 0], windows[..., 1]
    total = sums.below[first - first % (_BINS + 1) + _BINS]
    parts = (last - first) // levels, (last - first) * (levels - 1) // levels
    left, *inner, right = (sums.below[first + each] for each in (0, *parts, last - first))
    inside = np.diff([left, *inner, right], axis=0) / np.maximum(right - left, _LEAST)
    held = np.diff([0.0 * total, *inner, total], axis=0) / total
    logarithms = np.log(np.maximum(held, _LEAST) / (inside + _EPSILON))
    least: Reals = np.sum(held * logarithms, axis=0) / (1.0 + _EPSILON)
    return least


@lru_cache(maxsize=4)
def _parted(most: int, levels: int) -> NDArray[np.int32]:
    """Where each of `levels` equal parts begins, and the end, by width [most + 1, levels + 1]."""
    return (np.arange(most + 1)[:, None] * np.arange(levels + 1) // levels).astype(np.int32)


def _between(edges: Reals) -> Reals:
    """What is new from each edge to the next [W, L + 1]; several times as fast as np.diff."""
    return edges[:, 1:] - edges[:, :-1]


def _below(values: NDArray[Any]) -> Reals:
    """What lies below each edge between values [T, bins]."""
    return np.pad(np.cumsum(values, axis=-1, dtype=np.float64), ((0, 0), (1, 0)))


def _entropic(counts: Reals) -> Reals:
    """`n log n`, 0 for nothing."""
    found: Reals = counts * np.log(np.where(counts > 0.0, counts, 1.0))
    return found
