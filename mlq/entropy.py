"""Which window of a histogram, quantized, tells least apart from all of it (KL)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]

# The search clips so many bins at a time.
_STEP = 8
# Windows that are looked at together: what of them fits into a cache.
_AT_ONCE = 48
# What an empty bin is taken to hold, so that logarithms exist (Glow Calibration.cpp).
_EPSILON = 1e-4
_LEAST = np.finfo(np.float64).tiny


def closest_window(counts: Reals, levels: int, *, centred: bool) -> tuple[int, int]:
    """The first bin of the window, and the one after its last.

    It shrinks, on the side that loses fewer values or, if `centred`, on both at once, until one bin
    is left to each of the `levels`.
    """
    sums = _Sums.of(counts)
    windows = _windows(sums.below.tolist(), levels, centred=centred)
    return windows[int(np.argmin(_divergences(sums, np.array(windows), levels)))]


def without_zeros(counts: Reals, grid: Reals) -> Reals:
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
    total, floor = sums.below[-1], _EPSILON / (last - first)
    ends = _clipped_ends(sums, windows)
    kept = sums.below[last] - sums.below[first]
    surprise = sums.entropic[last] - sums.entropic[first]
    for before, after in ends:
        surprise += _entropic(after) - _entropic(before)
    found = np.empty((5, len(windows)))
    for start in range(0, len(windows), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        fresh = [((before == 0.0) & (after > 0.0))[part] for before, after in ends]
        found[:, part] = _over_levels(sums, windows[part], levels, fresh, floor[part])
    filled, left, cross, *logarithms = found
    empty = (last - first - filled) * floor
    left += empty
    for (before, after), logarithm in zip(ends, logarithms, strict=True):
        cross += (after - before) * logarithm
    whole = 1.0 + empty
    divergences: Reals = (surprise / total - np.log(total) - cross / total) / whole + np.log(
        left / whole
    )
    return np.where(kept > 0.0, divergences, np.inf)


def _over_levels(
    sums: _Sums, windows: NDArray[np.int64], levels: int, fresh: list[NDArray[np.bool_]], floor: Reals
) -> tuple[Reals, ...]:
    """Of each window the bins in use, the sum of shares, the cross entropy, logarithms at the ends.

    `fresh` are the outermost bins that only what was clipped fills.
    """
    first, last = windows.T
    edges = _parted(len(sums.counts), levels)[last - first] + first[:, None]
    inside, filled = (_between(each.take(edges)) for each in (sums.below, sums.filled))
    for each, level in zip(fresh, (0, -1), strict=True):
        filled[:, level] += each
    kept = sums.below[last] - sums.below[first]
    # Where nothing is filled or kept, nothing is inside either.
    shares = filled * kept[:, None]
    np.maximum(shares, _LEAST, out=shares)
    np.divide(inside, shares, out=shares)
    np.maximum(shares, floor[:, None], out=shares)
    # Good to 1e-7 and much faster than in f64; windows differ by far more.
    logarithms = np.log(shares.astype(np.float32))
    return (
        filled.sum(axis=1),
        np.einsum("wl,wl->w", filled, shares),
        np.einsum("wl,wl->w", inside, logarithms),
        logarithms[:, 0],
        logarithms[:, -1],
    )


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
