"""Which window of a histogram, quantized, tells least apart from all of it (KL)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]

# The search is over so many bins, and clips so many of them at a time.
_BINS, _STEP = 2048, 8
# Windows that are looked at together: what of them fits into a cache.
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
    firsts, lasts = _windows(sums.below, levels, centred=centred)
    # From here on bins are numbered through all tensors.
    starts = np.arange(len(grids))[:, None] * (_BINS + 1)
    windows = np.stack([firsts + starts, lasts + starts], axis=-1)
    found, chosen = np.full(firsts.shape, np.inf), np.zeros(firsts.shape, np.bool_)
    chosen[:, ::_APART] = True
    least = _least_divergences(sums, windows, levels)
    for _ in range(2):
        found[chosen] = _each_divergence(sums, windows[chosen], levels)
        chosen = ~chosen & (least <= found.min(axis=1, keepdims=True))
    best = np.argmin(found, axis=1)
    return [
        (float(grid[first[which]]), float(grid[last[which]]))
        for grid, first, last, which in zip(grids, firsts, lasts, best.tolist(), strict=True)
    ]


def _without_zeros(counts: Reals, grid: Reals) -> Reals:
    """Level the pile of exact zeros, which every range stores without error."""
    zero = min(int(np.searchsorted(grid, 0.0, "right")), len(counts)) - 1
    levelled: Reals = counts.copy()
    neighbours = [counts[i] for i in (zero - 1, zero + 1) if 0 <= i < len(counts)]
    levelled[zero] = min(counts[zero], max(neighbours))
    return levelled


def _windows(
    below: Reals, levels: int, *, centred: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All of each histogram, then a step less each: off both ends, or where the fewest are lost.

    `below` counts the values below each edge [T, bins + 1]; returns first and last edge [T, W].
    """
    half, widths = _STEP // 2, np.arange(_BINS, levels - 1, -_STEP)
    firsts = np.zeros((len(below), len(widths)), np.int64)
    if centred:
        firsts += half * np.arange(len(widths))
        return firsts, firsts + widths
    # Most shrink on the right, as those of what was a ReLU's; the others start where they do not.
    right = below[:, widths - _STEP] - below[:, :1]
    both = below[:, widths - half] - below[:, half : half + 1]
    beyond = below[:, widths] - below[:, _STEP : _STEP + 1]
    alike = (right >= beyond) & ~((right <= both) & (both >= beyond))
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
    return firsts, firsts + widths


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


def _each_divergence(sums: _Sums, windows: NDArray[np.int64], levels: int) -> Reals:
    """`_divergences`, of some windows at a time."""
    starts = range(0, len(windows), _AT_ONCE)
    parts = [_divergences(sums, windows[start : start + _AT_ONCE], levels) for start in starts]
    return np.concatenate([np.zeros(0), *parts])


def _divergences(sums: _Sums, windows: NDArray[np.int64], levels: int) -> Reals:
    """KL of the clipped histogram from what `levels` equal levels leave of it, by window [W, 2].

    A level shares out what the window holds there among its bins that are not empty, which are
    those of the clipped histogram, whose outermost bins hold what was clipped, too. From sums over
    levels, so that all windows take as long as one would bin by bin.
    """
    first, last = windows.T
    edges = _parted(_BINS, levels)[last - first] + first[:, None]
    total, floor = _totals(sums, first), _EPSILON / (last - first)[:, None]
    ends = _clipped_ends(sums, windows)
    inside, filled = (_between(each.take(edges)) for each in (sums.below, sums.filled))
    kept = _stretch(sums.below, first, last)
    surprise = _stretch(sums.entropic, first, last)
    for (before, after), level in zip(ends, (0, -1), strict=True):
        filled[:, level] += (before == 0.0) & (after > 0.0)
        surprise += _entropic(after) - _entropic(before)
    # Where nothing is filled or kept, nothing is inside either.
    shares = filled * kept[:, None]
    np.divide(inside, np.maximum(shares, _LEAST, out=shares), out=shares)
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


def _least_divergences(sums: _Sums, windows: NDArray[np.int64], levels: int) -> Reals:
    """No more than `_divergences`: as if bins were three, the outermost levels and all between.

    By the log sum inequality; it is what is clipped that counts. Empty bins are taken to hold no
    more than `_EPSILON` in all.
    """
    first, last = windows[..., 0], windows[..., 1]
    width = last - first
    marks = [first, first + width // levels, first + width * (levels - 1) // levels, last]
    inside = np.stack([_stretch(sums.below, *pair) for pair in pairwise(marks)])
    held, kept, total = inside.copy(), inside.sum(axis=0), _totals(sums, first)
    ends = _clipped_ends(sums, windows)
    for place, (before, after) in zip((0, -1), ends, strict=True):
        held[place] += after - before
    shares = held / total
    ratios = shares / (inside / np.maximum(kept, _LEAST) + _EPSILON)
    least: Reals = np.sum(shares * np.log(np.maximum(ratios, _LEAST)), axis=0) / (1.0 + _EPSILON)
    return least


def _clipped_ends(sums: _Sums, windows: NDArray[np.int64]) -> list[tuple[Reals, Reals]]:
    """What the first and the last bin of each window hold, and hold with what is beyond them."""
    first, last = windows[..., 0], windows[..., 1]
    lowest, highest = sums.counts.take(first), sums.counts.take(last - 1)
    return [
        (lowest, lowest + sums.below.take(first)),
        (highest, highest + _totals(sums, first) - sums.below.take(last)),
    ]


def _totals(sums: _Sums, first: NDArray[np.int64]) -> Reals:
    """How many values the tensors have that these bins are of."""
    return sums.below[first // (_BINS + 1), -1]


def _stretch(sums: Reals, first: NDArray[np.int64], last: NDArray[np.int64]) -> Reals:
    """What lies between two edges."""
    found: Reals = sums.take(last) - sums.take(first)
    return found


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
