"""Histograms of a tensor's values: gathered batch by batch, in constant memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlq.errors import DataError
from mlq.ranges import Histogram

Reals = NDArray[np.float64]

BINS = 1024
# How many bins of a histogram are kept for people to look at.
_REPORTED_BINS = 64
# So many histograms are merged at once: what of them fits into a cache. So many wait for that, as
# bins then grow seldom.
_MERGED, _WAITING = 64, 1024
# Values on a bound (a ReLU's zeros) are put into this part of the bin that the bound ends.
_SLIVER = 1.0 / 1024
# Edges are put so much further into a batch's range that rounding leaves none of its values above
# an edge that lies beyond them all.
_BEYOND = 1.0 + 2.0**-40
# Bins are not made finer than float64 can number exactly from zero on.
_FINEST = 2.0**-40


class HistogramAccumulator:
    """Merges the batches' histograms of every tensor into one of each, with exact extremes.

    Bins are powers of two wide and start at zero, so that growing the range merges whole bins and
    loses nothing, and so that zero is always a border between two bins. All tensors, and some
    batches, are merged at once: what takes time is calls of numpy, not what they do.
    """

    def __init__(self, names: Sequence[str], bins: int = BINS) -> None:
        self.names = names
        tensors = len(names)
        self.minimum: Reals = np.full(tensors, math.inf)
        self.maximum: Reals = np.full(tensors, -math.inf)
        self._bins = bins
        # Of the bin width: that of the least float64, so any range grows it.
        self._exponents = [-1074] * tensors
        self._firsts = [0] * tensors  # numbers of the first bins, counted from zero
        self._used = [0] * tensors
        # How many values lie below each edge: what a batch is merged into by a single sum.
        self._below: Reals = np.zeros((tensors, bins + 1))
        self._edges: Reals = np.zeros((tensors, bins + 1))
        # Batches that were not merged yet, and which tensors have outgrown their bins since.
        self._waiting: list[tuple[Reals, Reals, NDArray[np.number[Any]]]] = []
        self._beyond = np.zeros(tensors, np.bool_)

    def add(self, least: Reals, greatest: Reals, counts: NDArray[np.number[Any]]) -> None:
        """Merge one batch: extremes [T], and `counts` [T, B] in equal bins between them.

        The last bin is closed; B is the same in all batches. DataError names a tensor that held a
        NaN or an infinity.
        """
        least, greatest = (np.asarray(each, np.float64) for each in (least, greatest))
        finite = np.isfinite(least) & np.isfinite(greatest) & (least <= greatest)
        if not finite.all():
            raise DataError(
                f"{self.names[int(np.argmin(finite))]}: takes NaN or infinity on the calibration"
                " samples; look at the samples, their preprocessing and the weights before it"
            )
        self._beyond |= (least < self.minimum) | (greatest > self.maximum)
        np.minimum(self.minimum, least, out=self.minimum)
        np.maximum(self.maximum, greatest, out=self.maximum)
        self._waiting.append((least, greatest, counts))
        if len(self._waiting) * len(self.names) >= _WAITING:
            self._merge()

    def _merge(self) -> None:
        """Merge the batches that wait."""
        if not self._waiting:
            return
        grown = np.flatnonzero(self._beyond)
        for tensor in grown.tolist():
            self._grow(tensor)
        numbers = np.array(self._firsts, np.float64)[grown, None] + np.arange(self._bins + 1)
        self._edges[grown] = np.ldexp(numbers, np.array(self._exponents)[grown, None])
        self._beyond[:] = False
        several = -(-_MERGED // max(len(self.names), 1))
        for start in range(0, len(self._waiting), several):
            part = self._waiting[start : start + several]
            self._add(*map(np.stack, zip(*part, strict=True)))
        self._waiting.clear()

    def _add(self, least: Reals, greatest: Reals, counts: NDArray[np.number[Any]]) -> None:
        """Add K batches of T tensors whose bins have grown for them."""
        constant = least == greatest
        for batch, tensor in np.argwhere(constant).tolist():
            total = int(counts[batch, tensor].sum(dtype=np.int64))
            place = self._bin_of(tensor, float(least[batch, tensor]))
            self._below[tensor, place + 1 :] += total
        self._spread(least, greatest, np.where(constant[..., None], 0, counts))

    def histogram(self, tensor: int) -> Histogram:
        """The histogram of all batches of one tensor; DataError if there was none."""
        self._merge()
        if not self._used[tensor]:
            raise DataError(f"{self.names[tensor]}: no calibration sample reached this tensor")
        width = math.ldexp(1.0, self._exponents[tensor])
        first, used = self._firsts[tensor], self._used[tensor]
        return Histogram(
            low=first * width,
            high=(first + used) * width,
            counts=tuple(np.diff(self._below[tensor, : used + 1]).astype(np.int64).tolist()),
        )

    def _bin_of(self, tensor: int, value: float) -> int:
        """The bin that holds a value, or the last one below its end."""
        width = math.ldexp(1.0, self._exponents[tensor])
        return min(math.floor(value / width) - self._firsts[tensor], self._used[tensor] - 1)

    def _spread(self, least: Reals, greatest: Reals, counts: NDArray[np.number[Any]]) -> None:
        """Put batches' counts [K, T, B] into the bins of their tensors, spread evenly in each.

        One interpolation for all: in bins of a batch, the edges of every tensor of it lie in a
        stretch of their own.
        """
        bins = counts.shape[-1]
        knots, totals = gather_bounds(np.arange(bins + 1, dtype=np.float64), counts)
        stretch = np.arange(least.size).reshape(*least.shape, 1) * (bins + 1.0)
        width = greatest - least
        scale = np.divide(bins * _BEYOND, width, out=np.zeros_like(width), where=width > 0.0)
        place = self._edges * scale[..., None]
        place += stretch - (least * scale)[..., None]
        np.minimum(place, stretch + bins, out=place)
        np.maximum(place, stretch, out=place)
        below = np.interp(place.ravel(), (knots + stretch).ravel(), totals.ravel())
        # Cutting the running total to integers keeps every count whole and their sum exact.
        np.floor(below, out=below)
        for each in below.reshape(place.shape):
            self._below += each

    def _grow(self, tensor: int) -> None:
        """Widen the bins of a tensor until its extremes fit, and move the counts over."""
        minimum, maximum = float(self.minimum[tensor]), float(self.maximum[tensor])
        known, used = self._exponents[tensor], self._used[tensor]
        reach = max(-minimum, maximum, maximum - minimum)
        finest = max((maximum - minimum) / self._bins, reach * _FINEST)
        exponent = max(known, math.frexp(finest)[1] - 1) if finest else known
        first, count = _cover(minimum, maximum, exponent)
        while count > self._bins:
            exponent += 1
            first, count = _cover(minimum, maximum, exponent)
        if used:
            grown = np.zeros(self._bins + 1)
            counts = np.diff(self._below[tensor, : used + 1])
            moved = (self._firsts[tensor] + np.arange(used)) >> min(exponent - known, 62)
            # A constant between two bins went into the upper; it may now be the range's end.
            np.add.at(grown, np.minimum(moved - first, count - 1) + 1, counts)
            np.cumsum(grown, out=self._below[tensor])
        self._exponents[tensor], self._firsts[tensor], self._used[tensor] = exponent, first, count


def coarse(histogram: Histogram, counts: NDArray[np.int64]) -> Histogram:
    """The histogram, whose counts these are, with neighbours added up: for files people open."""
    step = -(-len(counts) // _REPORTED_BINS)
    sums = np.add.reduceat(counts, np.arange(0, len(counts), step))
    width = (histogram.high - histogram.low) / len(counts)
    high = histogram.low + width * step * len(sums)
    return Histogram(low=histogram.low, high=high, counts=tuple(sums.tolist()))


def _cover(minimum: float, maximum: float, exponent: int) -> tuple[int, int]:
    """Which bin of width 2^exponent is the first to cover the range, and how many do."""
    width = math.ldexp(1.0, exponent)
    first = math.floor(minimum / width)
    return first, max(math.ceil(maximum / width) - first, 1)


def gather_bounds(edges: Reals, counts: NDArray[np.number[Any]]) -> tuple[Reals, Reals]:
    """Running totals at `edges` [B + 1], with what piles up on the bounds put right beside them.

    An activation function leaves many values exactly on its bounds; what the first and last bin
    hold beyond their neighbours is taken to lie there. `counts` are [..., B]; returns edges and
    totals [..., E] for np.interp.
    """
    bins = counts.shape[-1]
    if bins < 2:  # noqa: PLR2004 - one bin has no neighbour to compare with
        totals = np.zeros((*counts.shape[:-1], bins + 1))
        np.cumsum(counts, axis=-1, out=totals[..., 1:])
        return edges, totals
    where, totals = np.empty(bins + 3), np.empty((*counts.shape[:-1], bins + 3))
    where[0], where[2:-2], where[-1] = edges[0], edges[1:-1], edges[-1]
    where[1] = edges[0] + (edges[1] - edges[0]) * _SLIVER
    where[-2] = edges[-1] - (edges[-1] - edges[-2]) * _SLIVER
    np.cumsum(counts[..., :-1], axis=-1, dtype=np.float64, out=totals[..., 2:-2])
    totals[..., 0], totals[..., -1] = 0.0, totals[..., -3] + counts[..., -1]
    totals[..., 1] = np.maximum(counts[..., 0] - 1.0 * counts[..., 1], 0.0)
    more = np.maximum(counts[..., -1] - 1.0 * counts[..., -2], 0.0)
    totals[..., -2] = totals[..., -1] - more
    return where, totals
