"""Which window of a histogram, quantized, tells least apart from all of it (KL)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]

# The search clips so many bins at a time.
_STEP = 4
# What an empty bin is taken to hold, so that logarithms exist (Glow Calibration.cpp).
_EPSILON = 1e-4


def closest_window(counts: Reals, levels: int, *, centred: bool) -> tuple[int, int]:
    """The first bin of the window, and the one after its last.

    It shrinks, on the side that loses fewer values or, if `centred`, on both at once, until one bin
    is left to each of the `levels`.
    """
    below: list[float] = [0.0, *np.cumsum(counts).tolist()]
    windows = [(0, len(counts))]
    while windows[-1][1] - windows[-1][0] - _STEP >= levels:
        windows.append(_shrink(below, *windows[-1], centred=centred))
    divergences = _divergences(counts, np.array(windows), levels)
    return windows[int(np.argmin(divergences))]


def without_zeros(counts: Reals, grid: Reals) -> Reals:
    """Level the pile of exact zeros, which every range stores without error."""
    zero = min(int(np.searchsorted(grid, 0.0, "right")), len(counts)) - 1
    levelled: Reals = counts.copy()
    neighbours = [counts[i] for i in (zero - 1, zero + 1) if 0 <= i < len(counts)]
    levelled[zero] = min(counts[zero], max(neighbours))
    return levelled


def _shrink(below: list[float], first: int, last: int, *, centred: bool) -> tuple[int, int]:
    """Take a step off the window: off both ends, or where the fewest values are lost.

    `below` counts the values below each edge.
    """
    half = _STEP // 2
    both = (first + half, last - half)
    if centred:
        return both
    windows = (both, (first, last - _STEP), (first + _STEP, last))
    return max(windows, key=lambda window: below[window[1]] - below[window[0]])


def _divergences(counts: Reals, windows: NDArray[np.int64], levels: int) -> Reals:
    """KL of the clipped histogram from what `levels` equal levels leave of it, by window [W, 2].

    A level shares out what the window holds there among its bins that are not empty, which are
    those of the clipped histogram, whose outermost bins hold what was clipped, too. From sums over
    levels, so that all windows take as long as one would bin by bin.
    """
    first, last = windows.T[:, :, None]
    edges = first + np.arange(levels + 1) * (last - first) // levels
    total, floor = counts.sum(), _EPSILON / (last - first)
    ends = _clipped_ends(counts, windows)
    inside = _between(counts, edges)
    clipped, filled = inside.copy(), _between((counts > 0.0).astype(np.float64), edges)
    surprise = _between(_entropic(counts), edges).sum(axis=1)
    for (before, after), level in zip(ends, (0, -1), strict=True):
        clipped[:, level] += after - before
        filled[:, level] += (before == 0.0) & (after > 0.0)
        surprise += _entropic(after) - _entropic(before)
    kept = inside.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.where(filled > 0.0, inside / filled / kept, 0.0)
    shares = np.maximum(shares, floor)
    empty = (last - first - filled.sum(axis=1, keepdims=True)) * floor
    whole, left = 1.0 + empty, (filled * shares).sum(axis=1, keepdims=True) + empty
    cross = (clipped * np.log(shares)).sum(axis=1) / total
    found: Reals = (surprise / total - np.log(total) - cross) / whole[:, 0]
    found = found + np.log(left / whole)[:, 0]
    return np.where(kept[:, 0] > 0.0, found, np.inf)


def _clipped_ends(counts: Reals, windows: NDArray[np.int64]) -> list[tuple[Reals, Reals]]:
    """What the first and the last bin of each window hold, and hold with what is beyond them."""
    below = np.concatenate([[0.0], np.cumsum(counts)])
    first, last = windows.T
    lowest, highest = counts[first], counts[last - 1]
    return [
        (lowest, lowest + below[first]),
        (highest, highest + below[-1] - below[last]),
    ]


def _between(values: Reals, edges: NDArray[np.int64]) -> Reals:
    """Sums of values between neighbouring edges [W, L + 1]."""
    below = np.concatenate([[0.0], np.cumsum(values)])
    sums: Reals = np.diff(below[edges], axis=1)
    return sums


def _entropic(counts: Reals) -> Reals:
    """`n log n`, 0 for nothing."""
    found: Reals = counts * np.log(np.where(counts > 0.0, counts, 1.0))
    return found
